package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// A progress is one line on a terminal that says how far long work has come. Where standard error is no terminal it says
// nothing. One goroutine at a time may use it.
type progress struct {
	w     io.Writer // nil says nothing
	what  string
	total int64 // bytes; 0 where nobody knows
	read  int64
	began time.Time
	shown time.Time
}

// progressEvery is how often the line changes.
const progressEvery = 200 * time.Millisecond

func newProgress(w io.Writer, what string, total int64) *progress {
	p := &progress{what: what, total: total, began: time.Now()}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

// isTerminal says that somebody looks on while w is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// at says that another read bytes are done, and n things in all, as text says.
func (p *progress) at(read int64, n int, text string) {
	p.read += read
	if p.w == nil || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	percent := ""
	if p.total > 0 {
		percent = fmt.Sprintf(" %3d %%", min(100, 100*p.read/p.total))
	}
	rate := float64(n) / max(time.Since(p.began).Seconds(), 0.001)
	// Erased to its end: the line before may have been longer.
	_, _ = fmt.Fprintf(p.w, "\r%s:%s  %s, %s/s\x1b[K", p.what, percent, text, thousands(int(rate)))
}

// clear takes the line away, so that what follows stands alone. The next at writes it again.
func (p *progress) clear() {
	if p.w != nil && !p.shown.IsZero() {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// thousands writes a number that is not negative with a comma every three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	var b strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
