package wforce

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

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

// TestAnswers: what is no answer counts as a failure, whatever it has in it.
func TestAnswers(t *testing.T) {
	long := `{"status":0,"msg":"` + strings.Repeat("x", 10<<20) + `"}`
	for _, tt := range []struct {
		name string
		code int
		body string
		want error
	}{
		{"yes", 200, `{"status":0}`, nil},
		{"all of it", 202, ` {"status": 0, "msg": "m", "r_attrs": {"status": "-1", "a": ["b"]}} ` + "\n", nil},
		{"no", 200, `{"status":-1,"msg":"blocked"}`, ErrRefused},
		{"less than no", 200, `{"status":-7}`, ErrRefused},
		{"empty", 200, ``, ErrDown},
		{"nothing", 204, ``, ErrDown},
		{"no JSON", 200, `<html>status: 0`, ErrDown},
		{"cut", 200, `{"status":0`, ErrDown},
		{"two objects", 200, `{"status":0}{"status":-1}`, ErrDown},
		{"two of it", 200, `{"status":0,"status":-1}`, ErrDown},
		{"another case", 200, `{"Status":0}`, ErrDown},
		{"text", 200, `{"status":"0"}`, ErrDown},
		{"a fraction", 200, `{"status":0.5}`, ErrDown},
		{"an exponent", 200, `{"status":0e0}`, ErrDown},
		{"null", 200, `{"status":null}`, ErrDown},
		{"too large", 200, `{"status":99999999999999999999}`, ErrDown},
		{"an array", 200, `[{"status":0}]`, ErrDown},
		{"deep", 200, `{"a":` + strings.Repeat("[", 60000), ErrDown},
		{"a failure", 500, `{"status":"failure","reason":"no such thing"}`, ErrDown},
		{"unauthorized", 401, `{"status":0}`, ErrDown},
		{"elsewhere", 302, `{"status":0}`, ErrDown},
		{"ten megabytes", 200, long, ErrDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					t.Error("it went where it was sent to")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.code)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer web.Close()
			k := New(nil, nil)
			c := configFor(web.URL)
			err := using(t, k, c).Login(query("anna", "pw")).Allow(t.Context())
			if !errors.Is(err, tt.want) || len(fmt.Sprint(err)) > 500 {
				t.Errorf("refuse: got %v, want %v", err, tt.want)
			}
			c.OnFailure = Allow
			err = using(t, k, c).Login(query("anna", "pw")).Allow(t.Context())
			if want := tt.want; errors.Is(want, ErrDown) && err != nil || !errors.Is(want, ErrDown) && !errors.Is(err, want) {
				t.Errorf("allow: got %v", err)
			}
			if err := k.Trouble(); err != nil {
				t.Errorf("trouble: got %v: a server that answers is not down", err)
			}
		})
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

// TestWait: a pause is kept, and bounded.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &View{config: Config{MaxWait: 5 * time.Second}}
		for seconds, want := range map[int64]time.Duration{0: 0, 3: 3 * time.Second, 9: 5 * time.Second, 1 << 62: 5 * time.Second} {
			begin := time.Now()
			if err := v.wait(t.Context(), seconds); err != nil || time.Since(begin) != want {
				t.Errorf("%d: waited %s, %v, want %s", seconds, time.Since(begin), err, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := v.wait(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the client left: got %v", err)
		}
		begin := time.Now()
		v.config.MaxWait = 0
		if err := v.wait(t.Context(), 3); err != nil || time.Since(begin) != 0 {
			t.Errorf("off: waited %s, %v", time.Since(begin), err)
		}
	})
}

// TestHealth: one that is down is probed once a second by one login, and is well with its first answer.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, cause := &health{}, errors.New("hangs")
		for i := range downAfter {
			if err := h.ask(time.Now()); err != nil {
				t.Fatal(err)
			}
			if got, want := h.silent(cause, time.Now()), i == downAfter-1; got != want {
				t.Errorf("failure %d: down is %v", i+1, got)
			}
		}
		for range 3 {
			if err := h.ask(time.Now()); !errors.Is(err, cause) {
				t.Errorf("while down: got %v, want %v", err, cause)
			}
			<-time.After(probeEvery)
			if err := h.ask(time.Now()); err != nil {
				t.Errorf("a second later: got %v, want a probe", err)
			}
			if h.silent(cause, time.Now()) {
				t.Error("it went down twice")
			}
		}
		if !h.answered() || h.answered() || h.ask(time.Now()) != nil || h.trouble() != nil {
			t.Error("an answer does not make it well")
		}
	})
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

// TestReports: those that wait go out when popgate stops, and a server that is away for a while loses none.
func TestReports(t *testing.T) {
	s := newScribe()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	reg := prometheus.NewPedanticRegistry()
	k := New(nil, reg)
	c := configFor("http://" + addr)
	c.PasswordFile = secretFile(t, "s3cret")
	v := using(t, k, c)
	stop := run(t, k)
	for i := range 10 {
		v.Login(query(fmt.Sprint("early", i), "pw")).Report(Outcome{Success: true})
	}
	deadline := time.Now().Add(patience)
	for k.Trouble() == nil && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Skipf("somebody else has the port by now: %v", err)
	}
	web := &httptest.Server{Listener: l, Config: &http.Server{Handler: newTestServer(t, s)}}
	web.Start()
	defer web.Close()
	seen := map[string]int{}
	for range 10 {
		seen[s.reported(t).q.Login]++
	}
	for i := range 10 {
		v.Login(query(fmt.Sprint("late", i), "pw")).Report(Outcome{})
	}
	stop()
	for range 10 {
		seen[s.reported(t).q.Login]++
	}
	if len(seen) != 20 || len(s.reports) != 0 {
		t.Errorf("got %v, %d more, want 20 different ones", seen, len(s.reports))
	}
	v.Login(query("too late", "pw")).Report(Outcome{})
	if got := testutil.ToFloat64(k.metrics.lost); got != 1 {
		t.Errorf("got %v lost, want the one after the end", got)
	}
}

// TestReportsBounded: the oldest make room.
func TestReportsBounded(t *testing.T) {
	k := New(nil, nil)
	v := using(t, k, configFor("http://127.0.0.1:1"))
	for i := range maxReports + 10 {
		v.Login(query(fmt.Sprint(i), "pw")).Report(Outcome{})
	}
	if got := testutil.ToFloat64(k.metrics.lost); k.reports.len() != maxReports || got != 10 {
		t.Errorf("got %d waiting and %v lost, want %d and 10", k.reports.len(), got, maxReports)
	}
	for i := range maxReports {
		r, _ := k.reports.pop()
		var f told
		if err := json.Unmarshal(r.body, &f); err != nil || f.Login != fmt.Sprint(i+10) {
			t.Fatalf("report %d: got %s, %v", i, r.body, err)
		}
	}
	if _, ok := k.reports.pop(); ok {
		t.Error("there is more")
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

// FuzzAnswer holds the parser against encoding/json's.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"status":0}`, `{"status":-1,"msg":"x","r_attrs":{}}`, `{"status":"ok"}`, `{"status":1}x`, `{"a":{"status":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		status, err := parseAllow(text)
		var want struct {
			Status *json.Number `json:"status"`
		}
		plain := json.Unmarshal(text, &want)
		if err == nil && (plain != nil || want.Status == nil) {
			t.Errorf("%q: got %d, encoding/json says %v", text, status, plain)
		}
		if ok := parseOK(text); ok == nil && err == nil {
			t.Errorf("%q is an answer to both", text)
		}
	})
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
