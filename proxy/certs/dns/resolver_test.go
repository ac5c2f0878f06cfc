package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func addrs(texts ...string) []netip.Addr {
	all := make([]netip.Addr, 0, len(texts))
	for _, s := range texts {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func TestAddrs(t *testing.T) {
	b := newBook(t,
		"both.example.org. 60 IN A 192.0.2.2", "both.example.org. 60 IN A 192.0.2.1", "both.example.org. 60 IN AAAA 2001:db8::1",
		"four.example.org. 60 IN A 192.0.2.4",
		"alias.example.org. 60 IN CNAME alias2.example.org.", "alias2.example.org. 60 IN CNAME FOUR.example.org.",
		"mapped.example.org. 60 IN AAAA ::ffff:192.0.2.9", "mapped.example.org. 60 IN A 192.0.2.9",
		"circle.example.org. 60 IN CNAME circle.example.org.",
		"text.example.org. 60 IN TXT hello")
	for i := range 100 {
		b.add(t, fmt.Sprintf("many.example.org. 60 IN A 192.0.2.%d", i))
	}
	r := resolverAt(t, b.serve(t))
	for name, want := range map[string][]netip.Addr{
		"both.example.org":   addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"),
		"Both.Example.ORG.":  addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"),
		"four.example.org":   addrs("192.0.2.4"),
		"alias.example.org":  addrs("192.0.2.4"),
		"mapped.example.org": addrs("192.0.2.9"),
	} {
		if got, err := r.Addrs(t.Context(), name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"nothing.example.org", "text.example.org", "circle.example.org"} {
		if got, err := r.Addrs(t.Context(), name); !errors.Is(err, ErrNoRecord) {
			t.Errorf("%s: %v, %v, want no record", name, got, err)
		}
	}
	// 100 addresses do not fit a UDP answer of 1232 bytes: BIND and the like would cut it, the double does not. Either way
	// 64 are enough.
	if got, err := r.Addrs(t.Context(), "many.example.org"); err != nil || len(got) != maxAddrs {
		t.Errorf("of 100 addresses %d came, %v", len(got), err)
	}
	for _, name := range []string{"a..b", string(make([]byte, 300))} {
		if _, err := r.Addrs(t.Context(), name); err == nil || errors.Is(err, ErrNoRecord) {
			t.Errorf("%q: %v, want an error of its own", name, err)
		}
	}
}

// Trouble is never taken for an answer, and half an answer is one.
func TestAddrsTrouble(t *testing.T) {
	failing := func(kinds ...uint16) string {
		return serveDNS(t, func(w miekg.ResponseWriter, m *miekg.Msg) {
			reply := new(miekg.Msg).SetReply(m)
			if slices.Contains(kinds, m.Question[0].Qtype) {
				reply.Rcode = miekg.RcodeServerFailure
			} else if m.Question[0].Qtype == miekg.TypeA {
				rr, _ := miekg.NewRR(m.Question[0].Name + " 60 IN A 192.0.2.1")
				reply.Answer = append(reply.Answer, rr)
			}
			_ = w.WriteMsg(reply)
		})
	}
	got, err := resolverAt(t, failing(miekg.TypeAAAA)).Addrs(t.Context(), "example.org")
	if err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
		t.Errorf("AAAA fails: %v, %v, want the IPv4 address", got, err)
	}
	_, err = resolverAt(t, failing(miekg.TypeA)).Addrs(t.Context(), "example.org")
	wantError(t, err, "SERVFAIL", "example.org")
	if errors.Is(err, ErrNoRecord) {
		t.Errorf("a failure counts as an answer: %v", err)
	}
	_, err = resolverAt(t, "127.0.0.1:"+freePort(t)).Addrs(t.Context(), "example.org")
	wantError(t, err, "refused")
}

func TestLookupTransport(t *testing.T) {
	answer := func(w miekg.ResponseWriter, m *miekg.Msg) {
		reply := new(miekg.Msg).SetReply(m)
		rr, _ := miekg.NewRR("example.org. 60 IN A 192.0.2.1")
		reply.Answer = []miekg.RR{rr}
		_ = w.WriteMsg(reply)
	}
	udp := func(w miekg.ResponseWriter) bool { return w.LocalAddr().Network() == "udp" }
	for name, h := range map[string]miekg.HandlerFunc{
		"cut short over UDP": func(w miekg.ResponseWriter, m *miekg.Msg) {
			if !udp(w) {
				answer(w, m)
				return
			}
			reply := new(miekg.Msg).SetReply(m)
			reply.Truncated = true
			_ = w.WriteMsg(reply)
		},
		"garbage over UDP": func(w miekg.ResponseWriter, m *miekg.Msg) {
			if !udp(w) {
				answer(w, m)
				return
			}
			_, _ = w.Write([]byte{byte(m.Id >> 8), byte(m.Id), 0x80, 0, 0, 9, 9})
		},
		"another question's answer over UDP": func(w miekg.ResponseWriter, m *miekg.Msg) {
			if !udp(w) {
				answer(w, m)
				return
			}
			m.Question[0].Name = "example.com."
			answer(w, m)
		},
		"a forged answer first": func(w miekg.ResponseWriter, m *miekg.Msg) {
			forged := new(miekg.Msg).SetReply(m)
			forged.Id++
			if udp(w) {
				_ = w.WriteMsg(forged)
			}
			answer(w, m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := resolverAt(t, serveDNS(t, h)).lookup(t.Context(), "example.org", miekg.TypeA)
			if err != nil || len(reply.Answer) != 1 {
				t.Errorf("got %v, %v", reply, err)
			}
		})
	}
	t.Run("next server", func(t *testing.T) {
		refuses := serveDNS(t, func(w miekg.ResponseWriter, m *miekg.Msg) {
			_ = w.WriteMsg(new(miekg.Msg).SetRcode(m, miekg.RcodeRefused))
		})
		good := newBook(t, "example.org. 60 IN A 192.0.2.1").serve(t)
		r := newResolver(func() ([]string, error) { return []string{"127.0.0.1:" + freePort(t), refuses, good}, nil })
		if got, err := r.Addrs(t.Context(), "example.org"); err != nil || !slices.Equal(got, addrs("192.0.2.1")) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("silent", func(t *testing.T) {
		r := resolverAt(t, serveDNS(t, func(miekg.ResponseWriter, *miekg.Msg) {}))
		r.timeout = 20 * time.Millisecond
		_, err := r.lookup(t.Context(), "example.org", miekg.TypeA)
		// Whichever notices first, the socket or the context.
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want its deadline", err)
		}
	})
	t.Run("caller gone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := resolverAt(t, serveDNS(t, func(miekg.ResponseWriter, *miekg.Msg) { cancel() }))
		r.timeout = time.Hour
		if _, err := r.lookup(ctx, "example.org", miekg.TypeA); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the caller's end", err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		r := newResolver(func() ([]string, error) { return nil, nil })
		_, err := r.lookup(t.Context(), "example.org", miekg.TypeA)
		wantError(t, err, "no DNS server")
		broken := errors.New("broken")
		r = newResolver(func() ([]string, error) { return nil, broken })
		if _, err := r.lookup(t.Context(), "example.org", miekg.TypeA); !errors.Is(err, broken) {
			t.Errorf("got %v, want %v", err, broken)
		}
	})
}

func TestCNAMEAndZone(t *testing.T) {
	b := newBook(t,
		"example.org. 60 IN SOA ns hostmaster 1 1 1 1 1", "example.net. 60 IN SOA ns hostmaster 1 1 1 1 1",
		"sub.example.org. 60 IN SOA ns hostmaster 1 1 1 1 1", "a.b.sub.example.org. 60 IN A 192.0.2.1",
		"_acme-challenge.example.org. 60 IN CNAME one.example.net.", "one.example.net. 60 IN CNAME Two.example.net.",
		// A CNAME's zone is another's: its SOA in the answer must not be taken.
		"alias.example.org. 60 IN CNAME example.net.",
		"c1.example.org. 60 IN CNAME c2.example.org.", "c2.example.org. 60 IN CNAME c1.example.org.")
	r := resolverAt(t, b.serve(t))
	for name, want := range map[string]string{
		"_acme-challenge.example.org": "two.example.net.",
		"www.example.org":             "www.example.org.",
		"a.b.sub.example.org":         "a.b.sub.example.org.",
	} {
		if got, err := r.CNAME(t.Context(), name); err != nil || got != want {
			t.Errorf("CNAME of %s: %q, %v, want %q", name, got, err, want)
		}
	}
	_, err := r.CNAME(t.Context(), "c1.example.org")
	wantError(t, err, "c1.example.org", "circle")
	for name, want := range map[string]string{
		"a.b.sub.example.org": "sub.example.org.", "x.sub.example.org.": "sub.example.org.",
		"alias.example.org": "example.org.", "EXAMPLE.net": "example.net.",
	} {
		if got, err := r.Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("zone of %s: %q, %v, want %q", name, got, err, want)
		}
	}
	_, err = r.Zone(t.Context(), "example.com")
	wantError(t, err, "zone of example.com", "SOA")
}

// This host's servers are read, whatever they are; what they answer is not for a test.
func TestSystemServers(t *testing.T) {
	r, err := NewResolver("")
	if err != nil {
		t.Fatal(err)
	}
	servers, err := r.servers()
	if err != nil {
		t.Skipf("this host has none: %v", err)
	}
	for _, s := range servers {
		if _, err := netip.ParseAddrPort(s); err != nil {
			t.Errorf("server %q: %v", s, err)
		}
	}
	if _, err := NewResolver("no server"); err == nil {
		t.Error("a server that is none was taken")
	}
}
