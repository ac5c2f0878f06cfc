package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/proxy/admin"
)

// A topView is all that one picture of `popgate top` is made of.
type topView struct {
	watch    watch
	now      time.Time
	trouble  string // why there is no answer now
	since    time.Time
	interval time.Duration
	order    topOrder
	paused   bool
	help     bool
	keys     bool // there is somebody to press them

	width  int
	height int  // 0: as many lines as there are
	ascii  bool // the terminal cannot show other characters
}

// page draws it. No line is longer than the width, and there are no more than the height.
func (v *topView) page() []line {
	if v.help {
		return v.fit(topHelp())
	}
	rows := v.height
	if rows == 0 {
		rows = math.MaxInt
	}
	var footer []line
	if v.keys && v.height >= 10 {
		footer = []line{v.footer()}
		rows--
	}
	facts, tables := v.facts(), v.tables()
	reserved := 0
	for _, t := range tables {
		reserved += 2 + min(len(t.rows), fairRows)
	}
	facts = mostImportant(facts, max(rows-reserved, rows-rows/2))
	lines := make([]line, 0, len(facts))
	for _, f := range facts {
		lines = append(lines, f.line)
	}
	lines = append(lines, layTables(tables, rows-len(lines))...)
	for len(footer) > 0 && len(lines) < rows {
		lines = append(lines, nil)
	}
	return v.fit(append(lines, footer...))
}

func (v *topView) fit(lines []line) []line {
	if v.height > 0 {
		lines = lines[:min(len(lines), v.height)]
	}
	return lines
}

// A fact is a line above the tables. The smaller its rank, the sooner it has room.
type fact struct {
	rank int
	line line
}

// mostImportant are n of facts, in their order.
func mostImportant(facts []fact, n int) []fact {
	for len(facts) > max(n, 1) {
		worst := 0
		for i, f := range facts {
			if f.rank >= facts[worst].rank {
				worst = i
			}
		}
		facts = slices.Delete(facts, worst, worst+1)
	}
	return facts
}

// A fact has a label, and mostly a number behind it.
const (
	labelWidth  = 13
	numberWidth = 9
)

// labelled begins a line with what it is about.
func labelled(label string) line { return line{{left(label, labelWidth), faint}} }

func (v *topView) facts() []fact {
	s, now, minute := v.watch.last(), v.watch.now(), v.watch.minute()
	facts := append([]fact{{0, v.title(s)}}, v.notes(s)...)
	i := &s.Sessions
	facts = append(facts, fact{2, labelled("sessions").add(strong, right(thousands(i.LoggedIn+i.BeforeLogin), numberWidth)).
		add(unstyled, fmt.Sprintf("   %s logged in, %s before login", thousands(i.LoggedIn), thousands(i.BeforeLogin)))})
	facts = append(facts,
		fact{3, v.rate("accepted/s", now, now.accepted, good, func(r rates) float64 { return r.accepted })},
		fact{4, v.rate("refused/s", now, now.refused, warning, func(r rates) float64 { return r.refused })})
	if why := reasons(now); why != "" {
		facts = append(facts, fact{6, labelled("").add(unstyled, strings.Repeat(" ", numberWidth+3)+why)})
	}
	p50, p95 := took(quantile(minute.took, 0.50)), took(quantile(minute.took, 0.95))
	facts = append(facts,
		fact{5, labelled("login time").add(strong, right(p95, numberWidth)).add(unstyled, "   p95; p50 "+p50+within(minute))},
		fact{7, labelled("handshakes/s").add(unstyled, right(perSecond(now.handshakes), numberWidth)+handshakes(now))},
		fact{8, labelled("traffic").add(unstyled, right(byteRate(now.out), numberWidth)+"   to clients; "+byteRate(now.in)+" from them")})
	facts = append(facts, fact{9, labelled("listeners").add(unstyled, shares(i.Listeners, true))})
	if len(i.Tenants) > 0 {
		facts = append(facts, fact{10, labelled("tenants").add(unstyled, shares(i.Tenants, false))})
	}
	if c := s.Cluster; c != nil {
		nodes := "nodes"
		if len(c.Nodes) == 1 {
			nodes = "node"
		}
		facts = append(facts, fact{11, labelled("cluster").add(unstyled, fmt.Sprintf("%d %s: %s", len(c.Nodes), nodes, plain(strings.Join(c.Nodes, ", "))))})
	}
	return facts
}

// title says whose picture it is, and of when.
func (v *topView) title(s *admin.Status) line {
	l := line{{"popgate ", strong}, {plain(s.Node), strong}, {"  ", unstyled}}
	switch {
	case v.trouble != "":
		l = l.add(alarm, "no answer for "+roughly(v.now.Sub(v.since))+", trying again")
	case !s.Ready:
		l = l.add(alarm, "not ready")
	case len(s.Notes) > 0:
		l = l.add(warning, "ready, degraded")
	default:
		l = l.add(good, "ready")
	}
	if v.paused {
		l = l.add(warning, "  paused")
	}
	// The clock is the gateway's, so that it stands still when nothing comes.
	end := "up " + roughly(s.Time.Sub(s.Sessions.Started)) + "   " + s.Time.In(v.now.Location()).Format(time.TimeOnly)
	if gap := v.width - l.cells() - cells(end); gap > 0 {
		l = l.add(faint, strings.Repeat(" ", gap)+end)
	}
	return l
}

// maxNotes is how many of the notes are shown.
const maxNotes = 4

// notes are what is wrong.
func (v *topView) notes(s *admin.Status) []fact {
	var all []string
	if v.trouble != "" {
		all = append(all, v.trouble)
	}
	if c := s.Cluster; c != nil && c.Trouble != "" {
		all = append(all, "this node decides alone: "+c.Trouble)
	}
	for _, note := range s.Notes {
		if s.Cluster == nil || s.Cluster.Trouble == "" || !strings.Contains(note, s.Cluster.Trouble) { // once is enough
			all = append(all, note)
		}
	}
	var facts []fact
	for i, n := range all {
		if i == maxNotes-1 && len(all) > maxNotes {
			n = fmt.Sprintf("and %d more: see /readyz", len(all)-i)
		}
		if i == maxNotes {
			break
		}
		facts = append(facts, fact{1, line{{"! " + plain(n), alarm}}})
	}
	return facts
}

// rate is a line with a rate and its course.
func (v *topView) rate(label string, now rates, rate float64, s style, of func(rates) float64) line {
	if now.over == 0 {
		return labelled(label).add(faint, right("...", numberWidth))
	}
	if rate == 0 {
		s = unstyled
	}
	l := labelled(label).add(s, right(perSecond(rate), numberWidth))
	course := v.watch.course(of)
	if len(course) < 2 || v.ascii {
		return l
	}
	room := v.width - labelWidth - numberWidth - 3 - 12
	return l.add(unstyled, "   ").add(s, spark(course, min(room, 60))).add(faint, "  most "+perSecond(slices.Max(course)))
}

// reasons say why logins were refused.
func reasons(r rates) string {
	var all []string
	for _, one := range r.reasons {
		all = append(all, perSecond(one.rate)+" "+plain(one.name))
	}
	return strings.Join(all, ", ")
}

// handshakes says what became of them.
func handshakes(r rates) string {
	var all []string
	if r.handshakes > 0 {
		all = append(all, fmt.Sprintf("%.0f %% resumed", 100*r.resumed/r.handshakes))
	}
	if r.failed > 0 {
		all = append(all, perSecond(r.failed)+" failed")
	}
	if r.turnedAway > 0 {
		all = append(all, perSecond(r.turnedAway)+" refused before")
	}
	if len(all) == 0 {
		return ""
	}
	return "   " + strings.Join(all, ", ")
}

// within says of what time numbers are, where that is not the whole minute yet.
func within(r rates) string {
	if r.over == 0 {
		return ""
	}
	return fmt.Sprintf("; last %.0f s", r.over.Seconds())
}

func (v *topView) footer() line {
	l := line{}
	for _, k := range [...][2]string{{"q", "quit"}, {"s", "sort: " + string(v.order)}, {"p", "pause"}, {"?", "help"}} {
		if k[0] == "p" && v.paused {
			k[1] = "go on"
		}
		l = l.add(strong, k[0]).add(faint, " "+k[1]+"   ")
	}
	return l.add(faint, "every "+v.interval.String())
}

// topHelp is what the key ? shows.
func topHelp() []line {
	var lines []line
	for text := range strings.Lines(`popgate top

q         quit (or Ctrl-C)
s         sort the servers by another column
p         pause: the picture stays, and goes on with the next p
?         this help; any key ends it

accepted/s, refused/s   logins, by what became of them
login time              from the password to the answer
P50, P95                what half, and 19 of 20, of a server's logins did not exceed
LOCKED OUT              the newest lockouts; popgate lockouts has all

Rates are of the last interval, times of the last minute.
`) {
		lines = append(lines, line{{strings.TrimSuffix(text, "\n"), unstyled}})
	}
	return lines
}
