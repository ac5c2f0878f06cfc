package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// TestConformance holds every kind of storage against what certmagic asks of one.
func TestConformance(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			// What is given is looked at here, not how soon: the machine may be busy.
			v.config.Redis.Timeout, v.config.Postgres.Timeout = time.Minute, time.Minute
			v.config.Redis.ConnectTimeout, v.config.Postgres.ConnectTimeout = time.Minute, time.Minute
			dir := t.TempDir()
			s, other := openTest(t, v.config, dir), openTest(t, v.config, dir)
			for name, test := range map[string]func(*testing.T, *Store, *Store){
				"values": testValues, "names": testNames, "folders": testFolders, "list": testList, "many": testMany, "replace": testReplace,
				"concurrency": testConcurrency, "health": testHealth,
			} {
				t.Run(name, func(t *testing.T) { test(t, s, other) })
			}
			// Locks are not encrypted, and take their time.
			if s.sealer == nil {
				return
			}
			t.Run("locks", func(t *testing.T) { testLocks(t, s, other) })
			t.Run("contended", func(t *testing.T) { testContended(t, s, other) })
			t.Run("killed", func(t *testing.T) { testKilled(t, v.config, dir, s) })
		})
	}
}

func testValues(t *testing.T, s, other *Store) {
	ctx := t.Context()
	if _, err := s.Load(ctx, "values/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of nothing: %v", err)
	}
	if _, err := s.Stat(ctx, "values/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of nothing: %v", err)
	}
	if s.Exists(ctx, "values/none") {
		t.Error("nothing exists")
	}
	must(t, s.Delete(ctx, "values/none"))
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, value := range [][]byte{
		[]byte("x"), []byte("second"), every, {}, []byte("\x00"), bytes.Repeat([]byte("k"), 20<<10), bytes.Repeat(every, 20<<10), // 5 MiB
	} {
		before := time.Now().Add(-2 * time.Second) // two clocks are involved, and files have coarse ones
		must(t, s.Store(ctx, "values/a", value))
		got, err := other.Load(ctx, "values/a")
		if err != nil || !bytes.Equal(got, value) {
			t.Fatalf("stored %d bytes, got %d: %v", len(value), len(got), err)
		}
		info, err := other.Stat(ctx, "values/a")
		if err != nil || !info.IsTerminal || info.Key != "values/a" || info.Size != int64(len(value)) ||
			info.Modified.Before(before) || info.Modified.After(time.Now().Add(2*time.Second)) {
			t.Errorf("Stat after storing %d bytes: %+v, %v", len(value), info, err)
		}
	}
	if err := s.Store(ctx, "values/huge", make([]byte, maxValue+1)); err == nil {
		t.Error("a value above the limit was stored")
	}
	must(t, other.Delete(ctx, "values/a"))
	if _, err := s.Load(ctx, "values/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load after Delete: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if s.shared {
		if _, err := s.Load(cancelled, "values/a"); !errors.Is(err, context.Canceled) {
			t.Errorf("Load with a cancelled context: %v", err)
		}
	}
}

// What certmagic makes of issuers and names, and what others may think of.
func testNames(t *testing.T, s, other *Store) {
	ctx := t.Context()
	names := []string{
		certmagic.StorageKeys.SiteCert("acme-v02.api.letsencrypt.org-directory", "*.example.org"),
		certmagic.StorageKeys.SitePrivateKey("127.0.0.1-14000-dir", "2001:db8::1"),
		"names/with blank", "names/ümlaut-日本", "names/100%", "names/a*b?c[d]", "names/'; DROP TABLE certificates; --", `names/"quoted"`,
		"names/{tag}", "names/$1", "names/-dash", "names/.hidden", "names/trailing.", "names/UPPER", "names/upper", "names/a:b",
		"names/_", "names/tab\there", "names/" + strings.Repeat("long", 50),
	}
	for i, name := range names {
		must(t, s.Store(ctx, name, []byte{byte(i)}))
	}
	for i, name := range names {
		got, err := other.Load(ctx, name)
		if err != nil || !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
	var want []string
	for _, name := range names {
		if strings.HasPrefix(name, "names/") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if got, err := other.List(ctx, "names", false); err != nil || !slices.Equal(got, want) {
		t.Errorf("List: %v\n got %q\nwant %q", err, got, want)
	}
	for _, name := range names {
		must(t, other.Delete(ctx, name))
		if s.Exists(ctx, name) {
			t.Errorf("%q exists after Delete", name)
		}
	}
	for _, name := range []string{
		"", ".", "..", "../up", "a/../b", "/abs", "trailing/", "a//b", "nul\x00", `back\slash`, "bad\xff", "locks/x", strings.Repeat("x", 2000),
	} {
		_, loadErr := s.Load(ctx, name)
		_, statErr := s.Stat(ctx, name)
		for _, err := range []error{loadErr, statErr, s.Store(ctx, name, []byte("x")), s.Delete(ctx, name)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: got %v, want it refused", name, err)
			}
		}
	}
}

func testFolders(t *testing.T, s, other *Store) {
	ctx := t.Context()
	for _, key := range []string{"folders/in/a", "folders/in/b", "folders/in/deep/c", "folders/inner", "folders/in-", "folders/in0"} {
		must(t, s.Store(ctx, key, []byte("x")))
	}
	if _, err := s.Load(ctx, "folders/in"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a folder: %v", err)
	}
	if info, err := s.Stat(ctx, "folders/in"); err != nil || info.IsTerminal || info.Key != "folders/in" {
		t.Errorf("Stat of a folder: %+v, %v", info, err)
	}
	if !other.Exists(ctx, "folders/in/deep") || s.Exists(ctx, "folders/i") || s.Exists(ctx, "folders/in/a/more") {
		t.Error("folders exist where there are none, or the other way round")
	}
	// A folder goes with all below it, and with nothing beside it.
	must(t, other.Delete(ctx, "folders/in"))
	if s.Exists(ctx, "folders/in") || s.Exists(ctx, "folders/in/deep/c") {
		t.Error("a deleted folder exists")
	}
	want := []string{"folders/in-", "folders/in0", "folders/inner"}
	if got, err := s.List(ctx, "folders", true); err != nil || !slices.Equal(got, want) {
		t.Errorf("after Delete: got %q, want %q, %v", got, want, err)
	}
}

func testList(t *testing.T, s, other *Store) {
	ctx := t.Context()
	for _, key := range []string{"list/b/2", "list/b/1", "list/a", "list/b-", "list/c/d/e/f", "list/b.x/1", "listing"} {
		must(t, s.Store(ctx, key, []byte("x")))
	}
	for _, tt := range []struct {
		folder string
		deep   bool
		want   []string
	}{
		{"list", false, []string{"list/a", "list/b", "list/b-", "list/b.x", "list/c"}},
		{"list", true, []string{
			"list/a", "list/b", "list/b-", "list/b.x", "list/b.x/1", "list/b/1", "list/b/2", "list/c", "list/c/d", "list/c/d/e", "list/c/d/e/f",
		}},
		{"list/b", false, []string{"list/b/1", "list/b/2"}},
		{"list/c/d", false, []string{"list/c/d/e"}},
	} {
		if got, err := other.List(ctx, tt.folder, tt.deep); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("List(%q, %v): %v\n got %q\nwant %q", tt.folder, tt.deep, err, got, tt.want)
		}
	}
	for _, folder := range []string{"list/none", "lis"} {
		if _, err := s.List(ctx, folder, true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("List(%q): got %v, want fs.ErrNotExist", folder, err)
		}
	}
	all, err := s.List(ctx, "", false)
	if err != nil || !slices.Contains(all, "list") || !slices.Contains(all, "listing") {
		t.Errorf("List of all: %q, %v", all, err)
	}
	if slices.Contains(all, lockFolder) {
		t.Error("List shows the folder of locks")
	}
}

// testMany has more than what is asked for at once.
func testMany(t *testing.T, s, other *Store) {
	ctx := t.Context()
	var wg sync.WaitGroup
	const issuers = 2
	names := pageSize + 100
	if !s.shared {
		names = 100 // files are synced to the disk one by one
	}
	for i := range issuers {
		for part := range 8 {
			wg.Go(func() {
				for n := part; n < names; n += 8 {
					if err := s.Store(ctx, fmt.Sprintf("many/issuer%d/n%04d/n.crt", i, n), []byte("x")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if got, err := other.List(ctx, "many", false); err != nil || !slices.Equal(got, []string{"many/issuer0", "many/issuer1"}) {
		t.Errorf("List of two folders with thousands inside: %q, %v", got, err)
	}
	if got, err := other.List(ctx, "many/issuer0", false); err != nil || len(got) != names {
		t.Errorf("List: got %d entries, want %d, %v", len(got), names, err)
	}
	if got, err := other.List(ctx, "many", true); err != nil || len(got) != issuers*(1+2*names) {
		t.Errorf("List of all below: got %d entries, want %d, %v", len(got), issuers*(1+2*names), err)
	}
	must(t, s.Delete(ctx, "many"))
	if _, err := other.List(ctx, "many", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List after Delete: %v", err)
	}
}

func testReplace(t *testing.T, s, _ *Store) {
	ctx, b := t.Context(), s.backend
	for _, tt := range []struct {
		old, record string
		want        bool
	}{
		{"other", "x", false}, {"", "first", true}, {"", "again", false}, {"other", "x", false}, {"first", "second", true}, {"second", "second", true},
	} {
		var old []byte
		if tt.old != "" {
			old = []byte(tt.old)
		}
		if got, err := b.replace(ctx, "replace/a", old, []byte(tt.record)); got != tt.want || err != nil {
			t.Errorf("replace %q by %q: got %v, %v", tt.old, tt.record, got, err)
		}
	}
	if got, err := b.load(ctx, "replace/a"); string(got) != "second" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := s.List(ctx, "replace", false); !slices.Equal(got, []string{"replace/a"}) || err != nil {
		t.Errorf("List: %q, %v", got, err)
	}
	must(t, s.Delete(ctx, "replace"))
}

// testConcurrency has readers see whole values only, whoever writes.
func testConcurrency(t *testing.T, s, other *Store) {
	ctx := t.Context()
	value := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 8000+i) }
	must(t, s.Store(ctx, "concurrent/a", value(0)))
	var wg sync.WaitGroup
	for i := range 8 {
		from := []*Store{s, other}[i%2]
		wg.Go(func() {
			for range 20 {
				if err := from.Store(ctx, "concurrent/a", value(i)); err != nil {
					t.Error(err)
				}
				got, err := from.Load(ctx, "concurrent/a")
				if err != nil || len(got) < 8000 || !bytes.Equal(got, value(len(got)-8000)) {
					t.Errorf("got %d bytes of a mix, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func testLocks(t *testing.T, s, other *Store) {
	ctx := t.Context()
	const name = "issue_cert_*.example.org"
	must(t, s.Lock(ctx, name))
	for _, from := range []*Store{s, other} {
		if ok, err := from.TryLock(ctx, name); ok || err != nil {
			t.Errorf("TryLock of a lock that is held: %v, %v", ok, err)
		}
	}
	if ok, err := other.TryLock(ctx, "another"); !ok || err != nil {
		t.Errorf("TryLock of another lock: %v, %v", ok, err)
	}
	must(t, other.Unlock(ctx, "another"))
	for _, from := range []*Store{s, other} {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if err := from.Lock(short, name); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock of a lock that is held: %v", err)
		}
		cancel()
	}
	must(t, s.RenewLockLease(ctx, name, time.Hour))
	// The lease is renewed, whatever it lasts: the lock is held after three times that.
	if s.shared {
		held, cancel := context.WithTimeout(ctx, 3*testLease)
		if err := other.Lock(held, name); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the lock was let go of by itself: %v", err)
		}
		cancel()
	}
	must(t, s.Unlock(ctx, name))
	if s.Unlock(ctx, name) == nil {
		t.Error("Unlock of what is not held says nothing")
	}
	if s.shared && s.RenewLockLease(ctx, name, time.Hour) == nil {
		t.Error("RenewLockLease of what is not held says nothing")
	}
	if ok, err := other.TryLock(ctx, name); !ok || err != nil {
		t.Errorf("TryLock after Unlock: %v, %v", ok, err)
	}
	must(t, other.Unlock(ctx, name))
}

// testContended looks that nobody else is there who has the lock too.
func testContended(t *testing.T, s, other *Store) {
	ctx, rounds := t.Context(), 5
	if !s.shared {
		rounds = 1 // FileStorage looks again after a second
	}
	var wg sync.WaitGroup
	var inside, count atomic.Int32
	for i := range 6 {
		from := []*Store{s, other}[i%2]
		wg.Go(func() {
			for range rounds {
				if err := from.Lock(ctx, "contended"); err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock", n)
				}
				count.Add(1)
				runtime.Gosched()
				inside.Add(-1)
				if err := from.Unlock(ctx, "contended"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := int(count.Load()); got != 6*rounds {
		t.Errorf("got %d, want %d", got, 6*rounds)
	}
}

func testHealth(t *testing.T, s, _ *Store) {
	must(t, s.Probe(t.Context()))
	must(t, s.Health())
}
