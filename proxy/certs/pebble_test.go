package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
)

// pebblePath builds the Pebble that the tools' module pins, once for all tests on this machine: Debian's knows neither ARI nor profiles.
var pebblePath = sync.OnceValues(func() (string, error) {
	const module = "github.com/letsencrypt/pebble/v2"
	version, err := goCommand("list", "-modfile=../../.ci/tools/go.mod", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return "", err
	}
	cache, err := goCommand("env", "GOCACHE")
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(cache), "popgate-tools", "pebble-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Other packages' tests may be building it too: each makes its own, and the last one stays.
	built := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand("build", "-modfile=../../.ci/tools/go.mod", "-o", built, module+"/cmd/pebble"); err != nil {
		return "", err
	}
	return path, os.Rename(built, path)
})

func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// A pebble is an ACME issuer of the test's own, with the DNS it asks.
type pebble struct {
	t          *testing.T
	dns        *zone
	directory  string // URL
	manage     string // host:port
	caFile     string
	http, alpn string // where it looks for answers
	log        *output
	cmd        *exec.Cmd
}

// pebbleOptions are what differs from one test to the next.
type pebbleOptions struct {
	config map[string]any // over the keys of Pebble's configuration
	env    []string
	listen string // the same as another one's, to come back
}

// startPebble starts a Pebble that issues certificates of 90 days, and ends it with the test.
func startPebble(t *testing.T, o pebbleOptions) *pebble {
	t.Helper()
	path, err := pebblePath()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Pebble cannot be built: %v", err)
		}
		t.Skipf("Pebble cannot be built, see .ci/tools: %v", err)
	}
	dir := t.TempDir()
	certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }, "localhost")
	own := put(t, dir, "pebble", certPEM, keyPEM)
	p := &pebble{
		t: t, dns: startZone(t), manage: freeAddress(t), caFile: filepath.Join(dir, "ca.pem"),
		http: freeAddress(t), alpn: freeAddress(t), log: new(output),
	}
	write(t, p.caFile, testCAPEM())
	listen := o.listen
	if listen == "" {
		listen = freeAddress(t)
	}
	p.directory = "https://" + listen + "/dir"
	config := map[string]any{
		"listenAddress": listen, "managementListenAddress": p.manage, "httpPort": portOf(p.http), "tlsPort": portOf(p.alpn),
		"certificate": own.Cert, "privateKey": own.Key, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": profile(90 * 24 * time.Hour)},
	}
	for key, value := range o.config {
		config[key] = value
	}
	file := filepath.Join(dir, "pebble.json")
	write(t, file, must(json.Marshal(map[string]any{"pebble": config})))
	p.cmd = exec.Command(path, "-config", file, "-dnsserver", p.dns.address)
	p.cmd.Env = append([]string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0"}, o.env...)
	if !slices.ContainsFunc(o.env, func(s string) bool { return strings.HasPrefix(s, "PEBBLE_WFE_NONCEREJECT") }) {
		p.cmd.Env = append(p.cmd.Env, "PEBBLE_WFE_NONCEREJECT=0")
	}
	p.start()
	return p
}

func profile(life time.Duration) map[string]any {
	return map[string]any{"description": life.String(), "validityPeriod": int(life / time.Second)}
}

func (p *pebble) start() {
	p.t.Helper()
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.stop)
	eventually(p.t, "Pebble answers", func() bool {
		_, err := p.get("https://" + p.manage + "/roots/0")
		return err == nil
	})
}

func (p *pebble) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	if p.t.Failed() {
		p.t.Logf("Pebble:\n%s", p.log)
	}
}

func (p *pebble) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: testIssuer().roots}, DisableKeepAlives: true}, Timeout: 10 * time.Second}
}

func (p *pebble) get(url string) ([]byte, error) {
	resp, err := p.client().Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// manageGet gets the DER in a PEM from the management interface.
func (p *pebble) manageGet(path string) []byte {
	p.t.Helper()
	data, err := p.get("https://" + p.manage + path)
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		p.t.Fatalf("%s: no PEM: %q", path, data)
	}
	return block.Bytes
}

// roots is what clients trust.
func (p *pebble) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(p.manageGet("/roots/0"))))
	return pool
}

// intermediate is the CA that signs. Pebble gives its key away where that is an RSA one.
func (p *pebble) intermediate() (*x509.Certificate, crypto.Signer) {
	return must(x509.ParseCertificate(p.manageGet("/intermediates/0"))), must(x509.ParsePKCS1PrivateKey(p.manageGet("/intermediate-keys/0")))
}

// output is what a program prints, for the test to read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// orders is how many orders have come in.
func (p *pebble) orders() int { return strings.Count(p.log.String(), "POST /order-plz") }

// config is tls.acme with this issuer, for HTTP-01 alone.
func (p *pebble) config(domains ...string) Config {
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree, c.ACME.Email = domains, true, "postmaster@example.org"
	c.ACME.Issuers = []Issuer{{CA: p.directory, CARoot: p.caFile}}
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = p.http, ""
	c.ACME.OnDemand.Resolver = p.dns.address
	c.ACME.OnDemand.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	c.ACME.Orders = limit.Rate{} // the machine's own speed
	return c
}

// client trusts the issuer and asks for name.
func (p *pebble) clientFor(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: p.roots()}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	return must(strconv.Atoi(port))
}

// eventually waits until what holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within 30s: %s", what)
		}
	}
}

// tsigSecret is that of the key "popgate." which may change a zone.
var tsigSecret = base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// A zone is a DNS server that is asked about every name: each has the address 127.0.0.1, unless something else is set, and each zone
// has two labels. It takes dynamic updates of TXT records.
type zone struct {
	address string

	mu    sync.Mutex
	addrs map[string]string // name -> address, "" for none
	caa   map[string]string // name -> value of an issue property
	txt   map[string][]string
	asked map[string]int // how often for the addresses of a name
}

func startZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{addrs: map[string]string{}, caa: map[string]string{}, txt: map[string][]string{}, asked: map[string]int{}}
	pc, ln := bothPorts(t)
	z.address = pc.LocalAddr().String()
	secret := map[string]string{"popgate.": tsigSecret}
	for _, s := range []*miekg.Server{
		{PacketConn: pc, Handler: z, TsigSecret: secret},
		{Listener: ln, Handler: z, TsigSecret: secret, MsgAcceptFunc: func(miekg.Header) miekg.MsgAcceptAction { return miekg.MsgAccept }},
	} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		ended := make(chan error, 1)
		go func() { ended <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			if err := errors.Join(s.Shutdown(), <-ended); err != nil {
				t.Errorf("DNS server: %v", err)
			}
		})
	}
	return z
}

// bothPorts gives one port of UDP and TCP.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// Somebody else may have the one of TCP.
		if ln, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, ln
		}
		_ = pc.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (z *zone) set(m map[string]string, name, value string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m[name+"."] = value
}

// ServeDNS answers.
func (z *zone) ServeDNS(w miekg.ResponseWriter, r *miekg.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(miekg.Msg).SetReply(r)
	m.Authoritative = true
	if r.Opcode == miekg.OpcodeUpdate {
		z.update(w, r, m)
	} else {
		name := strings.ToLower(r.Question[0].Name)
		m.Answer = z.answer(name, r.Question[0].Qtype)
		if labels := miekg.SplitDomainName(name); len(m.Answer) == 0 && len(labels) > 1 {
			m.Ns = z.answer(strings.Join(labels[len(labels)-2:], ".")+".", miekg.TypeSOA)
		}
	}
	if tsig := r.IsTsig(); tsig != nil {
		m.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, time.Now().Unix())
	}
	_ = w.WriteMsg(m)
}

func (z *zone) update(w miekg.ResponseWriter, r, m *miekg.Msg) {
	if r.IsTsig() == nil || w.TsigStatus() != nil {
		m.Rcode = miekg.RcodeNotAuth
		return
	}
	for _, rr := range r.Ns {
		if txt, ok := rr.(*miekg.TXT); ok {
			name := strings.ToLower(txt.Hdr.Name)
			z.txt[name] = slices.DeleteFunc(z.txt[name], func(s string) bool { return s == txt.Txt[0] })
			if txt.Hdr.Class == miekg.ClassINET {
				z.txt[name] = append(z.txt[name], txt.Txt[0])
			}
		}
	}
}

func (z *zone) answer(name string, kind uint16) (all []miekg.RR) {
	add := func(format string, args ...any) {
		all = append(all, must(miekg.NewRR(name+" 1 IN "+fmt.Sprintf(format, args...))))
	}
	apex := len(miekg.SplitDomainName(name)) == 2
	switch kind {
	case miekg.TypeA:
		z.asked[name]++
		addr, set := z.addrs[name]
		if !set {
			addr = "127.0.0.1"
		}
		if addr != "" {
			add("A %s", addr)
		}
	case miekg.TypeCAA:
		if v, ok := z.caa[name]; ok {
			add("CAA 0 issue %q", v)
		}
	case miekg.TypeSOA:
		if apex {
			add("SOA ns.%s hostmaster.%s 1 2 3 4 5", name, name)
		}
	case miekg.TypeNS:
		if apex {
			add("NS ns.%s", name)
		}
	case miekg.TypeTXT:
		for _, t := range z.txt[name] {
			add("TXT %q", t)
		}
	}
	return all
}

// A rig is a running Keeper and what it tells.
type rig struct {
	t    *testing.T
	k    *Keeper
	log  records
	stop context.CancelFunc
	deps Deps

	mu     sync.Mutex
	events []audit.Event
}

// startRig puts c in force in a Keeper with a state directory of its own, and runs it until the test ends.
func startRig(t *testing.T, stateDir string, c Config, edit func(*rig), ls ...Listener) (*rig, *View) {
	t.Helper()
	log := make(records, 100_000)
	r := &rig{t: t, log: log, k: New(stateDir, slog.New(slog.NewMultiHandler(log, slog.NewTextHandler(t.Output(), nil))), nil)}
	r.k.acme.every = 50 * time.Millisecond
	r.deps.Post = r.post
	if edit != nil {
		edit(r)
	}
	if len(ls) == 0 {
		ls = []Listener{{Name: "pop3s"}}
	}
	v := r.use(c, ls...)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.k.Run(ctx) }()
	end := sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	r.stop = end
	t.Cleanup(end)
	return r, v
}

func (r *rig) use(c Config, ls ...Listener) *View {
	r.t.Helper()
	c.Validate(func(key, problem string) { r.t.Errorf("%s %s", key, problem) })
	v, err := r.k.Prepare(c, nil, ls, r.deps)
	if err != nil {
		r.t.Fatalf("Prepare: %v", err)
	}
	r.k.Use(v)
	return v
}

func (r *rig) post(e *audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, *e)
}

// told counts the events of a kind about a name.
func (r *rig) told(kind audit.Name, name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == kind && e.Certificate.Name == name {
			n++
		}
	}
	return n
}

// status gives the Status of a name.
func (r *rig) status(name string) (all []Status) {
	r.t.Helper()
	for _, st := range must(r.k.List(r.t.Context())) {
		if st.Name == name {
			all = append(all, st)
		}
	}
	return all
}

// shaken waits until a client is served with a good certificate, and gives that.
func shaken(t *testing.T, server, client *tls.Config) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	eventually(t, "a good certificate for "+client.ServerName, func() bool {
		cs, err := shakeOverTCP(t, server, client)
		if err != nil {
			return false
		}
		cert = cs.PeerCertificates[0]
		return true
	})
	return cert
}

// shakeOverTCP is shake with sockets: a pipe holds nothing, so that a client which refuses a certificate, or long tickets, leave both ends
// writing for ever.
func shakeOverTCP(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.WriteString(c, "+OK\r\n")
			c.Close()
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		return tls.ConnectionState{}, errors.Join(err, <-done)
	}
	defer c.Close()
	_, err = io.ReadAll(c)
	return c.ConnectionState(), errors.Join(err, <-done)
}
