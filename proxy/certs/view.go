package certs

import (
	"crypto/tls"
	"slices"
	"sync/atomic"
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

	// OnHello, where set, is called first for each complete ClientHello, on the connection's
	// goroutine; it may wait, and its error ends the handshake.
	OnHello func(*tls.ClientHelloInfo) error
}

// View is what one configuration makes of the certificates. Its configs stay usable for ever and may be used at once.
type View struct {
	listeners []Listener
	deps      Deps
	configs   map[string]*tls.Config
	tickets   map[string]*tickets
	pairs     []*pair // empty where local is set
	local     *local
	table     atomic.Pointer[table]
}

// TLS gives the config of a listener, nil for one that Prepare was not told of. It belongs to the view: read it, pass it
// to tls.Server, change nothing. Its certificates and ticket keys renew themselves.
func (v *View) TLS(listener string) *tls.Config { return v.configs[listener] }

// Certificates describes the certificates in force, in the order of the configuration.
func (v *View) Certificates() []Info { return slices.Clone(v.table.Load().infos) }

// LocalCA is the file clients must import to trust this gateway, "" where certificates are configured.
func (v *View) LocalCA() string {
	if v.local == nil {
		return ""
	}
	return v.local.ca.file
}

// rebuild makes the table of what pairs and local hold now.
func (v *View) rebuild() {
	var sources []source
	for _, p := range v.pairs {
		sources = append(sources, p.source())
	}
	if v.local != nil {
		for _, c := range v.local.certs {
			sources = append(sources, source{cert: c, file: v.local.ca.file})
		}
	}
	v.table.Store(newTable(sources))
}

func (v *View) configure(minVersion uint16) {
	v.configs = make(map[string]*tls.Config, len(v.listeners))
	for _, l := range v.listeners {
		v.configs[l.Name] = v.config(l, minVersion, v.tickets[l.Name])
	}
}

// config leaves curves and cipher suites to crypto/tls, whose defaults are the safe ones and put X25519MLKEM768 first.
func (v *View) config(l Listener, minVersion uint16, t *tickets) *tls.Config {
	// A default name that is none finds nothing in the table; Use has warned of it.
	name, _ := normal(l.DefaultName)
	strict := &tls.Config{
		MinVersion: minVersion,
		NextProtos: []string{alpnPOP3},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return v.table.Load().choose(hello, name), nil
		},
		WrapSession:   t.seal,
		UnwrapSession: t.open,
		// Small first records help a browser draw early; they only cost a mail that is fetched whole.
		DynamicRecordSizingDisabled: true,
	}
	var lenient *tls.Config
	if l.LenientALPN {
		lenient = strict.Clone()
		lenient.NextProtos = nil
	}
	if l.OnHello != nil || lenient != nil {
		strict.GetConfigForClient = perClient(l.OnHello, lenient)
	}
	return strict
}

// perClient gives lenient, where there is one, to clients that offer protocols but not ours; nil means the listener's own config.
func perClient(
	onHello func(*tls.ClientHelloInfo) error, lenient *tls.Config,
) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if onHello != nil {
			if err := onHello(hello); err != nil {
				return nil, err
			}
		}
		if lenient != nil && len(hello.SupportedProtos) > 0 && !slices.Contains(hello.SupportedProtos, alpnPOP3) {
			return lenient, nil
		}
		return nil, nil
	}
}
