package wforce

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A scribe is a Service that answers what it is told to and writes down what it is asked.
type scribe struct {
	status    atomic.Int64
	fails     atomic.Pointer[error]
	questions chan Question
	reports   chan reported
	resets    chan forgotten
}

type reported struct {
	q Question
	o Outcome
}

type forgotten struct {
	addr  netip.Addr
	login string
}

func newScribe() *scribe {
	return &scribe{questions: make(chan Question, 1000), reports: make(chan reported, 10000), resets: make(chan forgotten, 100)}
}

func (s *scribe) err() error {
	if e := s.fails.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *scribe) Allow(_ context.Context, q *Question) (int, error) {
	s.questions <- *q
	return int(s.status.Load()), s.err()
}

func (s *scribe) Report(_ context.Context, q *Question, o Outcome) error {
	s.reports <- reported{*q, o}
	return s.err()
}

func (s *scribe) Reset(_ context.Context, addr netip.Addr, login string) error {
	s.resets <- forgotten{addr, login}
	return s.err()
}

// asked gives what was asked for one login: before the password is checked, and after it where that was right.
func (s *scribe) asked(t *testing.T, twice bool) iter.Seq[Question] {
	return func(yield func(Question) bool) {
		times := 1
		if twice {
			times = 2
		}
		for range times {
			if !yield(next(t, s.questions)) {
				return
			}
		}
	}
}

func (s *scribe) reported(t *testing.T) reported { return next(t, s.reports) }

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("it was not asked")
		panic("unreachable")
	}
}

// secretFile is a file with a line.
func secretFile(t testing.TB, line string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// newTestServer serves s to who says s3cret or k3y.
func newTestServer(t testing.TB, s Service) http.Handler {
	t.Helper()
	srv := NewServer(s, nil, nil)
	c := DefaultServerConfig()
	c.PasswordFile, c.APIKeyFile = secretFile(t, "s3cret"), secretFile(t, "k3y")
	v, err := srv.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(v)
	return srv
}

// TestServe is the protocol as an asker sees it: what is done, what is refused, and in which words.
func TestServe(t *testing.T) {
	const login = `"login":"anna","remote":"192.0.2.7","pwhash":"0abc"`
	s := newScribe()
	h := newTestServer(t, s)
	for _, tt := range []struct {
		name, method, url, body string
		code                    int
		want                    string
	}{
		{"allow", "POST", "/command/allow", `{` + login + `}`, 200, `{"msg":"","r_attrs":{},"status":0}`},
		{"as Dovecot asks", "POST", "/?command=allow", `{` + login + `,"device_id":"","tls":"TLSv1.3","attrs":{"a":["b"]}}`, 200, `"status":0`},
		{"report", "POST", "/command/report", `{` + login + `,"success":true,"fail_type":"new"}`, 200, `{"status":"ok"}`},
		{"reset", "POST", "/command/reset", `{"ip":"::ffff:192.0.2.7","login":"anna"}`, 200, `{"status":"ok"}`},
		{"ping", "GET", "/?command=ping", ``, 200, `{"status":"ok"}`},
		{"ping by POST", "POST", "/command/ping", `{}`, 200, `{"status":"ok"}`},
		{"GET", "GET", "/command/allow", ``, 405, "by POST"},
		{"another command", "POST", "/command/addBLEntry", `{}`, 404, "popgate serves"},
		{"no command", "POST", "/", `{}`, 404, "popgate serves"},
		{"empty", "POST", "/command/allow", ``, 400, "no JSON object"},
		{"cut", "POST", "/command/allow", `{` + login, 400, "no JSON"},
		{"twice", "POST", "/command/allow", `{` + login + `,"login":"berta"}`, 400, "twice"},
		{"more", "POST", "/command/allow", `{` + login + `}{}`, 400, "more behind"},
		{"no login", "POST", "/command/allow", `{"remote":"192.0.2.7","pwhash":""}`, 400, "login is missing"},
		{"no pwhash", "POST", "/command/allow", `{"remote":"192.0.2.7","login":""}`, 400, "pwhash is missing"},
		{"no remote", "POST", "/command/allow", `{"login":"a","pwhash":""}`, 400, "remote is missing"},
		{"no address", "POST", "/command/allow", `{"login":"a","pwhash":"","remote":"mail.example.org"}`, 400, "no IP address"},
		{"a number", "POST", "/command/allow", `{"login":1,"pwhash":"","remote":"192.0.2.7"}`, 400, "login is no string"},
		{"long login", "POST", "/command/allow", `{"login":"` + strings.Repeat("x", 513) + `","pwhash":"","remote":"::1"}`, 400, "at most 512"},
		{"no success", "POST", "/command/report", `{` + login + `}`, 400, "success is missing"},
		{"success as text", "POST", "/command/report", `{` + login + `,"success":"true"}`, 400, "without quotes"},
		{"reset of nothing", "POST", "/command/reset", `{}`, 400, "are missing"},
		{"reset by ja3", "POST", "/command/reset", `{"login":"a","ja3":"b"}`, 400, "ja3"},
		{"too long", "POST", "/command/allow", `{"login":"` + strings.Repeat("x", maxRequest) + `"}`, 413, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.url, strings.NewReader(tt.body))
			r.SetBasicAuth("whoever", "s3cret")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, tt.code, tt.want)
			}
			if failed := strings.HasPrefix(w.Body.String(), `{"reason":`) && strings.Contains(w.Body.String(), `"status":"failure"`); failed != (tt.code != 200) {
				t.Errorf("got %s: that is not how weakforced says it", w.Body)
			}
		})
	}
	next(t, s.questions)
	if q := next(t, s.questions); !q.TLS || q.Login != "anna" {
		t.Errorf("Dovecot's question: got %+v", q)
	}
	if got := s.reported(t); !got.o.Success || got.o.FailType != FailNone {
		t.Errorf("the report: got %+v", got)
	}
	if got, want := next(t, s.resets), (forgotten{netip.MustParseAddr("192.0.2.7"), "anna"}); got != want {
		t.Errorf("the reset: got %+v, want %+v", got, want)
	}
	if len(s.questions)+len(s.reports)+len(s.resets) != 0 {
		t.Error("what was refused came through")
	}
}

// TestServeSecrets: nobody is served without a secret, not even before there is a configuration.
func TestServeSecrets(t *testing.T) {
	s := newScribe()
	h := newTestServer(t, s)
	onlyKey := NewServer(s, nil, nil)
	v, err := onlyKey.Prepare(ServerConfig{APIKeyFile: secretFile(t, "k3y"), APIKeyHeader: "X-Other"})
	if err != nil {
		t.Fatal(err)
	}
	onlyKey.Use(v)
	for _, tt := range []struct {
		name                  string
		h                     http.Handler
		header, key, password string
		want                  int
	}{
		{"password", h, "", "", "s3cret", 200},
		{"key", h, "X-Api-Key", "k3y", "", 200},
		{"right key, wrong password", h, "X-Api-Key", "k3y", "x", 200},
		{"nothing", h, "", "", "", 401},
		{"empty key", h, "X-Api-Key", "", "", 401},
		{"the one as the other", h, "X-Api-Key", "s3cret", "k3y", 401},
		{"longer", h, "X-Api-Key", "k3yk3y", "s3cret ", 401},
		{"another header", onlyKey, "X-Other", "k3y", "", 200},
		{"the usual header", onlyKey, "X-Api-Key", "k3y", "", 401},
		{"a password where there is none", onlyKey, "", "", "k3y", 401},
		{"before the first Use", NewServer(s, nil, nil), "X-Api-Key", "", "", 401},
	} {
		r := httptest.NewRequest("POST", "/command/ping", nil)
		if tt.header != "" {
			r.Header.Set(tt.header, tt.key)
		}
		if tt.password != "" {
			r.SetBasicAuth("u", tt.password)
		}
		w := httptest.NewRecorder()
		tt.h.ServeHTTP(w, r)
		if w.Code != tt.want || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: got %d, want %d", tt.name, w.Code, tt.want)
		}
	}
}

// TestServeFailure: what goes wrong here is for our log, and not for the asker.
func TestServeFailure(t *testing.T) {
	s := newScribe()
	var log bytes.Buffer
	srv := NewServer(s, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewPedanticRegistry())
	v, err := srv.Prepare(ServerConfig{PasswordFile: secretFile(t, "s3cret")})
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(v)
	broken := errors.New("Redis at 192.0.2.99 is away")
	s.fails.Store(&broken)
	for range 3 {
		r := httptest.NewRequest("POST", "/command/allow", strings.NewReader(`{"login":"a","pwhash":"","remote":"::1"}`))
		r.SetBasicAuth("u", "s3cret")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		if w.Code != 500 || strings.Contains(w.Body.String(), "Redis") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	if strings.Count(log.String(), "192.0.2.99") != 1 {
		t.Errorf("the log says:\n%s", &log)
	}
	if got := testutil.ToFloat64(srv.calls.WithLabelValues("allow", "500")); got != 3 {
		t.Errorf("got %v counted, want 3", got)
	}
}

// TestServeBusy: more than may be under way are told so at once.
func TestServeBusy(t *testing.T) {
	h := newTestServer(t, newScribe()).(*Server)
	for range maxServing {
		h.places <- struct{}{}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/command/ping", nil))
	if w.Code != 503 {
		t.Errorf("got %d, want 503", w.Code)
	}
}

// FuzzRequest: no body makes a question that breaks its bounds.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"login":"anna","remote":"192.0.2.7","pwhash":"0abc","success":false,"tls":true}`,
		`{"ip":"::1","login":null}`, `{"login":"\ud800","remote":"fe80::1%eth0","pwhash":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fs, err := parseRequest(body)
		if err != nil {
			return
		}
		if q, err := fs.question(); err == nil &&
			(!q.Addr.IsValid() || q.Addr.Is4In6() || q.Addr.Zone() != "" || len(q.Login) > maxLogin || len(q.PasswordHash) > maxWord) {
			t.Errorf("%q: %+v", body, q)
		}
		_, _ = fs.outcome()
		if addr, login, err := fs.reset(); err == nil && !addr.IsValid() && login == "" {
			t.Errorf("%q resets nothing", body)
		}
	})
}

// TestServeSlow: who sends its body drop by drop is answered all the same, and gives its place back.
func TestServeSlow(t *testing.T) {
	t.Parallel() // it lasts as long as a body may
	h := newTestServer(t, newScribe()).(*Server)
	web := httptest.NewServer(h)
	defer web.Close()
	c, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /command/allow HTTP/1.1\r\nHost: x\r\nX-API-Key: k3y\r\nContent-Length: 99\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 400 || !res.Close || len(h.places) != 0 {
		t.Errorf("got %d, to be closed %v, %d places taken; want 400, true, 0", res.StatusCode, res.Close, len(h.places))
	}
}

// TestServeReload: the new secret is in force, and the old one is not.
func TestServeReload(t *testing.T) {
	h := newTestServer(t, newScribe()).(*Server)
	v, err := h.Prepare(ServerConfig{PasswordFile: secretFile(t, "n3w")})
	if err != nil {
		t.Fatal(err)
	}
	h.Use(v)
	for password, want := range map[string]int{"s3cret": 401, "n3w": 200} {
		r := httptest.NewRequest("POST", "/command/ping", nil)
		r.SetBasicAuth("u", password)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", password, w.Code, want)
		}
	}
}
