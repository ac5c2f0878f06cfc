package wforce

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
)

func query(user, password string) *auth.Query {
	return &auth.Query{
		Name: auth.Name{Typed: user}, Secret: auth.NewSecret([]byte(password)), Session: "s1",
		Client: &auth.Client{Addr: netip.MustParseAddrPort("[::ffff:192.0.2.7]:4000"), TLS: &auth.TLS{}},
	}
}

// using is a View of c, in force, with a nonce where it has none.
func using(t testing.TB, k *Keeper, c Config) *View {
	t.Helper()
	if c.NonceFile == "" {
		c.NonceFile = secretFile(t, "nonce")
	}
	c.Validate(func(key, problem string) { t.Fatalf("%s %s", key, problem) })
	v, err := k.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	k.Use(v)
	t.Cleanup(v.http.CloseIdleConnections)
	return v
}

func configFor(url string) Config {
	c := DefaultConfig()
	c.URL, c.OnFailure, c.Timeout = url, Refuse, patience
	return c
}

// run runs k until the test ends or the func is called, which waits for its end.
func run(t *testing.T, k *Keeper) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := k.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// TestPasswordHash has the example that anybody can check: printf 'nonceuser\0pw' | sha256sum.
func TestPasswordHash(t *testing.T) {
	const whole = "ab0bd372408a299191961f89a24908c9652c19ad49bdd25b0deba3fae5fdd572"
	for bits, want := range map[int]string{
		8: whole[:2], 16: whole[:4], 32: whole[:8], 256: whole, 12: "0" + whole[:3], 4: "0" + whole[:1], 20: "0" + whole[:5],
	} {
		if got := passwordHash("nonce", "user", auth.NewSecret([]byte("pw")), bits); got != want {
			t.Errorf("%d bits: got %s, want %s", bits, got, want)
		}
	}
	if got := firstBits([]byte{0b10110011, 0b01000000}, 9); !bytes.Equal(got, []byte{1, 0b01100110}) {
		t.Errorf("9 bits: got %08b", got)
	}
}

// TestBothSides has our client ask our server, in both forms and with both secrets.
func TestBothSides(t *testing.T) {
	for _, form := range []Form{FormPath, FormQuery} {
		for _, key := range []bool{false, true} {
			t.Run(fmt.Sprint(form, key), func(t *testing.T) {
				s := newScribe()
				web := httptest.NewServer(newTestServer(t, s))
				defer web.Close()
				k := New(nil, prometheus.NewPedanticRegistry())
				c := configFor(web.URL + "/")
				c.Form = form
				if key {
					c.APIKeyFile = secretFile(t, "k3y")
				} else {
					c.PasswordFile = secretFile(t, "s3cret")
				}
				v := using(t, k, c)
				run(t, k)
				l := v.Login(query("Anna", "pw"))
				if err := l.Allow(t.Context()); err != nil {
					t.Fatalf("allow: %v", err)
				}
				want := Question{
					Login: "anna", Addr: netip.MustParseAddr("192.0.2.7"), Protocol: "pop3", Session: "s1", TLS: true,
					PasswordHash: passwordHash("nonce", "anna", auth.NewSecret([]byte("pw")), 12),
				}
				if got := next(t, s.questions); got != want {
					t.Errorf("asked: got %+v, want %+v", got, want)
				}
				o := Outcome{PolicyReject: true, FailType: FailCredentials}
				l.Report(o)
				if got := s.reported(t); got.q != want || got.o != o {
					t.Errorf("reported: got %+v, want %+v %+v", got, want, o)
				}
				s.status.Store(-1)
				if err := l.Allow(t.Context()); !errors.Is(err, ErrRefused) {
					t.Errorf("refused: got %v", err)
				}
			})
		}
	}
}

// A script is a server that does with each connection what its func says.
func script(t *testing.T, f func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// TestSilence: no server makes a login wait longer than it may, nor read without end, whatever it does.
func TestSilence(t *testing.T) {
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	say := func(text string, then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); then(c) }
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, url := range map[string]string{
		"hangs":              script(t, hang),
		"hangs in its head":  script(t, say("HTTP/1.1 200 OK\r\nContent-", hang)),
		"hangs in its body":  script(t, say("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"status\":0", hang)),
		"dies":               script(t, func(net.Conn) {}),
		"dies in its body":   script(t, say("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"status\":0", func(net.Conn) {})),
		"garbage":            script(t, say("\x00\xff+OK POP3 ready\r\n\r\n", hang)),
		"a head without end": script(t, func(c net.Conn) { _, _ = io.Copy(c, endless{}) }),
		"is not there":       "http://" + closed.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			k := New(slog.New(slog.NewTextHandler(&log, nil)), nil)
			c := configFor(url)
			c.Timeout = 200 * time.Millisecond
			v := using(t, k, c)
			for range downAfter {
				if err := k.Trouble(); err != nil {
					t.Errorf("too soon: %v", err)
				}
				if err := v.Login(query("anna", "pw")).Allow(t.Context()); !errors.Is(err, ErrDown) {
					t.Errorf("refuse: got %v, want %v", err, ErrDown)
				}
			}
			if k.Trouble() == nil || strings.Count(log.String(), "does not answer") != 1 {
				t.Errorf("trouble %v, log:\n%s", k.Trouble(), &log)
			}
			c.OnFailure = Allow
			if err := using(t, k, c).Login(query("anna", "pw")).Allow(t.Context()); err != nil {
				t.Errorf("allow: got %v", err)
			}
			if k.Trouble() == nil {
				t.Error("a reload made the server well")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	n := 0
	for _, part := range []string{"HTTP/1.1 200 OK\r\n", "X: "} {
		n += copy(p[n:], part)
	}
	for ; n < len(p); n++ {
		p[n] = 'x'
	}
	return n, nil
}

// TestCancelled: the client that leaves ends the question, and is no fault of the server's.
func TestCancelled(t *testing.T) {
	asked := make(chan struct{}, 10)
	url := script(t, func(c net.Conn) {
		for r := bufio.NewReader(c); ; { // a connection that a question did not use may carry the next one
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			asked <- struct{}{}
		}
	})
	k := New(nil, nil)
	c := configFor(url)
	c.OnFailure = Allow
	v := using(t, k, c)
	for range downAfter + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		if err := v.Login(query("anna", "pw")).Allow(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v: who left is not let in", err, context.Canceled)
		}
	}
	if err := k.Trouble(); err != nil {
		t.Error(err)
	}
}

// TestKeepAlive: one connection does for many questions, and one that the server has closed meanwhile hurts nobody.
func TestKeepAlive(t *testing.T) {
	var conns atomic.Int64
	s := newScribe()
	web := httptest.NewUnstartedServer(newTestServer(t, s))
	web.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	web.Start()
	defer web.Close()
	c := configFor(web.URL)
	c.PasswordFile = secretFile(t, "s3cret")
	v := using(t, New(nil, nil), c)
	for range 20 {
		if err := v.Login(query("anna", "pw")).Allow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("20 questions: got %d connections, want 1", got)
	}
	for range 20 {
		web.CloseClientConnections()
		if err := v.Login(query("anna", "pw")).Allow(t.Context()); err != nil {
			t.Fatalf("after the server closed the connection: %v", err)
		}
	}
}

// TestTLS: the certificate counts, and the secret goes to nobody else.
func TestTLS(t *testing.T) {
	s := newScribe()
	web := httptest.NewTLSServer(newTestServer(t, s))
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := configFor(web.URL)
	c.APIKeyFile = secretFile(t, "k3y")
	for _, tt := range []struct {
		ca, name string
		want     error
	}{{ca, "", nil}, {ca, "example.com", nil}, {ca, "example.org", ErrDown}, {"", "", ErrDown}} {
		c.TLSCA, c.TLSServerName = tt.ca, tt.name
		if err := using(t, New(nil, nil), c).Login(query("anna", "pw")).Allow(t.Context()); !errors.Is(err, tt.want) {
			t.Errorf("%+v: got %v, want %v", tt, err, tt.want)
		}
	}
}

// TestOff: without a URL nobody is asked, and nothing has to be.
func TestOff(t *testing.T) {
	k := New(nil, nil)
	v, err := k.Prepare(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	k.Use(v)
	for _, v := range []*View{v, nil} {
		l := v.Login(query("anna", "pw"))
		if err := l.Allow(t.Context()); err != nil {
			t.Error(err)
		}
		l.Report(Outcome{})
	}
	if k.Trouble() != nil || k.reports.len() != 0 {
		t.Error("something is to be done")
	}
}

func BenchmarkAllow(b *testing.B) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":0}`) }))
	defer web.Close()
	v, q := using(b, New(nil, nil), configFor(web.URL)), query("anna", "pw")
	b.ReportAllocs()
	for b.Loop() {
		if err := v.Login(q).Allow(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
