package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy/backend"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come, in the time of a bubble longer than any limit. No test that
// passes waits for it.
const patience = 20 * time.Second

func until() time.Duration {
	if time.Now().Year() == 2000 { // in a synctest bubble
		return 24 * time.Hour
	}
	return patience
}

// certificate is the gateway's, for localhost, valid in the time of a synctest bubble too.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// clientTLS is what clients of the tests use.
func clientTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(certificate().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// routes sends example.org to the backend "old", has a backend for nobody else, and fails for example.edu.
type routes struct{}

func (routes) Route(_ context.Context, q auth.Query) (auth.Route, error) {
	switch q.Name.Domain {
	case "example.org":
		return auth.Route{
			Label: "routes[0]", Backend: "old", Tenant: "example", Account: q.Name.Key,
			Login: auth.BackendLogin{User: q.Name.Typed},
		}, nil
	case "example.com":
		return auth.Route{Label: "routes[1]", Backend: "nowhere", Account: q.Name.Key, Login: auth.BackendLogin{User: q.Name.Typed}}, nil
	case "example.edu":
		return auth.Route{}, errors.New("the directory is down")
	}
	return auth.Route{}, auth.ErrUnknownUser
}

func (routes) Refresh(auth.Query, *auth.Route) {}

// settings are what a test may change before its gateway starts.
type settings struct {
	listener ListenerConfig
	limits   policy.Config
	lockout  lockout.Config
	access   access.Config
	backend  backend.Config
	more     []backend.Config // beside it
	timeouts Timeouts
	bounds   Bounds
	router   Router
	recorder Recorder
	registry prometheus.Registerer
	delay    time.Duration
	tls      func(*tls.Config)
}

// defaults have one server as backend, and refusals that leave at once.
func defaults(server string) *settings {
	s := &settings{
		listener: DefaultListener(),
		backend:  backend.DefaultConfig(),
		timeouts: DefaultTimeouts(),
		bounds:   DefaultBounds(),
		router:   routes{},
		tls:      func(*tls.Config) {},
	}
	s.bounds.AcceptRamp = 0 // a test is no start of a gateway, though it may be one of thousands of clients
	s.listener.Name, s.listener.Address = "pop3s", "here"
	s.backend.Name = "old"
	s.backend.Servers = []backend.ServerConfig{{Address: server, Weight: 1}}
	return s
}

// A rig is a gateway under test.
type rig struct {
	t     testing.TB
	gw    *Gateway
	snap  *Snapshot
	audit *book
	log   *logBook
	addr  string // where it listens; "" in a bubble
}

// newRig makes a gateway that listens nowhere. It is closed with the test.
func newRig(t testing.TB, s *settings) *rig {
	t.Helper()
	r := &rig{t: t, audit: newBook(), log: newLogBook()}
	if s.recorder == nil {
		s.recorder = r.audit
	}
	view, err := backend.New(nil, nil).Prepare(append([]backend.Config{s.backend}, s.more...))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := policy.New(policy.Options{}).Prepare(policy.Parts{Limits: s.limits, Lockout: s.lockout, Access: s.access})
	if err != nil {
		t.Fatal(err)
	}
	r.gw = New(s.recorder, slog.New(r.log), s.registry)
	c := &tls.Config{
		Certificates: []tls.Certificate{certificate()},
		NextProtos:   []string{"pop3"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, r.gw.Hello(h)
		},
	}
	s.tls(c)
	if s.listener.TLS == TLSOffloaded {
		c = nil
	}
	r.snap = &Snapshot{
		Listeners:    []Listener{{ListenerConfig: s.listener, TLSConfig: c}},
		Router:       s.router,
		Gate:         gate,
		Backends:     view,
		Timeouts:     s.timeouts,
		Bounds:       s.bounds,
		FailureDelay: s.delay,
	}
	r.gw.Apply(r.snap)
	return r
}

// start makes a gateway that listens on loopback, with server as its backend, and ends it with the test.
func start(t testing.TB, server string, changes ...func(*settings)) *rig {
	t.Helper()
	s := defaults(server)
	for _, change := range changes {
		change(s)
	}
	r := newRig(t, s)
	r.listen("127.0.0.1:0")
	return r
}

func (r *rig) listen(address string) {
	r.t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.gw.Serve(context.Background(), ln, "here") }()
	r.t.Cleanup(func() {
		r.gw.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			r.t.Errorf("Serve: %v, want ErrServerClosed", err)
		}
	})
}

// A book is a Recorder that the test reads.
type book struct {
	events  chan audit.Event
	refused chan audit.Refusal
	hook    func(*audit.Event) error // what Record does before it returns; nil is nothing
}

func newBook() *book {
	return &book{events: make(chan audit.Event, 1<<14), refused: make(chan audit.Refusal, 1<<10)}
}

func (b *book) Record(_ context.Context, e *audit.Event) error {
	b.events <- *e
	if b.hook != nil {
		return b.hook(e)
	}
	return nil
}

func (b *book) Post(e *audit.Event) {
	if e.Name != audit.SessionOpened {
		b.events <- *e
	}
}

func (b *book) Refused(r audit.Refusal) {
	b.refused <- r
}

// next is the next record of a login or a session's end.
func (r *rig) next() audit.Event {
	r.t.Helper()
	return receive(r.t, r.audit.events, "an audit record")
}

// closed is the next record, which must be of a session's end.
func (r *rig) closed(reason audit.Reason) audit.Event {
	r.t.Helper()
	e := r.next()
	if e.Name != audit.SessionClosed || e.Reason != reason {
		r.t.Fatalf("record %s %s, want %s %s", e.Name, e.Reason, audit.SessionClosed, reason)
	}
	return e
}

func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(until()):
		t.Fatalf("%s did not come", what)
		panic("not reached")
	}
}

// A logBook keeps the log's lines.
type logBook struct {
	mu    sync.Mutex
	lines []string
	news  chan struct{} // closed by the next line
}

func newLogBook() *logBook { return &logBook{news: make(chan struct{})} }

func (*logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler     { return b }
func (b *logBook) WithGroup(string) slog.Handler          { return b }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	close(b.news)
	b.news = make(chan struct{})
	return nil
}

// has waits for a line with all of parts.
func (b *logBook) has(t testing.TB, parts ...string) {
	t.Helper()
	for late := time.After(patience); ; {
		b.mu.Lock()
		lines, news := b.lines, b.news
		b.mu.Unlock()
	next:
		for _, line := range lines {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue next
				}
			}
			return
		}
		select {
		case <-news:
		case <-late:
			t.Fatalf("the log has no line with %q:\n%s", parts, strings.Join(lines, "\n"))
		}
	}
}
