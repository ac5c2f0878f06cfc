package directory

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/passwd"
)

func passwords() *passwd.Checker { return passwd.New(1) }

// eventually waits for what comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
		runtime.GC()
		runtime.Gosched()
	}
}

// runner is a source with work of its own.
type runner struct {
	fakeSource
	runs, running, reloads atomic.Int64
	troubled               atomic.Bool
}

func (r *runner) Reload() error {
	r.reloads.Add(1)
	return nil
}

func (r *runner) Trouble() error {
	if r.troubled.Load() {
		return errors.New("line 7 is no user")
	}
	return nil
}

func (r *runner) Domains() []string { return []string{"example.org"} }

func (r *runner) Run(ctx context.Context) error {
	r.runs.Add(1)
	r.running.Add(1)
	defer r.running.Add(-1)
	<-ctx.Done()
	return ctx.Err()
}

// view makes a view of directories over sources, as Prepare does.
func view(k *Keeper, sources map[string]Source, memory bool) *View {
	v := &View{}
	for name, s := range sources {
		c := DefaultConfig()
		c.Name = name
		v.list = append(v.list, k.newDirectory(c, Opened{Source: s, Vary: VaryUser, Memory: memory}))
	}
	return v
}

func run(t *testing.T, k *Keeper) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return stop
}

// A source is closed once, when the last one who could ask it is gone, and not before; the end closes those that are left.
func TestSourcesClose(t *testing.T) {
	k := New(passwords(), nil, nil)
	stop := run(t, k)
	before, after, never := &runner{}, &runner{}, &runner{}
	before.lookup, after.lookup = everybody, everybody
	earlier := view(k, map[string]Source{"users": before}, false)
	k.Use(earlier)
	eventually(t, "its work begins", func() bool { return before.running.Load() == 1 })
	view(k, map[string]Source{"users": never}, false) // prepared, and not used
	k.Use(view(k, map[string]Source{"users": after}, false))
	eventually(t, "the other's work begins, and the one not used is closed", func() bool { return after.running.Load() == 1 && never.closed.Load() == 1 })
	if f, err := earlier.Directory("users").Lookup(t.Context(), askFor(t, "anna", "")); err != nil || f.Backend != "b" || before.closed.Load() != 0 {
		t.Errorf("a session of before asks: %v, %v, closed %d times", f, err, before.closed.Load())
	}
	runtime.KeepAlive(earlier)
	earlier = nil
	eventually(t, "the one of before is closed", func() bool { return before.closed.Load() == 1 && before.running.Load() == 0 })
	if after.closed.Load() != 0 || never.runs.Load() != 0 {
		t.Errorf("the one in use was closed %d times, the one not used ran %d times", after.closed.Load(), never.runs.Load())
	}
	held := k.view.Load()
	k.Use(held)
	eventually(t, "the one that stays looks for news", func() bool { return after.reloads.Load() == 1 })
	after.troubled.Store(true)
	if err := k.Trouble(); err == nil || err.Error() != "directory users: line 7 is no user" {
		t.Errorf("what a source says of itself: %v", err)
	}
	if got := held.Directory("users").Domains(); len(got) != 1 || before.reloads.Load() != 0 {
		t.Errorf("domains %q; the one of before looked for news %d times", got, before.reloads.Load())
	}
	stop()
	if after.closed.Load() != 1 || after.running.Load() != 0 || after.runs.Load() != 1 {
		t.Errorf("after the end: closed %d times, %d at work, begun %d times", after.closed.Load(), after.running.Load(), after.runs.Load())
	}
	if _, err := held.Directory("users").Lookup(t.Context(), askFor(t, "bob", "")); !errors.Is(err, auth.ErrDirectoryDown) {
		t.Errorf("after the end: %v", err)
	}
}

func users(t *testing.T, text string) Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	c.Name, c.Type, c.File.Path = "users", "file", path
	return c
}

// A directory whose section did not change is the same after a reload; any change makes another one of it.
func TestPrepareKeeps(t *testing.T) {
	k := New(passwords(), nil, nil)
	stop := run(t, k)
	defer stop()
	c := users(t, "- {user: anna, backend: b}\n")
	v, err := k.Prepare([]Config{c})
	if err != nil {
		t.Fatal(err)
	}
	k.Use(v)
	same, err := k.Prepare([]Config{c})
	if err != nil || same.Directory("users") != v.Directory("users") {
		t.Errorf("the same config: another directory, %v", err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Verify = true }, func(c *Config) { c.Cache.TTL++ }, func(c *Config) { c.AllowedServers = []string{"10.0.0.1"} },
	} {
		changed := c
		change(&changed)
		other, err := k.Prepare([]Config{changed})
		if err != nil || other.Directory("users") == v.Directory("users") {
			t.Errorf("%+v: the same directory, %v", changed, err)
		}
	}
	missing := c
	missing.File.Path += ".missing"
	none := c
	none.Type = "nonesuch"
	_, err = k.Prepare([]Config{c, missing, none})
	var faults auth.Faults
	if !errors.As(err, &faults) || len(faults) != 2 || faults[0].Key != "directories[1].file" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if k.view.Load() != v || v.Directory("nobody") != nil {
		t.Error("what was only prepared is in use")
	}
}

func TestTroubleAndMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	k := New(passwords(), slog.New(slog.DiscardHandler), reg)
	stop := run(t, k)
	defer stop()
	if k.Trouble() != nil {
		t.Error("trouble before there is anything")
	}
	down := false
	source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) {
		if down {
			return Answer{}, errors.New("connection refused")
		}
		return Answer{}, nil
	}}
	v := view(k, map[string]Source{"users": source}, false)
	k.Use(v)
	d := v.Directory("users")
	lookup := func(user string) { _, _ = d.Lookup(t.Context(), askFor(t, user, "")) }
	lookup("anna")
	lookup("anna")
	down = true
	lookup("bob")
	if err := k.Trouble(); err == nil || !strings.Contains(err.Error(), "directory users: connection refused") {
		t.Errorf("trouble: %v", err)
	}
	const want = `
# HELP popgate_directory_cache_total Logins that asked the directory's cache, by what it had.
# TYPE popgate_directory_cache_total counter
popgate_directory_cache_total{directory="users",result="hit"} 1
popgate_directory_cache_total{directory="users",result="miss"} 2
popgate_directory_cache_total{directory="users",result="negative"} 0
popgate_directory_cache_total{directory="users",result="shared"} 0
popgate_directory_cache_total{directory="users",result="stale"} 0
# HELP popgate_directory_lookups_total Lookups at the directory's source, by how they ended.
# TYPE popgate_directory_lookups_total counter
popgate_directory_lookups_total{directory="users",result="bad"} 0
popgate_directory_lookups_total{directory="users",result="failed"} 1
popgate_directory_lookups_total{directory="users",result="found"} 1
popgate_directory_lookups_total{directory="users",result="refused"} 0
popgate_directory_lookups_total{directory="users",result="unknown"} 0
# HELP popgate_directory_up Whether the last lookup at the directory's source was answered.
# TYPE popgate_directory_up gauge
popgate_directory_up{directory="users"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_directory_up", "popgate_directory_lookups_total", "popgate_directory_cache_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	down = false
	lookup("carl")
	if err := k.Trouble(); err != nil {
		t.Errorf("it is back: %v", err)
	}
	k.Use(&View{})
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Errorf("%d series of a directory that is gone, %v", n, err)
	}
	runtime.KeepAlive(d)
}

// Each kind has its section under its own name, whose defaults are the section's.
func TestKinds(t *testing.T) {
	c := DefaultConfig()
	for _, k := range kinds() {
		found := false
		for f := range reflect.TypeFor[Config]().Fields() {
			if f.Tag.Get("yaml") == k.name {
				found = true
				if got := reflect.ValueOf(c).FieldByIndex(f.Index).Interface(); !reflect.DeepEqual(got, k.initial) {
					t.Errorf("%s: its section is another one: %+v", k.name, got)
				}
			}
		}
		if !found {
			t.Errorf("%s has no section", k.name)
		}
	}
	if len(kinds()) < 9 {
		t.Errorf("%d kinds", len(kinds()))
	}
}
