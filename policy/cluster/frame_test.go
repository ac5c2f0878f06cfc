package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// messagesOf are those of a frame's inside, as part and text.
func messagesOf(t testing.TB, b []byte) []string {
	t.Helper()
	var all []string
	if !eachMessage(b, func(part string, m []byte) { all = append(all, part+"="+string(m)) }) {
		t.Errorf("messages %q: not whole", b)
	}
	return all
}

func TestFrame(t *testing.T) {
	key, now := [32]byte{1}, time.Now()
	a := newAuthor(key)
	r := newReader(key, newAuthor(key).id)
	first := a.frame(appendMessage(appendMessage(nil, "lockout", []byte("one")), "moved", nil), now)
	if bytes.Contains(first, []byte("lockout")) || bytes.Contains(first, []byte("one")) {
		t.Error("a frame can be read by anybody")
	}
	got, err := r.open(first, now)
	if want := []string{"lockout=one", "moved="}; err != nil || !slices.Equal(messagesOf(t, got), want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	second, third := a.frame(appendMessage(nil, "x", []byte("2")), now), a.frame(appendMessage(nil, "x", []byte("3")), now)
	for _, tt := range []struct {
		name  string
		frame []byte
		now   time.Time
		want  error
	}{
		{"replayed", first, now, errAgain},
		{"another key", newAuthor([32]byte{2}).frame(nil, now), now, errForged},
		{"old", second, now.Add(3 * time.Minute), errStale},
		{"from the future", second, now.Add(-3 * time.Minute), errStale},
		{"the third before the second", third, now, nil},
		{"the second behind the third", second, now, errAgain},
		{"empty", nil, now, errForged},
		{"the header alone", first[:frameHeader], now, errForged},
		{"a byte short", third[:len(third)-1], now, errForged},
		{"too long", append(bytes.Clone(third), make([]byte, maxFrame)...), now, errForged},
	} {
		if _, err := r.open(tt.frame, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	fourth := a.frame(appendMessage(nil, "x", []byte("4")), now)
	for i := range fourth {
		bad := bytes.Clone(fourth)
		bad[i] ^= 1
		if _, err := r.open(bad, now); !errors.Is(err, errForged) {
			t.Fatalf("byte %d changed: got %v, want %v", i, err, errForged)
		}
	}
	if _, err := r.open(fourth, now); err != nil {
		t.Errorf("the frame itself: %v", err)
	}
	if own, err := newReader(key, a.id).open(first, now); own != nil || err != nil {
		t.Errorf("our own: got %q, %v, want nothing", own, err)
	}
}

// TestSendersBounded: starts of nodes without end are not remembered without end, and who goes on speaking is.
func TestSendersBounded(t *testing.T) {
	key, now := [32]byte{1}, time.Now()
	r := newReader(key, [senderSize]byte{})
	steady := newAuthor(key)
	for i := range 3 * maxSenders {
		now = now.Add(time.Millisecond)
		for _, a := range []*author{newAuthor(key), steady} {
			if _, err := r.open(a.frame(nil, now), now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.open(newAuthor([32]byte{9}).frame(nil, now), now); err == nil {
			t.Fatal("a forged frame was opened")
		}
		if len(r.senders) > maxSenders || r.senders[steady.id] == nil {
			t.Fatalf("after %d: got %d senders, want %d at most, and the steady one among them", i, len(r.senders), maxSenders)
		}
	}
}

// FuzzFrame: no frame, even one sealed with the key, brings a node down, and only whole ones with the key are believed.
func FuzzFrame(f *testing.F) {
	key, now := [32]byte{1}, time.Now()
	f.Add([]byte{}, true)
	f.Add(appendMessage(nil, "lockout", []byte("hello")), true)
	f.Add([]byte("\x07lockout\xff\xff"), true)
	f.Add(newAuthor(key).frame(nil, now), false)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		r := newReader(key, [senderSize]byte{})
		frame := data
		if sealed {
			frame = newAuthor(key).frame(data, now)
		}
		text, err := r.open(frame, now)
		if err != nil {
			return
		}
		if sealed && !bytes.Equal(text, data) {
			t.Errorf("got %q, want %q", text, data)
		}
		var again []byte
		whole := eachMessage(text, func(part string, m []byte) { again = appendMessage(again, part, m) })
		if whole != bytes.Equal(again, text) || !bytes.HasPrefix(text, again) {
			t.Errorf("got %q of %q, whole %v", again, text, whole)
		}
	})
}

// FuzzFact: nothing that somebody writes into Redis brings a node down, and what has the key reads back as it was.
func FuzzFact(f *testing.F) {
	s := newTestShelf(f, nil, "test", 100)
	f.Add([]byte("a value"), uint64(7), int64(1), int64(2), 3)
	f.Add([]byte{}, uint64(0), int64(-5), int64(1<<62), 0)
	f.Fuzz(func(t *testing.T, value []byte, key uint64, at, until int64, flip int) {
		if _, err := s.open(fieldOf(key), value); err == nil {
			t.Error("what nobody sealed was opened")
		}
		b := s.sealed(Fact{Key: key, At: time.UnixMicro(at), Until: time.UnixMicro(until), Value: value})
		got, err := s.open(fieldOf(key), b)
		if err != nil || got.Key != key || got.Until.UnixMicro() != until || !bytes.Equal(got.Value, value) {
			t.Errorf("got %+v, %v", got, err)
		}
		if at >= 0 && at <= maxTime && got.At.UnixMicro() != at {
			t.Errorf("at: got %d, want %d", got.At.UnixMicro(), at)
		}
		if _, err := s.open(fieldOf(key+1), b); err == nil {
			t.Error("a fact was moved to another key")
		}
		b[uint(flip)%uint(len(b))] ^= 1
		if _, err := s.open(fieldOf(key), b); err == nil {
			t.Error("a changed fact was opened")
		}
	})
}

// TestFactsApart: a fact of one part is none of another's, nor is one with another key.
func TestFactsApart(t *testing.T) {
	s, other := newTestShelf(t, nil, "known", 100), newTestShelf(t, nil, "lockouts", 100)
	b := s.sealed(Fact{Key: 1, At: time.Now(), Until: time.Now()})
	if _, err := other.open(fieldOf(1), b); err == nil {
		t.Error("a fact was moved to another part")
	}
	for _, field := range []string{"", "1234567", "123456789"} {
		if _, err := s.open(field, b); err == nil {
			t.Errorf("field %q was opened", field)
		}
	}
	if n := binary.BigEndian.Uint64([]byte(fieldOf(0xabc))); n != 0xabc {
		t.Error(fmt.Sprint("field: got ", n))
	}
}
