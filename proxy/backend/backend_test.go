package backend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// A scripted server answers each connection by a script, and fails the test when a client says something else.
// A script has lines:
//
//	S: text      sends text and CRLF
//	S* "text"    sends text, a Go string, as it is
//	S1 "text"    the same, an octet a write
//	C: text      takes a line, which must be text
//	TLS          becomes a TLS server
//	hang         waits until the client goes
//
// At its end the server waits for the client to go, and takes what it still says, but with "close" as the last line
// goes itself.
type scripted struct {
	t      testing.TB
	script []string
	// header takes what comes before the script, such as a PROXY header.
	header func(*bufio.Reader)
	secure func(net.Conn) net.Conn

	mu    sync.Mutex
	conns int
	rest  []byte
}

func script(lines string) *scripted {
	return &scripted{script: strings.Split(strings.TrimSpace(lines), "\n")}
}

// listen starts the server on a loopback address, and stops it with the test.
func (s *scripted) listen(t testing.TB) string {
	t.Helper()
	s.t = t
	return listen(t, s.serve)
}

// listen has serve answer at an address, until the test ends. Connections are served at once.
func listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func (s *scripted) serve(c net.Conn) {
	defer func() { c.Close() }()
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	r := bufio.NewReader(c)
	if s.header != nil {
		s.header(r)
	}
	for _, line := range s.script {
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "S:":
			_, _ = io.WriteString(c, arg+"\r\n")
		case "S*":
			_, _ = io.WriteString(c, s.unquote(arg))
		case "S1":
			for _, b := range []byte(s.unquote(arg)) {
				_, _ = c.Write([]byte{b})
			}
		case "C:":
			got, err := r.ReadString('\n')
			if err != nil {
				return // what the client saw is the test's business
			}
			if got != arg+"\r\n" {
				s.t.Errorf("server: got %q, want %q", got, arg)
				return
			}
		case "TLS":
			c = s.secure(c)
			r = bufio.NewReader(c)
		case "close":
			return
		case "hang":
		default:
			s.t.Errorf("server: no such line: %q", line)
		}
	}
	rest, _ := io.ReadAll(r)
	s.mu.Lock()
	s.rest = append(s.rest, rest...)
	s.mu.Unlock()
}

func (s *scripted) unquote(arg string) string {
	text, err := strconv.Unquote(arg)
	if err != nil {
		s.t.Errorf("server: %q: %v", arg, err)
	}
	return text
}

func (s *scripted) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// remainder is what clients said behind the script, once they are gone.
func (s *scripted) remainder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.rest)
}

// loginScript is a script of a login that succeeds.
const loginScript = `
	S: +OK ready
	C: USER alice@example.org
	S: +OK
	C: PASS secret
	S: +OK logged in`

// config is a backend with the default settings.
func config(addresses ...string) Config {
	c := DefaultConfig()
	c.Name = "old"
	for _, a := range addresses {
		s := DefaultServerConfig()
		s.Address = a
		c.Servers = append(c.Servers, s)
	}
	return c
}

func use(t testing.TB, b *Backends, configs ...Config) *View {
	t.Helper()
	v, err := b.Prepare(configs)
	if err != nil {
		t.Fatal(err)
	}
	b.Use(v)
	return v
}

// pool makes a pool of one config, with everything fresh.
func pool(t testing.TB, c Config) *Pool {
	t.Helper()
	return use(t, New(nil, nil), c).Pool(c.Name)
}

func request() *Request {
	return &Request{
		Client: &auth.Client{
			Addr:  netip.MustParseAddrPort("192.0.2.7:50123"),
			Local: netip.MustParseAddrPort("192.0.2.1:995"),
			TLS:   &auth.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "mail.example.org"},
		},
		Session: "s3ss10n",
		Account: "alice@example.org",
		Login:   auth.BackendLogin{User: "alice@example.org", Secret: auth.NewSecret([]byte("secret"))},
	}
}

// login logs in with the usual request and closes a connection with the test.
func login(t testing.TB, p *Pool) (*Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	c, err := p.Login(ctx, request())
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// refused makes sure that err is an *Error of a kind, and returns its step.
func refused(t testing.TB, err error, kind Kind) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if e.Kind != kind {
		t.Fatalf("got the kind %q (%v), want %q", e.Kind, e, kind)
	}
	return e.Step
}

// A logBuffer is a log to look into.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func logger() (*slog.Logger, *logBuffer) {
	b := &logBuffer{}
	return slog.New(slog.NewTextHandler(b, nil)), b
}
