package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/certs"
)

// fakeCerts answers with what a test gives it, and notes what it was asked.
type fakeCerts struct {
	list  []certs.Status
	err   error
	asked []string
}

func (f *fakeCerts) List(context.Context) ([]certs.Status, error) { return f.list, f.err }

func (f *fakeCerts) Renew(_ context.Context, name string) error {
	f.asked = append(f.asked, "renew "+name)
	return f.err
}

func (f *fakeCerts) Export(_ context.Context, name string) (cert, key []byte, err error) {
	f.asked = append(f.asked, "export "+name)
	if f.err != nil {
		return nil, nil, f.err
	}
	return []byte("cert of " + name + "\n"), []byte("key of " + name + "\n"), nil
}

// serveSocket serves c on a socket and returns a client of it.
func serveSocket(t *testing.T, c Certificates) (client *Client, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "popgate.sock")
	ln := listenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, SocketHandler(ServeCertificates(c)), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := Dial(context.Background(), path); !errors.Is(err, ErrNoGateway) {
			t.Errorf("after the end: got %v, want ErrNoGateway", err)
		}
	})
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return client, path
}

var _ Certificates = (*Client)(nil)

func TestCertsOverSocket(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fake := &fakeCerts{list: []certs.Status{
		{
			Name: "mail.example.org", Names: []string{"mail.example.org", "pop.example.org"}, Source: "acme", Issuer: "Let's Encrypt <E5>",
			KeyType: "p256", NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour), NextRenewal: now.Add(60 * 24 * time.Hour),
			LastError: "order refused", LastErrorAt: now.Add(time.Hour),
		},
		{Name: "*.example.net", Names: []string{"*.example.net"}, Source: "acme"},
	}}
	client, _ := serveSocket(t, fake)
	got, err := client.List(t.Context())
	if err != nil || !reflect.DeepEqual(got, fake.list) {
		t.Errorf("List: got %+v, %v, want %+v", got, err, fake.list)
	}
	// Names go through a URL; none of them may become another.
	names := []string{"mail.example.org", "*.example.net", "2001:db8::1", "a/b", "a%2Fb", "a b?c#d"}
	var want []string
	for _, name := range names {
		if err := client.Renew(t.Context(), name); err != nil {
			t.Errorf("Renew %s: %v", name, err)
		}
		cert, key, err := client.Export(t.Context(), name)
		if string(cert) != "cert of "+name+"\n" || string(key) != "key of "+name+"\n" || err != nil {
			t.Errorf("Export %s: got %q, %q, %v", name, cert, key, err)
		}
		want = append(want, "renew "+name, "export "+name)
	}
	if !slices.Equal(fake.asked, want) {
		t.Errorf("got %q, want %q", fake.asked, want)
	}
}

func TestCertsRefused(t *testing.T) {
	fake := &fakeCerts{err: errors.New(`order "mail.example.org": rate limited <until noon>`)}
	client, path := serveSocket(t, fake)
	_, listErr := client.List(t.Context())
	_, _, exportErr := client.Export(t.Context(), "x")
	for _, err := range []error{listErr, client.Renew(t.Context(), "x"), exportErr} {
		if err == nil || err.Error() != fake.err.Error() {
			t.Errorf("got %v, want the gateway's own words: %v", err, fake.err)
		}
	}
	for _, tt := range []struct {
		err          error
		method, path string
		code         int
	}{
		{certs.ErrUnknownName, "POST", "/v1/certs/mail.example.org/renew", 404},
		{certs.ErrUnknownName, "POST", "/v1/certs/mail.example.org/export", 404},
		{certs.ErrNotManaged, "POST", "/v1/certs/mail.example.org/renew", 409},
		{fs.ErrPermission, "GET", "/v1/certs", 500},
		{nil, "GET", "/v1/certs/mail.example.org/export", 405}, // a key is handed out to those who mean it
		{nil, "GET", "/v1/certs/mail.example.org/renew", 405},
		{nil, "POST", "/v1/certs", 405},
		{nil, "GET", "/metrics", 404},
		{nil, "GET", "/", 404},
	} {
		fake.err = fmt.Errorf("mail.example.org: %w", tt.err)
		if code, body := request(t, path, tt.method, tt.path); code != tt.code {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.path, code, body, tt.code)
		}
	}
}

// request asks without a Client.
func request(t *testing.T, socket, method, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://popgate"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// A renewal may take longer than any other answer; who asked can leave, and the order hears of it.
func TestRenewEndsWithClient(t *testing.T) {
	slow := slowCerts{fakeCerts: &fakeCerts{}, began: make(chan struct{}), ended: make(chan struct{})}
	client, _ := serveSocket(t, slow)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Renew(ctx, "mail.example.org") }()
	<-slow.began
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	<-slow.ended
}

type slowCerts struct {
	*fakeCerts
	began, ended chan struct{}
}

func (s slowCerts) Renew(ctx context.Context, _ string) error {
	close(s.began)
	<-ctx.Done()
	close(s.ended)
	return ctx.Err()
}

func TestDialNobody(t *testing.T) {
	folder := t.TempDir()
	if _, err := Dial(t.Context(), filepath.Join(folder, "none.sock")); !errors.Is(err, ErrNoGateway) || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("got %v, want ErrNoGateway with the path", err)
	}
	stale := filepath.Join(folder, "stale.sock")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close()
	if _, err := Dial(t.Context(), stale); !errors.Is(err, ErrNoGateway) {
		t.Errorf("a stale socket: got %v, want ErrNoGateway", err)
	}
	if _, err := Dial(t.Context(), filepath.Join(folder, strings.Repeat("x", 300))); err == nil || errors.Is(err, ErrNoGateway) {
		t.Errorf("an impossible path: got %v, want another error than ErrNoGateway", err)
	}
}

// Something else may answer on the socket.
func TestClientOfAnotherServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "popgate.sock")
	srv := &http.Server{Handler: http.NotFoundHandler()}
	ln := listenAt(t, path)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.List(t.Context()); err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want the status and the path", err)
	}
}
