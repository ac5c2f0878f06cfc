package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// refuser is a POP3 server that refuses every password once it has thought about it.
func refuser(t testing.TB, think time.Duration) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { refuse(c, think) })
		}
	})
	return l.Addr().String()
}

func refuse(c net.Conn, think time.Duration) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	for reply := "+OK ready\r\n"; ; {
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "PASS":
			<-time.After(think)
			reply = "-ERR [AUTH] no\r\n"
		case "CAPA":
			reply = "+OK\r\nUSER\r\nUIDL\r\nTOP\r\n.\r\n"
		case "QUIT":
			return
		default:
			reply = "+OK\r\n"
		}
	}
}

// The kinds of refusals that a stranger must not be able to tell apart, by the user who meets them. Those at slow.example live where
// passwords take longer than a tick to check.
var refusalKinds = map[string]string{
	"wrong password":      "anna@quick.example",
	"no such user":        "nobody@nowhere.example",
	"locked out":          "locked@quick.example",
	"tenant":              "bob@limited.example",
	"origin":              "carol@denied.example",
	"policy":              "policy@quick.example",
	"wrong password slow": "anna@slow.example",
	"locked out slow":     "locked@slow.example",
	"tenant slow":         "bob@limited.slow.example",
	"origin slow":         "carol@denied.slow.example",
	"policy slow":         "policy@slow.example",
}

const (
	timingTick  = 50 * time.Millisecond
	timingThink = 75 * time.Millisecond // of the slow backend: more than one tick, less than two
)

// refusing is a gateway that refuses in all these ways.
func refusing(t *testing.T, tick time.Duration) *served {
	wforced := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		allow := !strings.Contains(r.URL.String(), "report")
		if allow && bytes.Contains(body, []byte(`"policy@`)) {
			_, _ = io.WriteString(w, `{"status":-1,"msg":"no","r_attrs":{}}`)
			return
		}
		if r.URL.Query().Get("command") == "report" || strings.HasSuffix(r.URL.Path, "/report") {
			_, _ = io.WriteString(w, `{"status":"ok"}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":0,"msg":"","r_attrs":{}}`)
	}))
	t.Cleanup(wforced.Close)
	nonce := filepath.Join(t.TempDir(), "nonce")
	if err := os.WriteFile(nonce, []byte("a nonce of many words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serveConfig(t, fmt.Sprintf(`
backends:
  - {name: quick, servers: [{address: %q}]}
  - {name: slow, servers: [{address: %q}]}
routes:
  - {domains: [quick.example, denied.example], backend: quick}
  - {domains: [limited.example], backend: quick, tenant: limited}
  - {domains: [slow.example, denied.slow.example], backend: slow}
  - {domains: [limited.slow.example], backend: slow, tenant: limited}
access:
  lists: [{name: here, networks: [127.0.0.0/8]}]
  rules: [{name: denied, users: ["@denied.example", "@denied.slow.example"], networks: {deny: [here]}}]
weakforced: {url: %q, nonce_file: %q}
lockout: {user: {delay_after: 0, lockout_after: 0}, network: {delay_after: 0, lockout_after: 0}, spray: {users: 0, users_per_password: 0}}
limits: {failure_delay: %s, per_tenant: {failures: 1/d}}
bounds: {failed_logins: 100000}
timeouts: {client_login: 10m}
`, refuser(t, 0), refuser(t, timingThink), wforced.URL+"/", nonce, tick))
	for _, user := range []string{"locked@quick.example", "locked@slow.example"} {
		if err := s.policy.Lockouts().Add(netip.MustParsePrefix("127.0.0.1/32"), user, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// A timedClient tries passwords of one user.
type timedClient struct {
	*popClient
	user  string
	tries int
	took  []time.Duration
}

func (s *served) client(t testing.TB, user string) *timedClient {
	t.Helper()
	c, err := dialPOP3([]string{s.address})
	if err == nil {
		err = c.startTLS(s.roots, "mail.example.org")
	}
	if err == nil {
		_, err = c.lines.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return &timedClient{popClient: c, user: user}
}

// try tries one more password, and says how long the answer took.
func (c *timedClient) try() (reply string, took time.Duration, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, "USER "+c.user+"\r\n"); err != nil {
		return "", 0, err
	}
	if _, err := c.lines.ReadString('\n'); err != nil {
		return "", 0, err
	}
	c.tries++
	began := time.Now()
	if _, err := fmt.Fprintf(c.conn, "PASS wrong%06d\r\n", c.tries); err != nil {
		return "", 0, err
	}
	reply, err = c.lines.ReadString('\n')
	return reply, time.Since(began), err
}

// sample has all kinds refused once in each round, all at once, so that whatever else the machine does meets all alike.
func sample(t *testing.T, s *served, warm, rounds int) map[string][]time.Duration {
	t.Helper()
	clients := map[string]*timedClient{}
	for kind, user := range refusalKinds {
		clients[kind] = s.client(t, user)
	}
	for round := range warm + rounds {
		if round%40 == 39 { // as much as one connection may ask
			for kind, c := range clients {
				clients[kind] = s.client(t, c.user)
				clients[kind].tries, clients[kind].took = c.tries, c.took
			}
		}
		var all sync.WaitGroup
		for kind, c := range clients {
			all.Go(func() {
				reply, took, err := c.try()
				if want := "-ERR [AUTH] Wrong user name or password\r\n"; err != nil || reply != want {
					t.Errorf("%s: got %q, %v, want %q", kind, reply, err, want)
				}
				if round >= warm {
					c.took = append(c.took, took)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	took := map[string][]time.Duration{}
	for kind, c := range clients {
		took[kind] = c.took
	}
	return took
}

// distance is the Kolmogorov-Smirnov statistic of two samples: the widest gap between their distributions, 0 to 1.
func distance(a, b []time.Duration) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	var gap float64
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x := min(a[i], b[j])
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
		gap = max(gap, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	return gap
}

// chance is the share of random divisions of both samples into two that are at least as far apart as these are.
func chance(a, b []time.Duration) float64 {
	const divisions = 2000
	seen, all, further := distance(a, b), slices.Concat(a, b), 0
	for range divisions {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if distance(all[:len(a)], all[len(a):]) >= seen {
			further++
		}
	}
	return float64(further) / divisions
}

func deciles(d []time.Duration) string {
	d = slices.Sorted(slices.Values(d))
	var b strings.Builder
	for i := range 11 {
		fmt.Fprintf(&b, "%v ", d[i*(len(d)-1)/10].Round(10*time.Microsecond))
	}
	return b.String()
}

// untellable holds the time of every kind of refusal against that of a wrong password for a user of the same backend; who is nowhere
// must look like somebody of one of them. It returns what differs by more than chance would have it once in a thousand times.
func untellable(t *testing.T, took map[string][]time.Duration) (differ []string) {
	t.Helper()
	const wrong = "wrong password"
	for _, kind := range slices.Sorted(maps.Keys(took)) {
		like := []string{wrong}
		switch {
		case strings.HasSuffix(kind, " slow"):
			like[0] += " slow"
		case kind == "no such user":
			like = append(like, wrong+" slow")
		}
		p := 0.0
		for _, other := range like {
			p = max(p, chance(took[kind], took[other]))
		}
		t.Logf("%-20s p=%.4f %s", kind, p, deciles(took[kind]))
		if p < 0.001 {
			differ = append(differ, kind)
		}
	}
	return differ
}

// A stranger who takes the time cannot tell a wrong password from a user who is not there, a lockout, a limit, a rule of access or the
// policy service's word, whether the user's backend is quick or takes more than a tick; and all are refused in the same words.
func TestTimingOfRefusals(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes the time of many refusals")
	}
	const rounds = 120
	s := refusing(t, timingTick)
	took := sample(t, s, 10, rounds)
	differ := untellable(t, took)
	if len(differ) > 0 { // another sample, for something else on the machine may have struck one kind more than others
		again := untellable(t, sample(t, s, 1, rounds))
		for _, kind := range differ {
			if slices.Contains(again, kind) {
				t.Errorf("%s: its time tells it from a wrong password, in two samples", kind)
			}
		}
	}
	for kind, d := range took {
		if early := slices.Min(d); early < timingTick {
			t.Errorf("%s: refused after %v, before the first tick", kind, early)
		}
	}
}

// The test above can fail: without the pace each kind has a time of its own, and with it a few milliseconds more are seen.
func TestTimingIsTold(t *testing.T) {
	const rounds = 60
	took := sample(t, refusing(t, 0), 5, rounds)
	for kind, like := range map[string]string{"locked out": "wrong password", "locked out slow": "wrong password slow", "wrong password": "wrong password slow"} {
		if p := chance(took[kind], took[like]); p >= 0.001 {
			t.Errorf("without a pace: %s and %s differ as by a chance of %v: %s, %s", kind, like, p, deciles(took[kind]), deciles(took[like]))
		}
	}
	paced := make([]time.Duration, rounds)
	for i := range paced {
		paced[i] = timingTick + time.Duration(rand.ExpFloat64()*float64(2*time.Millisecond))
	}
	same, later := make([]time.Duration, rounds), make([]time.Duration, rounds)
	for i := range same {
		same[i] = timingTick + time.Duration(rand.ExpFloat64()*float64(2*time.Millisecond))
		later[i] = same[i] + 3*time.Millisecond
	}
	if p := chance(paced, later); p >= 0.001 {
		t.Errorf("3ms later: by a chance of %v", p)
	}
	if p := chance(paced, same); p < 0.0001 {
		t.Errorf("no later: by a chance of %v", p)
	}
}
