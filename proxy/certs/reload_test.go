package certs

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// link makes, or turns in one step, a symlink.
func link(t *testing.T, target, path string) {
	t.Helper()
	if err := errors.Join(os.Symlink(target, path+".new"), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRenewal renews twice in each of the ways renewals are done: the first may be seen when Run begins, the second is seen as
// an event, since the periodic check is minutes away.
func TestRenewal(t *testing.T) {
	const name = "mail.example.org"
	for _, tt := range []struct {
		name  string
		place func(t *testing.T, dir string, n int) (named, real Files)
	}{
		{"files rewritten", func(t *testing.T, dir string, _ int) (Files, Files) {
			f := issueFiles(t, dir, "mail", name)
			return f, f
		}},
		{"files replaced", func(t *testing.T, dir string, _ int) (Files, Files) {
			tmp := issueFiles(t, mkdir(t, filepath.Join(dir, "new")), "mail", name)
			f := Files{Cert: filepath.Join(dir, "mail.crt"), Key: filepath.Join(dir, "mail.key")}
			if err := errors.Join(os.Rename(tmp.Cert, f.Cert), os.Rename(tmp.Key, f.Key)); err != nil {
				t.Fatal(err)
			}
			return f, f
		}},
		{"kubernetes secret", func(t *testing.T, dir string, n int) (Files, Files) {
			stamp := []string{"..2026_01", "..2026_02", "..2026_03"}[n]
			f := issueFiles(t, mkdir(t, filepath.Join(dir, stamp)), "tls", name)
			link(t, stamp, filepath.Join(dir, "..data"))
			named := Files{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
			if n == 0 {
				link(t, "..data/tls.crt", named.Cert)
				link(t, "..data/tls.key", named.Key)
			}
			return named, f
		}},
		{"certbot behind a link", func(t *testing.T, dir string, n int) (Files, Files) {
			base := []string{"mail1", "mail2", "mail3"}[n]
			f := issueFiles(t, mkdir(t, filepath.Join(dir, "archive", name)), base, name)
			live := mkdir(t, filepath.Join(dir, "live", name))
			link(t, "../../archive/"+name+"/"+base+".crt", filepath.Join(live, "fullchain.pem"))
			link(t, "../../archive/"+name+"/"+base+".key", filepath.Join(live, "privkey.pem"))
			etc := mkdir(t, filepath.Join(dir, "etc"))
			named := Files{Cert: filepath.Join(etc, "mail.crt"), Key: filepath.Join(etc, "mail.key")}
			if n == 0 {
				link(t, filepath.Join(live, "fullchain.pem"), named.Cert)
				link(t, filepath.Join(live, "privkey.pem"), named.Key)
			}
			return named, f
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			log, logger := newLog()
			k := New(dir, logger, nil)
			named, _ := tt.place(t, dir, 0)
			config := prepare(t, k, withFiles(named)).TLS("pop3s")
			run(t, k)
			for n := 1; n <= 2; n++ {
				_, real := tt.place(t, dir, n)
				log.wait(t, "certificate reloaded")
				if got, want := served(t, config, client(name)), serial(t, real); got != want {
					t.Errorf("renewal %d: got certificate %s, want %s", n, got, want)
				}
			}
		})
	}
}

func TestBadRenewalKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	log, logger := newLog()
	k := New(dir, logger, nil)
	mail, pop := issueFiles(t, dir, "mail", "mail.example.org"), issueFiles(t, dir, "pop", "pop.example.org")
	config := prepare(t, k, withFiles(mail, pop)).TLS("pop3s")
	want := serial(t, mail)
	run(t, k)

	certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
	write(t, mail.Cert, certPEM) // and its key does not come
	rec, _ := log.wait(t, "changed certificate not taken")
	if line := text(rec); rec.Level != slog.LevelError || !strings.Contains(line, mail.Cert) || !strings.Contains(line, mail.Key) ||
		!strings.Contains(line, "give the key") {
		t.Errorf("the log does not say which files and what to do: %s", line)
	}
	if got := served(t, config, client("mail.example.org")); got != want {
		t.Errorf("got certificate %s, want the old %s", got, want)
	}

	// Another round, for another reason, does not say it again.
	issueFiles(t, dir, "pop", "pop.example.org")
	_, before := log.wait(t, "certificate reloaded")
	for _, rec := range before {
		if rec.Level == slog.LevelError && strings.Contains(text(rec), mail.Cert) {
			t.Errorf("said twice: %s", text(rec))
		}
	}

	write(t, mail.Key, keyPEM)
	log.wait(t, "certificate reloaded")
	if got, want := served(t, config, client("mail.example.org")), serial(t, mail); got != want {
		t.Errorf("got certificate %s, want the new %s", got, want)
	}
}

func TestRefreshOnce(t *testing.T) {
	dir := t.TempDir()
	f := issueFiles(t, dir, "mail", "mail.example.org")
	pairs, err := loadPairs([]Files{f})
	if err != nil {
		t.Fatal(err)
	}
	p, good := pairs[0], pairs[0].cert
	step := func(what string, want fate) {
		t.Helper()
		if got, err := p.refresh(); got != want || (err != nil) != (want == rejected) {
			t.Errorf("%s: got %v, %v; want %v", what, got, err, want)
		}
	}
	step("nothing happened", unchanged)
	if err := os.Chtimes(f.Cert, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	step("touched", unchanged)
	if err := os.Rename(f.Key, f.Key+".away"); err != nil {
		t.Fatal(err)
	}
	step("key gone", rejected)
	step("key still gone", unchanged)
	write(t, f.Key, []byte("rubbish"))
	step("key is rubbish", rejected)
	if p.cert != good {
		t.Error("a bad pair replaced the good one")
	}
	if err := os.Rename(f.Key+".away", f.Key); err != nil {
		t.Fatal(err)
	}
	step("key back", reloaded)

	// Another pair of the same size and time, as cp -p and archives make them.
	info := must(os.Stat(f.Cert))
	certPEM, keyPEM := pemPair(nil, nil, "a.test")
	for path, data := range map[string][]byte{f.Cert: certPEM, f.Key: keyPEM} {
		size := must(os.Stat(path)).Size()
		data = append(data, strings.Repeat("\n", int(size)-len(data))...)
		write(t, path+".new", data)
		at := must(os.Stat(path)).ModTime()
		if err := errors.Join(os.Chtimes(path+".new", at, at), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	if now := must(os.Stat(f.Cert)); now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		t.Fatal("the new file does not look like the old one")
	}
	step("another file of the same looks", reloaded)
	step("and at rest", unchanged)
}

func TestHandshakesWhileSwapping(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	f := issueFiles(t, dir, "mail", "mail.example.org")
	config := prepare(t, k, withFiles(f)).TLS("pop3s")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := shake(config, client("mail.example.org")); err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
			}
		})
	}
	for n := range 30 {
		issueFiles(t, dir, "mail", "mail.example.org")
		k.check()
		if n%10 == 0 {
			k.rotateTickets()
			prepare(t, k, withFiles(f))
		}
	}
	stop.Store(true)
	wg.Wait()
	if got, want := served(t, k.view.Load().TLS("pop3s"), client("mail.example.org")), serial(t, f); got != want {
		t.Errorf("got certificate %s, want the last %s", got, want)
	}
}

// TestPeriodicCheck has no events at all, as on a network file system.
func TestPeriodicCheck(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log, logger := newLog()
		k := New(dir, logger, nil)
		f := issueFiles(t, dir, "mail", "mail.example.org")
		config := prepare(t, k, withFiles(f)).TLS("pop3s")
		stop := background(t, k)
		defer stop()
		synctest.Wait()
		issueFiles(t, dir, "mail", "mail.example.org")
		<-time.After(recheckEvery)
		synctest.Wait()
		if got, want := served(t, config, client("mail.example.org")), serial(t, f); got != want {
			t.Errorf("got certificate %s, want the new %s", got, want)
		}
		log.take()

		// A renewal that stops coming is said every day, before the end and after it.
		for _, tt := range []struct {
			days int
			want string
		}{{60, ""}, {20, "certificate expires soon"}, {11, "certificate has expired"}} {
			<-time.After(time.Duration(tt.days) * 24 * time.Hour)
			synctest.Wait()
			recs := log.take()
			if tt.want == "" && len(recs) > 0 {
				t.Errorf("nothing is wrong, and the log has %s", text(recs[0]))
			}
			if tt.want != "" && (len(recs) == 0 || !strings.HasPrefix(recs[len(recs)-1].Message, tt.want)) {
				t.Errorf("got %d records, want the last to be %q", len(recs), tt.want)
			}
		}
	})
}

func TestAddDirs(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mkdir(t, filepath.Join(dir, "v1", "tls"))
	link(t, "v1", filepath.Join(dir, "current"))
	link(t, "../../v1/../v1/tls/real.crt", filepath.Join(mkdir(t, filepath.Join(dir, "etc", "popgate")), "mail.crt"))
	link(t, "loop", filepath.Join(dir, "loop"))
	for _, tt := range []struct{ path, want string }{
		{"etc/popgate/mail.crt", "etc/popgate v1/tls"},
		{"current/tls/real.crt", ". v1/tls"},
		{"loop", "."},
		{"missing/file.crt", "missing"},
	} {
		got := make(map[string]bool)
		addDirs(got, filepath.Join(dir, tt.path))
		want := strings.Fields(tt.want)
		for _, w := range want {
			if !got[filepath.Join(dir, w)] {
				t.Errorf("%s: %v lacks %s", tt.path, got, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: got %v, want %s", tt.path, got, tt.want)
		}
	}
}
