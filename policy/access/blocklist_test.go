package access

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/popgate/popgate/auth"
)

// A zone is a DNS server that answers for a blocklist, and counts what it is asked.
type zone struct {
	addr string

	mu    sync.Mutex
	codes map[string][]string // by name
	asked map[string]int
	mute  chan struct{} // where there is one, answers wait until it is closed
	rcode int
	cut   bool // over UDP
}

// newZone starts one over UDP and TCP. It ends with the test.
func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{codes: map[string][]string{}, asked: map[string]int{}}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil { // another has that port
			_ = l.Close()
			continue
		}
		z.addr = l.Addr().String()
		for _, s := range []*dns.Server{{Listener: l, Handler: z}, {PacketConn: p, Handler: z}} {
			up, down := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(up) }
			go func() { _ = s.ActivateAndServe(); close(down) }()
			<-up
			t.Cleanup(func() { _ = s.Shutdown(); <-down })
		}
		return z
	}
}

func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	name := strings.ToLower(r.Question[0].Name)
	z.mu.Lock()
	z.asked[name]++
	mute := z.mute
	m := new(dns.Msg).SetReply(r)
	m.Rcode = z.rcode
	if z.cut && w.LocalAddr().Network() == "udp" {
		m.Truncated = true
	} else {
		for _, code := range z.codes[name] {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(code)})
		}
		if len(m.Answer) == 0 && m.Rcode == dns.RcodeSuccess {
			m.Rcode = dns.RcodeNameError
		}
	}
	z.mu.Unlock()
	if mute != nil {
		<-mute
	}
	_ = w.WriteMsg(m)
}

func (z *zone) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func (z *zone) count() (n int) {
	z.set(func() {
		for _, asked := range z.asked {
			n += asked
		}
	})
	return n
}

// running makes rules of c that are in use, with a keeper that runs until the test ends.
func running(t *testing.T, k *Keeper, c Config) *Rules {
	t.Helper()
	r := prepared(t, k, c)
	k.Use(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// prepared makes rules of a config that must be right.
func prepared(t *testing.T, k *Keeper, c Config) *Rules {
	t.Helper()
	c.Validate(func(key, problem string) { t.Errorf("%s: %s", key, problem) })
	r, err := k.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func blocklistConfig(z *zone) Config {
	c := DefaultConfig()
	c.Blocklists = []BlocklistConfig{{Name: "bl", Zone: "bl.example"}}
	c.DNS.Resolvers = []string{z.addr}
	c.DNS.Timeout = maxDNSTimeout // the machine may be slow
	c.Rules = []RuleConfig{{Name: "spam", Blocklists: []string{"bl"}, Action: actionDeny}}
	return c
}

func from(addr string) *auth.Client {
	return &auth.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 4711), Listener: "pop3s"}
}

func TestBlocklist(t *testing.T) {
	z := newZone(t)
	codes := map[string][]string{
		"7.2.0.192.bl.example.":    {"127.0.0.2"},
		"8.2.0.192.bl.example.":    {"198.51.100.1"},              // who sells wrong answers
		"9.2.0.192.bl.example.":    {"127.255.255.254"},           // refuses to answer
		"10.2.0.192.bl.example.":   {"198.51.100.1", "127.0.0.4"}, // both
		"9.100.51.198.bl.example.": {"127.0.0.1"},
		reversed(netip.MustParseAddr("2001:db8::1")) + "bl.example.": {"127.0.0.3"},
	}
	z.set(func() { z.codes, z.cut = codes, true }) // TCP has to do as well
	r := running(t, New(nil, nil), blocklistConfig(z))
	for addr, want := range map[string]Action{
		"192.0.2.7": Deny, "192.0.2.8": Allow, "192.0.2.9": Allow, "192.0.2.10": Deny, "192.0.2.11": Allow, "198.51.100.9": Allow,
		"::ffff:192.0.2.7": Deny, "2001:db8::1": Deny, "10.0.0.1": Allow, "127.0.0.1": Allow, "fe80::1%eth0": Allow,
	} {
		if got := r.Client(t.Context(), from(addr)); got.Action != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
	if got, want := r.Client(t.Context(), from("192.0.2.7")), (Verdict{Deny, Blocklisted, "spam", "bl"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := reversed(netip.MustParseAddr("2001:db8::1")); got != "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2." {
		t.Errorf("got %s", got)
	}
}

func TestBlocklistCodes(t *testing.T) {
	z := newZone(t)
	codes := map[string][]string{"7.2.0.192.bl.example.": {"127.0.0.2"}, "8.2.0.192.bl.example.": {"127.0.0.11"}, "9.2.0.192.bl.example.": {"127.0.1.4"}}
	z.set(func() { z.codes = codes })
	c := blocklistConfig(z)
	c.Blocklists[0].Codes = []string{"127.0.0.2", "127.0.1.0/24"}
	r := running(t, New(nil, nil), c)
	for addr, want := range map[string]Action{"192.0.2.7": Deny, "192.0.2.8": Allow, "192.0.2.9": Deny} {
		if got := r.Client(t.Context(), from(addr)); got.Action != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}

// Answers are remembered, those that there is nothing too, for a whole /64, and over a reload.
func TestBlocklistRemembers(t *testing.T) {
	z := newZone(t)
	k := New(nil, nil)
	c := blocklistConfig(z)
	r := running(t, k, c)
	for range 3 {
		r.Client(t.Context(), from("192.0.2.7"))
		r.Client(t.Context(), from("2001:db8::1"))
		r.Client(t.Context(), from("2001:db8::ffff"))
	}
	r = prepared(t, k, c)
	k.Use(r)
	r.Client(t.Context(), from("192.0.2.7"))
	if got := z.count(); got != 2 {
		t.Errorf("the blocklist was asked %d times, want 2", got)
	}
	b := r.blocklists["bl"]
	b.mu.Lock()
	b.dns.CacheSize = 2
	b.mu.Unlock()
	r.Client(t.Context(), from("192.0.2.8"))
	if got := len(b.known); got != 2 {
		t.Errorf("%d answers are remembered, want 2", got)
	}
}

// A decision does not wait longer than the deadline; the answer that comes late serves the next.
func TestBlocklistLate(t *testing.T) {
	z := newZone(t)
	mute := make(chan struct{})
	z.set(func() { z.codes["7.2.0.192.bl.example."], z.mute = []string{"127.0.0.2"}, mute })
	c := blocklistConfig(z)
	c.DNS.Timeout, c.DNS.MaxLookups = time.Millisecond, 1
	r := running(t, New(nil, nil), c)
	if got := r.Client(t.Context(), from("192.0.2.7")); got.Action != Allow {
		t.Errorf("got %v before the answer, want allow", got)
	}
	b := r.blocklists["bl"]
	_, f := b.look(netip.MustParseAddr("192.0.2.7"))
	if f == nil {
		t.Fatal("the question is not on its way any more")
	}
	if _, other := b.look(netip.MustParseAddr("192.0.2.8")); other != nil {
		t.Error("more questions are on their way than there may be")
	}
	close(mute)
	<-f.done
	if got := r.Client(t.Context(), from("192.0.2.7")); got.Action != Deny {
		t.Errorf("got %v after the answer, want deny", got)
	}
}

// A blocklist that is down refuses nobody, is left alone for a while, and says so.
func TestBlocklistDown(t *testing.T) {
	z := newZone(t)
	z.set(func() { z.rcode = dns.RcodeServerFailure })
	k := New(nil, nil)
	r := running(t, k, blocklistConfig(z))
	b := r.blocklists["bl"]
	for i := range downAfter {
		if k.Trouble() != nil {
			t.Errorf("trouble after %d failures", i)
		}
		if got := r.Client(t.Context(), from(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())); got.Action != Allow {
			t.Errorf("got %v, want allow", got)
		}
	}
	if err := k.Trouble(); err == nil || !strings.Contains(err.Error(), "blocklist bl") || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("got trouble %v", err)
	}
	asked := z.count()
	if _, f := b.look(netip.MustParseAddr("192.0.2.77")); f != nil || z.count() != asked {
		t.Error("a blocklist that is down is asked")
	}
	z.set(func() { z.rcode = dns.RcodeSuccess })
	b.mu.Lock()
	b.retry = time.Now()
	b.mu.Unlock()
	_, probe := b.look(netip.MustParseAddr("192.0.2.78"))
	if probe == nil {
		t.Fatal("a blocklist that is down is not tried again")
	}
	<-probe.done
	if err := k.Trouble(); err != nil {
		t.Errorf("got trouble %v after it answered", err)
	}
}

// No question outlives the keeper.
func TestBlocklistEnd(t *testing.T) {
	z := newZone(t)
	k := New(nil, nil)
	ended := make(chan struct{})
	r := prepared(t, k, blocklistConfig(z))
	b := r.blocklists["bl"]
	b.ask = func(ctx context.Context, _ string) (records, error) {
		<-ctx.Done()
		close(ended)
		return records{}, ctx.Err()
	}
	_, f := b.look(netip.MustParseAddr("192.0.2.7"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("Run has not waited for the question")
	}
	if f == nil || b.wait(t.Context(), f).IsValid() {
		t.Error("a question that was given up says something")
	}
	if _, f := b.look(netip.MustParseAddr("192.0.2.8")); f != nil {
		t.Error("a question began after the end")
	}
	if !errors.Is(b.cause, context.Canceled) {
		t.Errorf("got cause %v", b.cause)
	}
}

func TestResolverTriesOthers(t *testing.T) {
	z := newZone(t)
	z.set(func() { z.codes["7.2.0.192.bl.example."] = []string{"127.0.0.2"} })
	broken := newZone(t)
	broken.set(func() { broken.rcode = dns.RcodeRefused })
	c := blocklistConfig(z)
	c.DNS.Resolvers = []string{broken.addr, z.addr}
	r := running(t, New(nil, nil), c)
	if got := r.Client(t.Context(), from("192.0.2.7")); got.Action != Deny {
		t.Errorf("got %v, want deny", got)
	}
	r.Client(t.Context(), from("192.0.2.8"))
	if got := broken.count(); got != 1 {
		t.Errorf("the broken server was asked %d times, want once", got)
	}
}
