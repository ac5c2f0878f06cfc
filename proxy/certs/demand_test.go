package certs

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
)

// demanding is a configuration without names of its own.
func (p *pebble) demanding(names ...string) Config {
	c := p.config()
	c.ACME.OnDemand.Names = names
	return c
}

// knowing has the rig know the domains.
func knowing(domains ...string) func(*rig) {
	return func(r *rig) {
		r.deps.Knows = func(d string) bool {
			for _, k := range domains {
				if parent, wild := strings.CutPrefix(k, "*."); d == k || wild && strings.HasSuffix(d, "."+parent) {
					return true
				}
			}
			return false
		}
	}
}

func TestOnDemand(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	c := p.demanding("mail.{domain}", "pop.{domain}")
	r, v := startRig(t, dir, c, knowing("example.org"))
	client := p.clientFor("mail.example.org")
	var many sync.WaitGroup
	for range 50 {
		many.Go(func() {
			// The first one gets it: it waits for the order.
			if _, err := shake(v.TLS("pop3s"), client); err != nil {
				t.Errorf("handshake: %v", err)
			}
		})
	}
	many.Wait()
	if got := p.orders(); got != 1 {
		t.Errorf("50 clients at once made %d orders, want 1", got)
	}
	for _, name := range []string{"mail.example.net", "imap.example.org", "example.org", "mail.mail.example.org", "127.0.0.1"} {
		if _, err := shake(v.TLS("pop3s"), p.clientFor(name)); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: got %v, want the alert", name, err)
		}
	}
	if st := r.status("mail.example.net"); len(st) != 0 || p.orders() != 1 {
		t.Errorf("an unknown domain has a place: %v, %d orders", st, p.orders())
	}

	r.stop()
	_, v = startRig(t, dir, c, knowing("example.org"))
	if _, err := shake(v.TLS("pop3s"), client); err != nil || p.orders() != 1 {
		t.Errorf("from the storage: %v after %d orders", err, p.orders())
	}
	_, v = startRig(t, dir, c, knowing())
	if _, err := shake(v.TLS("pop3s"), client); err == nil {
		t.Error("a domain that is known no more is served from the storage")
	}
}

func TestListedDomainsAreOrderedAhead(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	p.dns.set(p.dns.addrs, "pop.example.net", "192.0.2.1")
	r, _ := startRig(t, t.TempDir(), p.demanding("mail.{domain}", "pop.{domain}"), func(r *rig) {
		knowing("example.org", "example.net")(r)
		r.deps.Domains = func() []string { return []string{"example.org", "example.net", "*.example.com"} }
	})
	for _, name := range []string{"mail.example.org", "pop.example.org", "mail.example.net"} {
		eventually(t, name, func() bool { st := r.status(name); return len(st) == 1 && !st[0].NotAfter.IsZero() })
	}
	eventually(t, "a word on the name that leads elsewhere", func() bool {
		st := r.status("pop.example.net")
		return len(st) == 1 && strings.Contains(st[0].LastError, "192.0.2.1")
	})
	if got := p.orders(); got != 3 {
		t.Errorf("got %d orders, want one for each name that leads here", got)
	}
}

func TestOnDemandRefused(t *testing.T) {
	p := startPebble(t, pebbleOptions{config: map[string]any{"caaIdentities": []string{"pebble.example"}}})
	p.dns.set(p.dns.addrs, "mail.elsewhere.org", "192.0.2.9")
	p.dns.set(p.dns.addrs, "mail.nowhere.org", "")
	p.dns.set(p.dns.caa, "caa.org", "other.example")
	p.dns.set(p.dns.caa, "fine.org", "pebble.example")
	c := p.demanding("mail.{domain}")
	c.ACME.OnDemand.PerDomain = limit.Rate{Count: 1, Per: time.Hour}
	r, v := startRig(t, t.TempDir(), c, func(r *rig) {
		knowing("elsewhere.org", "nowhere.org", "caa.org", "fine.org", "*.customers.org")(r)
		r.k.acme.wait = 20 * time.Second
	})
	log := func(want string) {
		t.Helper()
		rec, _ := r.log.wait(t, "no certificate for now")
		if line := text(rec); !strings.Contains(line, want) {
			t.Errorf("the log says %q, want %q in it", line, want)
		}
	}
	for _, tt := range []struct{ name, want string }{
		{"mail.elsewhere.org", "192.0.2.9, which is not one of ours"},
		{"mail.nowhere.org", "does not resolve"},
		{"mail.caa.org", "forbids our issuers by CAA"},
	} {
		for range 3 { // the second and third are answered from memory
			if _, err := shake(v.TLS("pop3s"), p.clientFor(tt.name)); err == nil {
				t.Errorf("%s: a handshake went well", tt.name)
			}
		}
		log(tt.want)
		if got := p.dns.askedFor(tt.name); got != 1 {
			t.Errorf("%s: DNS was asked %d times, want once", tt.name, got)
		}
	}
	if p.orders() != 0 {
		t.Errorf("%d orders were placed", p.orders())
	}
	for _, name := range []string{"mail.fine.org", "mail.a.customers.org"} {
		if _, err := shake(v.TLS("pop3s"), p.clientFor(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := shake(v.TLS("pop3s"), p.clientFor("mail.b.customers.org")); err == nil {
		t.Error("more names below one domain than per_domain")
	}
	log("per_domain")
}

func (z *zone) askedFor(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[name+"."]
}

// from makes a hello as of a client at an address.
func from(addr, name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, Conn: clientAt{client: &auth.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}}}
}

type clientAt struct {
	net.Conn
	client *auth.Client
}

func (c clientAt) Client() *auth.Client { return c.client }

// unrun is a Keeper that nobody runs: what is ordered stays in the queue, to be counted.
func unrun(t *testing.T, c Config, deps Deps) (*manager, *View) {
	t.Helper()
	k := New(t.TempDir(), nil, nil)
	v, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.dropCache)
	k.Use(v)
	return k.acme, v
}

func offDemand() Config {
	c := DefaultConfig()
	c.ACME.Agree, c.ACME.OnDemand.Names = true, []string{"mail.{domain}"}
	return c
}

// TestInventedNames: a scan costs no order and no memory to speak of.
func TestInventedNames(t *testing.T) {
	const scan = 100_000
	z := startZone(t)
	for _, tt := range []struct {
		name   string
		knows  func(string) bool
		looked int // into DNS, where no name leads here, so that none is ordered
	}{
		{"of unknown domains", func(string) bool { return false }, 0},
		// A route for *.example.org, say. What the network may ask for it gets looked into, and no more.
		{"below a domain all of whose names are known", func(d string) bool { return strings.HasSuffix(d, ".example.org") }, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := offDemand()
			c.ACME.OnDemand.Resolver, c.ACME.OnDemand.Addresses = z.address, []netip.Addr{netip.MustParseAddr("192.0.2.1")}
			m, _ := unrun(t, c, Deps{Knows: tt.knows})
			heap := func() uint64 {
				runtime.GC()
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				return s.HeapAlloc
			}
			before := heap()
			for i := range scan {
				name := fmt.Sprintf("mail.invented-%d.example.org", i)
				m.expected(from("192.0.2.7", name), name)
				if o := m.loads.pop(); o != nil {
					m.load(t.Context(), o)
				}
				if o := m.orders.pop(); o != nil {
					m.obtain(t.Context(), o)
				}
			}
			if grown := int64(heap()) - int64(before); grown > 8<<20 {
				t.Errorf("%d names take %d bytes", scan, grown)
			}
			if len(m.all) != 0 || m.waiting != 0 || m.held != 0 {
				t.Errorf("got %d names, %d waiting, %d held, want none", len(m.all), m.waiting, m.held)
			}
			z.mu.Lock()
			defer z.mu.Unlock()
			if got := len(z.asked); got != tt.looked {
				t.Errorf("DNS was asked for %d names, want %d", got, tt.looked)
			}
		})
	}
	t.Run("from everywhere", func(t *testing.T) {
		m, v := unrun(t, offDemand(), Deps{Knows: func(string) bool { return true }})
		ordered := 0
		for i := range scan {
			name, addr := fmt.Sprintf("mail.i%d.org", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if o, _ := m.expected(from(addr.String(), name), name); o != nil {
				ordered++
			}
		}
		if most := v.acme.section.OnDemand.MaxWaiting; ordered != most || len(m.all) != most {
			t.Errorf("got %d orders and %d names, want %d: max_waiting", ordered, len(m.all), most)
		}
		for o := m.loads.pop(); o != nil; o = m.loads.pop() {
			m.fail(o, &refusal{reason: "of course"})
		}
		if len(m.all) != 0 || m.waiting != 0 {
			t.Errorf("%d names stay after they failed, %d are counted", len(m.all), m.waiting)
		}
	})
}

func TestRecallIsBounded(t *testing.T) {
	r := newRecall()
	for i := range 10 * recallSize {
		r.put(fmt.Sprint(i), note{failures: i})
		if r.len() > 2*recallSize {
			t.Fatalf("holds %d", r.len())
		}
		if got := r.get(fmt.Sprint(max(0, i-recallSize/2))); got.failures != max(0, i-recallSize/2) {
			t.Fatalf("after %d: one of the newest is forgotten", i)
		}
	}
	r.drop(fmt.Sprint(10*recallSize - 1))
	if got := r.get(fmt.Sprint(10*recallSize - 1)); got != (note{}) {
		t.Errorf("got %+v after it was dropped", got)
	}
}

// TestSilentIssuer: one that takes connections and says nothing holds no handshake for longer than the patience.
func TestSilentIssuer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Issuers = []Issuer{{CA: "https://" + ln.Addr().String() + "/dir"}}
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = freeAddress(t), ""
	r, v := startRig(t, t.TempDir(), c, func(r *rig) { r.k.acme.wait = 500 * time.Millisecond })
	if r.k.acme.wait > patience || patience > 8*time.Second {
		t.Errorf("handshakes wait for %v", patience)
	}
	began := time.Now()
	if _, err := shake(v.TLS("pop3s"), client("mail.example.org")); err == nil {
		t.Error("a handshake went well")
	}
	if took := time.Since(began); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("took %v, want the patience", took)
	}
	// Not all places are taken by those who wait.
	var many sync.WaitGroup
	began = time.Now()
	for range 4 * maxPatient {
		many.Go(func() { _, _ = shake(v.TLS("pop3s"), client("mail.example.org")) })
	}
	many.Wait()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%d handshakes took %v", 4*maxPatient, took)
	}
	// To stop is not to fail.
	r.stop()
	for _, line := range texts(r.log.take()) {
		if strings.Contains(line, "no certificate for now") {
			t.Errorf("the end was logged as %q", line)
		}
	}
}

// TestEviction: names beyond max_names are read again when somebody asks.
func TestEviction(t *testing.T) {
	c := offDemand()
	c.ACME.OnDemand.MaxNames = 10
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = freeAddress(t), ""
	dir := t.TempDir()
	names := store10k(t, dir, c, 30)
	r, v := startRig(t, dir, c, func(r *rig) {
		r.deps.Knows = func(string) bool { return true }
	})
	c2 := &tls.Config{RootCAs: testIssuer().roots}
	for _, name := range names {
		c2.ServerName = name
		if _, err := shake(v.TLS("pop3s"), c2); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	m := r.k.acme
	eventually(t, "no more than max_names", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := 0
		m.shelf.exact.Range(func(any, any) bool { n++; return true })
		return m.held <= 10 && len(m.all) <= 10 && n == m.held
	})
	c2.ServerName = names[0]
	if _, err := shake(v.TLS("pop3s"), c2); err != nil {
		t.Errorf("the first one again: %v", err)
	}
}

// TestAnotherNodeAnswers: A orders, B has the port. Two processes, for certmagic knows its own challenges by heart.
func TestAnotherNodeAnswers(t *testing.T) {
	if os.Getenv("POPGATE_TEST_NODE") != "" {
		nodeB(t)
		return
	}
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	b := exec.Command(os.Args[0], "-test.run=^TestAnotherNodeAnswers$", "-test.timeout=2m")
	b.Env = append(os.Environ(), "POPGATE_TEST_NODE="+strings.Join([]string{dir, p.http, p.directory, p.caFile}, " "))
	stdin := must(b.StdinPipe())
	out := must(b.StdoutPipe())
	b.Stderr = t.Output()
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = b.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
	}
	go func() {
		for lines.Scan() {
		}
	}()
	r, v := startRig(t, dir, p.config("mail.example.org"), nil)
	_, before := r.log.wait(t, "certificate obtained")
	if said := strings.Join(texts(before), "\n"); !strings.Contains(said, "another program has the port") {
		t.Errorf("A has the port itself: %s", said)
	}
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
}

// nodeB holds the port until its standard input ends.
func nodeB(t *testing.T) {
	args := strings.Fields(os.Getenv("POPGATE_TEST_NODE"))
	c := DefaultConfig()
	c.ACME.OnDemand.Names, c.ACME.Agree = []string{"nothing.{domain}"}, true
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = args[1], ""
	c.ACME.Issuers = []Issuer{{CA: args[2], CARoot: args[3]}}
	r, _ := startRig(t, args[0], c, nil)
	r.log.wait(t, "listening")
	fmt.Println("ready")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		cancel()
	}()
	<-ctx.Done()
}
