package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// start runs l with config; the func it returns ends Run and waits for it.
func start(t testing.TB, l *Log, config Config) (stop func()) {
	t.Helper()
	v, err := l.Prepare(config)
	if err != nil {
		t.Fatal(err)
	}
	l.Use(v)
	return run(t, l)
}

func run(t testing.TB, l *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// records reads whole lines of JSON; anything else fails the test.
func records(t testing.TB, text []byte) []map[string]any {
	t.Helper()
	var all []map[string]any
	for l := range bytes.Lines(text) {
		var r map[string]any
		if err := json.Unmarshal(l, &r); err != nil || !bytes.HasSuffix(l, []byte("\n")) {
			t.Errorf("line %d, %q: got %v, want a whole record", len(all)+1, l, err)
		}
		all = append(all, r)
	}
	return all
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func accepted(user string) *Event {
	return &Event{Name: LoginAccepted, User: user}
}

func TestRecordIsWrittenWhenItReturns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := New("gw1", nil, nil)
	start(t, l, Config{Path: path, OnFailure: Refuse})
	for i := range 3 {
		if err := l.Record(t.Context(), accepted("anna")); err != nil {
			t.Fatal(err)
		}
		if got := len(records(t, readFile(t, path))); got != i+1 {
			t.Errorf("records in the file: got %d, want %d", got, i+1)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode: got %v, %v, want no more than 0640", info.Mode(), err)
	}
}

func TestWhatIsWanted(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		want   int
	}{
		{"session.opened is off by default", Config{Path: "x"}, 1},
		{"session.opened", Config{Path: "x", SessionOpened: true}, 2},
		{"no path", Config{SessionOpened: true}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			l := New("gw1", nil, reg)
			if tt.config.Path != "" {
				tt.config.Path = filepath.Join(t.TempDir(), tt.config.Path)
			}
			stop := start(t, l, tt.config)
			err := errors.Join(l.Record(t.Context(), &Event{Name: SessionOpened}), l.Record(t.Context(), accepted("anna")))
			if err != nil {
				t.Error(err)
			}
			stop()
			if got := int(testutil.ToFloat64(l.metrics.records.WithLabelValues(string(LoginAccepted))) +
				testutil.ToFloat64(l.metrics.records.WithLabelValues(string(SessionOpened)))); got != tt.want {
				t.Errorf("records: got %d, want %d", got, tt.want)
			}
		})
	}
	l := New("gw1", nil, nil)
	l.Post(accepted("anna"))
	l.Refused(Refusal{Reason: Timeout, Network: network(1)})
	if err := l.Record(t.Context(), accepted("anna")); err != nil || l.queue.len() != 0 {
		t.Errorf("before the first Use: got %v and %d queued, want nothing recorded", err, l.queue.len())
	}
}

// TestStop: what is queued when Run ends is written, and after that nothing waits any more.
func TestStop(t *testing.T) {
	for _, on := range []OnFailure{Refuse, Drop} {
		t.Run(string(on), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			l := New("gw1", nil, nil)
			v, err := l.Prepare(Config{Path: path, OnFailure: on})
			if err != nil {
				t.Fatal(err)
			}
			l.Use(v)
			for range 1000 {
				l.Post(&Event{Name: SessionClosed, End: &End{}})
			}
			l.Refused(Refusal{Reason: TooManySessions, Network: network(1)})
			run(t, l)()
			if got := len(records(t, readFile(t, path))); got != 1001 {
				t.Errorf("records: got %d, want 1001", got)
			}
			err = l.Record(t.Context(), accepted("anna"))
			if want := on == Refuse; errors.Is(err, errStopped) != want || (err != nil) != want {
				t.Errorf("after the end: got %v", err)
			}
			l.Post(accepted("anna"))
			if got := testutil.ToFloat64(l.metrics.failures); got != 2 {
				t.Errorf("failures: got %v, want 2", got)
			}
		})
	}
}

func TestPrepareFaults(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"no folder", filepath.Join(dir, "none", "audit.jsonl"), "make the folder " + filepath.Join(dir, "none")},
		{"a folder", dir, "set audit.path to a file in it"},
		{"a file for a folder", filepath.Join(fifo, "audit.jsonl"), `or to "-"`},
		{"a FIFO nobody reads", fifo, "start its reader"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New("gw1", nil, nil).Prepare(Config{Path: tt.path})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "open audit file "+tt.path+": ") {
				t.Errorf("got %v, want it to say what was tried, why not, and %q", err, tt.want)
			}
		})
	}
	if got := advice("audit.path", "/x", os.ErrPermission); !strings.Contains(got, fmt.Sprintf("user id %d", os.Geteuid())) {
		t.Errorf("no permission: got %q, want it to say who has none", got)
	}
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, renamed := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "audit.jsonl.1")
	l := New("gw1", nil, nil)
	stop := start(t, l, Config{Path: path, OnFailure: Refuse})
	record := func(user string) {
		t.Helper()
		if err := l.Record(t.Context(), accepted(user)); err != nil {
			t.Errorf("record %s: %v", user, err)
		}
	}
	record("first")
	if err := os.Rename(path, renamed); err != nil {
		t.Fatal(err)
	}
	record("renamed")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record("new")
	if got := len(records(t, readFile(t, renamed))); got != 2 {
		t.Errorf("the old file: got %d records, want 2", got)
	}
	if got := records(t, readFile(t, path)); len(got) != 1 || got[0]["user"] != "new" {
		t.Errorf("the new file: got %v, want the record of new alone", got)
	}

	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil || !strings.Contains(err.Error(), "stays in use") {
		t.Errorf("reopen without its folder: got %v, want an error that says what goes on", err)
	}
	record("kept")
	stop()
	if got := len(records(t, readFile(t, filepath.Join(moved, "audit.jsonl")))); got != 2 {
		t.Errorf("the file kept open: got %d records, want 2", got)
	}
}

// TestReopenUnderLoad: whatever is being written while the file changes is written once, whole, in one of the two.
func TestReopenUnderLoad(t *testing.T) {
	const writers, each = 8, 200
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	l := New("gw1", nil, nil)
	stop := start(t, l, Config{Path: path, OnFailure: Refuse})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Record(t.Context(), accepted(fmt.Sprint(w, " ", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := l.Reopen(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		v, err := l.Prepare(Config{Path: path, OnFailure: Refuse})
		if err != nil {
			t.Fatal(err)
		}
		l.Use(v)
	}
	wg.Wait()
	stop()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[any]bool{}
	for _, f := range files {
		for _, r := range records(t, readFile(t, f)) {
			if seen[r["user"]] {
				t.Errorf("%v: got it twice", r["user"])
			}
			seen[r["user"]] = true
		}
	}
	if len(seen) != writers*each {
		t.Errorf("records: got %d, want %d", len(seen), writers*each)
	}
}

// closeTeller is a standard output that tells when it is closed.
type closeTeller struct {
	bytes.Buffer
	t *testing.T
}

func (c *closeTeller) Close() error {
	c.t.Error("standard output was closed")
	return nil
}

func TestStandardOutput(t *testing.T) {
	l := New("gw1", nil, nil)
	if l.stdout.w != (unclosed{os.Stdout}) {
		t.Errorf("got %v, want standard output", l.stdout.w)
	}
	out := &closeTeller{t: t}
	l.stdout.w = unclosed{out}
	stop := start(t, l, DefaultConfig())
	if err := errors.Join(l.Record(t.Context(), accepted("anna")), l.Reopen()); err != nil {
		t.Error(err)
	}
	v, err := l.Prepare(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	l.Use(v)
	if err := l.Record(t.Context(), accepted("berta")); err != nil {
		t.Error(err)
	}
	stop()
	if got := len(records(t, out.Bytes())); got != 2 {
		t.Errorf("records: got %d, want 2", got)
	}
}

// slowWriter writes when it is let to; before each write it says that it begins.
type slowWriter struct {
	bytes.Buffer
	begun, let chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.begun <- struct{}{}
	<-w.let
	return w.Buffer.Write(b)
}

func (*slowWriter) Close() error { return nil }

func newSlow() *slowWriter {
	return &slowWriter{begun: make(chan struct{}, 100), let: make(chan struct{})}
}

// useWriter has l write to w.
func useWriter(l *Log, w io.WriteCloser, on OnFailure) {
	l.Use(&View{config: Config{Path: "test", OnFailure: on}, out: &output{w: w, looked: true}})
}

// TestHungDisk: logins wait for a while, then not at all, and nothing they took back is written later.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		l := New("gw1", slog.New(slog.NewTextHandler(&said, nil)), nil)
		w := newSlow()
		useWriter(l, w, Refuse)
		stop := run(t, l)
		var wg sync.WaitGroup
		began := time.Now()
		for i, wait := range []time.Duration{patience, 2 * time.Second} {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wait)
			defer cancel()
			wg.Go(func() {
				if err := l.Record(ctx, accepted(fmt.Sprint("waits ", i))); !errors.Is(err, errSlow) {
					t.Errorf("record %d: got %v, want %v", i, err, errSlow)
				}
				if got := time.Since(began); got != wait {
					t.Errorf("record %d: waited %v, want %v", i, got, wait)
				}
			})
			synctest.Wait() // the first is being written when the second comes
		}
		wg.Wait()
		<-time.After(time.Second)
		began = time.Now()
		if err := l.Record(t.Context(), accepted("late")); !errors.Is(err, errHangs) || time.Since(began) != 0 {
			t.Errorf("when the disk has hung for long: got %v after %v, want %v at once", err, time.Since(began), errHangs)
		}
		if got := testutil.ToFloat64(l.metrics.failures); got != 3 {
			t.Errorf("failures: got %v, want 3", got)
		}
		if got := strings.Count(said.String(), "audit records lost"); got != 1 {
			t.Errorf("said to be lost: got %d times in 10 seconds, want once: %s", got, said.String())
		}
		close(w.let)
		synctest.Wait()
		if err := l.Record(t.Context(), accepted("after")); err != nil {
			t.Errorf("when the disk is back: %v", err)
		}
		stop()
		var users []any
		for _, r := range records(t, w.Bytes()) {
			users = append(users, r["user"])
		}
		// "waits 0" was in the disk's hands already; "waits 1" was not, and was told it is not recorded.
		if got, want := fmt.Sprint(users), "[waits 0 after]"; got != want {
			t.Errorf("written: got %s, want %s", got, want)
		}
	})
}

// TestCancelled: the record of a session that is being ended is not lost with it.
func TestCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := New("gw1", nil, nil)
	start(t, l, Config{Path: path, OnFailure: Refuse})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := l.Record(ctx, &Event{Name: LoginRefused, Reason: ClientGone}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(records(t, readFile(t, path))); got != 100 {
		t.Errorf("records: got %d, want 100", got)
	}
	if err := l.Trouble(); err != nil {
		t.Errorf("trouble: got %v, want none", err)
	}
}

// TestQueueIsBounded: records nobody waits for fill half of the queue and no more, so logins find the other half.
func TestQueueIsBounded(t *testing.T) {
	l := New("gw1", nil, nil)
	useWriter(l, newSlow(), Refuse)
	for range maxPosted + 10 {
		l.Post(accepted("posted"))
	}
	if got := l.queue.len(); got != maxPosted {
		t.Errorf("queued: got %d, want %d", got, maxPosted)
	}
	if got := testutil.ToFloat64(l.metrics.failures); got != 10 {
		t.Errorf("failures: got %v, want 10", got)
	}
	for i := range maxQueue - maxPosted + 1 {
		err := l.push(l.entries.Get().(*entry), accepted("waits"), true)
		if want := i == maxQueue-maxPosted; errors.Is(err, errFull) != want {
			t.Fatalf("login %d: got %v", i, err)
		}
	}
}

// TestGroupCommit: what comes while a write is under way goes out in one write.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New("gw1", nil, nil)
		w := newSlow()
		useWriter(l, w, Refuse)
		stop := run(t, l)
		var wg sync.WaitGroup
		for range 51 {
			wg.Go(func() {
				if err := l.Record(t.Context(), accepted("anna")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(w.let)
		wg.Wait()
		stop()
		if got := len(w.begun); got != 2 {
			t.Errorf("writes for 51 records: got %d, want 2: the first, and the rest at once", got)
		}
		if got := len(records(t, w.Bytes())); got != 51 {
			t.Errorf("records: got %d, want 51", got)
		}
	})
}

func TestValidate(t *testing.T) {
	tests := []struct {
		config Config
		want   string
	}{
		{DefaultConfig(), ""},
		{Config{Path: "", OnFailure: Drop}, ""},
		{Config{Path: "/var/log/popgate/", OnFailure: Drop}, `path "/var/log/popgate/" names a folder: write a file in it, such as /var/log/popgate/audit.jsonl`},
		{Config{Path: "-", OnFailure: "ignore"}, `on_failure "ignore" is not known: write refuse or drop`},
		{Config{Path: "-"}, `on_failure "" is not known: write refuse or drop`},
	}
	for _, tt := range tests {
		var got []string
		tt.config.Validate(func(key, problem string) { got = append(got, key+" "+problem) })
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.config, got, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	l := New("gw1", nil, reg)
	useWriter(l, newSlow(), Refuse)
	l.Post(accepted("anna"))
	l.metrics.record(LoginAccepted)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: got %v, %v", problems, err)
	}
	const want = `
# HELP popgate_audit_queue_records Audit records that wait to be written.
# TYPE popgate_audit_queue_records gauge
popgate_audit_queue_records 1
# HELP popgate_audit_records_total Audit records written, by event.
# TYPE popgate_audit_records_total counter
popgate_audit_records_total{event="login.accepted"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_audit_queue_records", "popgate_audit_records_total"); err != nil {
		t.Error(err)
	}
}
