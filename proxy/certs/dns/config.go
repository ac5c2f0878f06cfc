package dns

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

// Config is the `tls.acme.dns` section: where the records of the DNS-01 challenge are written, and how long to wait until
// they are seen.
type Config struct {
	// What writes the records: rfc2136 (dynamic updates, for a BIND, Knot or PowerDNS of your own), acme_dns, exec (a
	// program), webhook (an HTTPS request), or the name of a libdns provider that was compiled in. Its settings stand in the
	// section of the same name.
	Provider string `yaml:"provider"`
	// The one name under which all records are written, for example acme.example.net, when the _acme-challenge names of all
	// domains are CNAMEs to it. Without it, each domain's own CNAME is followed.
	OverrideDomain string `yaml:"override_domain"`
	// Whether a CNAME at _acme-challenge.DOMAIN is followed and the record written where it leads.
	FollowCNAME bool `yaml:"follow_cname"`
	// The DNS server that is asked for zones, CNAMEs and name servers, such as "10.0.0.53" or "10.0.0.53:5353". Without it,
	// those of /etc/resolv.conf.
	Resolver string `yaml:"resolver"`
	// The time to live that the records get.
	TTL time.Duration `yaml:"ttl"`
	// How long writing or removing one record may take.
	Timeout time.Duration `yaml:"timeout"`
	// How popgate makes sure that a record can be seen before it tells the certificate authority to look.
	Propagation Propagation `yaml:"propagation"`
	// Settings of provider: rfc2136.
	RFC2136 RFC2136 `yaml:"rfc2136"`
	// Settings of provider: acme_dns.
	ACMEDNS ACMEDNS `yaml:"acme_dns"`
	// Settings of provider: exec.
	Exec Exec `yaml:"exec"`
	// Settings of provider: webhook.
	Webhook Webhook `yaml:"webhook"`
	// For a libdns provider that was compiled in: the JSON file with its settings, secrets included.
	SettingsFile string `yaml:"settings_file"`
}

// Propagation says how long and where to look for a record that was written.
type Propagation struct {
	// How long to wait before the first look.
	Delay time.Duration `yaml:"delay"`
	// How long to look until the order is given up. 0 does not look at all.
	Timeout time.Duration `yaml:"timeout"`
	// The DNS servers that must show the record. Without them, all name servers of the zone are asked, each by itself.
	Resolvers []string `yaml:"resolvers"`
}

// RFC2136 is the name server that takes dynamic updates, signed with a TSIG key.
type RFC2136 struct {
	// The primary name server of the zone, such as "192.0.2.53" or "ns1.example.org:53". Updates go there over TCP.
	Server string `yaml:"server"`
	// The zone to update. Without it, the server is asked which of its zones the name is in.
	Zone string `yaml:"zone"`
	// The file with the TSIG key: what tsig-keygen printed, or the secret alone in base64.
	KeyFile string `yaml:"key_file"`
	// The key's name, where key_file holds the secret alone.
	KeyName string `yaml:"key_name"`
	// The key's algorithm, hmac-sha256 or hmac-sha512, where key_file holds the secret alone.
	Algorithm string `yaml:"algorithm"`
}

// ACMEDNS is an acme-dns server, https://github.com/acme-dns/acme-dns.
type ACMEDNS struct {
	// The server's API, such as "https://auth.example.org".
	Server string `yaml:"server"`
	// The folder with a file for each domain, DOMAIN.json, that holds what the server answered when the account was registered.
	Accounts string `yaml:"accounts"`
	// The PEM file with the CA to believe; without it, those the system believes.
	CAFile string `yaml:"ca_file"`
}

// Exec is a program that writes and removes records.
type Exec struct {
	// The program, by its full path, and its first arguments. It is run without a shell, with three more arguments:
	// "present" or "cleanup", the record's name with a dot at the end, and its value.
	Command []string `yaml:"command"`
	// Environment variables for the program, as NAME=VALUE. Of popgate's own it gets only PATH, HOME, LANG and TZ.
	Env []string `yaml:"env"`
}

// Webhook is a service that writes and removes records.
type Webhook struct {
	// The address that gets a POST with {"action": "present" or "cleanup", "fqdn": …, "value": …, "ttl": seconds}. It must
	// answer with a status of 2xx.
	URL string `yaml:"url"`
	// The file with the token that is sent as `Authorization: Bearer`.
	TokenFile string `yaml:"token_file"`
	// The PEM file with the CA to believe; without it, those the system believes.
	CAFile string `yaml:"ca_file"`
}

// The providers that are always there.
const (
	ProviderRFC2136 = "rfc2136"
	ProviderACMEDNS = "acme_dns"
	ProviderExec    = "exec"
	ProviderWebhook = "webhook"
)

// DefaultConfig is what holds where the section says nothing: no provider.
func DefaultConfig() Config {
	return Config{
		FollowCNAME: true,
		TTL:         time.Minute,
		Timeout:     30 * time.Second,
		Propagation: Propagation{Timeout: 5 * time.Minute},
	}
}

// Enabled reports whether a provider is named, and so whether DNS-01 is used.
func (c Config) Enabled() bool { return c.Provider != "" }

// Longest is how long one challenge may take on our side, from writing the record to having seen it. What bounds an order
// must allow more.
func (c Config) Longest() time.Duration {
	return 2*c.Timeout + c.Propagation.Delay + c.Propagation.Timeout
}

// Validate reports what is wrong with c by itself. It opens no file and asks no server: New does.
func (c Config) Validate(fault func(key, problem string)) {
	c.validateProvider(fault)
	if c.OverrideDomain != "" {
		validateName(fault, "override_domain", c.OverrideDomain)
	}
	if c.Resolver != "" {
		validateServer(fault, "resolver", c.Resolver)
	}
	for i, s := range c.Propagation.Resolvers {
		validateServer(fault, fmt.Sprintf("propagation.resolvers[%d]", i), s)
	}
	if c.TTL < time.Second || c.TTL > 24*time.Hour || c.TTL%time.Second != 0 {
		fault("ttl", fmt.Sprintf("is %s; write whole seconds between 1s and 24h, such as 60s", c.TTL))
	}
	if c.Timeout <= 0 {
		fault("timeout", fmt.Sprintf("is %s; write how long a change may take, such as 30s", c.Timeout))
	}
	if c.Propagation.Delay < 0 {
		fault("propagation.delay", "is negative; write a duration such as 10s, or 0 to look at once")
	}
	if c.Propagation.Timeout < 0 {
		fault("propagation.timeout", "is negative; write a duration such as 5m, or 0 not to look")
	}
}

func (c Config) validateProvider(fault func(key, problem string)) {
	sections := []struct {
		provider string
		set      bool
		validate func(fault func(key, problem string))
	}{
		{ProviderRFC2136, c.RFC2136 != RFC2136{}, c.RFC2136.validate},
		{ProviderACMEDNS, c.ACMEDNS != ACMEDNS{}, c.ACMEDNS.validate},
		{ProviderExec, len(c.Exec.Command)+len(c.Exec.Env) > 0, c.Exec.validate},
		{ProviderWebhook, c.Webhook != Webhook{}, c.Webhook.validate},
	}
	known := slices.Contains(Providers(), c.Provider)
	if c.Provider != "" && !known {
		fault("provider", fmt.Sprintf("%q is not in this popgate: write one of %s", c.Provider, strings.Join(Providers(), ", ")))
	}
	for _, s := range sections {
		switch {
		case s.provider == c.Provider:
			s.validate(func(key, problem string) { fault(s.provider+"."+key, problem) })
		case s.set && (known || c.Provider == ""):
			fault(s.provider, fmt.Sprintf("has no effect without provider: %s; write that, or remove the section", s.provider))
		}
	}
	if _, compiled := compiledIn[c.Provider]; c.SettingsFile != "" && !compiled && (known || c.Provider == "") {
		fault("settings_file", "is only for a libdns provider that was compiled in; remove it")
	}
}

func (c RFC2136) validate(fault func(key, problem string)) {
	if c.Server == "" {
		fault("server", "is missing: write the primary name server of the zone, such as 192.0.2.53")
	} else {
		validateServer(fault, "server", c.Server)
	}
	if c.Zone != "" {
		validateName(fault, "zone", c.Zone)
	}
	if c.KeyFile == "" {
		fault("key_file", "is missing: write the file that holds the output of `tsig-keygen -a hmac-sha256 popgate`")
	}
	if c.KeyName != "" {
		validateName(fault, "key_name", c.KeyName)
	}
	if _, ok := algorithms[c.Algorithm]; c.Algorithm != "" && !ok {
		fault("algorithm", fmt.Sprintf("%q is not offered: write hmac-sha256 or hmac-sha512", c.Algorithm))
	}
}

func (c ACMEDNS) validate(fault func(key, problem string)) {
	validateURL(fault, "server", c.Server, "the API of the acme-dns server, such as https://auth.example.org")
	if c.Accounts == "" {
		fault("accounts", "is missing: write the folder that holds a DOMAIN.json for each domain")
	}
}

func (c Exec) validate(fault func(key, problem string)) {
	if len(c.Command) == 0 {
		fault("command", "is missing: write the program that changes the DNS, such as [/usr/local/bin/dns-hook]")
	} else if !filepath.IsAbs(c.Command[0]) {
		fault("command", fmt.Sprintf("%q is no full path: write it from the root, such as /usr/local/bin/dns-hook", c.Command[0]))
	}
	for i, v := range c.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			fault(fmt.Sprintf("env[%d]", i), fmt.Sprintf("%q sets nothing: write NAME=VALUE", v))
		}
	}
}

func (c Webhook) validate(fault func(key, problem string)) {
	validateURL(fault, "url", c.URL, "where the request goes, such as https://dns.example.org/acme")
}

func validateName(fault func(key, problem string), key, name string) {
	if _, ok := miekg.IsDomainName(name); !ok || strings.ContainsAny(name, " \t/*:") {
		fault(key, fmt.Sprintf("%q is no domain name: write one such as acme.example.net", name))
	}
}

func validateServer(fault func(key, problem string), key, server string) {
	if _, err := serverAddress(server); err != nil {
		fault(key, err.Error())
	}
}

// serverAddress is s with port 53 where it names none.
func serverAddress(s string) (string, error) {
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(ip.String(), "53"), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "53"
	}
	_, nameErr := netip.ParseAddr(host)
	if nameErr != nil {
		if _, ok := miekg.IsDomainName(host); !ok || host == "" || strings.ContainsAny(host, " \t/*:[]") {
			return "", fmt.Errorf("%q is no DNS server: write its address and, unless it is 53, the port, such as 192.0.2.53 or [2001:db8::53]:5353", s)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q has no usable port: write a number from 1 to 65535, or leave it out for 53", s)
	}
	return net.JoinHostPort(host, port), nil
}

// validateURL lets a URL without TLS pass only where nobody else is on the way.
func validateURL(fault func(key, problem string), key, raw, what string) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		fault(key, "is missing: write "+what)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		fault(key, fmt.Sprintf("%q is no URL: write %s", raw, what))
	case u.User != nil:
		fault(key, "holds a password: put secrets into a file")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		fault(key, "would send secrets in clear: write https:// (http:// is for 127.0.0.1 and ::1 only)")
	}
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
