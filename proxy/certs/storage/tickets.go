package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	// TicketsEvery is how often Tickets want to be synced.
	TicketsEvery = time.Minute
	// A new key opens tickets at once and seals them only when every gateway has had the time to read it, a failed try included.
	ticketLead = 5 * TicketsEvery
	// ticketLife is how long a key seals, ticketKept how many are kept: what a stolen key is good for ends after three days.
	ticketLife = 24 * time.Hour
	ticketKept = 3
	// A ring that another version of popgate made is left alone, and so is one that is implausible.
	ringVersion = 1
	ringTries   = 5
)

// Tickets are session ticket keys that all gateways of a shared storage have in common, so that a client resumes its TLS session
// whichever gateway it meets. Its methods may be called at once.
type Tickets struct {
	store *Store
	key   string

	mu   sync.Mutex
	ring ring
}

// A ring is the keys of one listener as they are stored, the newest first.
type ring struct {
	Version int       `json:"version"`
	Keys    []ringKey `json:"keys"`
}

type ringKey struct {
	Key   []byte    `json:"key"`   // 32 bytes
	Made  time.Time `json:"made"`  // it is replaced a day later
	Seals time.Time `json:"seals"` // from then on
}

// Tickets gives the keys that gateways share under name, which must say all that has to keep sessions apart: the listener and what it asks of clients'
// certificates. It is nil where nothing is shared, and where what is shared is not encrypted: with ticket keys, unlike with
// private keys, recorded TLS 1.2 sessions can be read.
func (s *Store) Tickets(name string) *Tickets {
	if !s.shared || s.sealer == nil {
		return nil
	}
	sum := sha256.Sum256([]byte(name))
	// The first part is for people, the second keeps "a b" and "a_b" apart.
	return &Tickets{store: s, key: "tickets/" + certmagic.StorageKeys.Safe(name) + "-" + hex.EncodeToString(sum[:8])}
}

// Sync reads the keys, and replaces them where that is due. While the storage is down the keys at hand stay; the error is for the log. Call it
// every TicketsEvery.
func (t *Tickets) Sync(ctx context.Context) error {
	for range ringTries {
		now := time.Now()
		record, there, err := t.read(ctx)
		if err != nil {
			return err
		}
		next, stale := there.next(now)
		if stale {
			// By comparison, not by a lock: another gateway may be at it, and then what that one made is read.
			won, err := t.write(ctx, record, next)
			if err != nil {
				return err
			}
			if !won {
				continue
			}
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.ring = next
		return nil
	}
	return fmt.Errorf("session ticket keys: %s is changed all the time", t.key)
}

// Keys gives the keys in force: the first seals, all of them open. There are none before the first successful Sync. Which one seals changes with
// time, so ask after each Sync, failed or not.
func (t *Tickets) Keys() [][32]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ring.order(time.Now())
}

// Stale says that the storage has been down for so long that the keys should have been replaced: the caller then had better make its own.
func (t *Tickets) Stale() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ring.Keys) == 0 || time.Since(t.ring.Keys[0].Made) > ticketLife+time.Hour
}

// read gives what is stored, as it is for write and taken apart. One that cannot be read is to be replaced.
func (t *Tickets) read(ctx context.Context) ([]byte, ring, error) {
	s := t.store
	record, err := s.backend.load(ctx, t.key)
	if err = s.asked(ctx, "load", err); errors.Is(err, fs.ErrNotExist) {
		return nil, ring{}, nil
	}
	if err != nil {
		return nil, ring{}, fmt.Errorf("session ticket keys: %w", err)
	}
	text, err := s.sealer.open(t.key, record)
	var r ring
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Version > ringVersion {
		return nil, ring{}, fmt.Errorf("session ticket keys: %s was made by a newer popgate", t.key)
	}
	if err == nil {
		err = r.check(time.Now())
	}
	if err != nil {
		s.log.Warn("session ticket keys in the storage cannot be used and are made anew", "key", t.key, "error", err)
		return record, ring{}, nil
	}
	return record, r, nil
}

func (t *Tickets) write(ctx context.Context, old []byte, r ring) (bool, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	s := t.store
	won, err := s.backend.replace(ctx, t.key, old, s.sealer.seal(t.key, text))
	if err == nil && !won {
		return false, nil // nothing was written: no word on whether it could be
	}
	if err = s.asked(ctx, "store", err); err != nil {
		return false, fmt.Errorf("session ticket keys: %w", err)
	}
	return won, nil
}

// check refuses what nobody can have made on purpose: it would stay for ever, or fail later.
func (r ring) check(now time.Time) error {
	if r.Version != ringVersion || len(r.Keys) == 0 || len(r.Keys) > ticketKept+1 {
		return fmt.Errorf("%d keys of version %d", len(r.Keys), r.Version)
	}
	for _, k := range r.Keys {
		// A clock that was days ahead must not leave a key that is never replaced.
		if len(k.Key) != 32 || k.Made.After(now.Add(ticketLife)) || k.Seals.After(k.Made.Add(ticketLife)) {
			return fmt.Errorf("a key of %d bytes made at %v", len(k.Key), k.Made)
		}
	}
	return nil
}

// next is what the ring should be now, and whether that is anything else.
func (r ring) next(now time.Time) (ring, bool) {
	n := ring{Version: ringVersion}
	for _, k := range r.Keys {
		if now.Sub(k.Made) < ticketKept*ticketLife {
			n.Keys = append(n.Keys, k)
		}
	}
	stale := len(n.Keys) != len(r.Keys)
	if len(n.Keys) == 0 || now.Sub(n.Keys[0].Made) >= ticketLife {
		fresh := ringKey{Key: make([]byte, 32), Made: now.UTC(), Seals: now.UTC()}
		rand.Read(fresh.Key) // never fails (crypto/rand)
		if len(n.Keys) > 0 {
			fresh.Seals = fresh.Seals.Add(ticketLead)
		}
		n.Keys = append([]ringKey{fresh}, n.Keys...)
		n.Keys = n.Keys[:min(len(n.Keys), ticketKept+1)]
		stale = true
	}
	return n, stale
}

// order puts the key that seals first: the newest whose time has come. Keys that are too old are left out, also while no
// storage says so.
func (r ring) order(now time.Time) [][32]byte {
	var keys [][32]byte
	sealing := -1
	for _, k := range r.Keys {
		if now.Sub(k.Made) >= ticketKept*ticketLife {
			break
		}
		if sealing < 0 && !k.Seals.After(now) {
			sealing = len(keys)
		}
		keys = append(keys, [32]byte(k.Key))
	}
	if sealing > 0 {
		first := keys[sealing]
		keys = slices.Insert(slices.Delete(keys, sealing, sealing+1), 0, first)
	}
	return keys
}
