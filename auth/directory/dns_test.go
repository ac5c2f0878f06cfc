package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/popgate/popgate/auth"
)

// A zone is a DNS server with a few records, which counts what it is asked.
type zone struct {
	addr string

	mu    sync.Mutex
	rrs   map[string][]dns.RR // by name; a name without records is there all the same
	asked map[string]int
	reply func(m *dns.Msg, r *dns.Msg, tcp bool) // changes the answer
	mute  bool
}

// newZone starts a DNS server over UDP and TCP. It ends with the test.
func newZone(t *testing.T, records ...string) *zone {
	t.Helper()
	z := &zone{rrs: make(map[string][]dns.RR), asked: make(map[string]int)}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(rr.Header().Name)
		z.rrs[name] = append(z.rrs[name], rr)
	}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil { // another has that port
			l.Close()
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

// ServeDNS answers from the records.
func (z *zone) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(r.Question[0].Name)
	z.asked[name]++
	if z.mute {
		return
	}
	m := new(dns.Msg).SetReply(r)
	rrs, ok := z.rrs[name]
	m.Answer = append(m.Answer, rrs...)
	if len(rrs) == 1 {
		if c, isAlias := rrs[0].(*dns.CNAME); isAlias {
			m.Answer = append(m.Answer, z.rrs[c.Target]...)
		}
	}
	if len(m.Answer) == 0 {
		soa, _ := dns.NewRR("example. 300 IN SOA ns.example. h.example. 1 2 3 4 60")
		m.Ns = append(m.Ns, soa)
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
	}
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	if z.reply != nil {
		z.reply(m, r, tcp)
	}
	if !tcp {
		m.Truncate(1232)
	}
	_ = w.WriteMsg(m)
}

// set changes how it answers.
func (z *zone) set(change func(z *zone)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change(z)
}

func (z *zone) count(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[name]
}

func openDNS(t *testing.T, c DNSConfig) *dnsSource {
	t.Helper()
	c.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	o, err := newDNS("srv", c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	if o.Vary != VaryUser {
		t.Errorf("Vary = %b", o.Vary)
	}
	return o.Source.(*dnsSource)
}

var zoneRecords = []string{
	"_pop3s._tcp.both.example. 300 IN SRV 0 1 995 Mail.Both.example.",
	"_pop3._tcp.both.example. 300 IN SRV 0 1 110 old.both.example.",
	"_pop3._tcp.plain.example. 300 IN SRV 0 1 1110 mail.plain.example.",
	"_pop3s._tcp.none.example. 300 IN SRV 0 0 0 .",
	"_pop3s._tcp.half.example. 300 IN SRV 0 0 0 .",
	"_pop3._tcp.half.example. 300 IN SRV 0 0 110 mail.half.example.",
	"_pop3s._tcp.alias.example. 300 IN CNAME _pop3s._tcp.both.example.",
	"_pop3s._tcp.loop.example. 300 IN CNAME _pop3s._tcp.loop.example.",
	"_pop3s._tcp.many.example. 300 IN SRV 20 100 995 spare.many.example.",
	"_pop3s._tcp.many.example. 300 IN SRV 10 3 995 big.many.example.",
	"_pop3s._tcp.many.example. 300 IN SRV 10 1 995 small.many.example.",
	"_pop3s._tcp.many.example. 300 IN SRV 10 0 995 never.many.example.",
	"_pop3s._tcp.xn--bcher-kva.example. 300 IN SRV 0 1 995 mail.xn--bcher-kva.example.",
	"_pop3s._tcp.bad.example. 300 IN SRV 0 1 0 mail.bad.example.",
	"_pop3s._tcp.odd.example. 300 IN SRV 0 1 995 ma\\013il.odd.example.",
	"_pop3s._tcp.empty.example. 300 IN TXT text",
}

func TestDNS(t *testing.T) {
	z := newZone(t, zoneRecords...)
	c := defaultDNS()
	c.Resolver = z.addr
	both := openDNS(t, c)
	c.Services = []string{servicePOP3}
	plain := openDNS(t, c)
	for _, tt := range []struct {
		d           *dnsSource
		user        string
		server, tls string // "" and "unknown", "" and "down"
	}{
		{both, "alice@both.example", "mail.both.example:995", "implicit"},
		{plain, "alice@both.example", "old.both.example:110", ""},
		{both, "alice@plain.example", "mail.plain.example:1110", ""},
		{both, "alice@none.example", "", "unknown"},
		{both, "alice@half.example", "mail.half.example:110", ""},
		{both, "alice@alias.example", "mail.both.example:995", "implicit"},
		{both, "alice@loop.example", "", "unknown"},
		{both, "alice@B\u00fccher.example", "mail.xn--bcher-kva.example:995", "implicit"},
		{both, "alice@bad.example", "", "down"},
		{both, "alice@odd.example", "", "down"},
		{both, "alice@empty.example", "", "unknown"},
		{both, "alice@nowhere.example", "", "unknown"},
		{both, "alice", "", "unknown"},
		{both, "alice@" + strings.Repeat("a.", 122) + "example", "", "unknown"}, // its name is too long for DNS
	} {
		got, err := tt.d.Lookup(t.Context(), asks(t, tt.user, ""))
		if tt.server != "" {
			if want := (Answer{Server: tt.server, TLS: tt.tls}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, %v, want %v", tt.user, got, err, want)
			}
			continue
		}
		if err == nil || errors.Is(err, auth.ErrUnknownUser) != (tt.tls == "unknown") || errors.As(err, new(contentError)) != (tt.tls == "down") {
			t.Errorf("%s: %v, %v, want %s", tt.user, got, err, tt.tls)
		}
	}
	for domain, want := range map[string]bool{"both.example": true, "plain.example": true, "none.example": false, "nowhere.example": false} {
		if got, err := both.KnowsDomain(t.Context(), domain); got != want || err != nil {
			t.Errorf("KnowsDomain(%s) = %v, %v", domain, got, err)
		}
	}
}

// Anybody can put SRV records into a domain of his own: it is one of ours only where they name servers that the directory may name.
func TestDNSDomainsOfStrangers(t *testing.T) {
	z := newZone(t, zoneRecords...)
	c := DefaultConfig()
	c.Name, c.Type, c.AllowedServers, c.DNS.Resolver = "srv", "dns", []string{"mail.both.example:995"}, z.addr
	k := New(passwords(), nil, nil)
	v, err := k.Prepare([]Config{c})
	if err != nil {
		t.Fatal(err)
	}
	d := v.Directory("srv")
	t.Cleanup(func() {
		if err := d.asker.close(); err != nil {
			t.Error(err)
		}
	})
	for domain, want := range map[string]bool{"both.example": true, "alias.example": true, "plain.example": false, "half.example": false, "nowhere.example": false} {
		if got, err := d.domains.ask(domain); got != want || err != nil { // as KnowsDomain does, without its second
			t.Errorf("%s: %v, %v, want %v", domain, got, err, want)
		}
	}
}

// TestDNSWeight counts where many users go: by priority, and by weight within it. A user meets the same server each time.
func TestDNSWeight(t *testing.T) {
	z := newZone(t, zoneRecords...)
	c := defaultDNS()
	c.Resolver = z.addr
	d := openDNS(t, c)
	at := make(map[string]int)
	const users = 4000
	for i := range users {
		q := asks(t, fmt.Sprintf("user%d@many.example", i), "")
		got, err := d.Lookup(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		at[got.Server]++
		if again, _ := d.Lookup(t.Context(), q); again.Server != got.Server {
			t.Fatalf("user%d is at %s and at %s", i, got.Server, again.Server)
		}
	}
	if n := at["big.many.example:995"]; n < users*70/100 || n > users*80/100 || at["spare.many.example:995"] > 0 || at["never.many.example:995"] > users/100 {
		t.Errorf("%v", at)
	}
	if n := z.count("_pop3s._tcp.many.example."); n != 1 {
		t.Errorf("asked %d times for one domain", n)
	}
}

// TestDNSMemory lets answers grow old.
func TestDNSMemory(t *testing.T) {
	asked := 0
	answer := srvAnswer{records: []net.SRV{{Target: "mail.example.", Port: 995}}}
	d := &dnsSource{services: []string{servicePOP3S}, known: make(map[string]srvAnswer), find: func(context.Context, string) (srvAnswer, error) {
		asked++
		return srvAnswer{append([]net.SRV(nil), answer.records...), answer.until}, nil
	}}
	for _, tt := range []struct {
		until time.Time
		asked int
	}{{time.Time{}, 1}, {time.Time{}, 2}, {time.Now().Add(-time.Second), 3}, {time.Now().Add(time.Hour), 4}, {time.Now(), 4}} {
		answer.until = tt.until
		if _, err := d.Lookup(t.Context(), asks(t, "alice@example.org", "")); err != nil || asked != tt.asked {
			t.Errorf("%v: asked %d times, want %d; %v", tt.until, asked, tt.asked, err)
		}
	}
	answer.until = time.Now().Add(time.Hour)
	for i := range maxSRVNames + 10 {
		if _, err := d.records(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.known) != maxSRVNames {
		t.Errorf("%d names are kept", len(d.known))
	}
	reply := new(dns.Msg).SetQuestion("x.", dns.TypeSRV)
	for ttl, want := range map[int]time.Duration{0: minTTL, 60: time.Minute, 1 << 30: maxTTL} {
		rr, err := dns.NewRR(fmt.Sprintf("x. %d IN SRV 0 0 1 y.", ttl))
		if err != nil {
			t.Fatal(err)
		}
		reply.Answer = []dns.RR{rr}
		if got := time.Until(srvOf(reply, "x.").until); got > want || got < want-time.Minute/2 && want > minTTL {
			t.Errorf("a TTL of %d holds for %s, want %s", ttl, got, want)
		}
	}
}

// TestDNSFaults breaks the server; each time it is the server that is at fault.
func TestDNSFaults(t *testing.T) {
	z := newZone(t, zoneRecords...)
	c := defaultDNS()
	c.Resolver = z.addr
	d := openDNS(t, c)
	long := make([]dns.RR, 0, 40)
	for i := range 40 {
		rr, _ := dns.NewRR(fmt.Sprintf("_pop3s._tcp.long.example. 300 IN SRV %d 1 995 %s%d.long.example.", i, strings.Repeat("a", 40), i))
		long = append(long, rr)
	}
	for name, tt := range map[string]struct {
		reply func(m, r *dns.Msg, tcp bool)
		fails bool
	}{
		"SERVFAIL":       {func(m, _ *dns.Msg, _ bool) { m.Answer, m.Rcode = nil, dns.RcodeServerFailure }, true},
		"REFUSED":        {func(m, _ *dns.Msg, _ bool) { m.Answer, m.Rcode = nil, dns.RcodeRefused }, true},
		"other question": {func(m, _ *dns.Msg, _ bool) { m.Question[0].Name = "other.example." }, true},
		"no question":    {func(m, _ *dns.Msg, _ bool) { m.Question = nil }, true},
		"other records": {func(m, _ *dns.Msg, _ bool) {
			rr, _ := dns.NewRR("_pop3s._tcp.evil.example. 300 IN SRV 0 1 995 evil.example.")
			m.Answer = append([]dns.RR{rr}, m.Answer...)
		}, false},
		"too long for UDP": {func(m, _ *dns.Msg, tcp bool) {
			if m.Truncated = !tcp; !tcp {
				m.Answer = nil
			}
		}, false},
	} {
		z.set(func(z *zone) { z.reply = tt.reply })
		got, err := d.Lookup(t.Context(), asks(t, "alice@both.example", ""))
		if (err != nil) != tt.fails || errors.Is(err, auth.ErrUnknownUser) || err == nil && got.Server != "mail.both.example:995" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err != nil && errors.As(err, new(contentError)) != (name == "SERVFAIL") {
			t.Errorf("%s: whose fault is %v", name, err)
		}
		d.mu.Lock()
		clear(d.known)
		d.mu.Unlock()
	}
	z.set(func(z *zone) { z.reply = nil; z.rrs["_pop3s._tcp.long.example."] = long })
	if got, err := d.Lookup(t.Context(), asks(t, "alice@long.example", "")); err != nil || got.Server != strings.Repeat("a", 40)+"0.long.example:995" {
		t.Errorf("an answer of %d records: %v, %v", len(long), got, err)
	}
	z.set(func(z *zone) { z.mute = true })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Lookup(ctx, asks(t, "alice@half.example", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("a mute server: %v", err)
	}
	z.set(func(z *zone) { z.mute = false })
	if _, err := d.Lookup(t.Context(), asks(t, "alice@half.example", "")); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// TestDNSStrangersDomain has strangers log in with domains whose own servers are broken or silent. That is no reason to take the resolver
// for down, as it would be where it does not answer for the root either.
func TestDNSStrangersDomain(t *testing.T) {
	z := newZone(t, zoneRecords...)
	lost := false // everything is silent
	z.set(func(z *zone) {
		z.reply = func(m, r *dns.Msg, _ bool) {
			switch name := r.Question[0].Name; {
			case lost || strings.HasSuffix(name, ".silent.example."):
				m.Id++ // to who waits for an answer that is none
			case strings.HasSuffix(name, ".broken.example."):
				m.Answer, m.Rcode = nil, dns.RcodeServerFailure
			}
		}
	})
	find := system{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, z.addr)
	}}}.srv
	for name, find := range map[string]func(context.Context, string) (srvAnswer, error){"system": find, "resolver": resolver{z.addr}.srv} {
		source := openDNS(t, defaultDNS())
		source.find = find
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Timeout = time.Second; c.AllowedServers = []string{"mail.both.example"} })
		ask := func(domain string) error {
			_, err := d.Lookup(t.Context(), asks(t, "alice@"+domain, ""))
			return err
		}
		for i := range 2 * brokenAfter {
			domain := fmt.Sprintf("d%d.%s.example", i, []string{"broken", "silent"}[i%2])
			if err := ask(domain); !errors.Is(err, auth.ErrDirectoryDown) || d.Trouble() != nil {
				t.Errorf("%s: %s: %v, trouble %v", name, domain, err, d.Trouble())
			}
		}
		if err := ask("both.example"); err != nil {
			t.Errorf("%s: a good domain: %v", name, err)
		}
		z.set(func(*zone) { lost = true })
		if err := ask("plain.example"); !errors.Is(err, auth.ErrDirectoryDown) || d.Trouble() == nil {
			t.Errorf("%s: nothing answers: %v, trouble %v", name, err, d.Trouble())
		}
		z.set(func(*zone) { lost = false })
	}
}

func TestDNSValidate(t *testing.T) {
	for _, tt := range []struct {
		c    DNSConfig
		want string
	}{
		{defaultDNS(), ""},
		{DNSConfig{Services: []string{"pop3"}, Resolver: "192.0.2.53"}, ""},
		{DNSConfig{Services: []string{"pop3"}, Resolver: "[2001:db8::53]:5353"}, ""},
		{DNSConfig{Services: []string{"pop3"}, Resolver: "2001:db8::53"}, ""},
		{DNSConfig{}, "services"},
		{DNSConfig{Services: []string{"imap"}}, "services[0]"},
		{DNSConfig{Services: []string{"pop3", "pop3"}}, "services[1]"},
		{DNSConfig{Services: []string{"pop3"}, Resolver: "dns.example.org"}, "resolver"},
		{DNSConfig{Services: []string{"pop3"}, Resolver: "192.0.2.53:0"}, "resolver"},
	} {
		got := ""
		tt.c.validate(func(key, _ string) { got += key })
		if got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.c, got, tt.want)
		}
	}
}

// TestDNSSystem asks by way of the standard library, as without a resolver.
func TestDNSSystem(t *testing.T) {
	z := newZone(t, zoneRecords...)
	d := openDNS(t, defaultDNS())
	d.find = system{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, z.addr)
	}}}.srv
	for user, want := range map[string]string{"alice@both.example": "mail.both.example:995", "alice@plain.example": "mail.plain.example:1110", "alice@many.example": "many.example:995"} {
		if got, err := d.Lookup(t.Context(), asks(t, user, "")); err != nil || !strings.HasSuffix(got.Server, want) {
			t.Errorf("%s: %v, %v, want %s", user, got, err, want)
		}
	}
	for _, user := range []string{"alice@none.example", "alice@nowhere.example", "alice@empty.example"} {
		if got, err := d.Lookup(t.Context(), asks(t, user, "")); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%s: %v, %v", user, got, err)
		}
	}
	if len(d.known) > 0 {
		t.Error("answers are kept whose time is not known")
	}
	z.set(func(z *zone) {
		z.reply = func(m, _ *dns.Msg, _ bool) { m.Answer, m.Rcode = nil, dns.RcodeServerFailure }
	})
	if got, err := d.Lookup(t.Context(), asks(t, "alice@both.example", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("SERVFAIL: %v, %v", got, err)
	}
}
