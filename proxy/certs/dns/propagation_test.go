package dns

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"
)

// A fleet is a zone's name servers without sockets, so that time can run in a bubble.
type fleet struct {
	t      *testing.T
	public *book                                               // what "resolver:53" knows
	asked  map[string]func(since time.Duration) (*book, error) // by host:port
	begun  time.Time
	mu     sync.Mutex
	counts map[string]int
}

func newFleet(t *testing.T, servers map[string]func(since time.Duration) (*book, error)) *fleet {
	f := &fleet{t: t, asked: servers, begun: time.Now(), counts: make(map[string]int)}
	f.public = newBook(t, "example.org. 60 IN SOA ns1 hostmaster 1 1 1 1 1",
		"example.org. 60 IN NS ns1.example.net.", "example.org. 60 IN NS ns2.example.net.",
		"ns1.example.net. 60 IN A 192.0.2.1", "ns2.example.net. 60 IN AAAA 2001:db8::2", "ns2.example.net. 60 IN A 192.0.2.2")
	return f
}

func (f *fleet) ask(_ context.Context, network string, m *miekg.Msg, server string) (*miekg.Msg, error) {
	f.mu.Lock()
	f.counts[server]++
	f.mu.Unlock()
	if server == "resolver:53" {
		return f.public.answer(m), nil
	}
	if m.RecursionDesired && !strings.Contains(server, "public") {
		f.t.Errorf("%s was asked to recurse", server)
	}
	b, err := f.asked[server](time.Since(f.begun))
	if err != nil {
		return nil, err
	}
	reply := b.answer(m)
	reply.Authoritative = !strings.Contains(server, "public")
	return reply, nil
}

func (f *fleet) watch(c Propagation, log *slog.Logger) *watch {
	r := newResolver(func() ([]string, error) { return []string{"resolver:53"}, nil })
	r.ask = f.ask
	w, err := newWatch(c, r, log)
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

const (
	ns1, ns2v4, ns2v6 = "192.0.2.1:53", "192.0.2.2:53", "[2001:db8::2]:53"
	challenge         = "_acme-challenge.mail.example.org"
)

func shows(t *testing.T) *book {
	return newBook(t, challenge+". 60 IN TXT old", challenge+". 60 IN TXT value", "example.org. 60 IN SOA ns1 hostmaster 1 1 1 1 1")
}

func lacks(t *testing.T) *book {
	return newBook(t, challenge+". 60 IN TXT old", "example.org. 60 IN SOA ns1 hostmaster 1 1 1 1 1")
}

// The slow one of two servers decides, and the log says meanwhile who is waited for and how long already.
func TestWaitForAllServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yes, no := shows(t), lacks(t)
		f := newFleet(t, map[string]func(time.Duration) (*book, error){
			ns1: func(time.Duration) (*book, error) { return yes, nil },
			ns2v4: func(since time.Duration) (*book, error) {
				if since < 25*time.Second {
					return no, nil
				}
				return yes, nil
			},
			ns2v6: func(time.Duration) (*book, error) { return nil, errors.New("network is unreachable") },
		})
		var log bytes.Buffer
		w := f.watch(Propagation{Delay: 3 * time.Second, Timeout: time.Minute}, slog.New(slog.NewTextHandler(&log, nil)))
		if err := w.wait(t.Context(), challenge, "value"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(f.begun); took < 25*time.Second || took > 28*time.Second {
			t.Errorf("waited %s, want until the slow server shows it after 25s", took)
		}
		if n := strings.Count(log.String(), "waiting for DNS record"); n != 3 {
			t.Errorf("%d lines of progress in 22s, want one each 10s:\n%s", n, log.String())
		}
		for _, piece := range []string{"waited=10s", "at_most=1m0s", "ns2.example.net (answers without it)", "DNS record is visible"} {
			if !strings.Contains(log.String(), piece) {
				t.Errorf("the log lacks %q:\n%s", piece, log.String())
			}
		}
		if strings.Contains(log.String(), "ns1.example.net") {
			t.Errorf("the log complains of the good server:\n%s", log.String())
		}
	})
}

// One dead name server of two does not keep certificates away.
func TestWaitPassesOverSilentServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yes := shows(t)
		dead := func(time.Duration) (*book, error) { return nil, errors.New("no route to host") }
		f := newFleet(t, map[string]func(time.Duration) (*book, error){
			ns1: func(time.Duration) (*book, error) { return yes, nil }, ns2v4: dead, ns2v6: dead,
		})
		var log bytes.Buffer
		w := f.watch(Propagation{Timeout: time.Minute}, slog.New(slog.NewTextHandler(&log, nil)))
		if err := w.wait(t.Context(), challenge, "value"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(f.begun); took != (silentRounds-1)*lookEvery {
			t.Errorf("waited %s, want %d looks", took, silentRounds)
		}
		if !strings.Contains(log.String(), "passed over") || !strings.Contains(log.String(), "ns2.example.net (") {
			t.Errorf("the log does not say who was passed over:\n%s", log.String())
		}
	})
}

func TestWaitGivesUp(t *testing.T) {
	yes, no := shows(t), lacks(t)
	all := func(b *book, err error) map[string]func(time.Duration) (*book, error) {
		f := func(time.Duration) (*book, error) { return b, err }
		return map[string]func(time.Duration) (*book, error){ns1: f, ns2v4: f, ns2v6: f}
	}
	for _, tt := range []struct {
		name    string
		servers map[string]func(time.Duration) (*book, error)
		want    []string
	}{
		{"nobody shows it", all(no, nil), []string{"ns1.example.net (answers without it)", "ns2.example.net (answers without it)"}},
		{"nobody answers", all(nil, errors.New("no route to host")), []string{"ns1.example.net (", "no route to host"}},
		{"one of two", map[string]func(time.Duration) (*book, error){
			ns1:   func(time.Duration) (*book, error) { return yes, nil },
			ns2v4: func(time.Duration) (*book, error) { return no, nil }, ns2v6: func(time.Duration) (*book, error) { return no, nil },
		}, []string{"ns2.example.net (answers without it)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, tt.servers)
				err := f.watch(Propagation{Timeout: 30 * time.Second}, slog.New(slog.DiscardHandler)).wait(t.Context(), challenge, "value")
				wantError(t, err, append(tt.want, challenge, "after 30s", "propagation.timeout")...)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v is no deadline", err)
				}
				if took := time.Since(f.begun); took != 30*time.Second {
					t.Errorf("gave up after %s", took)
				}
			})
		})
	}
	t.Run("zone not found", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, nil)
			err := f.watch(Propagation{Timeout: 5 * time.Second}, slog.New(slog.DiscardHandler)).wait(t.Context(), "_acme-challenge.example.com", "value")
			wantError(t, err, "find the zone of _acme-challenge.example.com")
		})
	})
	t.Run("caller gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			w := newFleet(t, all(no, nil)).watch(Propagation{Delay: time.Hour, Timeout: time.Hour}, slog.New(slog.DiscardHandler))
			if err := w.wait(ctx, challenge, "value"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// Given resolvers are asked instead of the zone's servers, and a timeout of 0 asks nobody.
func TestWaitWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yes := shows(t)
		f := newFleet(t, map[string]func(time.Duration) (*book, error){
			"public.example:53": func(time.Duration) (*book, error) { return yes, nil },
		})
		w := f.watch(Propagation{Timeout: time.Minute, Resolvers: []string{"public.example"}}, slog.New(slog.DiscardHandler))
		if err := w.wait(t.Context(), challenge, "value"); err != nil {
			t.Fatal(err)
		}
		if f.counts["resolver:53"] != 0 || f.counts["public.example:53"] != 1 {
			t.Errorf("asked %v, want the given resolver alone, once", f.counts)
		}
		f = newFleet(t, nil)
		if err := f.watch(Propagation{Delay: 7 * time.Second}, slog.New(slog.DiscardHandler)).wait(t.Context(), challenge, "value"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(f.begun); took != 7*time.Second || len(f.counts) != 0 {
			t.Errorf("waited %s and asked %v, want the delay alone", took, f.counts)
		}
	})
}

// A server that is not authoritative for the zone (a lame delegation) does not count as one that lacks the record.
func TestShowsLame(t *testing.T) {
	no := lacks(t)
	r := newResolver(nil)
	r.ask = func(_ context.Context, _ string, m *miekg.Msg, server string) (*miekg.Msg, error) {
		reply := no.answer(m)
		reply.Authoritative = false
		if server == "refuses" {
			reply.Rcode = miekg.RcodeRefused
		}
		return reply, nil
	}
	w := &watch{resolver: r}
	for address, want := range map[string]string{"lame": "not authoritative", "refuses": "REFUSED"} {
		_, err := w.shows(t.Context(), server{name: "ns.", addresses: []string{address}}, challenge, "value")
		wantError(t, err, want)
	}
	_, err := w.shows(t.Context(), server{name: "ns."}, challenge, "value")
	wantError(t, err, "address cannot be found")
}
