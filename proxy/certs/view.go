package certs

import (
	"crypto/tls"
	"slices"
	"sync/atomic"

	"github.com/popgate/popgate/policy/audit"
)

const alpnPOP3 = "pop3"

// Listener is what certs must know of a listener.
type Listener struct {
	Name        string // the key of its config and of its ticket keys
	DefaultName string // whose certificate clients get that name none or an unknown one; "" is the first listed
	LenientALPN bool   // clients that offer only other protocols are served, without ALPN
	// AlertUnknown ends the handshakes of clients that ask for a name of no certificate, with the unrecognized_name
	// alert; otherwise they get what clients get that name none.
	AlertUnknown bool
	// Legacy lets clients in with TLS 1.0 and 1.1, and with the cipher suites of their time that crypto/tls still has.
	Legacy bool

	// OnHello, where set, is called first for each complete ClientHello, on the connection's
	// goroutine; it may wait, and its error ends the handshake.
	OnHello func(*tls.ClientHelloInfo) error
}

// View is what one configuration makes of the certificates. Its configs stay usable for ever and may be used at once.
type View struct {
	listeners []Listener
	keeper    *Keeper
	post      func(*audit.Event) // may be nil
	acme      *acmeView          // nil without tls.acme
	depot     *depot             // nil where nothing is obtained, and nothing shared
	clients   *clients           // nil without tls.client_ca
	configs   map[string]*tls.Config
	tickets   map[string]*tickets
	pairs     []*pair
	local     *local                // nil where it is not needed
	table     atomic.Pointer[table] // of the files; where there is nothing but the local CA, of what that issued
	spare     atomic.Pointer[table] // what the local CA issued for names whose certificate is still to come; may be nil
}

// onlyLocal says that there are no certificates but those of the local CA.
func (v *View) onlyLocal() bool { return v.local != nil && v.acme == nil }

// TLS gives the config of a listener, nil for one that Prepare was not told of. It belongs to the view: read it, pass it
// to tls.Server, change nothing. Its certificates and ticket keys renew themselves.
func (v *View) TLS(listener string) *tls.Config { return v.configs[listener] }

// Certificates describes the certificates in force, in the order of the configuration.
func (v *View) Certificates() []Info { return slices.Clone(v.table.Load().infos) }

// rebuild makes the table of what pairs and local hold now.
func (v *View) rebuild() {
	var sources []source
	for _, p := range v.pairs {
		sources = append(sources, p.source())
	}
	if v.local != nil {
		var issued []source
		for _, c := range v.local.certs {
			issued = append(issued, source{cert: c, file: v.local.ca.file})
		}
		if v.onlyLocal() {
			sources = issued
		} else {
			v.spare.Store(newTable(issued))
		}
	}
	v.table.Store(newTable(sources))
}

func (v *View) configure(minVersion uint16) {
	v.configs = make(map[string]*tls.Config, len(v.listeners))
	for _, l := range v.listeners {
		v.configs[l.Name] = v.config(l, minVersion)
	}
}

// config makes a listener's config. Clients that the listener treats in another way than most get another one from it.
func (v *View) config(l Listener, minVersion uint16) *tls.Config {
	open := v.base(l, minVersion, v.tickets[l.openSet()])
	guarded := v.guarded(l, minVersion)
	if guarded != nil && len(v.clients.names) == 0 {
		open = guarded
	}
	k := kinds{open: open, guarded: guarded, clients: v.clients, onHello: l.OnHello}
	if l.LenientALPN {
		k.openLenient, k.guardedLenient = lenient(open), lenient(guarded)
	}
	if guarded != nil && guarded != open || l.LenientALPN || l.OnHello != nil {
		open.GetConfigForClient = k.choose
	}
	return open
}

// base leaves curves and cipher suites to crypto/tls, whose defaults are the safe ones and put X25519MLKEM768 first. On the legacy
// lane the suites are the old ones too; crypto/tls takes them last.
func (v *View) base(l Listener, minVersion uint16, t *tickets) *tls.Config {
	var suites []uint16
	if l.Legacy {
		minVersion, suites = tls.VersionTLS10, legacySuites()
	}
	// A default name that is none finds nothing in the table; Use has warned of it.
	name, _ := normal(l.DefaultName)
	return &tls.Config{
		MinVersion:   minVersion,
		CipherSuites: suites,
		NextProtos:   []string{alpnPOP3},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return v.keeper.stapler.dress(v.pick(hello, l.AlertUnknown, name)), nil
		},
		WrapSession:   t.seal,
		UnwrapSession: t.open,
		// Small first records help a browser draw early; they only cost a mail that is fetched whole.
		DynamicRecordSizingDisabled: true,
	}
}

func lenient(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.NextProtos = nil
	return c
}

// kinds are the configs of one listener. The open one is the listener's own; any other may be nil.
type kinds struct {
	open, openLenient       *tls.Config
	guarded, guardedLenient *tls.Config // asks for a client's certificate
	clients                 *clients
	onHello                 func(*tls.ClientHelloInfo) error
}

// choose is for GetConfigForClient: nil is the listener's own.
func (k kinds) choose(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if k.onHello != nil {
		if err := k.onHello(hello); err != nil {
			return nil, err
		}
	}
	// lenient is for clients that offer protocols but not ours.
	foreign := len(hello.SupportedProtos) > 0 && !slices.Contains(hello.SupportedProtos, alpnPOP3)
	if k.guarded != nil && k.clients.applies(hello.ServerName) {
		if foreign && k.guardedLenient != nil {
			return k.guardedLenient, nil
		}
		return k.guarded, nil
	}
	if foreign && k.openLenient != nil {
		return k.openLenient, nil
	}
	return nil, nil
}
