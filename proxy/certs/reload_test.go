package certs

import (
	"errors"
	"fmt"
	"io/fs"
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

// TestRenewal renews in each of the ways renewals are done, twice, since the first may leave something behind for the second.
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
			synctest.Test(t, func(t *testing.T) {
				log, logger := newLog()
				k := New(dir, logger, nil)
				named, _ := tt.place(t, dir, 0)
				config := prepare(t, k, withFiles(named)).TLS("pop3s")
				run(t, k)
				<-time.After(pollEvery / 2) // what follows falls between two polls
				for n := 1; n <= 2; n++ {
					_, real := tt.place(t, dir, n)
					<-time.After(pollEvery)
					synctest.Wait()
					if got, want := served(t, config, client(name)), serial(t, real); got != want {
						t.Errorf("renewal %d: got certificate %s, want %s", n, got, want)
					}
					if recs := log.take(); len(recs) != 1 || recs[0].Message != "certificate reloaded" {
						t.Errorf("renewal %d: the log has %d lines, want that it was reloaded: %q", n, len(recs), texts(recs))
					}
				}
			})
		})
	}
}

func TestBadRenewalKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log, logger := newLog()
		k := New(dir, logger, nil)
		mail := issueFiles(t, dir, "mail", "mail.example.org")
		config := prepare(t, k, withFiles(mail)).TLS("pop3s")
		want := serial(t, mail)
		run(t, k)

		<-time.After(pollEvery / 2)
		certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
		write(t, mail.Cert, certPEM) // and its key does not come
		<-time.After(time.Hour)
		synctest.Wait()
		recs := log.take()
		if len(recs) != 1 || recs[0].Level != slog.LevelError {
			t.Fatalf("got %q, want one error", texts(recs))
		}
		if line := text(recs[0]); !strings.Contains(line, "not taken") || !strings.Contains(line, mail.Cert) ||
			!strings.Contains(line, mail.Key) || !strings.Contains(line, "give the key") {
			t.Errorf("the log does not say which files and what to do: %s", line)
		}
		if got := served(t, config, client("mail.example.org")); got != want {
			t.Errorf("got certificate %s, want the old %s", got, want)
		}

		write(t, mail.Key, keyPEM)
		log.wait(t, "certificate reloaded")
		if got, want := served(t, config, client("mail.example.org")), serial(t, mail); got != want {
			t.Errorf("got certificate %s, want the new %s", got, want)
		}
	})
}

// TestPollBetweenTwoFiles looks at a renewal whose key is not written yet.
func TestPollBetweenTwoFiles(t *testing.T) {
	dir := t.TempDir()
	log, logger := newLog()
	k := New(dir, logger, nil)
	mail := issueFiles(t, dir, "mail", "mail.example.org")
	config := prepare(t, k, withFiles(mail)).TLS("pop3s")
	want := serial(t, mail)
	certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
	write(t, mail.Cert, certPEM)
	k.poll()
	if got := served(t, config, client("mail.example.org")); got != want {
		t.Errorf("got certificate %s, want the old %s", got, want)
	}
	write(t, mail.Key, keyPEM)
	k.poll()
	if got, want := served(t, config, client("mail.example.org")), serial(t, mail); got != want {
		t.Errorf("got certificate %s, want the new %s", got, want)
	}
	if recs := log.take(); len(recs) != 1 || recs[0].Message != "certificate reloaded" {
		t.Errorf("nothing was wrong, and the log has %q", texts(recs))
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
	step("key gone, perhaps for a moment", unchanged)
	step("key gone", rejected)
	step("key still gone", unchanged)
	write(t, f.Key, []byte("rubbish"))
	step("key is rubbish", rejected)
	step("key is still rubbish", unchanged)
	if p.cert != good {
		t.Error("a bad pair replaced the good one")
	}
	if err := os.Rename(f.Key+".away", f.Key); err != nil {
		t.Fatal(err)
	}
	step("key back", reloaded)
	p.failed, p.said = unreadable("key", f.Key, &fs.PathError{Op: "open", Path: f.Key, Err: fs.ErrPermission}), true
	step("same files, which we may read now", reloaded)

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
		k.poll()
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

func TestDailyWarnings(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log, logger := newLog()
		k := New(dir, logger, nil)
		k.every = time.Hour
		prepare(t, k, withFiles(issueFiles(t, dir, "mail", "mail.example.org")))
		run(t, k)
		for _, tt := range []struct {
			days, lines int
			want        string
		}{{61, 0, ""}, {29, 29, "certificate has used up two thirds"}, {11, 11, "certificate has expired"}} {
			<-time.After(time.Duration(tt.days) * 24 * time.Hour)
			synctest.Wait()
			recs := log.take()
			if len(recs) != tt.lines || tt.lines > 0 && !strings.HasPrefix(recs[tt.lines-1].Message, tt.want) {
				t.Errorf("got %q in %d days, want %d times %q", texts(recs), tt.days, tt.lines, tt.want)
			}
		}
	})
}

// BenchmarkPoll is what looking at 10,000 pairs costs every pollEvery, and what one renewal among them does.
func BenchmarkPoll(b *testing.B) {
	dir := b.TempDir()
	k := New(dir, nil, nil)
	key := testIssuer().key
	files := make([]Files, 10_000)
	for i := range files {
		certPEM, keyPEM := pemPair(key, nil, fmt.Sprintf("mail%d.example.org", i))
		files[i] = put(b, dir, fmt.Sprint(i), certPEM, keyPEM)
	}
	prepare(b, k, withFiles(files...))
	b.Run("at rest", func(b *testing.B) {
		for b.Loop() {
			k.poll()
		}
	})
	b.Run("one renewed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer() // writing the pair is not ours
			certPEM, keyPEM := pemPair(key, nil, "mail0.example.org")
			put(b, dir, "0", certPEM, keyPEM)
			b.StartTimer()
			k.poll()
		}
	})
}
