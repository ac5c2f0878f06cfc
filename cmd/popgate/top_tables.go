package main

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/admin"
)

// A topOrder is what servers are sorted by.
type topOrder string

// The orders, in which the key s goes through them.
const (
	bySlowest  topOrder = "slowest"
	bySessions topOrder = "sessions"
	byLogins   topOrder = "logins"
	byName     topOrder = "name"
)

func (o topOrder) next() topOrder {
	all := []topOrder{bySlowest, bySessions, byLogins, byName}
	return all[(slices.Index(all, o)+1)%len(all)]
}

// A table has rows of the same columns below its head.
type table struct {
	head line
	rows []line
}

// fairRows is how many rows each table has before there are empty lines between them.
const fairRows = 3

// layTables lays tables below each other, in n lines at most. One that would have no row is left out, the last first.
func layTables(tables []table, n int) []line {
	for len(tables) > 0 && n < 2*len(tables) {
		tables = tables[:len(tables)-1]
	}
	shown := make([]int, len(tables))
	left := dealRows(tables, shown, n-len(tables), fairRows)
	apart := left >= len(tables) // room for an empty line before each
	if apart {
		left -= len(tables)
	}
	dealRows(tables, shown, left, math.MaxInt)
	var lines []line
	for i, t := range tables {
		if apart {
			lines = append(lines, nil)
		}
		lines = append(append(lines, t.head), t.rows[:shown[i]]...)
	}
	return lines
}

// dealRows deals n rows out in turn, up to most for each table, so that none of them takes all. It returns what is left.
func dealRows(tables []table, shown []int, n, most int) int {
	for more := true; more && n > 0; {
		more = false
		for i, t := range tables {
			if n > 0 && shown[i] < min(len(t.rows), most) {
				shown[i]++
				n--
				more = true
			}
		}
	}
	return n
}

// tables are those that have anything in them.
func (v *topView) tables() []table {
	s := v.watch.last()
	all := []table{v.serverTable(s)}
	if len(s.Lockouts.Newest) > 0 {
		all = append(all, v.lockoutTable(s))
	}
	networks := shareRows{fmt.Sprintf("NETWORKS (%s)", thousands(s.Sessions.NetworkCount)), s.Sessions.Networks, network}
	users := shareRows{fmt.Sprintf("USERS (%s)", thousands(s.Sessions.UserCount)), s.Sessions.Users, plain}
	const apart = 4
	if half := (v.width - apart) / 2; half >= 30 {
		all = append(all, beside(networks.table(half), users.table(half), half, apart))
	} else {
		all = append(all, networks.table(v.width), users.table(v.width))
	}
	if v.height == 0 { // on paper there is an end to what anybody reads
		for i := range all[1:] {
			all[i+1].rows = all[i+1].rows[:min(len(all[i+1].rows), 10)]
		}
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.rows) == 0 })
}

// A column is a column of the servers' table.
type column struct {
	head  string
	width int
	from  int // the width of the screen from which on there is room for it
	cell  func(s *admin.ServerStatus, now, minute serverRates) (string, style)
}

var serverColumns = [...]column{
	{"STATE", 9, 30, func(s *admin.ServerStatus, _, _ serverRates) (string, style) {
		state := serverState(admin.Server{State: s.State, Drained: s.Drained})
		if state == "up" {
			return state, good
		}
		return state, alarm
	}},
	{"SESSIONS", 9, 46, func(s *admin.ServerStatus, _, _ serverRates) (string, style) {
		return outOf(s.Sessions, s.MaxSessions), unstyled
	}},
	{"QUEUE", 6, 66, func(s *admin.ServerStatus, _, _ serverRates) (string, style) {
		if s.Queued > 0 {
			return strconv.Itoa(s.Queued), warning
		}
		return "0", faint
	}},
	{"LOGINS/S", 9, 52, func(_ *admin.ServerStatus, now, _ serverRates) (string, style) {
		return perSecond(now.logins), unstyled
	}},
	{"P50", 8, 60, func(_ *admin.ServerStatus, _, minute serverRates) (string, style) {
		return took(quantile(minute.took, 0.50)), unstyled
	}},
	{"P95", 8, 0, func(_ *admin.ServerStatus, _, minute serverRates) (string, style) {
		return took(quantile(minute.took, 0.95)), strong
	}},
}

func (v *topView) serverTable(s *admin.Status) table {
	now, minute := v.watch.now(), v.watch.minute()
	room := v.width
	var columns []column
	for _, c := range serverColumns {
		if v.width >= c.from {
			columns = append(columns, c)
			room -= c.width + 1
		}
	}
	t := table{head: line{{left("SERVERS", room), strong}}}
	for i, c := range columns {
		t.head = t.head.add(strong, " "+aligned(i, c.head, c.width))
	}
	for _, one := range v.sorted(s.Servers, now, minute) {
		k := serverKey{one.Backend, one.Server}
		name := plain(one.Server)
		if v.width >= 60 {
			name = plain(one.Backend) + " " + name
		}
		if one.Directory {
			name += " (directory)"
		}
		row := line{{left(name, room), unstyled}}
		for i, c := range columns {
			text, style := c.cell(&one, now.servers[k], minute.servers[k])
			row = row.add(style, " "+aligned(i, text, c.width))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// aligned puts the first column, which has words, to the left.
func aligned(i int, text string, n int) string {
	if i == 0 {
		return left(text, n)
	}
	return right(text, n)
}

// sorted are the servers in the order that was asked for. Those that are not well are the slowest.
func (v *topView) sorted(all []admin.ServerStatus, now, minute rates) []admin.ServerStatus {
	slowness := func(s *admin.ServerStatus) float64 {
		if s.State != "up" && !s.Drained {
			return 1e9
		}
		d, above, _ := quantile(minute.servers[serverKey{s.Backend, s.Server}].took, 0.95)
		if above {
			return 1e6
		}
		return d.Seconds()
	}
	logins := func(s *admin.ServerStatus) float64 { return now.servers[serverKey{s.Backend, s.Server}].logins }
	return slices.SortedStableFunc(slices.Values(all), func(a, b admin.ServerStatus) int {
		by := 0
		switch v.order {
		case bySlowest:
			by = cmp.Compare(slowness(&b), slowness(&a))
		case bySessions:
			by = cmp.Compare(b.Sessions, a.Sessions)
		case byLogins:
			by = cmp.Compare(logins(&b), logins(&a))
		}
		return cmp.Or(by, cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Server, b.Server))
	})
}

func (v *topView) lockoutTable(s *admin.Status) table {
	columns := []int{9, 9, 18} // left, failures, cause
	if v.width < 60 {
		columns = columns[:1]
	}
	room := v.width
	for _, c := range columns {
		room -= c + 1
	}
	row := func(style style, name string, rest ...string) line {
		l := line{{left(name, room), style}}
		for i, c := range columns {
			if i == 2 {
				l = l.add(style, "  "+left(rest[i], c-1))
			} else {
				l = l.add(style, " "+right(rest[i], c))
			}
		}
		return l
	}
	t := table{head: row(strong, fmt.Sprintf("LOCKED OUT (%s)", thousands(s.Lockouts.InForce)), "LEFT", "FAILURES", "WHY")}
	for _, one := range s.Lockouts.Newest {
		t.rows = append(t.rows, row(unstyled, lockedOutName(&one), roughly(one.Until.Sub(s.Time)), strconv.Itoa(one.Failures),
			strings.ReplaceAll(plain(string(one.Cause)), "_", " ")))
	}
	return t
}

// lockedOutName says who is locked out.
func lockedOutName(l *lockout.Lockout) string {
	switch {
	case l.User == 0:
		return networkText(l.Network)
	case l.Name == "":
		return "a user from " + networkText(l.Network)
	}
	return plain(l.Name) + " from " + networkText(l.Network)
}

// network writes a client network that came as text.
func network(text string) string {
	if p, err := netip.ParsePrefix(text); err == nil {
		return networkText(p)
	}
	return plain(text)
}

// shareRows are names with their sessions.
type shareRows struct {
	title  string
	shares []proxy.Share
	name   func(string) string
}

func (r shareRows) table(width int) table {
	const column = 9
	room := width - column - 1
	t := table{head: line{{left(r.title, room) + " " + right("SESSIONS", column), strong}}}
	for _, s := range r.shares {
		t.rows = append(t.rows, line{{left(r.name(s.Name), room) + " " + right(thousands(s.Sessions), column), unstyled}})
	}
	return t
}

// beside puts two tables beside each other.
func beside(a, b table, width, apart int) table {
	t := table{head: slices.Concat(a.head, line{{strings.Repeat(" ", apart), unstyled}}, b.head)}
	for i := range max(len(a.rows), len(b.rows)) {
		row := line{{strings.Repeat(" ", width), unstyled}}
		if i < len(a.rows) {
			row = slices.Clone(a.rows[i])
		}
		row = row.add(unstyled, strings.Repeat(" ", apart))
		if i < len(b.rows) {
			row = append(row, b.rows[i]...)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// shares lists names with their sessions in one line.
func shares(all []proxy.Share, before bool) string {
	var texts []string
	for _, s := range all {
		text := plain(s.Name) + " " + thousands(s.Sessions)
		if before && s.BeforeLogin > 0 {
			text += fmt.Sprintf(" (%s before login)", thousands(s.BeforeLogin))
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return "no sessions"
	}
	return strings.Join(texts, ", ")
}
