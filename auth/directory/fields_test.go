package directory

import (
	"strings"
	"testing"
)

func TestFields(t *testing.T) {
	for _, tt := range []struct {
		given string // name=value, parted by |
		want  string // the answer as it prints, less what is "" or false
	}{
		{"backend= old ", "backend=old"},
		{"server=h:110", "server=h:110"},
		{"host=h", "server=h"},
		{"host=h|port=110", "server=h:110"},
		{"host=2001:db8::1|port=110", "server=[2001:db8::1]:110"},
		{"port=110", ""},
		{"host=|server=h|port=1", "server=h"},
		{"username=u", "user=u"},
		{"password= x ", "secret= x "},
		{"disabled=Yes|moving=0", "disabled"},
		{"disabled=\x01|moving=\x00", "disabled"},
		{"moving=TRUE", "moving"},
		{"tls=StartTLS", "tls=starttls"},
		{"allow_nets={10.1.2.3/8,::1}", "nets=10.0.0.0/8 ::1/128"},
		{"allow_nets=", ""},
		{"allow_nets=::ffff:192.0.2.1", "nets=192.0.2.1/32"},

		{"allow_nets={}", ""},
		{"allow_nets=, ,", "! allow_nets names no network"},
		{"user=u|username=v", "! user is there twice"},
		{"disabled=maybe", "! disabled is \"maybe\""},
		{"server=a|host=b", "! server is \"a\" and host is \"b\""},
		{"allow_nets=fe80::1%eth0", "! allow_nets has \"fe80::1%eth0\""},
		{"allow_nets=" + strings.Repeat("10.0.0.1 ", 257), "! allow_nets has more than 256"},
		{"mailHost=x", "! \"mailHost\" means nothing"},
		{"password=" + strings.Repeat("x", maxText+1), "! password has 8193 bytes"},
	} {
		var f fields
		var err error
		for pair := range strings.SplitSeq(tt.given, "|") {
			name, value, _ := strings.Cut(pair, "=")
			if err = f.set(name, value); err != nil {
				break
			}
		}
		var a Answer
		if err == nil {
			a, err = f.result()
		}
		if want, ok := strings.CutPrefix(tt.want, "! "); ok {
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "xxxx") {
				t.Errorf("%.60s: got %v, want %s", tt.given, err, want)
			}
			continue
		}
		if got := brief(a); err != nil || got != tt.want {
			t.Errorf("%.60s: got %q, %v; want %q", tt.given, got, err, tt.want)
		}
	}
}

func brief(a Answer) string {
	var parts []string
	for _, f := range []struct{ name, value string }{{"backend", a.Backend}, {"server", a.Server}, {"tls", a.TLS}, {"user", a.User}, {"secret", a.Secret}} {
		if f.value != "" {
			parts = append(parts, f.name+"="+f.value)
		}
	}
	if a.Disabled {
		parts = append(parts, "disabled")
	}
	if a.Moving {
		parts = append(parts, "moving")
	}
	var nets []string
	for _, n := range a.AllowNets {
		nets = append(nets, n.String())
	}
	if nets != nil {
		parts = append(parts, "nets="+strings.Join(nets, " "))
	}
	return strings.Join(parts, "|")
}
