package main

import (
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/admin"
)

var update = flag.Bool("update", false, "write the pictures in testdata/top anew")

var topBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// topTimes are times of logins, so many in each bucket that is named by its index.
func topTimes(counts map[int]uint64) admin.Times {
	t := admin.Times{Bounds: topBounds, Counts: make([]uint64, len(topBounds)+1)}
	for i, n := range counts {
		t.Counts[i] = n
	}
	return t
}

// topReadingAt is what a busy gateway answers at second n of what is watched.
func topReadingAt(n uint64) *admin.Status {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	wave := uint64(500 * (1 - math.Cos(float64(n)/8)))
	now := start.Add(time.Duration(n) * time.Second)
	locked := func(user lockout.Key, name string, network string, left time.Duration, failures int, cause lockout.Cause) lockout.Lockout {
		return lockout.Lockout{
			Network: netip.MustParsePrefix(network), User: user, Name: name, Until: now.Add(left), Failures: failures, Cause: cause,
		}
	}
	return &admin.Status{
		Time: now, Node: "gw1", Version: "v1.2.3", Ready: true, Notes: []string{},
		Sessions: proxy.Info{
			Started: start.Add(-75 * time.Hour), LoggedIn: 12001, BeforeLogin: 344,
			Listeners: []proxy.Share{{Name: "pop3s", Sessions: 11841, BeforeLogin: 344}, {Name: "pop3", Sessions: 504}},
			Tenants:   []proxy.Share{{Name: "acme", Sessions: 9000}, {Name: "example", Sessions: 3001}},
			Networks: []proxy.Share{
				{Name: "198.51.100.7/32", Sessions: 812}, {Name: "2001:db8:1234:5678::/64", Sessions: 77}, {Name: "192.0.2.7/32", Sessions: 12},
			},
			NetworkCount: 9120,
			Users: []proxy.Share{
				{Name: "info@acme.example", Sessions: 9}, {Name: "日本語のとても長い名前のユーザー@example.org", Sessions: 4},
				{Name: "evil\x1b[2J\u202e@example.org", Sessions: 2},
			},
			UserCount: 11544,
		},
		Totals: admin.Totals{
			Logins:       map[string]uint64{"accepted": 100000 + 150*n + wave, "wrong_password": 7000 + 8*n, "unknown_user": 900 + 2*n, "in_use": 5},
			LoginSeconds: topTimes(map[int]uint64{3: 40 * n, 4: 90 * n, 6: 25 * n, 8: 5 * n}),
			Refused:      map[string]uint64{"rate_limited": 3 * n}, Handshakes: 200000 + 180*n, Resumed: 150000 + 153*n,
			HandshakeFailures: map[string]uint64{"alert": n}, BytesIn: 40000 * n, BytesOut: 12_300_000 * n,
		},
		Servers: []admin.ServerStatus{
			{Backend: "old", Server: "10.0.0.5:110", State: "up", Sessions: 6000, LoginSeconds: topTimes(map[int]uint64{3: 40 * n, 4: 40 * n})},
			{Backend: "old", Server: "10.0.0.6:110", State: "up", Sessions: 5400, MaxSessions: 5400, Queued: 12, LoginSeconds: topTimes(map[int]uint64{6: 40 * n, 8: 20 * n})},
			{Backend: "business", Server: "[2001:db8::5]:110", State: "down"},
			{Backend: "business", Server: "pop.business.example:995", State: "up", Drained: true, Sessions: 1, LoginSeconds: topTimes(map[int]uint64{15: 10})},
		},
		Lockouts: admin.LockoutStatus{InForce: 1204, Newest: []lockout.Lockout{
			locked(0, "", "203.0.113.9/32", 14*time.Minute+5*time.Second, 60, lockout.NetworkFailures),
			locked(7, "anna@example.org", "192.0.2.7/32", 59*time.Minute, 10, lockout.UserFailures),
			locked(8, "", "2001:db8:9::/64", 26*time.Hour, 12, lockout.OnePassword),
		}},
	}
}

// topScene is a minute of it.
func topScene(change func(*topView, *admin.Status)) *topView {
	v := &topView{interval: 2 * time.Second, order: bySlowest, keys: true, width: 80, height: 24}
	for n := uint64(0); n <= 60; n += 2 {
		s := topReadingAt(n)
		v.watch.add(s)
		v.now = s.Time
	}
	change(v, v.watch.last())
	return v
}

func size(width, height int) func(*topView, *admin.Status) {
	return func(v *topView, _ *admin.Status) { v.width, v.height = width, height }
}

// TestTopPictures holds pictures in many sizes and states against those in testdata/top. -update writes them anew, to be looked at.
func TestTopPictures(t *testing.T) {
	for name, v := range map[string]*topView{
		"80x24":  topScene(size(80, 24)),
		"120x50": topScene(size(120, 50)),
		"40x12":  topScene(size(40, 12)),
		"20x5":   topScene(size(20, 5)),
		"once":   topScene(func(v *topView, _ *admin.Status) { v.width, v.height, v.keys = 100, 0, false }),
		"trouble": topScene(func(v *topView, s *admin.Status) {
			v.trouble, v.since = "ask the gateway at /run/popgate/popgate.sock: connection refused", v.now.Add(-12*time.Second)
			v.order = byName
			s.Notes = []string{"backend business: no server can be reached", "audit: records are not written: \x1b]0;x\adisk full", "a", "b", "c"}
			s.Cluster = &admin.ClusterState{Trouble: "redis 10.0.0.9:6379: i/o timeout", Nodes: []string{"gw1", "gw2", "gw3"}}
		}),
		"first": {now: time.Unix(0, 0).UTC(), watch: watch{[]*admin.Status{{Node: "gw1"}}}, order: bySlowest, interval: time.Second, keys: true, width: 80, height: 24},
		"help":  topScene(func(v *topView, _ *admin.Status) { v.help = true }),
		"paused": topScene(func(v *topView, _ *admin.Status) {
			v.paused, v.order, v.ascii, v.height = true, bySessions, true, 16
		}),
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			lines := v.page()
			texts := paper(lines, v.width, false, v.ascii)
			if v.height > 0 && len(lines) > v.height {
				t.Errorf("%d lines, on a screen of %d", len(lines), v.height)
			}
			for i, text := range texts {
				if n := cells(text); n > v.width {
					t.Errorf("line %d has %d columns, want %d at most: %s", i+1, n, v.width, text)
				}
				if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x202e }) {
					t.Errorf("line %d: %q would do something to the terminal", i+1, text)
				}
				got.WriteString(text + "\n")
			}
			file := filepath.Join("testdata", "top", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want := readText(t, file); got.String() != want {
				t.Errorf("got\n%s\nwant\n%s", &got, want)
			}
		})
	}
}

// TestTopSizes holds for all sizes that nothing is larger than the screen, and that what matters most is on it.
func TestTopSizes(t *testing.T) {
	v := topScene(size(0, 0))
	for _, width := range []int{1, 2, 5, 13, 20, 29, 30, 45, 46, 51, 52, 59, 60, 64, 66, 79, 80, 81, 132} {
		for height := 1; height <= 40; height++ {
			v.width, v.height = width, height
			lines := v.page()
			if len(lines) > height || len(lines) == 0 {
				t.Fatalf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := cells(l.render(width, false)); n > width {
					t.Fatalf("%dx%d: a line of %d columns", width, height, n)
				}
			}
			text := ""
			for _, l := range lines {
				text += l.render(width, false) + "\n"
			}
			for i, want := range []string{"popgate", "sessions", "accepted/s", "refused/s"} {
				if width >= 20 && height >= 2*(i+1) && !strings.Contains(text, want) {
					t.Fatalf("%dx%d: there is no %s in\n%s", width, height, want, text)
				}
			}
		}
	}
}

// TestTopColours holds that colours change no letter.
func TestTopColours(t *testing.T) {
	l := line{{"plain ", unstyled}, {"down", alarm}, {"   ", good}}
	if got, want := l.render(80, true), "plain \x1b[1;31mdown\x1b[m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := l.render(8, true), "plain \x1b[1;31md…\x1b[m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := l.render(80, false), "plain down"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abc", 1, "…"}, {"abc", 0, ""}, {"", 0, ""}, {"abc", -1, ""},
		{"日本", 4, "日本"}, {"日本", 3, "日…"}, {"日本", 2, "…"}, {"日本語", 4, "日…"},
		{"cafe\u0301s", 5, "cafe\u0301s"}, {"cafe\u0301s", 4, "caf…"}, {"ａｂ", 3, "ａ…"}, {"한글", 3, "한…"},
	} {
		if got := cut(tt.text, tt.n); got != tt.want {
			t.Errorf("cut(%q, %d): got %q, want %q", tt.text, tt.n, got, tt.want)
		}
		if got := left(tt.text, tt.n); cells(got) != max(tt.n, 0) {
			t.Errorf("left(%q, %d): got %q", tt.text, tt.n, got)
		}
	}
}

func TestSpark(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		n      int
		want   string
	}{
		{nil, 5, ""}, {[]float64{0, 0}, 5, "▁▁"}, {[]float64{0, 0.01, 50, 100}, 5, "▁▂▅█"}, {[]float64{1, 2, 4}, 2, "▅█"}, {[]float64{1}, -3, ""},
	} {
		if got := spark(tt.values, tt.n); got != tt.want {
			t.Errorf("spark(%v, %d): got %q, want %q", tt.values, tt.n, got, tt.want)
		}
	}
}

func TestTopUnits(t *testing.T) {
	for got, want := range map[string]string{
		perSecond(0): "0.0", perSecond(0.04): "0.0", perSecond(12.34): "12.3", perSecond(99.96): "100", perSecond(1234.5): "1,235",
		byteRate(0): "0 B/s", byteRate(999): "999 B/s", byteRate(1500): "1.5 kB/s", byteRate(12_345_678): "12.3 MB/s", byteRate(5e12): "5000.0 GB/s",
		took(0, false, false): "-", took(500*time.Microsecond, false, true): "< 1 ms", took(12*time.Millisecond, false, true): "12 ms",
		took(1500*time.Millisecond, false, true): "1.5 s", took(time.Minute, true, true): "> 60 s",
		roughly(-time.Second): "0s", roughly(61 * time.Second): "1m 1s", roughly(25 * time.Hour): "1d 1h", roughly(2*time.Hour + 59*time.Second): "2h 0m",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestUnicodeTerminal(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false}, {map[string]string{"LANG": "C"}, false}, {map[string]string{"LANG": "de_DE.UTF-8"}, true},
		{map[string]string{"LANG": "C.utf8"}, true}, {map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, false},
	} {
		if got := unicodeTerminal(func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%v: got %v", tt.env, got)
		}
	}
}

func TestTopOrders(t *testing.T) {
	want := map[topOrder]string{
		bySlowest:  "[2001:db8::5]:110 10.0.0.6:110 10.0.0.5:110 pop.business.example:995",
		bySessions: "10.0.0.5:110 10.0.0.6:110 pop.business.example:995 [2001:db8::5]:110",
		byLogins:   "10.0.0.5:110 10.0.0.6:110 [2001:db8::5]:110 pop.business.example:995",
		byName:     "[2001:db8::5]:110 pop.business.example:995 10.0.0.5:110 10.0.0.6:110",
	}
	order := bySlowest
	for range len(want) {
		v := topScene(func(v *topView, _ *admin.Status) { v.order = order })
		var names []string
		for _, s := range v.sorted(v.watch.last().Servers, v.watch.now(), v.watch.minute()) {
			names = append(names, s.Server)
		}
		if got := strings.Join(names, " "); got != want[order] {
			t.Errorf("%s: got %s, want %s", order, got, want[order])
		}
		delete(want, order)
		order = order.next()
	}
	if order != bySlowest {
		t.Errorf("the key leads to %s in the end", order)
	}
}

func TestPressed(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "q": "q", "sp": "sp", "\x1b[A": "", "\x1b[As": "s", "\x1bOqp": "p", "\x1b[15~q": "q", "\x1b": "", "\x1b[": "", "\x1b[1": "", "\x1bO": "", "\x1bq": "q",
	} {
		if got := string(pressed([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
