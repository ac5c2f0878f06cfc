package certs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// certmagic's CleanStorage ends at the first record that it cannot read, may delete what another node renews just then, and knows only
// certificates, not those of second keys.

const (
	// cleanEvery is how often the storage is cleaned, by whichever node looks first; cleanLook how often a node looks.
	cleanEvery, cleanLook = 24 * time.Hour, time.Hour
	// longPast is for how long a certificate has run out, or a failure was the last of its name, before it is deleted. The name of such a
	// one is no more ours, or somebody has seen the alert for weeks.
	longPast = 30 * 24 * time.Hour
	// leftBehind is how old challenges and locks are that nobody can be at work on any more.
	leftBehind = 24 * time.Hour

	cleanLock = "popgate_clean"
	cleanKey  = "cleaned.json"
)

// cleaned is the record of the last cleaning.
type cleaned struct {
	At time.Time `json:"at"`
}

// cleaner has the storage cleaned until ctx ends.
func (m *manager) cleaner(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(cleanLook/2 + rand.N(cleanLook)): // apart from the other nodes
		}
		v := m.view.Load()
		if v == nil || v.depot.store.Health() != nil {
			continue
		}
		n, err := v.clean(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
		case err != nil:
			m.log.Warn("clean the certificate storage", "deleted", n, "error", err)
		case n > 0:
			m.log.Info("certificate storage cleaned of what ran out long ago or was left behind", "deleted", n)
		}
	}
}

// clean deletes what is of no more use, unless that was done of late or another node is at it, and says how much it deleted.
func (v *acmeView) clean(ctx context.Context, now time.Time) (n int, err error) {
	st := v.depot.store
	if ok, err := st.TryLock(ctx, cleanLock); err != nil || !ok {
		return 0, err
	}
	defer func() { err = errors.Join(err, st.Unlock(context.WithoutCancel(ctx), cleanLock)) }()
	data, err := st.Load(ctx, cleanKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, storage.ErrUnreadable) {
		return 0, err
	}
	// A record that cannot be read, or of a clock that was ahead, must not end all cleaning.
	var last cleaned
	_ = json.Unmarshal(data, &last)
	if since := now.Sub(last.At); since >= 0 && since < cleanEvery {
		return 0, nil
	}
	for _, part := range []func(context.Context, *storage.Store, time.Time) (int, error){
		v.cleanSites, v.cleanChallenges, v.cleanTroubles, v.cleanLocks,
	} {
		more, err := part(ctx, st, now)
		if n += more; err != nil {
			return n, err
		}
	}
	data, err = json.Marshal(cleaned{At: now.UTC()})
	if err != nil {
		return n, err
	}
	return n, st.Store(ctx, cleanKey, data)
}

// cleanSites deletes certificates that ran out long ago.
func (v *acmeView) cleanSites(ctx context.Context, st *storage.Store, now time.Time) (n int, err error) {
	places, err := v.store.places(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range places {
		if !v.ranOut(ctx, p, now) {
			continue
		}
		deleted, err := v.cleanSite(ctx, st, p, now)
		if err != nil {
			return n, err
		}
		if deleted {
			n++
		}
	}
	return n, ctx.Err()
}

// ranOut says whether the certificate at p is of no more use. One that cannot be read is left for those who look after it.
func (v *acmeView) ranOut(ctx context.Context, p place, now time.Time) bool {
	data, err := v.store.fetch(ctx, p.certKey())
	if err != nil {
		return false
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return false
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	return err == nil && now.Sub(leaf.NotAfter) > longPast
}

// cleanSite deletes one, unless somebody is just at work on it.
func (v *acmeView) cleanSite(ctx context.Context, st *storage.Store, p place, now time.Time) (bool, error) {
	lock := "issue_cert_" + p.name
	if ok, err := st.TryLock(ctx, lock); err != nil || !ok {
		return false, err
	}
	defer func() { _ = st.Unlock(context.WithoutCancel(ctx), lock) }()
	if !v.ranOut(ctx, p, now) {
		return false, nil
	}
	if err := st.Delete(ctx, path.Dir(p.certKey())); err != nil {
		return false, fmt.Errorf("delete the certificate of %s: %w", p.name, err)
	}
	return true, nil
}

// cleanChallenges deletes those of orders that were cut off.
func (v *acmeView) cleanChallenges(ctx context.Context, st *storage.Store, now time.Time) (n int, err error) {
	keys, err := st.List(ctx, "acme", true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, key := range keys {
		if path.Base(path.Dir(key)) != "challenge_tokens" || !strings.HasSuffix(key, ".json") {
			continue
		}
		info, err := st.Stat(ctx, key)
		if err != nil || now.Sub(info.Modified) < leftBehind {
			continue
		}
		if err := st.Delete(ctx, key); err != nil {
			return n, err
		}
		n++
	}
	return n, ctx.Err()
}

// cleanTroubles deletes what is known of names that nobody has ordered for long.
func (v *acmeView) cleanTroubles(ctx context.Context, st *storage.Store, now time.Time) (n int, err error) {
	all, err := v.store.troubles(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range all {
		if now.Sub(t.At) < longPast {
			continue
		}
		if err := st.Delete(ctx, t.key()); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (v *acmeView) cleanLocks(ctx context.Context, st *storage.Store, _ time.Time) (int, error) {
	return st.DropStaleLocks(ctx, leftBehind)
}
