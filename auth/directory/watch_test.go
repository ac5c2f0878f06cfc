package directory

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logged opens a file of our own, and gives what it logs.
func logged(t *testing.T, path string) (*file, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o, err := newFile("users", FileConfig{Path: path}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return o.Source.(*file), &log
}

// backendOf says where a user is, "" for one who is not known.
func backendOf(t *testing.T, f Source, user string) string {
	t.Helper()
	q := query(t, user)
	a, err := f.Lookup(t.Context(), &q)
	if err != nil {
		return ""
	}
	return a.Backend
}

func TestWatchTakesUpChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.csv")
	writeFile(t, path, "user,backend\nalice,old\n")
	f, log := logged(t, path)
	if got := backendOf(t, f, "alice"); got != "old" {
		t.Fatalf("alice is at %q", got)
	}
	f.look()
	if log.Len() > 0 {
		t.Errorf("a look at an unchanged file: %s", log)
	}

	// Not at the first look: somebody may still write. Not while it grows.
	writeFile(t, path, "user,backend\nalice,new\n# more to co")
	f.look()
	writeFile(t, path, "user,backend\nalice,new\n# more to come\nbob,new\n")
	f.look()
	if got := backendOf(t, f, "alice"); got != "old" {
		t.Errorf("a file that changes is taken up: alice is at %q", got)
	}
	f.look()
	if got := backendOf(t, f, "alice") + backendOf(t, f, "bob"); got != "newnew" {
		t.Errorf("a file that has changed: got %q", got)
	}
	if !strings.Contains(log.String(), "reloaded") || f.Trouble() != nil {
		t.Errorf("log %s, trouble %v", log, f.Trouble())
	}

	// A reload looks at once.
	writeFile(t, path, "user,backend\nalice,newest\n")
	if err := f.Reload(); err != nil || backendOf(t, f, "alice") != "newest" {
		t.Errorf("Reload: %v, alice is at %q", err, backendOf(t, f, "alice"))
	}
}

func TestWatchKeepsWhatIsGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.csv")
	writeFile(t, path, "user,backend\nalice,old\n")
	for _, tt := range []struct{ text, want string }{
		{"user,backend\nbob,new\nalice,new,x\n", path + ":3: has 3 fields"},
		{"user,backend\nbob,new\nbob,old\n", path + ":3: \"bob\" is in line 2 already"},
		{"", "lists nobody"},
		{"user,backend\n", "lists nobody"},
		{"\x00\x01", path + ":1: "},
	} {
		f, log := logged(t, path)
		writeFile(t, path, tt.text)
		f.look()
		f.look()
		err := f.Trouble()
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(log.String(), "not taken") {
			t.Errorf("%q: trouble %v, log %s, want %q", tt.text, err, log, tt.want)
		}
		if got := backendOf(t, f, "alice") + backendOf(t, f, "bob"); got != "old" {
			t.Errorf("%q: what was good is gone: %q", tt.text, got)
		}
		said := log.Len()
		f.look()
		if err := f.Reload(); err == nil || log.Len() != said {
			t.Errorf("%q: Reload %v, and said again: %s", tt.text, err, log.String()[said:])
		}
		writeFile(t, path, "user,backend\nalice,old\n")
		if err := f.Reload(); err != nil || f.Trouble() != nil {
			t.Errorf("%q: mended, and still %v", tt.text, err)
		}
	}
}

func TestWatchSymlinkAndGone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "users.csv")
	for name, text := range map[string]string{"a": "user,backend\nalice,old\n", "b": "user,backend\nalice,new\n"} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	at := time.Now().Add(-time.Hour)
	for _, name := range []string{"a", "b"} { // nothing but the inode differs
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", path); err != nil {
		t.Fatal(err)
	}
	f, _ := logged(t, path)
	if err := os.Symlink("b", path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	f.look()
	f.look()
	if got := backendOf(t, f, "alice"); got != "new" {
		t.Errorf("the link was turned, and alice is at %q", got)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	f.look()
	f.look()
	if err := f.Trouble(); err == nil || !strings.Contains(err.Error(), path) || backendOf(t, f, "alice") != "new" {
		t.Errorf("the file is gone: trouble %v, alice at %q", err, backendOf(t, f, "alice"))
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	f.look()
	f.look()
	if err := f.Trouble(); err != nil {
		t.Errorf("the file is back: trouble %v", err)
	}
}

func TestWatchRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.csv")
	writeFile(t, path, "user,backend\nalice,old\n")
	synctest.Test(t, func(t *testing.T) {
		f, _ := logged(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		writeFile(t, path, "user,backend\nalice,brandnew\n")
		<-time.After(2*watchEvery + time.Millisecond)
		synctest.Wait()
		if got := backendOf(t, f, "alice"); got != "brandnew" {
			t.Errorf("after two looks alice is at %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// No lookup sees half of a reload, and none waits for one.
func TestWatchWhileUsersLogIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.csv")
	writeFile(t, path, "user,backend\nalice,b0\nbob,b0\n")
	f, _ := logged(t, path)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				now := *f.current()
				var got []string
				for _, user := range []string{"alice", "bob"} {
					if place, ok := now.users.find(now.arena, []byte(user), true); ok {
						got = append(got, now.at(place).Backend)
					}
				}
				if len(slices.Compact(got)) != 1 {
					t.Errorf("users of two versions: %q", got)
					return
				}
				if backendOf(t, f, "alice") == "" {
					t.Error("alice is not known for a while")
					return
				}
			}
		})
	}
	for n := range 50 {
		backend := strings.Repeat("b", n%7+1)
		writeFile(t, path+".new", "user,backend\nalice,"+backend+"\nbob,"+backend+"\n")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	all.Wait()
}

func TestWatchAtStart(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "bad.csv"), "nonsense\n")
	for path, want := range map[string]string{
		"none.csv": "correct the path",
		"bad.csv":  "bad.csv:1: ",
		".":        "no ordinary file",
	} {
		_, err := newFile("users", FileConfig{Path: filepath.Join(dir, path), Format: "csv"}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	writeFile(t, filepath.Join(dir, "empty.csv"), "")
	f, log := logged(t, filepath.Join(dir, "empty.csv"))
	if !strings.Contains(log.String(), "lists nobody") || backendOf(t, f, "alice") != "" {
		t.Errorf("an empty file: %s", log)
	}
}
