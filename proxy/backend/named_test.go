package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func at(address, mode string) *Request {
	req := request()
	req.Server = auth.Server{Address: address, TLS: mode}
	return req
}

// TestNamedServer holds that a login goes where the directory says, and nowhere else.
func TestNamedServer(t *testing.T) {
	own, other := script(loginScript), script(loginScript)
	p := pool(t, config(own.listen(t)))
	c, err := p.Login(t.Context(), at(other.listen(t), ""))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if own.seen() != 0 || other.seen() != 1 {
		t.Errorf("%d connections to the backend's own server and %d to the named one, want 0 and 1", own.seen(), other.seen())
	}
	gone := script("close")
	_, err = p.Login(t.Context(), at(gone.listen(t), ""))
	refused(t, err, Down)
	if own.seen() != 0 {
		t.Error("a login whose server is down went to one that does not have the mailbox")
	}
}

func TestNamedServerWrong(t *testing.T) {
	p := pool(t, config("10.0.0.1"))
	for _, req := range []*Request{at("10.0.0.5:pop3", ""), at("a b", ""), at("10.0.0.5", "ssl")} {
		_, err := p.Login(t.Context(), req)
		refused(t, err, Down)
		if !strings.Contains(err.Error(), "directory") {
			t.Errorf("%v: got %v, want who is to blame", req.Server, err)
		}
	}
}

// TestNamedIsConfigured holds that a named server that the backend has already is that one, unless TLS differs.
func TestNamedIsConfigured(t *testing.T) {
	p := pool(t, config("10.0.0.1", "mail.example.org"))
	for _, tt := range []struct {
		server auth.Server
		want   *member
	}{
		{auth.Server{Address: "10.0.0.1:110"}, p.members[0]},
		{auth.Server{Address: "MAIL.example.org", TLS: TLSNone}, p.members[1]},
		{auth.Server{Address: "10.0.0.1:110", TLS: TLSStart}, nil},
		{auth.Server{Address: "10.0.0.2"}, nil},
	} {
		m, err := p.named(tt.server)
		if err != nil || tt.want != nil && m != tt.want || tt.want == nil && (m == p.members[0] || m == p.members[1]) {
			t.Errorf("%v: got %v, %v", tt.server, m, err)
		}
	}
}

// TestNamedTLS holds that TLS starts where the directory says, with the backend's settings.
func TestNamedTLS(t *testing.T) {
	ca := newCA(t, ecKey(t), "mail.example.org")
	address := ca.secured(t, "S: +OK\nC: STLS\nS: +OK\nTLS\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: +OK")
	c := config("10.0.0.1")
	c.TLS, c.TLSCA, c.TLSServerName = TLSImplicit, ca.file, "mail.example.org"
	p := pool(t, c)
	for range 2 {
		conn, err := p.Login(t.Context(), at(address, TLSStart))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// TestNamedBounded holds that a directory that names ever new servers does not fill the memory, and that the one that
// was used last is still known.
func TestNamedBounded(t *testing.T) {
	b := New(nil, nil)
	p := use(t, b, config("10.0.0.1")).Pool("old")
	kept, err := p.named(auth.Server{Address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxGuests {
		if _, err := p.named(auth.Server{Address: fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255)}); err != nil {
			t.Fatal(err)
		}
		if m, _ := p.named(auth.Server{Address: "192.0.2.1"}); m != kept {
			t.Fatal("the server that is used all the time was forgotten")
		}
	}
	if n := len(b.guests.byID); n != maxGuests || b.guests.byUse.Len() != n {
		t.Errorf("%d are remembered, want %d", n, maxGuests)
	}
}

// TestNamedHealth holds that a named server is checked like others, that what is known of it outlives a reload, and that
// it is forgotten when nobody logs in there for long.
func TestNamedHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		b, v := running(t, func(a address) (net.Conn, error) {
			if a.host == "new.example.org" {
				checks.Add(1)
				return answer(t, capaScript), nil
			}
			return nil, errors.New("no route to host")
		}, config("mail.example.org"))
		m, err := v.Pool("old").named(auth.Server{Address: "new.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if checks.Load() != 1 || !m.server.capabilities().Has("PIPELINING") {
			t.Errorf("%d checks, capabilities %q", checks.Load(), m.server.capabilities())
		}
		next := use(t, b, config("mail.example.org"))
		again, err := next.Pool("old").named(auth.Server{Address: "new.example.org"})
		if err != nil || again.server != m.server {
			t.Errorf("after a reload: got %v, %v, want the same server", again, err)
		}
		<-time.After(2 * guestIdle)
		synctest.Wait()
		if len(b.guests.byID) != 0 {
			t.Error("a server that nobody uses is remembered for ever")
		}
		n := checks.Load()
		<-time.After(2 * guestIdle)
		synctest.Wait()
		if checks.Load() != n {
			t.Error("a server that is forgotten is still checked")
		}
	})
}

// TestNamedForgotten holds that a reload that drops a backend drops its named servers.
func TestNamedForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := running(t, func(address) (net.Conn, error) { return answer(t, capaScript), nil }, config("mail.example.org"))
		if _, err := v.Pool("old").named(auth.Server{Address: "new.example.org"}); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		other := config("mail.example.org")
		other.Name = "other"
		use(t, b, other)
		synctest.Wait()
		if len(b.guests.byID) != 0 || len(b.guests.counts) != 0 {
			t.Error("a server of a backend that is no more is still remembered")
		}
	})
}

// TestNamedMetrics holds that however many servers a directory names, a backend has one series for them.
func TestNamedMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	b := New(nil, reg)
	p := use(t, b, config("10.0.0.1")).Pool("old")
	b.dial = func(context.Context, *dialer, address) (net.Conn, error) { return nil, errors.New("no route to host") }
	for i := range 20 {
		_, err := p.Login(t.Context(), at(fmt.Sprintf("192.0.2.%d", i), ""))
		refused(t, err, Down)
	}
	want := `
# HELP popgate_backend_connects_total Connections opened to the server, up to its greeting, by how that ended.
# TYPE popgate_backend_connects_total counter
`
	for _, s := range []string{"10.0.0.1:110", "directory"} {
		for _, r := range []string{"connect", "greeting", "local", "ok", "timeout", "tls"} {
			n := 0
			if s == "directory" && r == "connect" {
				n = 20
			}
			want += fmt.Sprintf("popgate_backend_connects_total{backend=\"old\",result=%q,server=%q} %d\n", r, s, n)
		}
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_backend_connects_total"); err != nil {
		t.Error(err)
	}
}

// TestNamedBehindReload holds that a login from before a reload that dropped its backend, or changed it, can go where a
// directory says, leaves nothing behind, and does not bring old limits back.
func TestNamedBehindReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("mail.example.org")
		c.LoginsPerSecond = 5
		b, v := running(t, func(address) (net.Conn, error) { return nil, errors.New("no route to host") }, c)
		logIn := func(p *Pool, address string) {
			t.Helper()
			_, err := p.Login(t.Context(), at(address, ""))
			refused(t, err, Down)
		}
		logIn(v.Pool("old"), "new.example.org")
		c.LoginsPerSecond = 7
		next := use(t, b, c)
		synctest.Wait()
		for _, p := range []*Pool{next.Pool("old"), v.Pool("old")} {
			logIn(p, "new.example.org")
			if m := b.guests.of("old")[0]; m.pacer.PerSecond() != 7 || m.server.pacer != m.pacer {
				t.Errorf("the pace is %d, want the new one", m.pacer.PerSecond())
			}
		}
		c.Name = "other"
		use(t, b, c)
		synctest.Wait()
		logIn(next.Pool("old"), "late.example.org")
		<-time.After(time.Minute)
		synctest.Wait()
		if len(b.guests.byID) != 0 || len(b.guests.counts) != 0 {
			t.Error("a server of a backend that is no more is remembered")
		}
	})
}

// TestNamedAtOnce has logins of two views name servers while views change; it is for the race detector.
func TestNamedAtOnce(t *testing.T) {
	b, v := running(t, func(address) (net.Conn, error) { return nil, errors.New("no route to host") }, config("10.0.0.1"))
	var logins sync.WaitGroup
	for range 20 {
		next := use(t, b, config("10.0.0.1"))
		for _, p := range []*Pool{v.Pool("old"), next.Pool("old")} {
			logins.Go(func() {
				for i := range 20 {
					_, _ = p.Login(t.Context(), at(fmt.Sprintf("192.0.2.%d", i), ""))
				}
			})
		}
		v = next
	}
	logins.Wait()
}
