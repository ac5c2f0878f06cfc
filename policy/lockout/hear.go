package lockout

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

// maxHeardName is the longest user name that is taken from another node.
const maxHeardName = 512

// maxAhead is how far ahead another node's clock may be.
const maxAhead = int64(2 * time.Minute)

// hear takes what the Keeper of another node tells. It says nothing of it to anybody, and tells nobody of it.
func (k *Keeper) hear(m []byte) {
	if v := k.current.Load(); v == nil || !v.config.Enabled {
		return
	}
	ok := len(m) > 0
	if ok {
		switch m[0] {
		case aboutFailure:
			ok = k.hearFailure(m)
		case aboutSuccess:
			ok = k.hearSuccess(m)
		case aboutLockout:
			ok = k.hearLockout(m[1:])
		default:
			ok = false
		}
	}
	if !ok {
		k.metrics.unread.Inc()
	}
}

// hearFailure counts a failure at another node.
func (k *Keeper) hearFailure(m []byte) bool {
	if len(m) != failureSize || m[1] > 1 {
		return false
	}
	p, ok := readNetwork(m[2:])
	if !ok {
		return false
	}
	l := Login{
		Network: k.Network(p), User: Key(binary.BigEndian.Uint64(m[2+networkSize:])), Secret: Key(binary.BigEndian.Uint64(m[2+networkSize+8:])),
	}
	v := k.current.Load()
	v.count(&Try{view: v, login: l, pair: pair(l.Network.key, l.User), good: m[1] == 1}, k.now(), false)
	return true
}

// hearSuccess remembers a pair that logged in at another node. The bounds that hold for logins here hold for it too.
func (k *Keeper) hearSuccess(m []byte) bool {
	if len(m) != 1+networkSize+8 {
		return false
	}
	p, ok := readNetwork(m[1:])
	if !ok {
		return false
	}
	user := Key(binary.BigEndian.Uint64(m[1+networkSize:]))
	key, now := pair(k.hasher.ofNetwork(p), user), k.now()
	k.remember(key, now, now, func() bool { return k.mayKnow(user, now) })
	k.pairs.remove(key)
	return true
}

// remember has key known-good since success, unless that is over, or may says no to one that was not known.
func (k *Keeper) remember(key Key, success, now int64, may func() bool) {
	c := k.config()
	if success = min(success, now); now-success >= int64(c.KnownFor) {
		return
	}
	s := k.known.lock(key)
	g := s.get(key)
	full := s.n >= s.most
	if g != nil {
		g.success = max(g.success, success)
	}
	s.mu.Unlock()
	if g != nil || !may() || full && !k.heard.pushOut(&k.heard.known, k.known.most(), now) {
		return
	}
	s = k.known.lock(key)
	g = s.use(key)
	g.success = max(g.success, success)
	s.mu.Unlock()
	k.changed.Store(true)
}

// takeKnown remembers a known-good pair off the shelf.
func (k *Keeper) takeKnown(f cluster.Fact) {
	k.remember(Key(f.Key), f.At.UnixNano(), k.now(), func() bool { return true })
}

// hearLockout takes a lockout, or its end, at another node.
func (k *Keeper) hearLockout(m []byte) bool {
	if len(m) < recordSize || len(m) > recordSize+maxHeardName {
		return false
	}
	r, err := readRecord(m[:recordSize])
	if err != nil || r.network != r.network.Masked() {
		return false
	}
	r.name = string(m[recordSize:])
	k.merge(r)
	return true
}

// takeLockout takes one off the shelf.
func (k *Keeper) takeLockout(f cluster.Fact) {
	if len(f.Value) != recordSize {
		k.metrics.unread.Inc()
		return
	}
	r, err := readRecord(f.Value)
	if err != nil || k.key(&r) != Key(f.Key) {
		k.metrics.unread.Inc()
		return
	}
	k.merge(r)
}

// merge takes a record of another node, if it is later than what is known here.
func (k *Keeper) merge(r record) {
	now := k.now()
	r.notAhead(now + maxAhead)
	r.heard = true
	if r.ended = r.ended || r.removed || r.until <= now; r.ended {
		r.name = ""
	}
	key := k.key(&r)
	s := k.lockouts.lock(key)
	old := s.get(key)
	if old != nil && !r.laterThan(old) || old == nil && s.n >= s.most && !k.heard.pushOut(&k.heard.lockouts, k.lockouts.most(), now) {
		s.mu.Unlock()
		return
	}
	gone := k.keep(s, key, r)
	s.mu.Unlock()
	k.changed.Store(true)
	if gone.Kind != "" {
		k.tell(gone)
	}
	if !r.ended || r.removed {
		k.forgive(key, &r)
	}
}

// laterThan says whether r holds, and not old, which is of the same subject.
func (r *record) laterThan(old *record) bool {
	a, b := r.stamp(), old.stamp()
	switch {
	case a != b:
		return a > b
	case r.removed != old.removed:
		return r.removed
	}
	return r.until > old.until
}

// forgive forgets the failures that led to a lockout: the next takes as many again.
func (k *Keeper) forgive(key Key, r *record) {
	if r.user != 0 {
		s := k.pairs.lock(key)
		if p := s.get(key); p != nil {
			p.failed = 0
		}
		s.mu.Unlock()
		return
	}
	s := k.networks.lock(key)
	if n := s.get(key); n != nil {
		n.failed = 0
	}
	s.mu.Unlock()
}

// allowances bound what others may push out of full tables here, whatever they tell: an eighth of each in an hour.
type allowances struct {
	mu              sync.Mutex
	known, lockouts allowance
}

type allowance struct {
	first int64
	n     int
}

// pushOut says whether one more may be pushed out.
func (a *allowances) pushOut(of *allowance, most int, now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now-of.first >= hour {
		*of = allowance{first: now}
	}
	if of.n >= max(most/8, 1) {
		return false
	}
	of.n++
	return true
}
