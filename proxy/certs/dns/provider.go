package dns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/libdns/libdns"
)

// Provider writes and removes records. Both methods may be called at once, for one name too: `example.org` and
// `*.example.org` are validated by two values under one name.
type Provider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// compiledIn holds the libdns providers that files of this package add to it.
var compiledIn = map[string]func() Provider{}

// CompileIn makes a libdns provider known under name, so that `provider: NAME` uses it. What fresh gives must be a pointer
// to a struct with json tags, as all libdns providers are: the config's settings_file is decoded into it. It is called while
// the program starts, from a variable of a file in this package, and panics when name is taken:
//
//	var _ = CompileIn("hetzner", func() Provider { return new(hetzner.Provider) })
func CompileIn(name string, fresh func() Provider) string {
	if slices.Contains(Providers(), name) {
		panic("dns: two providers are called " + name)
	}
	compiledIn[name] = fresh
	return name
}

// Providers lists what Config.Provider may say, in order.
func Providers() []string {
	names := []string{ProviderRFC2136, ProviderACMEDNS, ProviderExec, ProviderWebhook}
	for name := range compiledIn {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New makes the provider that c names. It reads the files with secrets, so that what is wrong with them is known early, but
// asks no server; files that change later are read anew at each use. A nil log discards. c must have passed Validate.
func New(c Config, log *slog.Logger) (Provider, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	switch c.Provider {
	case ProviderRFC2136:
		return newRFC2136(c)
	case ProviderACMEDNS:
		return newACMEDNS(c)
	case ProviderExec:
		return newExec(c, log)
	case ProviderWebhook:
		return newWebhook(c)
	}
	fresh, ok := compiledIn[c.Provider]
	if !ok {
		return nil, fmt.Errorf("provider %q is not in this popgate, which has %s", c.Provider, strings.Join(Providers(), ", "))
	}
	p := fresh()
	if c.SettingsFile == "" {
		return p, nil
	}
	data, err := readSecret(c.SettingsFile)
	if err != nil {
		return nil, fmt.Errorf("settings_file of provider %s: %w", c.Provider, err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("settings_file %s does not fit provider %s: %w", c.SettingsFile, c.Provider, err)
	}
	return p, nil
}

// maxSecret is far above any key, token or account, and far below what would hurt.
const maxSecret = 64 << 10

// readSecret gives the contents of a file that holds a secret, without the white space around them.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// Before it is opened: a pipe would wait for its writer for ever.
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	if info.Size() > maxSecret {
		return nil, fmt.Errorf("%s holds %d bytes, which is no secret", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return data, nil
}

// A record is one TXT record as all providers here see it: the full name, with a dot at the end.
type record struct {
	fqdn  string
	value string
}

// records takes what a libdns caller gives apart. Only TXT is ever needed, and nothing else is taken.
func records(zone string, recs []libdns.Record) ([]record, error) {
	all := make([]record, 0, len(recs))
	for _, r := range recs {
		rr := r.RR()
		if rr.Type != "TXT" {
			return nil, fmt.Errorf("record %s %s: only TXT records can be written", rr.Name, rr.Type)
		}
		all = append(all, record{fqdn: fqdn(libdns.AbsoluteName(rr.Name, fqdn(zone))), value: rr.Data})
	}
	return all, nil
}

// fqdn is name in lower case and with a dot at its end.
func fqdn(name string) string {
	return strings.ToLower(strings.TrimRight(name, ".")) + "."
}

// host is a fqdn as people write it.
func host(fqdn string) string { return strings.TrimSuffix(fqdn, ".") }

// asTXT gives the records back as libdns wants them.
func asTXT(recs []libdns.Record) []libdns.Record {
	all := make([]libdns.Record, 0, len(recs))
	for _, r := range recs {
		rr := r.RR()
		all = append(all, libdns.TXT{Name: rr.Name, TTL: rr.TTL, Text: rr.Data})
	}
	return all
}
