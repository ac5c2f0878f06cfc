package certs

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// troubleDir is the folder of the storage where it stands which orders failed, for `popgate certs` while no gateway runs.
const troubleDir = "trouble"

// trouble is why a name's last order failed.
type trouble struct {
	Name  string    `json:"name"`
	Error string    `json:"error"`
	At    time.Time `json:"at"`
	Next  time.Time `json:"next"` // when it is ordered again
}

func (t trouble) key() string {
	return path.Join(troubleDir, certmagic.StorageKeys.Safe(t.Name)+".json")
}

// gone says that a certificate stored at some time has ended the trouble.
func (t trouble) gone(stored time.Time) bool { return stored.After(t.At) }

// jot has what is known of a name's last order written down, where it is the operator's to know: of names that strangers bring up nothing
// is kept. The lock is held.
func (m *manager) jot(e *managed) {
	t := trouble{Name: e.name}
	switch {
	case e.lastErr != nil:
		if e.origin == demanded && e.shown.Load() == nil {
			return
		}
		t.Error, t.At, t.Next = oneLine(e.lastErr), e.lastAt.UTC(), e.due.UTC()
		e.jotted = true
	case !e.jotted:
		return
	default:
		e.jotted = false
	}
	m.jots[e.name] = t
	select {
	case m.newJot <- struct{}{}:
	default:
	}
}

// oneLine is an error's text, that of several joined by semicolons.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// notary writes down what jot has noted, until ctx ends. Nobody waits for the storage there. What cannot be written is tried again.
func (m *manager) notary(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			m.writeJots(last)
			cancel()
			return
		case <-m.newJot:
		case <-again:
		}
		again = nil
		if !m.writeJots(ctx) {
			again = time.After(m.every)
		}
	}
}

// writeJots says whether all is written.
func (m *manager) writeJots(ctx context.Context) bool {
	v := m.view.Load()
	m.mu.Lock()
	jots := m.jots
	m.jots = make(map[string]trouble)
	m.mu.Unlock()
	all := true
	for name, t := range jots {
		if v != nil && v.depot.store.Health() == nil && v.store.writeTrouble(ctx, t) == nil {
			continue
		}
		m.mu.Lock()
		if _, newer := m.jots[name]; !newer && v != nil {
			m.jots[name] = t
			all = false
		}
		m.mu.Unlock()
	}
	return all
}

// writeTrouble stores t, or removes what was stored of its name where there is none any more.
func (s *Store) writeTrouble(ctx context.Context, t trouble) error {
	if t.Error == "" {
		return s.storage.Delete(ctx, t.key())
	}
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return s.storage.Store(ctx, t.key(), value)
}

// troubles reads what is stored of failed orders, by name.
func (s *Store) troubles(ctx context.Context) (map[string]trouble, error) {
	keys, err := s.storage.List(ctx, troubleDir, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := make(map[string]trouble)
	for _, key := range keys {
		value, err := s.storage.Load(ctx, key)
		var t trouble
		// One that cannot be read is no news: the gateway that runs has it.
		if err == nil && json.Unmarshal(value, &t) == nil && t.Name != "" {
			all[t.Name] = t
		}
	}
	return all, ctx.Err()
}
