package certs

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestProblems holds what an operator reads when files are wrong: the key's path, the file, what to do.
func TestProblems(t *testing.T) {
	dir := t.TempDir()
	certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
	otherPEM, otherKey := pemPair(nil, nil, "other.example.org")
	good := put(t, dir, "good", certPEM, keyPEM)
	other := put(t, dir, "other", otherPEM, otherKey)
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		write(t, path, data)
		return path
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	der, _ := pem.Decode(certPEM)
	missing := filepath.Join(dir, "missing.pem")

	for _, tt := range []struct {
		name  string
		files Files
		key   string
		says  []string
	}{
		{"no such certificate", Files{missing, good.Key}, "cert", []string{missing, "no such file", "correct the path"}},
		{"no such key", Files{good.Cert, missing}, "key", []string{missing, "no such file", "correct the path"}},
		{"directory", Files{dir, good.Key}, "cert", []string{dir, "is a directory", "the file in it"}},
		{"device", Files{"/dev/zero", good.Key}, "cert", []string{"/dev/zero", "ordinary file"}},
		{"huge", Files{file("huge", make([]byte, maxFile+1)), good.Key}, "cert", []string{"huge", "1 MiB"}},
		{"exchanged", Files{good.Key, good.Key}, "cert", []string{good.Key, "no certificate", "exchanged"}},
		{"exchanged key", Files{good.Cert, good.Cert}, "key", []string{good.Cert, "no private key", "exchanged"}},
		{"der", Files{file("mail.der", der.Bytes), good.Key}, "cert", []string{"mail.der", "openssl x509 -inform der"}},
		{"request", Files{file("csr", block("CERTIFICATE REQUEST", []byte("x"))), good.Key}, "cert", []string{"csr", "request"}},
		{"empty", Files{file("empty", nil), good.Key}, "cert", []string{"empty", "BEGIN CERTIFICATE"}},
		{"empty key", Files{good.Cert, file("empty", nil)}, "key", []string{"empty", "BEGIN PRIVATE KEY"}},
		{"damaged", Files{file("bad", block("CERTIFICATE", []byte("x"))), good.Key}, "cert", []string{"bad", "damaged"}},
		{"passphrase", Files{good.Cert, file("locked", block("ENCRYPTED PRIVATE KEY", []byte("x")))}, "key",
			[]string{"locked", "passphrase", "openssl pkey"}},
		{"old passphrase", Files{good.Cert, file("old", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY",
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")}))}, "key", []string{"old", "passphrase"}},
		{"another's key", Files{good.Cert, other.Key}, "key", []string{good.Cert, other.Key, "issued for"}},
		{"intermediate first", Files{file("turned", append(otherPEM[:len(otherPEM):len(otherPEM)], certPEM...)), good.Key}, "cert",
			[]string{"turned", good.Key, "place 2", "first"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			view, err := New(dir, nil, nil).Prepare(withFiles(other, tt.files), nil, []Listener{{Name: "pop3s"}}, Deps{})
			problems := Problems(err)
			if view != nil || len(problems) != 1 {
				t.Fatalf("got a view %v, error %v; want one problem", view != nil, err)
			}
			if got, want := problems[0].Key, "tls.certificates[1]."+tt.key; got != want {
				t.Errorf("got key %s, want %s", got, want)
			}
			for _, s := range tt.says {
				if !strings.Contains(problems[0].Problem, s) {
					t.Errorf("%q does not say %q", problems[0].Problem, s)
				}
			}
		})
	}

	err := unreadable("k", "/f", &fs.PathError{Op: "open", Path: "/f", Err: fs.ErrPermission})
	if got := err.Error(); !strings.Contains(got, "read /f: permission denied: let the user") || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %q", got)
	}
}

func TestCheckReportsAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	good := issueFiles(t, dir, "good", "mail.example.org", "pop.example.org")
	infos, err := Check(withFiles(Files{"/no/cert", "/no/key"}, good, Files{good.Cert, "/no/key"}))
	keys := ""
	for _, p := range Problems(err) {
		keys += p.Key + " "
		if !errors.Is(p, fs.ErrNotExist) {
			t.Errorf("%v has lost its cause", p)
		}
	}
	if want := "tls.certificates[0].cert tls.certificates[0].key tls.certificates[2].key "; keys != want {
		t.Errorf("got %s, want %s", keys, want)
	}
	if len(infos) != 1 || infos[0].File != good.Cert || fmt.Sprint(infos[0].Names) != "[mail.example.org pop.example.org]" {
		t.Errorf("got %+v, want the good one", infos)
	}
	if infos, err := Check(DefaultConfig()); err != nil || len(infos) != 0 {
		t.Errorf("a check without certificates: %v, %v", infos, err)
	}
}

func TestOneFileForBoth(t *testing.T) {
	certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
	path := filepath.Join(t.TempDir(), "both.pem")
	write(t, path, append(keyPEM, certPEM...))
	if _, err := Check(withFiles(Files{path, path})); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	mail := Files{Cert: "mail.crt", Key: "mail.key"}
	version := func(v string, files ...Files) Config {
		c := withFiles(files...)
		c.MinVersion = v
		return c
	}
	for _, tt := range []struct {
		name   string
		config Config
		want   string
	}{
		{"default", DefaultConfig(), ""},
		{"newest only", version("1.3", mail), ""},
		{"old", version("1.0"), "min_version"},
		{"empty", version(""), "min_version"},
		{"holes", withFiles(Files{}, Files{Cert: "a"}, Files{Key: "b"}), "certificates[0] certificates[1].key certificates[2].cert"},
		{"twice", withFiles(mail, Files{Cert: "mail.crt", Key: "b"}, mail), "certificates[2]"},
	} {
		var got []string
		tt.config.Validate(func(key, problem string) {
			got = append(got, key)
			if !strings.Contains(problem, "write") && !strings.Contains(problem, "remove") {
				t.Errorf("%s: %q does not say what to do", tt.name, problem)
			}
		})
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: got faults at %q, want %q", tt.name, g, tt.want)
		}
	}
}

func TestCertificateWithoutNamesIsServed(t *testing.T) {
	dir := t.TempDir()
	log, logger := newLog()
	certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.Subject.CommonName = "Mail Server" })
	f := put(t, dir, "mail", certPEM, keyPEM)
	v := prepare(t, New(dir, logger, nil), withFiles(f))
	if got, want := served(t, v.TLS("pop3s"), client("")), serial(t, f); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	log.wait(t, "certificate names no server")
}
