package backend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// upgraded is a server that can be given another greeting and other capabilities.
func (q *quirky) upgraded(greeting, capa string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.greeting, q.answers = greeting, map[string]string{"CAPA": capa}
}

func TestProfileChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	const old, fresh = "+OK Old 2.3 ready <17.5@example.org>\r\n", "+OK Old 2.4 ready <18.5@example.org>\r\n"
	without := strings.Replace(sound, "PIPELINING\r\n", "UTF8\r\n", 1)
	greeting, capa := old, sound

	// look checks the server n times, as a popgate that was started just now, and returns the log and the Backends.
	address := ""
	var b *Backends
	look := func(n int) string {
		t.Helper()
		q := &quirky{}
		q.upgraded(greeting, capa)
		addr := listen(t, q.serve)
		if address == "" {
			address = addr
		}
		log, lines := logger()
		reg := prometheus.NewRegistry()
		b = New(log, reg)
		if err := b.Remember(dir); err != nil {
			t.Fatal(err)
		}
		p := use(t, b, config(address)).Pool("old")
		to, err := parseAddress(addr, TLSNone)
		if err != nil {
			t.Fatal(err)
		}
		m := *p.members[0] // the same server, listening elsewhere
		m.address.ip = to.ip
		m.address.text = to.text
		for range n {
			p.checkServer(t.Context(), &m)
		}
		b.saveProfiles()
		if got, want := testutil.CollectAndCount(collector{b}, "popgate_backend_changes_total"), 1; got != want {
			t.Errorf("got %d series of changes, want %d", got, want)
		}
		return lines.String()
	}

	if log := look(3); strings.Contains(log, "changed") {
		t.Errorf("a server seen first has changed: %s", log)
	}
	greeting, capa = fresh, without
	if log := look(1); strings.Contains(log, "changed") {
		t.Errorf("it has changed at the first sight: %s", log)
	}
	greeting, capa = old, sound
	if log := look(2); strings.Contains(log, "changed") {
		t.Errorf("one look is no change: %s", log)
	}
	greeting, capa = fresh, without
	log := look(4)
	for _, want := range []string{`what=greeting from="Old 2.3 ready" to="Old 2.4 ready"`,
		`what=capabilities from="PIPELINING, SASL PLAIN, TOP, UIDL, USER" to="SASL PLAIN, TOP, UIDL, USER, UTF8"`} {
		if strings.Count(log, want) != 1 {
			t.Errorf("got %s, want %s once", log, want)
		}
	}
	if log := look(3); strings.Contains(log, "changed") {
		t.Errorf("it is told again after a restart: %s", log)
	}
	s := b.Status()[0].Servers[0]
	if s.Greeting != "Old 2.4 ready" || len(s.Changes) != 2 || !strings.HasPrefix(s.Changes[0].String(), "capabilities: with UTF8, without PIPELINING") {
		t.Errorf("got %q, %v", s.Greeting, s.Changes)
	}
}

// A greeting that is another each time is none that changes, and another configuration sees another server.
func TestProfileNoise(t *testing.T) {
	p := newProfiles()
	id := serverID{"old", "10.0.0.5:110"}
	for i := range 10 {
		seen := map[string]string{"greeting": strings.Repeat("x", i+1), "tls": "TLS 1.2"}
		if changes := p.observe(id, "starttls none capa", seen, time.Unix(0, 0)); changes != nil {
			t.Errorf("got %v", changes)
		}
	}
	for range 3 {
		if changes := p.observe(id, "none none capa", map[string]string{"greeting": "other"}, time.Unix(0, 0)); changes != nil {
			t.Errorf("got %v behind another configuration", changes)
		}
	}
	for range 100 { // of more than are remembered
		for _, text := range []string{"a", "a", "b", "b"} {
			p.observe(id, "none none capa", map[string]string{"greeting": text}, time.Unix(0, 0))
		}
	}
	if _, changes := p.of(id); len(changes) != maxChanges {
		t.Errorf("got %d changes, want %d", len(changes), maxChanges)
	}
}

func TestRememberBrokenFile(t *testing.T) {
	for name, text := range map[string]string{"cut": `{"version": 1, "serv`, "of another version": `{"version": 2}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, profilesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := New(nil, nil)
		if err := b.Remember(dir); err == nil || !strings.Contains(err.Error(), profilesFile) {
			t.Errorf("%s: got %v", name, err)
		}
		b.saveProfiles() // a new one takes its place
		if err := New(nil, nil).Remember(dir); err != nil {
			t.Errorf("%s: after that: %v", name, err)
		}
	}
}
