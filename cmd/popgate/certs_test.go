package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/admin"
	"github.com/popgate/popgate/proxy/certs"
)

func TestCertsTable(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.Add(time.Duration(n) * 24 * time.Hour) }
	var b strings.Builder
	err := certsTable(&b, []certs.Status{
		{
			Name: "mail.example.org", Names: []string{"mail.example.org"}, Source: "acme", Issuer: "Let's Encrypt E5", KeyType: "ECDSA P-256",
			NotAfter: day(89).Add(23 * time.Hour), NextRenewal: day(60),
		},
		{Name: "mail.example.net", Source: "acme", NextRenewal: now.Add(time.Hour), LastError: "order:\n\tno \x1b[31maddress\x07", LastErrorAt: now},
		{Name: "old.example.com", Names: []string{"old.example.com", "a", "b"}, Source: "file", Issuer: "bücher CA", KeyType: "RSA 2048", NotAfter: now.Add(-time.Minute)},
		{Source: "file", LastError: "read it:\nno", LastErrorAt: time.Time{}},
		{Name: "today.example.com", Names: []string{"today.example.com"}, Source: "local", NotAfter: now.Add(time.Minute)},
	}, now)
	want := `
NAME                  SOURCE  ISSUER            KEY          DAYS LEFT  RENEWAL           LAST ERROR
mail.example.org      acme    Let's Encrypt E5  ECDSA P-256  89         2026-04-30 12:00  -
mail.example.net      acme    -                 -            -          2026-03-01 13:00  2026-03-01 12:00: order: no [31maddress
old.example.com (+2)  file    bücher CA         RSA 2048     -1         -                 -
-                     file    -                 -            -          -                 read it: no
today.example.com     local   -                 -            0          -                 -
`
	if got := "\n" + b.String(); got != want || err != nil {
		t.Errorf("got %v%s\nwant%s", err, got, want)
	}
}

func TestCertsJSON(t *testing.T) {
	var b strings.Builder
	if err := certsJSON(&b, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("no certificates: got %q, %v, want []", b.String(), err)
	}
	b.Reset()
	if err := certsJSON(&b, []certs.Status{{Name: "mail.example.org", Source: "acme", LastError: "x"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name": "mail.example.org"`, `"last_error": "x"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s in it", b.String(), want)
		}
	}
	if strings.Contains(b.String(), "0001") {
		t.Errorf("got %s, want no times that are none", b.String())
	}
}

func TestWritePair(t *testing.T) {
	made := t.TempDir()
	if _, err := writeCertificates(made); err != nil {
		t.Fatal(err)
	}
	cert, key := []byte(readText(t, filepath.Join(made, "cert.pem"))), []byte(readText(t, filepath.Join(made, "key.pem")))
	dir := filepath.Join(t.TempDir(), "new", "folder")
	files, err := writePair(dir, "*.example.org", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		file string
		data []byte
	}{{"_.example.org.crt", cert}, {"_.example.org.key", key}} {
		if files[i] != filepath.Join(dir, want.file) || readText(t, files[i]) != string(want.data) {
			t.Errorf("got %s, want %s with what was given", files[i], want.file)
		}
	}
	// A key is for its owner, also where a file that all could read stood in its place.
	if err := os.Chmod(files[1], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := writePair(dir, "*.example.org", cert, key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(files[1]); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("got %v, %v in the folder, want the two files", left, err)
	}
}

func TestWritePairRefuses(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, other} {
		if _, err := writeCertificates(dir); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := []byte(readText(t, filepath.Join(one, "cert.pem"))), []byte(readText(t, filepath.Join(one, "key.pem")))
	stranger := []byte(readText(t, filepath.Join(other, "key.pem")))
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := writePair(dir, "mail.example.org", cert, stranger); err == nil {
		t.Error("wrote a certificate with the key of another")
	}
	for _, name := range []string{"", "..", "../mail.example.org", "a/b", "/etc/x"} {
		if files, err := writePair(dir, name, cert, key); err == nil {
			t.Errorf("name %q: wrote %q", name, files)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want nothing written", err)
	}
}

// A gateway that may not be asked is not the same as none; one that answers counts for more than both.
func TestDialAny(t *testing.T) {
	folder := t.TempDir()
	none, odd, live := filepath.Join(folder, "none"), filepath.Join(folder, strings.Repeat("x", 200)), filepath.Join(folder, "live")
	if _, err := dialAny(t.Context(), []string{none}); !errors.Is(err, admin.ErrNoGateway) {
		t.Errorf("got %v, want ErrNoGateway", err)
	}
	if _, err := dialAny(t.Context(), []string{none, odd, none}); err == nil || errors.Is(err, admin.ErrNoGateway) {
		t.Errorf("got %v, want the fault that is not ErrNoGateway", err)
	}
	ln, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := dialAny(t.Context(), []string{odd, none, live}); err != nil {
		t.Errorf("got %v, want the gateway that answers", err)
	}
}

func TestCertsCommandFaults(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	for _, tt := range []struct{ args, want string }{
		{"certs --socket /nonexistent/popgate.sock", "/nonexistent/popgate.sock: no gateway answers there; say with --config FILE or --state-dir DIR"},
		{"certs --socket x --state-dir y", "none of the others can be"},
		{"certs -c x --socket y", "none of the others can be"},
		{"certs -c /nonexistent.yaml", "/nonexistent.yaml"},
		{"certs renew", "accepts 1 arg"},
		{"certs export mail.example.org", "accepts 2 arg"},
		{"certs renwe mail.example.org", "unknown command"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), tt.want) || stdout.Len() > 0 {
			t.Errorf("%s: got %d, %q, %q, want %q", tt.args, code, &stdout, &stderr, tt.want)
		}
	}
}
