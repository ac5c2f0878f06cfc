package certs

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/proxy/certs/dns"
	"github.com/popgate/popgate/proxy/certs/storage"
)

// Kinds of keys.
const (
	keyP256    = "p256"
	keyP384    = "p384"
	keyRSA2048 = "rsa2048"
)

// What a client gets for whose name there is no certificate yet.
const (
	missingAlert   = "alert"
	missingLocalCA = "local_ca"
)

// letsEncrypt is where certificates come from where nobody says otherwise.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// onlyDNS is what somebody reads whose gateway no CA can reach.
const onlyDNS = "an ACME CA connects to port 80 or 443 of the name, never to 995: where neither can lead to popgate, " +
	"only DNS-01 works, so set tls.acme.dns; where a web server has them, let it pass /.well-known/acme-challenge/ on to tls.acme.http_address"

// ACME is the section `tls.acme`: certificates that popgate obtains and renews by itself. It is on once it has
// domains or names on demand.
type ACME struct {
	// The names to have certificates for: host names, `*.example.org` (which needs `dns`), and IP addresses where the issuer
	// gives certificates for them. They are obtained after the start, in the background, and renewed in time.
	Domains []string `yaml:"domains"`
	// Where the issuer may write to about the account. It may stay empty with most issuers.
	Email string `yaml:"email"`
	// Whether you agree to the terms of service of every issuer listed (by default those of Let's Encrypt,
	// https://letsencrypt.org/repository/). Nothing is asked of an issuer before this is `true`, or popgate was started with
	// `--acme-agree`.
	Agree bool `yaml:"agree"`
	// The kind of the certificates' keys: `p256`, `p384` or `rsa2048`. Where it is changed, certificates with another kind are obtained anew
	// from the reload on, as `orders` has turns that nothing else needs; what there is is served until then.
	Key string `yaml:"key"`
	// Who issues. They are asked in this order, the next one where one fails; without this key it is Let's Encrypt.
	Issuers []Issuer `yaml:"issuers"`
	// Where popgate answers HTTP-01 challenges. The issuer connects to port 80 of the name; behind a web server that has that port, write
	// an address such as "127.0.0.1:8402" and let it forward `/.well-known/acme-challenge/` there with its Host header. The
	// listener serves nothing else. "" turns HTTP-01 off.
	HTTPAddress string `yaml:"http_address"`
	// Where popgate answers TLS-ALPN-01 challenges. The issuer connects to port 443 of the name. "" turns TLS-ALPN-01 off.
	TLSALPNAddress string `yaml:"tls_alpn_address"`
	// How popgate writes DNS records, for DNS-01 challenges. With it, no other kind of challenge is used.
	DNS dns.Config `yaml:"dns"`
	// How many orders may be placed, for all names together; more wait their turn. The default keeps below the limit
	// of Let's Encrypt, which is 300 in three hours for an account. Each gateway counts for itself: where several share a
	// storage, and so an account, divide it by their number.
	Orders limit.Rate `yaml:"orders"`
	// Certificates for the names of those whom the routes know.
	OnDemand OnDemand `yaml:"on_demand"`
	// Where accounts, keys and certificates are kept. A shared one has the gateways open each other's session tickets too, also where
	// nothing else of tls.acme is written and the certificates come from files.
	Storage storage.Config `yaml:"storage"`
	// What a client gets whose name should have a certificate and has none yet: `alert` ends the handshake, `local_ca` shows one
	// from the local CA for that name, which mail clients warn of. That is for `domains`, and for names that `on_demand` allows.
	Missing string `yaml:"missing"`
}

// Issuer is one element of `tls.acme.issuers`.
type Issuer struct {
	// The URL of its ACME directory. Empty is Let's Encrypt.
	CA string `yaml:"ca"`
	// A file with the CA certificates, in PEM, that the issuer's own server is believed by. Empty means those of the system.
	CARoot string `yaml:"ca_root"`
	// The profile of certificates to ask for, such as Let's Encrypt's `shortlived`. Empty is the issuer's default.
	Profile string `yaml:"profile"`
	// The account at the issuer that the ACME account belongs to, for those that want one.
	ExternalAccount ExternalAccount `yaml:"external_account"`
	// Where this issuer may write to; empty is `tls.acme.email`.
	Email string `yaml:"email"`
	// The kind of its certificates' keys: `p256`, `p384` or `rsa2048`; empty is `tls.acme.key`.
	Key string `yaml:"key"`
	// Whether to obtain a second certificate with an RSA key for each name, for old clients that know no other.
	RSAToo bool `yaml:"rsa_too"`
}

// ExternalAccount binds an ACME account to one at the issuer (RFC 8555, 7.3.4).
type ExternalAccount struct {
	// The key's id, as the issuer gave it.
	KeyID string `yaml:"key_id"`
	// The file with the key, in base64url as the issuer gave it. It is read at the start and on a reload.
	HMACKeyFile string `yaml:"hmac_key_file"`
}

// OnDemand is the section `tls.acme.on_demand`: certificates for the names of domains that a route knows. A name must resolve to one of
// our addresses before it is ordered, and its CAA records must allow an issuer.
type OnDemand struct {
	// Which host names of a known domain get a certificate, such as "mail.{domain}" and "pop.{domain}". Empty turns this off.
	Names []string `yaml:"names"`
	// The addresses that such a name may resolve to. Empty means the addresses of this machine's interfaces; behind NAT or a load
	// balancer write the public ones.
	Addresses []netip.Addr `yaml:"addresses"`
	// The DNS server to ask, as "host:port". Empty is the system's.
	Resolver string `yaml:"resolver"`
	// How many of these names' certificates are kept in memory. Of more, those unused for longest are read from the storage again
	// when a client asks for them.
	MaxNames int `yaml:"max_names"`
	// How many names may wait for their order. What comes when it is full has to ask again.
	MaxWaiting int `yaml:"max_waiting"`
	// How many new names one client network may have ordered.
	PerNetwork limit.Rate `yaml:"per_network"`
	// How many new names below one registered domain (example.co.uk, say) clients may have ordered; the names of domains that
	// the routes list are not counted. The default keeps below the limit of Let's Encrypt, which is 50 a week. Each gateway
	// counts for itself: divide it by their number where several share a storage.
	PerDomain limit.Rate `yaml:"per_domain"`
}

// ClientCA is the section `tls.client_ca`: certificates that clients show.
type ClientCA struct {
	// The file with the CA certificates, in PEM, that clients' certificates are believed by. It is read at the start and on a reload (SIGHUP): from
	// then on a CA that is not there any more is believed no more, in resumed sessions neither. Empty turns this off.
	File string `yaml:"file"`
	// `request` asks clients for a certificate and takes those that have none, `require` refuses them. One that no CA here
	// vouches for is refused in both.
	Mode string `yaml:"mode"`
	// The listeners it holds on; empty means all.
	Listeners []string `yaml:"listeners"`
	// The names that clients ask for (SNI), such as "mail.example.org" or "*.example.org", that it holds for; empty means all, and clients that name none.
	ServerNames []string `yaml:"server_names"`
}

func defaultACME() ACME {
	return ACME{
		DNS: dns.DefaultConfig(), Storage: storage.DefaultConfig(), Key: keyP256,
		HTTPAddress: ":80", TLSALPNAddress: ":443", Missing: missingAlert, Orders: limit.Rate{Count: 70, Per: time.Hour},
		OnDemand: OnDemand{
			MaxNames: 10_000, MaxWaiting: 500,
			PerNetwork: limit.Rate{Count: 10, Per: time.Hour}, PerDomain: limit.Rate{Count: 5, Per: 24 * time.Hour},
		},
	}
}

func (a ACME) on() bool { return len(a.Domains) > 0 || len(a.OnDemand.Names) > 0 }

// issuers are those listed, or the default one, with what they take over from the section.
func (a ACME) issuers() []Issuer {
	list := slices.Clone(a.Issuers)
	if len(list) == 0 {
		list = []Issuer{{}}
	}
	for i := range list {
		if list[i].CA == "" {
			list[i].CA = letsEncrypt
		}
		if list[i].Email == "" {
			list[i].Email = a.Email
		}
		if list[i].Key == "" {
			list[i].Key = a.Key
		}
	}
	return list
}

func (a ACME) validate(fault func(key, problem string)) {
	oneOf(fault, "key", a.Key, keyP256, keyP384, keyRSA2048)
	oneOf(fault, "missing", a.Missing, missingAlert, missingLocalCA)
	a.validateNames(fault)
	for i, iss := range a.Issuers {
		iss.validate(func(key, problem string) { fault(fmt.Sprintf("issuers[%d].%s", i, key), problem) })
	}
	for key, address := range map[string]string{"http_address": a.HTTPAddress, "tls_alpn_address": a.TLSALPNAddress} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			fault(key, fmt.Sprintf(`is %q; write "host:port" or ":port", or "" to turn it off`, address))
		}
	}
	a.DNS.Validate(func(key, problem string) { fault("dns."+key, problem) })
	a.Storage.Validate(func(key, problem string) { fault("storage."+key, problem) })
	a.OnDemand.validate(func(key, problem string) { fault("on_demand."+key, problem) })
	if !a.on() {
		// To agree is no harm: whoever starts popgate may do so for any file.
		if a.Email != "" || len(a.Issuers) > 0 {
			fault("domains", "is empty, and so is on_demand.names: list the names to obtain certificates for")
		}
		return
	}
	if !a.Agree {
		fault("agree", "must be true before popgate may ask for certificates: read the terms of service of "+a.terms()+
			" and, if you agree to them, write `agree: true` or start with `popgate serve --acme-agree`")
	}
	if a.HTTPAddress == "" && a.TLSALPNAddress == "" && a.DNS.Provider == "" {
		fault("http_address", "is off, and so is tls_alpn_address; "+onlyDNS)
	}
}

// terms says whose terms these are and where to find them.
func (a ACME) terms() string {
	var cas []string
	for _, iss := range a.issuers() {
		ca := iss.CA + " (its directory names them)"
		if u, err := url.Parse(iss.CA); err == nil && strings.HasSuffix(u.Host, ".api.letsencrypt.org") {
			ca = "Let's Encrypt (https://letsencrypt.org/repository/)"
		}
		if !slices.Contains(cas, ca) {
			cas = append(cas, ca)
		}
	}
	return strings.Join(cas, ", ")
}

func (a ACME) validateNames(fault func(key, problem string)) {
	seen := make(map[string]int)
	for i, d := range a.Domains {
		at := fmt.Sprintf("domains[%d]", i)
		name, err := normal(d)
		first, twice := seen[name]
		switch {
		case err != nil:
			fault(at, fmt.Sprintf("%v: correct it", err))
		case twice:
			fault(at, fmt.Sprintf("is the same as domains[%d]: remove one of them", first))
		case strings.HasPrefix(name, "*.") && a.DNS.Provider == "":
			fault(at, "is a wildcard, which issuers give by DNS-01 only: set tls.acme.dns, or list the names it stands for")
		}
		if !twice {
			seen[name] = i
		}
	}
}

func (i Issuer) validate(fault func(key, problem string)) {
	if i.Key != "" {
		oneOf(fault, "key", i.Key, keyP256, keyP384, keyRSA2048)
	}
	if u, err := url.Parse(i.CA); i.CA != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		fault("ca", fmt.Sprintf("is %q; write the https URL of the issuer's ACME directory", i.CA))
	}
	if i.RSAToo && i.Key == keyRSA2048 {
		fault("rsa_too", "is true, and key is rsa2048 already: remove one of them")
	}
	switch e := i.ExternalAccount; {
	case e.KeyID == "" && e.HMACKeyFile != "":
		fault("external_account.key_id", "is missing: write the id that the issuer gave with the key")
	case e.KeyID != "" && e.HMACKeyFile == "":
		fault("external_account.hmac_key_file", "is missing: write the file that holds the key the issuer gave with the id")
	}
}

func (o OnDemand) validate(fault func(key, problem string)) {
	for i, n := range o.Names {
		if _, err := parseTemplate(n); err != nil {
			fault(fmt.Sprintf("names[%d]", i), err.Error())
		}
	}
	if _, _, err := net.SplitHostPort(o.Resolver); o.Resolver != "" && err != nil {
		fault("resolver", fmt.Sprintf(`is %q; write "host:port", such as "127.0.0.1:53"`, o.Resolver))
	}
	for key, n := range map[string]int{"max_names": o.MaxNames, "max_waiting": o.MaxWaiting} {
		if n < 1 {
			fault(key, fmt.Sprintf("is %d; write 1 or more", n))
		}
	}
}

func (c ClientCA) on() bool { return c.File != "" }

func (c ClientCA) validate(fault func(key, problem string)) {
	if c.on() || c.Mode != "" {
		oneOf(fault, "mode", c.Mode, "request", "require")
	}
	if !c.on() && (c.Mode != "" || len(c.Listeners) > 0 || len(c.ServerNames) > 0) {
		fault("file", "is missing: write the file with the CA certificates that clients' certificates are believed by")
	}
	for i, n := range c.ServerNames {
		if _, err := normal(n); err != nil {
			fault(fmt.Sprintf("server_names[%d]", i), fmt.Sprintf("%v: correct it", err))
		}
	}
}

func oneOf(fault func(key, problem string), key, got string, want ...string) {
	if !slices.Contains(want, got) {
		last := len(want) - 1
		fault(key, fmt.Sprintf("is %q; write %s or %s", got, strings.Join(want[:last], ", "), want[last]))
	}
}
