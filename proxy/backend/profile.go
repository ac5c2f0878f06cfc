package backend

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/popgate/popgate/policy/statefile"
	"github.com/popgate/popgate/proxy/pop3"
)

const (
	profilesFile    = "backends.json"
	profilesVersion = 1
	maxProfiles     = 16 << 20 // octets of the file
	profileDelay    = time.Second
	// maxChanges bounds how many changes of a server are remembered.
	maxChanges = 8
)

// A ServerChange is something that changed about a server while its configuration here did not: mostly an upgrade there.
type ServerChange struct {
	At time.Time `json:"at"`
	// What is greeting, capabilities, xclient, tls or issuer.
	What string `json:"what"`
	From string `json:"from"`
	To   string `json:"to"`
}

// String says what changed, of capabilities only which came and which went.
func (c ServerChange) String() string {
	if c.What == "capabilities" {
		return "capabilities: " + difference(strings.Split(c.From, ", "), strings.Split(c.To, ", "))
	}
	return fmt.Sprintf("%s: %q, before %q", c.What, c.To, c.From)
}

// A profile is what the checks of a server see again and again.
type profile struct {
	Backend string `json:"backend"`
	Server  string `json:"server"`
	// How is how the server was looked at: another configuration sees another server.
	How string `json:"how"`
	// Seen is what was seen, by what it is about. Next is what was seen last where that is something else: twice in a row, and
	// it is a change. So a greeting that is another each time never is one.
	Seen map[string]string `json:"seen"`
	Next map[string]string `json:"next,omitempty"`
	// Changes are the last ones, the latest last.
	Changes []ServerChange `json:"changes,omitempty"`
}

// profiles are those of all servers of the configuration. Any goroutine may use them.
type profiles struct {
	mu    sync.Mutex
	path  string // "" keeps nothing
	all   map[serverID]*profile
	dirty chan struct{}
}

func newProfiles() profiles {
	return profiles{all: map[serverID]*profile{}, dirty: make(chan struct{}, 1)}
}

// Remember keeps what is known of servers in a file of the folder dir, which Run writes, and reads what is there: what changed
// while popgate was down is then told as well. It is called before Run. The error is why the file could not be read; the
// profiles begin anew then.
func (b *Backends) Remember(dir string) error {
	p := &b.profiles
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path = filepath.Join(dir, profilesFile)
	info, err := os.Stat(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxProfiles {
		err = fmt.Errorf("%s is larger than anything that popgate writes", p.path)
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	var file profileFile
	if err := json.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if file.Version != profilesVersion {
		return fmt.Errorf("%s has the version %d; this popgate knows %d", p.path, file.Version, profilesVersion)
	}
	for _, one := range file.Servers {
		if one != nil && one.Seen != nil {
			p.all[serverID{one.Backend, one.Server}] = one
		}
	}
	return nil
}

type profileFile struct {
	Version int        `json:"version"`
	Servers []*profile `json:"servers"`
}

// observe compares what was seen with what is known, and returns what changed.
func (p *profiles) observe(id serverID, how string, seen map[string]string, now time.Time) []ServerChange {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.all[id]
	if one == nil || one.How != how {
		fresh := &profile{Backend: id.backend, Server: id.address, How: how, Seen: seen}
		if one != nil {
			fresh.Changes = one.Changes
		}
		p.all[id] = fresh
		p.wake()
		return nil
	}
	var changes []ServerChange
	next := map[string]string{}
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		to := seen[what]
		from, known := one.Seen[what]
		waiting, again := one.Next[what]
		switch {
		case known && from == to:
		case !known:
			one.Seen[what] = to
			p.wake()
		case again && waiting == to:
			changes = append(changes, ServerChange{now.UTC().Truncate(time.Second), what, from, to})
			one.Seen[what] = to
		default:
			next[what] = to
		}
	}
	if len(changes) > 0 {
		one.Changes = append(one.Changes, changes...)
		one.Changes = slices.Clone(one.Changes[max(0, len(one.Changes)-maxChanges):])
		p.wake()
	}
	one.Next = next
	return changes
}

// wake asks for the file to be written.
func (p *profiles) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// of returns what the greeting was and what changed. Nobody writes into the result.
func (p *profiles) of(id serverID) (greeting string, changes []ServerChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.all[id]; one != nil {
		return one.Seen["greeting"], one.Changes
	}
	return "", nil
}

// keepProfiles writes the file a moment after something in it changed, until ctx ends.
func (b *Backends) keepProfiles(ctx context.Context) {
	for {
		select {
		case <-b.profiles.dirty:
		case <-ctx.Done():
			return
		}
		wait(ctx, profileDelay, nil) // many servers are seen at once
		b.saveProfiles()
	}
}

// saveProfiles writes the file, without servers that are not there any more.
func (b *Backends) saveProfiles() {
	b.mu.Lock()
	ids := slices.Collect(maps.Keys(b.servers))
	b.mu.Unlock()
	if err := b.profiles.save(ids); err != nil {
		b.log.Warn("keep what is known of backends: changes over a restart will not be told", slog.Any("cause", err))
	}
}

func (p *profiles) save(ids []serverID) error {
	p.mu.Lock()
	if p.path == "" {
		p.mu.Unlock()
		return nil
	}
	kept := map[serverID]*profile{}
	file := profileFile{Version: profilesVersion, Servers: []*profile{}}
	slices.SortFunc(ids, func(a, b serverID) int {
		return strings.Compare(a.backend+"/"+a.address, b.backend+"/"+b.address)
	})
	for _, id := range ids {
		if one := p.all[id]; one != nil {
			kept[id] = one
			file.Servers = append(file.Servers, one)
		}
	}
	p.all = kept
	text, err := json.MarshalIndent(file, "", "  ")
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return statefile.Write(p.path, append(text, '\n'))
}

// profile compares what a check has seen with what is known of the server, and says what changed, once. A server that a
// directory has named is not remembered for long enough.
func (a *attempt) profile() {
	s, c := a.member.server, &a.pool.config
	if s.shared != nil {
		return
	}
	seen := map[string]string{"greeting": withoutStamp(a.hello), "xclient": "not offered"}
	if a.offersXClient {
		seen["xclient"] = "offered"
	}
	if caps := s.caps.Load(); caps != nil && c.Check.Type != CheckGreeting {
		seen["capabilities"] = strings.Join(*caps, ", ")
	}
	if t, ok := a.conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		seen["tls"] = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
		if len(state.PeerCertificates) > 0 {
			seen["issuer"] = issuer(state.PeerCertificates[0].Issuer.Organization, state.PeerCertificates[0].Issuer.CommonName)
		}
	}
	how := strings.Join([]string{a.mode(), c.ClientInfo, c.Check.Type}, " ")
	for _, one := range a.pool.backends.profiles.observe(serverID{s.backend, s.address}, how, seen, time.Now()) {
		s.tally().changed.Add(1)
		a.pool.backends.log.Warn("backend changed; see what of it matters with: popgate doctor", slog.String("backend", s.backend),
			slog.String("server", s.address), slog.String("what", one.What), slog.String("from", one.From), slog.String("to", one.To))
	}
}

// issuer is who vouches for a certificate. The organization comes first: its CAs' names change with each renewal.
func issuer(organization []string, name string) string {
	if len(organization) > 0 {
		return strings.Join(organization, ", ")
	}
	return name
}

// withoutStamp is a greeting without its timestamp for APOP, which is another each time.
func withoutStamp(r pop3.Reply) string {
	before, after, ok := strings.Cut(r.Text, "<")
	if _, rest, closed := strings.Cut(after, ">"); ok && closed {
		return strings.TrimSpace(strings.TrimSpace(before) + " " + strings.TrimSpace(rest))
	}
	return r.Text
}
