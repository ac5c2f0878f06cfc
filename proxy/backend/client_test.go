package backend

import (
	"bufio"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/popgate/popgate/auth"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// readHeader parses a header the way servers do.
func readHeader(t *testing.T, version byte, req *Request) (*proxyproto.Header, map[proxyproto.PP2Type][]byte) {
	t.Helper()
	b, err := proxyHeader(version, req)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) >= 1500 || version == 1 && len(b) > 107 {
		t.Errorf("the header has %d octets", len(b))
	}
	r := bufio.NewReader(strings.NewReader(string(b)))
	h, err := proxyproto.Read(r)
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if n := r.Buffered(); n != 0 {
		t.Errorf("%d octets behind the header", n)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	byType := map[proxyproto.PP2Type][]byte{}
	for _, tlv := range tlvs {
		byType[tlv.Type] = tlv.Value
	}
	return h, byType
}

func TestProxyAddresses(t *testing.T) {
	tests := []struct{ client, local, source, dest string }{
		{"192.0.2.7:50123", "192.0.2.1:995", "192.0.2.7:50123", "192.0.2.1:995"},
		{"[2001:db8::7]:1", "[2001:db8::1]:65535", "[2001:db8::7]:1", "[2001:db8::1]:65535"},
		{"[fe80::7%eth0]:1", "[fe80::1%eth0]:2", "[fe80::7]:1", "[fe80::1]:2"},
		{"192.0.2.7:50123", "[2001:db8::1]:995", "192.0.2.7:50123", "[2001:db8::1]:995"},
		{"[2001:db8::7]:1", "192.0.2.1:995", "[2001:db8::7]:1", "192.0.2.1:995"},
	}
	for _, tt := range tests {
		for version := byte(1); version <= 2; version++ {
			req := request()
			req.Client.Addr, req.Client.Local = netip.MustParseAddrPort(tt.client), netip.MustParseAddrPort(tt.local)
			h, _ := readHeader(t, version, req)
			if h.Version != version || h.Command != proxyproto.PROXY {
				t.Errorf("got version %d, command %v", h.Version, h.Command)
			}
			if s, d := h.SourceAddr.String(), h.DestinationAddr.String(); s != tt.source || d != tt.dest {
				t.Errorf("v%d: got %s to %s, want %s to %s", version, s, d, tt.source, tt.dest)
			}
		}
	}
}

func TestProxyTLVs(t *testing.T) {
	_, tlvs := readHeader(t, 2, request())
	if got := string(tlvs[proxyproto.PP2_TYPE_UNIQUE_ID]); got != "s3ss10n" {
		t.Errorf("got the id %q", got)
	}
	if got := string(tlvs[proxyproto.PP2_TYPE_AUTHORITY]); got != "mail.example.org" {
		t.Errorf("got the authority %q", got)
	}
	ssl, err := tlvparse.SSL(proxyproto.TLV{Type: proxyproto.PP2_TYPE_SSL, Value: tlvs[proxyproto.PP2_TYPE_SSL]})
	if err != nil {
		t.Fatal(err)
	}
	version, _ := ssl.SSLVersion()
	cipher, _ := ssl.SSLCipher()
	if !ssl.ClientSSL() || ssl.Verified() || ssl.ClientCertConn() || version != "TLSv1.3" ||
		cipher != "TLS_AES_128_GCM_SHA256" {
		t.Errorf("got %+v", ssl)
	}
	if len(tlvs) != 3 {
		t.Errorf("got %d TLVs, want 3", len(tlvs))
	}
}

// TestProxyBounds holds that what a stranger chose cannot swell a header or put something odd into it.
func TestProxyBounds(t *testing.T) {
	req := request()
	req.Session = strings.Repeat("s", 129)
	req.Client.TLS = &auth.TLS{
		Version: strings.Repeat("v", 5000), Cipher: strings.Repeat("c", 5000), ServerName: strings.Repeat("n", 5000),
		Offloaded: true,
	}
	if _, tlvs := readHeader(t, 2, req); len(tlvs) != 1 {
		t.Errorf("got %d TLVs, want the SSL one alone", len(tlvs))
	}
	for _, name := range []string{"", "bad name", "192.0.2.1", "a\r\nb", "-a", "*.example.org"} {
		req.Client.TLS = &auth.TLS{ServerName: name}
		if _, tlvs := readHeader(t, 2, req); tlvs[proxyproto.PP2_TYPE_AUTHORITY] != nil {
			t.Errorf("%q is sent as authority", name)
		}
	}
	req.Client.TLS = nil
	req.Session = ""
	if _, tlvs := readHeader(t, 2, req); len(tlvs) != 0 {
		t.Errorf("got %d TLVs, want none", len(tlvs))
	}
	req.Client.Addr = netip.AddrPort{}
	if h, tlvs := readHeader(t, 2, req); h.Command != proxyproto.LOCAL || len(tlvs) != 0 {
		t.Errorf("got %v with %d TLVs for no address, want LOCAL with none", h.Command, len(tlvs))
	}
	if b, err := proxyHeader(1, nil); err != nil || string(b) != "PROXY UNKNOWN\r\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if h, tlvs := readHeader(t, 2, nil); h.Command != proxyproto.LOCAL || len(tlvs) != 0 {
		t.Errorf("got %v with %d TLVs for a check, want LOCAL with none", h.Command, len(tlvs))
	}
}

// TestProxyLogin holds that the header comes first, and the dialogue right behind it.
func TestProxyLogin(t *testing.T) {
	for _, mode := range []string{ClientProxyV1, ClientProxyV2} {
		s := script(loginScript)
		s.header = func(r *bufio.Reader) {
			h, err := proxyproto.Read(r)
			if err != nil || h.SourceAddr.String() != "192.0.2.7:50123" {
				t.Errorf("%s: got %+v, %v", mode, h, err)
			}
		}
		c := config(s.listen(t))
		c.ClientInfo = mode
		if _, err := login(t, pool(t, c)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

func TestXClientCommand(t *testing.T) {
	const plain = "XCLIENT ADDR=192.0.2.7 PORT=50123 DESTADDR=192.0.2.1 DESTPORT=995"
	tests := []struct {
		change func(*Request)
		want   string
	}{
		{func(*Request) {}, plain + " SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org"},
		{func(r *Request) { r.Client.TLS = nil }, plain + " SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=insecure"},
		{func(r *Request) { r.Client.TLS.ServerName = "no name" }, plain + " SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=TLS"},
		{func(r *Request) { r.Client.TLS.ServerName = "Mail.Example.ORG" },
			plain + " SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org"},
		{func(r *Request) { r.Session, r.Client.TLS = "a b", nil }, plain + " TTL=6 CLIENT-TRANSPORT=insecure"},
		{func(r *Request) { r.Session, r.Client.TLS = "", nil }, plain + " TTL=6 CLIENT-TRANSPORT=insecure"},
		{func(r *Request) { r.Session, r.Client.TLS = strings.Repeat("x", 65), nil },
			plain + " TTL=6 CLIENT-TRANSPORT=insecure"},
		{func(r *Request) {
			r.Client.Addr = netip.MustParseAddrPort("[2001:db8::7]:1")
			r.Client.Local = netip.MustParseAddrPort("[fe80::1%eth0]:110")
			r.Client.TLS = nil
		}, "XCLIENT ADDR=2001:db8::7 PORT=1 DESTADDR=fe80::1 DESTPORT=110 SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=insecure"},
	}
	for _, tt := range tests {
		req := request()
		tt.change(req)
		if got := string(appendXClient(nil, req)); got != tt.want+"\r\n" {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestXClientLogin(t *testing.T) {
	const command = "C: XCLIENT ADDR=192.0.2.7 PORT=50123 DESTADDR=192.0.2.1 DESTPORT=995 " +
		"SESSION=s3ss10n TTL=6 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org\n"
	const rest = "\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: +OK"
	tests := []struct {
		name, mode, script string
		fails              bool
		says               string
		unknown            float64
	}{
		{"offered", ClientXClient, "S: +OK [XCLIENT] Dovecot ready.\n" + command + "S: +OK Updated" + rest, false, "", 0},
		{"not offered", ClientXClient, loginScript, false, "login_trusted_networks", 2},
		{"refused", ClientXClient, "S: +OK [XCLIENT]\n" + command + "S: -ERR Invalid parameters", true,
			"backend refuses XCLIENT", 0},
		{"XOIP", ClientXOIP, "S: +OK\nC: XOIP 192.0.2.7\nS: +OK" + rest, false, "", 0},
		{"XOIP refused", ClientXOIP, "S: +OK\nC: XOIP 192.0.2.7\nS: -ERR what" + rest, false, "backend refuses XOIP", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(script(tt.script).listen(t))
			c.ClientInfo = tt.mode
			log, said := logger()
			b := New(log, prometheus.NewRegistry())
			p := use(t, b, c).Pool("old")
			for range 2 {
				_, err := login(t, p)
				if tt.fails {
					if step := refused(t, err, Temporary); step != "XCLIENT" {
						t.Errorf("got %v", err)
					}
				} else if err != nil {
					t.Fatal(err)
				}
			}
			want := 1 // twice refused, once said
			if tt.says == "" {
				want = 0
			}
			if got := said.String(); strings.Count(got, "fix=") != want || !strings.Contains(got, tt.says) {
				t.Errorf("got the log %s, want %q in it, once", got, tt.says)
			}
			if got := gathered(t, b, "popgate_backend_client_unknown_total"); got != tt.unknown {
				t.Errorf("%v logins with an unknown client, want %v", got, tt.unknown)
			}
		})
	}
}

// gathered returns the sum of a metric of b over its series.
func gathered(t *testing.T, b *Backends, name string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector{b})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := New(nil, reg)
	s := script(loginScript)
	c := config(s.listen(t), "192.0.2.9")
	c.Servers[1].Weight = 0
	c.ClientInfo = ClientXClient
	v := use(t, b, c)
	if _, err := login(t, v.Pool("old")); err != nil {
		t.Fatal(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("got %v, %v", problems, err)
	}
	if up, ok := gathered(t, b, "popgate_backend_up"), gathered(t, b, "popgate_backend_connects_total"); up != 2 || ok != 1 {
		t.Errorf("got %v servers up, %v connections, want 2 and 1", up, ok)
	}
	use(t, b) // a reload that takes the backend away takes its series along
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Errorf("%d series are left, %v", n, err)
	}
}
