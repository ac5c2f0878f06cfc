package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// startBoth runs a Log with records and lines in a folder, and returns their files.
func startBoth(t *testing.T, records string) (l *Log, audit, dovecot string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	l = New("mx1", nil, nil)
	c := Config{OnFailure: Refuse, DovecotLog: filepath.Join(dir, "failed.log")}
	if records != "" {
		c.Path = filepath.Join(dir, records)
	}
	return l, c.Path, c.DovecotLog, start(t, l, c)
}

func count(t *testing.T, path, what string) int {
	t.Helper()
	return strings.Count(string(readFile(t, path)), what)
}

// TestDovecotLog: what somebody may have guessed stands in both files, everything else in the records alone.
func TestDovecotLog(t *testing.T) {
	l, audit, dovecot, stop := startBoth(t, "audit.jsonl")
	fine := refusedLogin("bob", "192.0.2.8")
	fine.Reason = BackendDown
	for _, e := range []*Event{refusedLogin("anna", "192.0.2.7"), fine, accepted("carl"), refusedLogin("dora", "2001:db8::7")} {
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	l.Post(refusedLogin("emil", "192.0.2.9"))
	stop()
	if got := len(records(t, readFile(t, audit))); got != 5 {
		t.Errorf("records: got %d, want 5", got)
	}
	text := string(readFile(t, dovecot))
	if got := strings.Count(text, "\n"); got != 3 || strings.Contains(text, "bob") || strings.Contains(text, "carl") {
		t.Errorf("lines: got %s", text)
	}
	for _, want := range []string{"mx1 dovecot: pop3-login: ", "user=<anna>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1,", "rip=2001:db8::7,", "user=<emil>"} {
		if !strings.Contains(text, want) {
			t.Errorf("lines: got %s, want %q in it", text, want)
		}
	}
}

// TestDovecotLogAlone: the lines need no records.
func TestDovecotLogAlone(t *testing.T) {
	l, _, dovecot, stop := startBoth(t, "")
	if err := l.Record(t.Context(), refusedLogin("anna", "192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	stop()
	if count(t, dovecot, "user=<anna>") != 1 {
		t.Errorf("got %s", readFile(t, dovecot))
	}
}

// TestDovecotLogReopens: whoever renames the file and asks for it finds new lines in a new one, beside records that
// cannot be opened anew and stay where they are.
func TestDovecotLogReopens(t *testing.T) {
	l, audit, dovecot, stop := startBoth(t, "audit.jsonl")
	_ = l.Record(t.Context(), refusedLogin("anna", "192.0.2.7"))
	eventually(t, "the first line is written", func() bool { return count(t, dovecot, "user=<anna>") == 1 })
	err := errors.Join(os.Rename(dovecot, dovecot+".1"), os.Rename(audit, audit+".1"), os.Mkdir(audit, 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil || !strings.Contains(err.Error(), "audit.jsonl") || !strings.Contains(err.Error(), "stays in use") {
		t.Errorf("got %v, want it to say that the records' file stays", err)
	}
	if err := l.Record(t.Context(), refusedLogin("bob", "192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	stop()
	if count(t, dovecot, "user=<bob>") != 1 || count(t, dovecot+".1", "user=<anna>") != 1 || count(t, dovecot+".1", "bob") != 0 {
		t.Errorf("got %s and %s", readFile(t, dovecot+".1"), readFile(t, dovecot))
	}
	if got := len(records(t, readFile(t, audit+".1"))); got != 2 {
		t.Errorf("records: got %d, want 2 in the file that stayed", got)
	}
}

// TestDovecotLogCannotBeWritten: logins are recorded and go on; the loss is counted, and said.
func TestDovecotLogCannotBeWritten(t *testing.T) {
	l, audit, _, stop := startBoth(t, "audit.jsonl")
	l.change.Lock()
	v := *l.view.Load()
	v.dovecot = &output{w: &brokenWriter{syscall.ENOSPC}, looked: true}
	l.view.Store(&v)
	l.change.Unlock()
	for range 3 {
		if err := l.Record(t.Context(), refusedLogin("anna", "192.0.2.7")); err != nil {
			t.Fatalf("with on_failure refuse: got %v, want the login not to suffer", err)
		}
	}
	stop()
	if got := testutil.ToFloat64(l.metrics.dovecot); got != 3 {
		t.Errorf("lost: got %v, want 3", got)
	}
	if got := len(records(t, readFile(t, audit))); got != 3 || l.Trouble() != nil {
		t.Errorf("records: got %d, and trouble %v", got, l.Trouble())
	}
}

type brokenWriter struct{ err error }

func (w *brokenWriter) Write([]byte) (int, error) { return 0, w.err }
func (*brokenWriter) Close() error                { return nil }

// TestDovecotLogHangs: a FIFO that nobody empties holds up nobody, and takes no more memory than it may.
func TestDovecotLogHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0) // opens at once, and lets the other side be opened
	if err != nil {
		t.Fatal(err)
	}
	l := New("mx1", nil, nil)
	v, err := l.Prepare(Config{OnFailure: Refuse, DovecotLog: path})
	if err != nil {
		t.Fatal(err)
	}
	l.Use(v)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = l.Run(ctx) }()
	long := refusedLogin(strings.Repeat("a", maxText), "192.0.2.7")
	for range 2 * maxLines / maxText {
		if err := l.Record(t.Context(), long); err != nil {
			t.Fatal(err)
		}
	}
	l.dovecot.mu.Lock()
	waiting := len(l.dovecot.pending)
	l.dovecot.mu.Unlock()
	if lost := testutil.ToFloat64(l.metrics.dovecot); lost == 0 || waiting > maxLines+1024 {
		t.Errorf("got %v lost and %d bytes waiting", lost, waiting)
	}
	cancel()
	_ = reader.Close() // the hung write fails
	<-ended
}

// TestDovecotLogIsWhole: of many at once each is a line of its own.
func TestDovecotLogIsWhole(t *testing.T) {
	l, _, dovecot, stop := startBoth(t, "")
	done := make(chan struct{})
	for range 8 {
		go func() {
			for range 200 {
				_ = l.Record(context.Background(), refusedLogin("anna", "192.0.2.7"))
			}
			done <- struct{}{}
		}()
	}
	for range 8 {
		<-done
	}
	stop()
	n := 0
	for line := range bytes.Lines(readFile(t, dovecot)) {
		if !bytes.Contains(line, []byte(" dovecot: pop3-login: Aborted login")) || !bytes.HasSuffix(line, []byte("session=<c0ffee/1>\n")) {
			t.Fatalf("got %q", line)
		}
		n++
	}
	if n != 1600 {
		t.Errorf("got %d lines, want 1600", n)
	}
}

func TestDovecotLogFaults(t *testing.T) {
	for path, want := range map[string]string{"/var/log/": "folder", "-": "standard output", "/var/log/../log/audit.jsonl": "records"} {
		var got []string
		c := Config{Path: "/var/log/audit.jsonl", OnFailure: Refuse, DovecotLog: path}
		c.Validate(func(key, problem string) { got = append(got, key+" "+problem) })
		if len(got) != 1 || !strings.HasPrefix(got[0], "dovecot_log ") || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if _, err := New("", nil, nil).Prepare(Config{DovecotLog: "/nonexistent/x"}); err == nil || !strings.Contains(err.Error(), "set audit.dovecot_log") {
		t.Errorf("got %v", err)
	}
}
