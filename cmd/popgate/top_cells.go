package main

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

// A style is how a part of a line looks on a terminal that has colours.
type style string

// The styles, as the parameters of SGR (ECMA-48).
const (
	unstyled style = ""
	strong   style = "1"
	faint    style = "2"
	good     style = "32"
	warning  style = "33"
	alarm    style = "1;31"
)

// A line is what stands on one line of the screen, part by part.
type line []part

type part struct {
	text  string
	style style
}

func (l line) add(s style, text string) line { return append(l, part{text, s}) }

func (l line) cells() int {
	n := 0
	for _, p := range l {
		n += cells(p.text)
	}
	return n
}

// cells is how many columns text takes on a terminal: East Asian characters two, marks on others none.
func cells(text string) int {
	n := 0
	for _, r := range text {
		n += cellsOf(r)
	}
	return n
}

func cellsOf(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut is as much of text as has room in n columns. Where something is missing it ends in an ellipsis.
func cut(text string, n int) string {
	if cells(text) <= n {
		return text
	}
	room := n - 1
	for i, r := range text {
		if room -= cellsOf(r); room < 0 {
			text = text[:i]
			break
		}
	}
	if n <= 0 {
		return ""
	}
	return text + "…"
}

// left and right bring text to n columns.
func left(text string, n int) string {
	text = cut(text, n)
	return text + strings.Repeat(" ", max(0, n-cells(text)))
}

func right(text string, n int) string {
	text = cut(text, n)
	return strings.Repeat(" ", max(0, n-cells(text))) + text
}

// render makes text of a line, n columns of it, with or without colours.
func (l line) render(n int, colours bool) string {
	var b strings.Builder
	for _, p := range l {
		text := cut(p.text, n)
		n -= cells(text)
		if colours && p.style != unstyled && strings.TrimSpace(text) != "" {
			text = "\x1b[" + string(p.style) + "m" + text + "\x1b[m"
		}
		b.WriteString(text)
		if n <= 0 {
			break
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// paper makes text of lines, for terminals of n columns that may show no more than ASCII.
func paper(lines []line, n int, colours, ascii bool) []string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		if texts[i] = l.render(n, colours); ascii {
			texts[i] = strings.ReplaceAll(texts[i], "…", "~")
		}
	}
	return texts
}

// spark draws numbers that are not negative as bars, the last n of them.
func spark(values []float64, n int) string {
	const bars = "▁▂▃▄▅▆▇█"
	values = values[max(0, len(values)-max(n, 0)):]
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if v > 0 {
			i = min(1+int(v/top*7), 7) // never as low as nothing
		}
		b.WriteString(bars[3*i : 3*i+3])
	}
	return b.String()
}

// perSecond writes a rate with as many digits as are of use.
func perSecond(rate float64) string {
	if rate < 99.95 {
		return fmt.Sprintf("%.1f", rate)
	}
	return thousands(int(math.Round(rate)))
}

// byteRate writes octets a second.
func byteRate(rate float64) string {
	for _, unit := range []string{"B/s", "kB/s", "MB/s"} {
		if rate < 999.5 {
			if rate < 99.95 && unit != "B/s" {
				return fmt.Sprintf("%.1f %s", rate, unit)
			}
			return fmt.Sprintf("%.0f %s", rate, unit)
		}
		rate /= 1000
	}
	return fmt.Sprintf("%.1f GB/s", rate)
}

// took writes a quantile of times.
func took(d time.Duration, above, ok bool) string {
	switch {
	case !ok:
		return "-"
	case above:
		return fmt.Sprintf("> %.0f s", d.Seconds())
	case d < time.Millisecond:
		return "< 1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// roughly writes a length of time by its two largest units.
func roughly(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh %dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd %dh", s/86400, s/3600%24)
}
