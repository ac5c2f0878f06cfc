package audit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// fullDisk has room for so many bytes, then writes what fits and fails.
type fullDisk struct {
	bytes.Buffer
	room int
}

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) <= d.room {
		d.room -= len(b)
		return d.Buffer.Write(b)
	}
	n, _ := d.Buffer.Write(b[:d.room])
	d.room = 0
	return n, syscall.ENOSPC
}

func (*fullDisk) Close() error { return nil }

// TestFullDisk cuts a batch of three records at every byte, then lets a fourth be written.
func TestFullDisk(t *testing.T) {
	batch := "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
	for room := range len(batch) + 1 {
		d := &fullDisk{room: room}
		o := &output{w: d, looked: true}
		n, err := o.write([]byte(batch))
		if n != room || errors.Is(err, syscall.ENOSPC) != (room < len(batch)) {
			t.Errorf("room for %d bytes: got %d, %v", room, n, err)
		}
		if _, err := o.write([]byte("{\"n\":4}\n")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("room for %d bytes, no more room: got %v, want %v", room, err, syscall.ENOSPC)
		}
		d.room = 100
		if _, err := o.write([]byte("{\"n\":5}\n")); err != nil {
			t.Errorf("room for %d bytes, room again: %v", room, err)
		}
		lines := strings.Split(strings.TrimSuffix(d.String(), "\n"), "\n")
		if got := lines[len(lines)-1]; got != `{"n":5}` {
			t.Errorf("room for %d bytes: the last line got %q, want a whole record in %q", room, got, d.String())
		}
		if strings.Contains(d.String(), "\n\n") {
			t.Errorf("room for %d bytes: got an empty line in %q", room, d.String())
		}
	}
}

// TestFullDiskRecords: of records that came together, those that were written whole are good, the others failed.
func TestFullDiskRecords(t *testing.T) {
	for _, on := range []OnFailure{Refuse, Drop} {
		t.Run(string(on), func(t *testing.T) {
			l := New("gw1", nil, nil)
			d := &fullDisk{}
			useWriter(l, d, on)
			var entries []*entry
			for range 3 {
				e := l.entries.Get().(*entry)
				if err := l.push(e, accepted("anna"), true); err != nil {
					t.Fatal(err)
				}
				entries = append(entries, e)
			}
			l.Post(accepted("posted"))
			d.room = 2*entries[0].text.Len() + 5 // two and a bit
			l.write(l.queue.take())
			for i, want := range []error{nil, nil, syscall.ENOSPC} {
				if got := <-entries[i].done; !errors.Is(got, want) {
					t.Errorf("record %d: got %v, want %v", i+1, got, want)
				}
			}
			if got := testutil.ToFloat64(l.metrics.failures); got != 1 {
				t.Errorf("failures: got %v, want 1: the one nobody waits for", got)
			}
			run(t, l)
			if err := l.Record(t.Context(), accepted("berta")); errors.Is(err, syscall.ENOSPC) != (on == Refuse) {
				t.Errorf("on a full disk: got %v", err)
			}
			if got := testutil.ToFloat64(l.metrics.records.WithLabelValues(string(LoginAccepted))); got != 2 {
				t.Errorf("records: got %v, want 2", got)
			}
			if err := l.Trouble(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("trouble on a full disk: got %v, want %v", err, syscall.ENOSPC)
			}
		})
	}
}

// TestTornFile: what another process left half written does not spoil our first record.
func TestTornFile(t *testing.T) {
	tests := []struct{ name, there, want string }{
		{"empty", "", "{}\n"},
		{"whole", "{\"n\":1}\n", "{\"n\":1}\n{}\n"},
		{"torn", "{\"n\":1}\n{\"n", "{\"n\":1}\n{\"n\n{}\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := os.WriteFile(path, []byte(tt.there), 0o600); err != nil {
				t.Fatal(err)
			}
			o, err := openOutput("audit.path", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.write([]byte("{}\n")); err != nil {
				t.Error(err)
			}
			if err := o.w.Close(); err != nil {
				t.Error(err)
			}
			if got := string(readFile(t, path)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestReplacedWhileWriting: a write that fails because its file was closed for a new one goes on in the new one.
func TestReplacedWhileWriting(t *testing.T) {
	l := New("gw1", nil, nil)
	next := &fullDisk{room: 1000}
	first := &replacer{fullDisk: fullDisk{room: 13}, replace: func() { useWriter(l, next, Refuse) }}
	useWriter(l, first, Refuse)
	batch := "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
	if n, err := l.commit([]byte(batch)); n != len(batch) || err != nil {
		t.Errorf("got %d, %v, want all %d bytes", n, err, len(batch))
	}
	if got, want := first.String(), batch[:13]; got != want {
		t.Errorf("the old file: got %q, want %q", got, want)
	}
	if got, want := next.String(), batch[8:]; got != want {
		t.Errorf("the new file: got %q, want %q: the line that was cut, and what follows", got, want)
	}
	l.Use(&View{})
	if n, err := l.commit([]byte(batch)); n != len(batch) || err != nil {
		t.Errorf("turned off: got %d, %v, want them passed over", n, err)
	}
}

type replacer struct {
	fullDisk
	replace func()
}

func (r *replacer) Write(b []byte) (int, error) {
	r.replace()
	return r.fullDisk.Write(b)
}

type shortWriter struct{ bytes.Buffer }

func (w *shortWriter) Write(b []byte) (int, error) { return w.Buffer.Write(b[:len(b)/2]) }
func (*shortWriter) Close() error                  { return nil }

func TestShortWriteIsAnError(t *testing.T) {
	if _, err := (&output{w: &shortWriter{}, looked: true}).write([]byte("{}\n")); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v, want %v", err, io.ErrShortWrite)
	}
}

// TestWriterKeepsLinesWhole writes any records to a disk that fills up and empties: every record told to be written is
// there, whole; none told to be lost is.
func TestWriterKeepsLinesWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New("gw1", nil, nil)
		d := &fullDisk{}
		useWriter(l, d, Refuse)
		written := map[string]bool{}
		for i := range rapid.IntRange(1, 20).Draw(t, "batches") {
			d.room = rapid.IntRange(0, 600).Draw(t, "room")
			entries := map[string]*entry{}
			for j := range rapid.IntRange(1, 6).Draw(t, "records") {
				user, e := string(rune('a'+i))+string(rune('a'+j)), newEntry().(*entry)
				if err := l.push(e, accepted(user), true); err != nil {
					t.Fatal(err)
				}
				entries[user] = e
			}
			l.write(l.queue.take())
			for user, e := range entries {
				written[user] = <-e.done == nil
			}
		}
		for user, want := range written {
			got := false
			for line := range strings.SplitSeq(d.String(), "\n") {
				got = got || strings.HasSuffix(line, `"user":"`+user+`"}`) && strings.HasPrefix(line, `{"v":1,`)
			}
			if got != want {
				t.Fatalf("%s: whole in the file is %v, told %v, in %q", user, got, want, d.String())
			}
		}
	})
}
