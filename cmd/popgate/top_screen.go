package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// What a terminal is told (ECMA-48, and xterm's private modes).
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the alternate screen, no cursor, no wrapping of long lines
	screenClose = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K" // clear the rest of the line
	screenRest  = "\x1b[J"
)

// A screen is the whole of a terminal.
type screen struct {
	in, out *os.File // in is nil where nobody can press a key
	colours bool
	before  *term.State // of in, while the screen is open
}

// newScreen returns nil where out is no terminal that can be drawn on.
func newScreen(in io.Reader, out io.Writer, getenv func(string) string) *screen {
	if !isTerminal(out) || getenv("TERM") == "dumb" {
		return nil
	}
	s := &screen{out: out.(*os.File), colours: getenv("NO_COLOR") == ""}
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.in = f
	}
	return s
}

// topSignals are those that end it, and those that tell of another size. They are never given back: the program ends with it.
func topSignals() (stopped, resized chan os.Signal) {
	stopped, resized = make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	notifyResize(resized)
	return stopped, resized
}

// open takes the screen. What stood on it comes back with close.
func (s *screen) open() error {
	if s.in != nil {
		before, err := term.MakeRaw(int(s.in.Fd()))
		if err != nil {
			return fmt.Errorf("read keys from the terminal: %w", err)
		}
		s.before = before
	}
	if _, err := io.WriteString(s.out, screenOpen); err != nil {
		return errors.Join(fmt.Errorf("draw on the terminal: %w", err), s.close())
	}
	return nil
}

func (s *screen) close() error {
	_, err := io.WriteString(s.out, screenClose)
	if s.before != nil {
		err = errors.Join(err, term.Restore(int(s.in.Fd()), s.before))
		s.before = nil
	}
	return err
}

// raw says that keys are read.
func (s *screen) raw() bool { return s.before != nil }

// size is never nothing: a terminal may not know.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// draw shows lines of width columns at most. It is one write over what was there, so that nothing flickers.
func (s *screen) draw(lines []line, width int, ascii bool) error {
	var b strings.Builder
	b.WriteString(screenHome)
	for i, text := range paper(lines, width, s.colours, ascii) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(text)
		if lines[i].cells() < width { // behind the last column the cursor stays on it, and it would be cleared
			b.WriteString(lineRest)
		}
	}
	b.WriteString(screenRest)
	if _, err := io.WriteString(s.out, b.String()); err != nil {
		return fmt.Errorf("draw on the terminal: %w", err)
	}
	return nil
}

// keys sends the keys that are pressed. It returns once the terminal is gone; the end of ctx may leave it waiting for one
// more key.
func (s *screen) keys(ctx context.Context, out chan<- byte) {
	if s.in == nil {
		return
	}
	var b [64]byte
	for {
		n, err := s.in.Read(b[:])
		if err != nil {
			return
		}
		for _, k := range pressed(b[:n]) {
			select {
			case out <- k:
			case <-ctx.Done():
				return
			}
		}
	}
}

// pressed is what of b are keys with a letter: arrows and their like are sequences that begin with ESC.
func pressed(b []byte) []byte {
	var keys []byte
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] != '\x1b':
			keys = append(keys, b[i])
		case i+1 < len(b) && b[i+1] == '[': // up to a letter
			for i += 2; i < len(b) && (b[i] < '@' || b[i] > '~'); i++ {
			}
		case i+1 < len(b) && b[i+1] == 'O':
			i += 2
		}
	}
	return keys
}
