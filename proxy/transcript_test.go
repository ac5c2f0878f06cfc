package proxy

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
)

// TestTranscripts plays the files of testdata. A file has cases, each below a line "== name"; a case has lines:
//
//	set KEY VALUE  changes a setting; only before all others
//	C: TEXT        the client sends the line
//	C* "TEXT"      the client sends these octets, a Go string, in one write
//	S: TEXT        the client gets the line
//	S! clean       the client's stream ends with close_notify
//	S! cut         it ends without
//	TLS            the client starts TLS
//	B< TEXT        the backend gets the line
//	B> TEXT        the backend sends the line
//	B* "TEXT"      the backend sends these octets
//	B1 "TEXT"      the backend sends these octets, one a write
//	B! end         the backend's stream ends
//	B! close       the backend closes its side
//	B! next        what follows is about the next connection to the backend
//	A: TEXT        the next audit record, as text of recordText
//	L: TEXT        the log has a line with this text
//	quit           the client closes without a word
//
// Whatever the backend gets must be in the case, and no record of a login may be missing there. Lines are played in
// their order, so that "A" above "S" is not yet proof that the record came first: TestRecordBeforeReply is.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, cases, _ := strings.Cut("\n"+string(text), "\n== ")
		for c := range strings.SplitSeq(cases, "\n== ") {
			name, script, _ := strings.Cut(c, "\n")
			topic := strings.TrimSuffix(filepath.Base(file), ".txt")
			t.Run(topic+"/"+strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				play(t, script)
			})
		}
	}
}

// A player plays one case.
type player struct {
	t       *testing.T
	line    string
	change  []func(*settings)
	rig     *rig
	client  *client
	backend *leg
	server  *server
	closed  bool // the record of the session's end was read
}

func play(t *testing.T, script string) {
	p := &player{t: t, server: listen(t)}
	for line := range strings.Lines(script) {
		p.line = strings.TrimRight(line, "\r\n")
		if p.line == "" || p.line[0] == '#' {
			continue
		}
		word, arg, _ := strings.Cut(p.line, " ")
		if word == "set" {
			key, value, _ := strings.Cut(arg, " ")
			p.change = append(p.change, func(s *settings) { p.set(s, key, value) })
			continue
		}
		p.begin()
		p.step(word, arg)
	}
	p.line = "at the end of the case"
	p.begin()
	p.finish()
}

func (p *player) set(s *settings, key, value string) {
	number, _ := strconv.Atoi(value)
	length, _ := time.ParseDuration(value)
	switch key {
	case "tls":
		s.listener.TLS = value
	case "legacy":
		s.listener.Legacy, s.listener.LegacyNetworks = true, []netip.Prefix{netip.MustParsePrefix(value)}
	case "login_delay":
		s.limits.User.LoginDelay = limit.Delay(length)
	case "allow_authzid":
		s.listener.AllowAuthzid = value == "true"
	case "default_domain":
		s.listener.DefaultDomain = value
	case "bad_commands":
		s.bounds.BadCommands = number
	case "failed_logins":
		s.bounds.FailedLogins = number
	case "line":
		s.bounds.Line = Size(number)
	case "auth_line":
		s.bounds.AuthLine = Size(number)
	case "greeting_timeout":
		s.backend.GreetingTimeout = length
	case "reply_timeout":
		s.backend.ReplyTimeout = length
	case "backend_login":
		s.timeouts.BackendLogin = length
	case "client_login":
		s.timeouts.ClientLogin = length
	default:
		p.t.Fatalf("%s: no such setting", p.line)
	}
}

// begin starts the gateway and its client, once all settings are known.
func (p *player) begin() {
	p.t.Helper()
	if p.rig != nil {
		return
	}
	p.rig = start(p.t, p.server.address, p.change...)
	p.client = p.rig.plain()
	if p.rig.snap.Listeners[0].TLS == TLSImplicit {
		p.client.startTLS(clientTLS())
	}
}

func (p *player) step(word, arg string) {
	t := p.t
	t.Helper()
	switch word {
	case "C:":
		p.client.send(arg + "\r\n")
	case "C*":
		p.client.send(p.unquote(arg))
	case "S:":
		if got := p.client.line(); got != arg {
			t.Fatalf("%s\nthe client got %q", p.line, got)
		}
	case "S!":
		p.client.ends(arg == "clean")
		p.client.conn.Close()
	case "TLS":
		p.client.startTLS(clientTLS())
	case "quit":
		p.client.conn.Close()
	case "A:":
		e := p.rig.next()
		p.closed = e.Name == audit.SessionClosed
		if got := recordText(&e); got != arg {
			t.Fatalf("%s\nthe record is %s", p.line, got)
		}
	case "L:":
		p.rig.log.has(t, arg)
	default:
		p.backendStep(word, arg)
	}
}

func (p *player) backendStep(word, arg string) {
	t := p.t
	t.Helper()
	if p.backend == nil || word+arg == "B!next" {
		p.backend = p.server.next(t)
	}
	switch word {
	case "B<":
		if line, err := p.backend.r.ReadString('\n'); line != arg+"\r\n" {
			t.Fatalf("%s\nthe backend got %q, %v", p.line, line, err)
		}
	case "B>":
		p.tell(arg + "\r\n")
	case "B*":
		p.tell(p.unquote(arg))
	case "B1":
		for _, b := range []byte(p.unquote(arg)) {
			p.tell(string(rune(b)))
		}
	case "B!":
		switch arg {
		case "end":
			if rest, err := io.ReadAll(p.backend.r); len(rest) > 0 || err != nil {
				t.Fatalf("%s\nthe backend got %q, %v", p.line, rest, err)
			}
		case "close":
			p.backend.conn.Close()
		}
	default:
		t.Fatalf("%s: no such line", p.line)
	}
}

func (p *player) tell(octets string) {
	p.t.Helper()
	if _, err := io.WriteString(p.backend.conn, octets); err != nil {
		p.t.Fatalf("%s\n%v", p.line, err)
	}
}

func (p *player) unquote(arg string) string {
	p.t.Helper()
	text, err := strconv.Unquote(arg)
	if err != nil {
		p.t.Fatalf("%s: %v", p.line, err)
	}
	return text
}

// finish sees to it that nothing happened that is not in the case.
func (p *player) finish() {
	p.client.conn.Close()
	if p.backend != nil {
		if rest, _ := io.ReadAll(p.backend.r); len(rest) > 0 {
			p.t.Errorf("the backend got %q too", rest)
		}
		p.backend.conn.Close()
	}
	if !p.closed {
		if e := p.rig.next(); e.Name != audit.SessionClosed {
			p.t.Errorf("a record that is not in the case: %s", recordText(&e))
		}
	}
	p.rig.gw.Close()
	select {
	case e := <-p.rig.audit.events:
		p.t.Errorf("a record too many: %s", recordText(&e))
	default:
	}
	if n := p.server.stop(); n > 0 {
		p.t.Errorf("%d connections to the backend too many", n)
	}
}

// recordText shows what a record says about its session and not about the run.
func recordText(e *audit.Event) string {
	b := string(e.Name)
	for _, f := range []string{e.User, e.Backend, string(e.Mechanism), string(e.Reason)} {
		if f == "" {
			f = "-"
		}
		b += " " + f
	}
	if e.End != nil {
		b += fmt.Sprintf(" retr=%d top=%d dele=%d quit=%v in=%d out=%d", e.Retr, e.Top, e.Dele, e.Quit, e.BytesIn, e.BytesOut)
	}
	return b
}
