package lockout_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

// started is a rig whose Keeper has loaded dir, and what it logged.
func started(t *testing.T, dir string) (*rig, *bytes.Buffer) {
	t.Helper()
	r := &rig{T: t}
	said := new(bytes.Buffer)
	r.keeper = lockout.NewSmall(dir, lockout.Options{
		Events: r.note,
		Log:    slog.New(slog.NewTextHandler(said, nil)),
	}, 4096)
	r.keeper.Load()
	r.use(lockout.DefaultConfig())
	return r, said
}

// fill makes anna known, locks bert out from here, and another network by hand.
func (r *rig) fill() {
	r.Helper()
	r.try(here, "anna", "hunter2", true)
	for i := range 10 {
		r.try(here, "bert", fmt.Sprint("guess", i), false)
	}
	if err := r.keeper.Add(netip.MustParsePrefix("2001:db8:1:2::/64"), "", 240*time.Hour); err != nil {
		r.Fatal(err)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	r, said := started(t, dir)
	r.fill()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.keeper.Run(ctx); err != nil {
		t.Fatal(err)
	}
	before := r.keeper.List()
	for _, name := range []string{"lockout.key", "lockout.state"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", name, info.Mode())
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"anna", "bert", "hunter2", "guess"} {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s has %q in it", name, text)
			}
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("files: got %v, %v, want two", files, err)
	}
	if said.Len() > 0 {
		t.Errorf("log: got %s, want nothing", said)
	}

	half := filepath.Join(dir, "lockout.state.123.tmp")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, said = started(t, dir)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left: got %v, want it removed", err)
	}
	after := r.keeper.List()
	if len(before) != 2 || len(after) != 2 {
		t.Fatalf("lockouts: got %+v before and %+v after, want two each", before, after)
	}
	for i := range after {
		want := before[i]
		want.Name = ""
		if got := after[i]; got.Network != want.Network || got.User != want.User || !got.Until.Equal(want.Until) ||
			got.Cause != want.Cause || got.Failures != want.Failures {
			t.Errorf("lockout: got %+v, want %+v", got, want)
		}
	}
	r.want("who is locked out", r.try(here, "bert", "right", true), lockout.Refuse, 0)
	if err := r.keeper.Add(netip.MustParsePrefix(here+"/32"), "", time.Hour); err != nil {
		t.Fatal(err)
	}
	r.want("who is known", r.try(here, "anna", "hunter2", true), lockout.GoOn, 0)
	r.want("who is not", r.try(here, "carl", "x", true), lockout.Refuse, 0)
	if ok, err := r.keeper.Remove(netip.MustParsePrefix(here+"/32"), "bert"); !ok || err != nil {
		t.Errorf("Remove by name: got %v, %v, want it done", ok, err)
	}
	if said.Len() > 0 {
		t.Errorf("log: got %s, want nothing", said)
	}
}

// TestSaveInTime: Run saves by itself what has changed, and nothing else.
func TestSaveInTime(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lockout.state")
	synctest.Test(t, func(t *testing.T) {
		r, _ := started(t, dir)
		r.run()
		<-time.After(10 * time.Minute)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("with nothing to save: got %v, want no file", err)
		}
		r.fill()
		<-time.After(31 * time.Second)
		synctest.Wait()
		if _, err := os.Stat(path); err != nil {
			t.Errorf("after half a minute: %v", err)
		}
	})
}

// TestSaveEvenly: the more there is to save, the less often it is saved.
func TestSaveEvenly(t *testing.T) {
	few, many := lockout.NewSmall("", lockout.Options{}, 1<<20), lockout.NewSmall("", lockout.Options{}, 1<<20)
	few.TakeKnown(1000)
	many.TakeKnown(300_000)
	if got := few.Rest(); got > time.Second {
		t.Errorf("a thousand: got %s, want next to nothing", got)
	}
	if got := many.Rest(); got < time.Minute || got > 2*time.Minute {
		t.Errorf("300,000: got %s, want a minute and a half", got)
	}
}

// TestTogether has many do everything at once, for the race detector; in the end all counts fit.
func TestTogether(t *testing.T) {
	k := lockout.NewSmall(t.TempDir(), lockout.Options{}, 64)
	k.Load()
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 2000 {
				try, verdict := v.Attempt(loginOf(k, i%7, i%11, i*w))
				if verdict.Action == lockout.Refuse {
					continue
				}
				ending(i % 3).of(&try)
			}
		})
	}
	all.Go(func() {
		p := netip.MustParsePrefix("10.0.0.1/32")
		for range 20 {
			k.Use(v)
			if err := errors.Join(k.Add(p, "", time.Hour), k.Save()); err != nil {
				t.Error(err)
			}
			if _, err := k.Remove(p, ""); err != nil {
				t.Error(err)
			}
			k.List()
		}
	})
	all.Wait()
	if n := k.Keys(); n > 6*64 {
		t.Errorf("keys: got %d, want at most %d", n, 6*64)
	}
}

// TestDamaged: whatever became of the files, the Keeper starts, empty and with a warning, and can save again.
func TestDamaged(t *testing.T) {
	tests := []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"a byte of the state", func(dir string) error {
			path := filepath.Join(dir, "lockout.state")
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[20] ^= 1
			return os.WriteFile(path, data, 0o600)
		}, "damaged"},
		{"an empty state", func(dir string) error { return os.Truncate(filepath.Join(dir, "lockout.state"), 0) }, "damaged"},
		{"half a state", func(dir string) error { return os.Truncate(filepath.Join(dir, "lockout.state"), 60) }, "damaged"},
		{"a huge state", func(dir string) error { return os.Truncate(filepath.Join(dir, "lockout.state"), 1<<40) }, "damaged"},
		{"a folder for a state", func(dir string) error {
			path := filepath.Join(dir, "lockout.state")
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}, "lockout.state"},
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, "lockout.key")) }, "another key"},
		{"half a key", func(dir string) error { return os.Truncate(filepath.Join(dir, "lockout.key"), 16) }, "key"},
		{"a long key", func(dir string) error { return os.Truncate(filepath.Join(dir, "lockout.key"), 64) }, "key"},
		{"an open key", func(dir string) error { return os.Chmod(filepath.Join(dir, "lockout.key"), 0o644) }, "chmod 600"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			r, _ := started(t, dir)
			r.fill()
			if err := r.keeper.Save(); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			r, said := started(t, dir)
			if !strings.Contains(said.String(), "level=WARN") || !strings.Contains(said.String(), tt.want) {
				t.Errorf("log: got %q, want a warning with %q", said, tt.want)
			}
			if tt.want == "chmod 600" {
				return
			}
			if n := r.keeper.Keys(); n != 0 {
				t.Errorf("keys: got %d, want none", n)
			}
			r.fill()
			_ = os.Remove(filepath.Join(dir, "lockout.state")) // the folder of one case
			if err := r.keeper.Save(); err != nil {
				t.Fatal(err)
			}
			if r, said = started(t, dir); said.Len() > 0 || len(r.keeper.List()) != 2 {
				t.Errorf("the time after: got %s and %+v, want two lockouts", said, r.keeper.List())
			}
		})
	}
}

// TestFirstStart: the folder that nobody has made yet is made, for its owner alone.
func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var", "popgate")
	r, said := started(t, dir)
	r.fill()
	if err := r.keeper.Save(); err != nil || said.Len() > 0 {
		t.Errorf("Save: got %v, and the log %q", err, said)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, %v, want it to be the owner's", info, err)
	}
	if r, _ = started(t, dir); len(r.keeper.List()) != 2 {
		t.Errorf("the time after: got %+v, want two lockouts", r.keeper.List())
	}
}

// TestNoFolder: without a place for files all goes on in memory.
func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, said := started(t, filepath.Join(file, "none"))
	if !strings.Contains(said.String(), "in memory only") {
		t.Errorf("log: got %q, want a warning", said)
	}
	r.fill()
	if err := r.keeper.Save(); err == nil {
		t.Error("Save: got no error, want one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.keeper.Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestClockSetBack: what was saved by a clock that went ahead does not last longer for it.
func TestClockSetBack(t *testing.T) {
	r, _ := started(t, "")
	r.fill()
	data := r.keeper.Encode()
	ahead := data[len(data)-32-48:] // the last lockout
	for i := range 2 {
		at := ahead[8*i : 8*i+8]
		binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)+uint64(365*24*time.Hour))
	}
	copy(data[len(data)-32:], r.keeper.Seal(data[:len(data)-32]))
	if err := r.keeper.Decode(data); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.keeper.List() {
		if left := time.Until(l.Until); left > 240*time.Hour {
			t.Errorf("lockout of %v: got %v to go, want no more than it had", l.Network, left)
		}
	}
}

// FuzzState: no file, even one that was sealed with the key, brings the Keeper down; and what is taken up is written
// the same again.
func FuzzState(f *testing.F) {
	r := &rig{T: new(testing.T)}
	r.keeper = lockout.NewSmall("", lockout.Options{}, 256)
	v, err := r.keeper.Prepare(lockout.DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	r.view = v
	r.fill()
	whole := r.keeper.Encode()
	f.Add(whole[:len(whole)-32], true)
	f.Add(whole, false)
	f.Add([]byte("pglock1\n\x00\x00\x00\x00\x00\x00\x00\x00"), true)
	f.Add([]byte("pglock1\n\xff\xff\xff\xff\xff\xff\xff\xff"), true)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		k := lockout.NewSmall("", lockout.Options{}, 256)
		if seal {
			data = append(bytes.Clone(data), k.Seal(data)...)
		}
		err := k.Decode(data)
		if err != nil {
			if !errors.Is(err, lockout.ErrCorrupt) || k.Keys() > 0 {
				t.Errorf("got %v and %d keys, want nothing taken up", err, k.Keys())
			}
			return
		}
		for _, l := range k.List() {
			if !l.Network.IsValid() || l.Cause == "" {
				t.Errorf("got %+v, want a whole lockout", l)
			}
		}
		if again := k.Encode(); k.Decode(again) != nil {
			t.Error("what was written does not read back")
		}
	})
}

// TestFolderIsMade: the first start has no folder for state yet.
func TestFolderIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "popgate")
	k := lockout.New(dir, lockout.Options{})
	k.Load()
	if err := k.Save(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, %v, want 0700", info, err)
	}
}
