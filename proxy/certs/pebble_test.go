package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
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
	"sync/atomic"
	"testing"
	"time"

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
	dns    string // the DNS server it asks, instead of one of its own
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
	asked := o.dns
	if asked == "" {
		asked = p.dns.address
	}
	p.cmd = exec.Command(path, "-config", file, "-dnsserver", asked)
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

// lastPort makes the ports of tests that run at once differ.
var lastPort atomic.Int32

// freeAddress finds a port below those that the kernel hands out by itself: nothing else takes it before the program it is meant for.
func freeAddress(t testing.TB) string {
	t.Helper()
	const low, high = 10_000, 20_000
	lastPort.CompareAndSwap(0, int32(low+rand.IntN(high-low)))
	for range 100 {
		if port := low + (int(lastPort.Add(1))-low)%(high-low); bindable(port) {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		}
	}
	t.Fatal("no port is free")
	return ""
}

// bindable says whether a port is free on all of the addresses that tests have an issuer come to.
func bindable(port int) bool {
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		ln.Close()
	}
	return true
}

func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	return must(strconv.Atoi(port))
}

// eventually waits until what holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	eventuallyWithin(t, 30*time.Second, what, holds)
}

func eventuallyWithin(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	late := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
