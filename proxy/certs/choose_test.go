package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
)

func TestCertificateByServerName(t *testing.T) {
	dir := t.TempDir()
	files := map[string]Files{
		"first":  issueFiles(t, dir, "first", "first.example.org"),
		"mail":   issueFiles(t, dir, "mail", "mail.example.org", "POP.example.org"),
		"wild":   issueFiles(t, dir, "wild", "*.example.org"),
		"idn":    issueFiles(t, dir, "idn", "xn--mnchen-3ya.example"),
		"common": {},
	}
	certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.Subject.CommonName = "old.example.net" })
	files["common"] = put(t, dir, "common", certPEM, keyPEM)
	c := withFiles(files["first"], files["wild"], files["mail"], files["idn"], files["common"])
	v := prepare(t, New(dir, nil, nil), c,
		Listener{Name: "plain"}, Listener{Name: "named", DefaultName: "München.example."},
		Listener{Name: "under", DefaultName: "deep.example.org"}, Listener{Name: "lost", DefaultName: "nobody.example.com"})

	for _, tt := range []struct{ listener, sni, want string }{
		{"plain", "mail.example.org", "mail"},
		{"plain", "MAIL.Example.ORG", "mail"},
		{"plain", "pop.example.org", "mail"},
		{"plain", "other.example.org", "wild"},
		{"plain", "a.b.example.org", "first"},
		{"plain", "example.org", "first"},
		{"plain", "xn--mnchen-3ya.example", "idn"},
		{"plain", "old.example.net", "common"},
		{"plain", "nobody.example.com", "first"},
		{"plain", "", "first"},
		{"named", "", "idn"},
		{"named", "nobody.example.com", "idn"},
		{"named", "mail.example.org", "mail"},
		{"under", "", "wild"},
		{"lost", "", "first"},
	} {
		t.Run(tt.listener+"/"+tt.sni, func(t *testing.T) {
			config := client(tt.sni)
			config.InsecureSkipVerify = true // which certificate comes is the question, not whether it is good
			if got, want := served(t, v.TLS(tt.listener), config), serial(t, files[tt.want]); got != want {
				t.Errorf("got certificate %s, want %s of %s", got, want, tt.want)
			}
		})
	}
}

func TestCertificateTheClientCanUse(t *testing.T) {
	dir := t.TempDir()
	ec := issueFiles(t, dir, "ec", "mail.example.org")
	certPEM, keyPEM := pemPair(testRSA(), nil, "mail.example.org")
	old := put(t, dir, "rsa", certPEM, keyPEM)
	v := prepare(t, New(dir, nil, nil), withFiles(ec, old))

	for _, name := range []string{"mail.example.org", "", "unknown.example.com"} {
		config := client(name)
		config.InsecureSkipVerify = true
		if got, want := served(t, v.TLS("pop3s"), config), serial(t, ec); got != want {
			t.Errorf("%q: a modern client got %s, want the ECDSA certificate %s", name, got, want)
		}
		config.MaxVersion = tls.VersionTLS12
		config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		if got, want := served(t, v.TLS("pop3s"), config), serial(t, old); got != want {
			t.Errorf("%q: a client without ECDSA got %s, want the RSA certificate %s", name, got, want)
		}
	}
}

func TestNormal(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"Mail.Example.ORG.", "mail.example.org"},
		{"*.Example.org", "*.example.org"},
		{"MÜNCHEN.example", "xn--mnchen-3ya.example"},
		{"*.münchen.example", "*.xn--mnchen-3ya.example"},
		{"my_host", "my_host"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"2001:DB8::0:1", "2001:db8::1"},
		{"fe80::1%eth0", "fe80::1"},
		{"r3---sn.example", "r3---sn.example"},
		{"", ""}, {"*", ""}, {"*.", ""}, {"*..", ""}, {"*.*.example", ""}, {"a..b", ""}, {"-a.example", ""}, {"a b.example", ""}, {"mail.*.org", ""},
		{"mail:995", ""}, {"xn--\u00fc.example", ""},
	} {
		got, err := normal(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("normal(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestCoveredNames(t *testing.T) {
	names := []string{"a.example.org", "*.b.example.org"}
	leaf := &x509.Certificate{DNSNames: names[:1:2], IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
	if got := fmt.Sprint(covered(leaf)); got != "[a.example.org 192.0.2.1]" {
		t.Errorf("got %s", got)
	}
	if names[1] != "*.b.example.org" {
		t.Errorf("the certificate's own names were overwritten: %v", names)
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("names=%d", n), func(b *testing.B) {
			sources := make([]source, n)
			for i := range sources {
				leaf := &x509.Certificate{DNSNames: []string{fmt.Sprintf("mail%d.example.org", i), fmt.Sprintf("*.t%d.example.org", i)}}
				sources[i].cert = &tls.Certificate{Leaf: leaf}
			}
			t := newTable(sources)
			hello := &tls.ClientHelloInfo{ServerName: fmt.Sprintf("pop.t%d.example.org", n/2)}
			b.ReportAllocs()
			for b.Loop() {
				if t.choose(hello, "mail0.example.org") != sources[n/2].cert {
					b.Fatal("wrong certificate")
				}
			}
		})
	}
}
