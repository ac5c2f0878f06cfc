package pop3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll takes lines until an error; their copies and the error are the result.
func readAll(r *Reader, limit int) ([]string, error) {
	var lines []string
	for {
		line, err := r.Line(limit)
		if err != nil {
			return lines, err
		}
		lines = append(lines, string(line))
	}
}

func TestReaderLines(t *testing.T) {
	long := strings.Repeat("x", 10)
	tests := []struct {
		name, in string
		limit    int
		want     []string
		err      error
	}{
		{"nothing", "", 10, nil, io.EOF},
		{"CRLF and LF", "USER a\r\nPASS b\nQUIT\r\n", 10, []string{"USER a", "PASS b", "QUIT"}, io.EOF},
		{"empty lines", "\r\n\n\r\n", 10, []string{"", "", ""}, io.EOF},
		{"CR inside", "a\rb\r\r\n", 10, []string{"a\rb\r"}, io.EOF},
		{"end inside a line", "QUIT", 10, nil, io.ErrUnexpectedEOF},
		{"end after CR", "a\nQUIT\r", 10, []string{"a"}, io.ErrUnexpectedEOF},
		{"at the limit", long + "\r\n" + long + "\n", 10, []string{long, long}, io.EOF},
		{"over the limit by one", long + "x\r\n", 10, nil, ErrLineTooLong},
		{"over the limit by one, LF", "a\n" + long + "x\n", 10, []string{"a"}, ErrLineTooLong},
		{"over the limit, no end", strings.Repeat("x", 5000), 10, nil, ErrLineTooLong},
		{"a CR is no part of the line", long + "\r\r\n", 10, nil, ErrLineTooLong},
		{"longer than the borrowed buffer", strings.Repeat("y", 6000) + "\r\nz\n", 6000, []string{strings.Repeat("y", 6000), "z"}, io.EOF},
		{"just the borrowed buffer", strings.Repeat("y", bufferSize-2) + "\r\nz\n", bufferSize, []string{strings.Repeat("y", bufferSize-2), "z"}, io.EOF},
		{"long and one too long", strings.Repeat("y", 6001) + "\r\n", 6000, nil, ErrLineTooLong},
		{"many that fill the buffer", strings.Repeat("NOOP\r\n", 1000), 10, strings.Split(strings.Repeat("NOOP ", 999)+"NOOP", " "), io.EOF},
		{"octets of any kind", "\x00\x01\xff\r\n", 10, []string{"\x00\x01\xff"}, io.EOF},
	}
	for _, tt := range tests {
		sources := map[string]io.Reader{
			"whole":     strings.NewReader(tt.in),
			"an octet":  iotest.OneByteReader(strings.NewReader(tt.in)),
			"halves":    iotest.HalfReader(strings.NewReader(tt.in)),
			"with EOF":  iotest.DataErrReader(strings.NewReader(tt.in)),
			"haltingly": &halting{src: strings.NewReader(tt.in)},
		}
		for how, src := range sources {
			r := NewReader(src)
			got, err := readAll(r, tt.limit)
			if !errors.Is(err, tt.err) || strings.Join(got, "|") != strings.Join(tt.want, "|") || len(got) != len(tt.want) {
				t.Errorf("%s, %s: %.80q, %v, want %.80q, %v", tt.name, how, got, err, tt.want, tt.err)
			}
			r.Release()
		}
	}
}

// halting is a stream that says "nothing happened" before each octet.
type halting struct {
	src   io.Reader
	empty bool
}

func (h *halting) Read(p []byte) (int, error) {
	if h.empty = !h.empty; h.empty {
		return 0, nil
	}
	return h.src.Read(p[:1])
}

type endless struct{}

func (endless) Read([]byte) (int, error) { return 0, nil }

func TestReaderNoProgress(t *testing.T) {
	if _, err := NewReader(endless{}).Line(10); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a stream that never moves: %v", err)
	}
}

// A reader asks for no more than it may keep: a line without end costs its limit, however much is sent.
func TestReaderBounded(t *testing.T) {
	src := &counting{src: iotest.OneByteReader(endlessLine{})}
	r := NewReader(src)
	if _, err := r.Line(5000); !errors.Is(err, ErrLineTooLong) {
		t.Fatal(err)
	}
	if src.n > 5002 || len(r.buf) > 5002 {
		t.Errorf("took %d octets into a buffer of %d for a limit of 5000", src.n, len(r.buf))
	}
}

type endlessLine struct{}

func (endlessLine) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type counting struct {
	src io.Reader
	n   int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.n += n
	return n, err
}

func TestReaderErrorKeepsLines(t *testing.T) {
	broken := errors.New("broken")
	r := NewReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)))
	if line, err := r.Line(9); string(line) != "a" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := r.Line(9); !errors.Is(err, broken) {
		t.Errorf("error of the stream: %v", err)
	}
	if string(r.Buffered()) != "b" {
		t.Errorf("left: %q", r.Buffered())
	}
}

// scribbler fills all of the buffer it is given, as io.Reader allows, and returns a part of it.
type scribbler struct{ parts []string }

func (s *scribbler) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = '#'
	}
	n := copy(p, s.parts[0])
	s.parts = s.parts[1:]
	return n, nil
}

func TestReaderWipe(t *testing.T) {
	r := NewReader(strings.NewReader("PASS hunter2\r\nSTAT\r\n"))
	line, err := r.Line(100)
	if err != nil || string(line) != "PASS hunter2" {
		t.Fatalf("%q, %v", line, err)
	}
	r.Wipe()
	if !allZero(line) {
		t.Errorf("after Wipe the line is %q", line)
	}
	if string(r.Buffered()) != "STAT\r\n" {
		t.Errorf("Wipe took %q too", r.Buffered())
	}
	if line, err = r.Line(100); string(line) != "STAT" || err != nil {
		t.Errorf("the line behind it: %q, %v", line, err)
	}
}

// No octet of a login is left in any buffer that a Reader has used, whatever way its octets moved through them.
func TestReaderRelease(t *testing.T) {
	token := strings.Repeat("t", 3*bufferSize)
	tests := map[string]struct {
		parts []string
		lines int
	}{
		"never used":                {nil, 0},
		"one line":                  {[]string{"PASS hunter2\r\n"}, 1},
		"left over":                 {[]string{"PASS hunter2\r\nSTAT\r\nRETR 1\r\nhalf"}, 1},
		"shifted":                   {[]string{"USER a\r\nPASS hun", "ter2\r\n", "STAT\r\n"}, 3},
		"grown":                     {[]string{"AUTH PLAIN " + token[:2000], token[:3000], token, "\r\nSTAT\r\n"}, 1},
		"grown with a line before":  {[]string{"PASS hunter2\r\nAUTH " + token[:2000], token[:3000], "\r\n"}, 2},
		"too long":                  {[]string{token[:2000], token, token}, 0},
		"grown and shifted to back": {[]string{token[:2000], token[:2500], "\r\n", "PASS hunter2\r\n", "x"}, 2},
	}
	for name, tt := range tests {
		r := NewReader(&scribbler{parts: tt.parts})
		var seen [][]byte // all memory the reader ever held
		for range tt.lines + 1 {
			_, _ = r.Line(2 * bufferSize)
			if r.own != nil {
				seen = append(seen, r.own[:])
			}
			seen = append(seen, r.buf[:cap(r.buf)])
		}
		r.Release()
		for _, b := range seen {
			if !allZero(b) {
				t.Errorf("%s: a used buffer still holds %.60q", name, bytes.Trim(b, "\x00"))
			}
		}
		if len(r.Buffered()) != 0 || r.own != nil || r.buf != nil {
			t.Errorf("%s: the reader still holds a buffer", name)
		}
		r.Release() // once more does nothing
	}
}

func allZero(b []byte) bool {
	return len(bytes.Trim(b, "\x00")) == 0
}

func TestReaderUsedAgain(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader("a\nb\n")))
	for _, want := range []string{"a", "b"} {
		if line, err := r.Line(9); string(line) != want || err != nil {
			t.Errorf("%q, %v, want %q", line, err, want)
		}
		r.Release()
	}
}

func FuzzReader(f *testing.F) {
	f.Add(0, []byte("USER a\r\nPASS b c \nQUIT"), 255, uint8(1))
	f.Add(5000, []byte("\r\n\r\n"), 5000, uint8(200))
	f.Add(0, []byte("\r\r\n\n\r"), 0, uint8(2))
	f.Fuzz(func(t *testing.T, long int, in []byte, limit int, chunk uint8) {
		in = append(bytes.Repeat([]byte{'x'}, long&0x1fff), in...) // not in the input: minimizing a long one takes minutes
		limit &= 0x3fff
		r := NewReader(&chunks{in: in, size: int(chunk) + 1})
		defer r.Release()
		rest := in
		for {
			got, err := r.Line(limit)
			want, after, whole := bytes.Cut(rest, []byte{'\n'})
			want = bytes.TrimSuffix(want, []byte{'\r'})
			switch {
			case whole && len(want) <= limit:
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%q, %v, want %q", got, err, want)
				}
			case errors.Is(err, ErrLineTooLong):
				if len(want) <= limit {
					t.Fatalf("%d octets are too long for %d", len(want), limit)
				}
				return
			case len(rest) == 0:
				if !errors.Is(err, io.EOF) {
					t.Fatalf("at the end: %v", err)
				}
				return
			default:
				if whole || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%q, %v, with %q to come", got, err, rest)
				}
				return
			}
			rest = after
			if !bytes.HasPrefix(rest, r.Buffered()) {
				t.Fatalf("buffered %q, to come %q", r.Buffered(), rest)
			}
		}
	})
}

// chunks gives in, size octets at a time.
type chunks struct {
	in   []byte
	size int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in[:min(c.size, len(c.in))])
	c.in = c.in[n:]
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	in := []byte("USER alice@example.org\r\nPASS secret\r\nSTAT\r\n")
	src := bytes.NewReader(nil)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(in)
		r := Reader{src: src}
		for range 3 {
			line, err := r.Line(255)
			if v, _ := ParseCommand(line); v == "" || err != nil {
				b.Fatal(v, err)
			}
		}
		r.Release()
	}
}
