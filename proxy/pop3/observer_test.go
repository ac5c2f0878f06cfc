package pop3

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// counts is what an Observer reports, in a form that can be compared.
type counts struct {
	retr, top, dele int
	quit            bool
}

func observe(pieces ...string) counts {
	var o Observer
	for _, p := range pieces {
		o.Observe([]byte(p))
	}
	return counts{o.Retr, o.Top, o.Dele, o.Quit}
}

// byLine counts as a server would: a Reader's lines, parted by ParseCommand.
func byLine(stream string) counts {
	var c counts
	lines, _ := readAll(NewReader(strings.NewReader(stream)), len(stream))
	for _, line := range lines {
		switch v, _ := ParseCommand([]byte(line)); v {
		case RETR:
			c.retr++
		case TOP:
			c.top++
		case DELE:
			c.dele++
		case QUIT:
			c.quit = true
		}
	}
	return c
}

func TestObserver(t *testing.T) {
	tests := []struct {
		stream string
		want   counts
	}{
		{"", counts{}},
		{"STAT\r\nRETR 1\r\nDELE 1\r\nTOP 2 0\r\nretr 2\r\nQUIT\r\n", counts{2, 1, 1, true}},
		{"RETR 1\nQUIT\n", counts{1, 0, 0, true}},
		{"QUIT", counts{}},                   // not sent to its end
		{"QUIT\r", counts{}},                 // nor this
		{"QUIT\rx\nDELE\n", counts{dele: 1}}, // a CR inside a line is a part of the word
		{"QUIT\r\r\n", counts{}},
		{"QUIT \r\r\n", counts{quit: true}},
		{"RETRX 1\r\nXRETR 1\r\n RETR 1\r\nRETR\t1\r\n", counts{retr: 1}},
		{"RETR1 RETR\r\nRET R\r\n\r\n\n", counts{}},
		{"NOOP RETR 1 DELE 1 QUIT\r\n", counts{}},
		{strings.Repeat("x", 100000) + "\r\nQUIT\r\n", counts{quit: true}},
	}
	for _, tt := range tests {
		if got := observe(tt.stream); got != tt.want {
			t.Errorf("%.60q: %+v, want %+v", tt.stream, got, tt.want)
		}
		if got := observe(strings.Split(tt.stream, "")...); got != tt.want {
			t.Errorf("%.60q an octet at a time: %+v, want %+v", tt.stream, got, tt.want)
		}
		if got := byLine(tt.stream); got != tt.want {
			t.Errorf("%.60q by lines: %+v, want %+v", tt.stream, got, tt.want)
		}
	}
}

// Whatever the stream and wherever it is cut, an Observer counts what a reader of lines counts.
func TestObserverProperty(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1939, 2449))
	atoms := []string{"RETR", "retr 1", "TOP 1 2", "DELE", "QUIT", "STAT", "\r", "\n", "\r\n", "\r\n", "\r\n", " ", "\t", "x", "\x00", "\xff"}
	for range 5000 {
		var b strings.Builder
		for range rnd.IntN(30) {
			b.WriteString(atoms[rnd.IntN(len(atoms))])
		}
		stream := b.String()
		want := byLine(stream)
		pieces := split(stream, rnd.IntN)
		if got := observe(pieces...); got != want {
			t.Fatalf("%q: %+v, want %+v", pieces, got, want)
		}
	}
}

// split cuts s into pieces of random length, some of them empty.
func split(s string, intN func(int) int) []string {
	var pieces []string
	for s != "" {
		n := min(intN(6), len(s))
		pieces = append(pieces, s[:n])
		s = s[n:]
	}
	return pieces
}

func FuzzObserver(f *testing.F) {
	f.Add("RETR 1\r\nTOP 1 0\r\nDELE 1\r\nQUIT\r\n", uint64(1))
	f.Add("QUIT\r\r\n\nretr\rdele\n", uint64(2))
	f.Fuzz(func(t *testing.T, stream string, seed uint64) {
		want := byLine(stream)
		rnd := rand.New(rand.NewPCG(seed, 0))
		if got := observe(split(stream, rnd.IntN)...); got != want {
			t.Fatalf("%q: %+v, want %+v", stream, got, want)
		}
	})
}

func BenchmarkObserver(b *testing.B) {
	stream := []byte(strings.Repeat("RETR 17\r\nDELE 17\r\n", 20))
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	var o Observer
	for b.Loop() {
		o.Observe(stream)
	}
}
