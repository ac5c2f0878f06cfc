package lockout

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
)

// A Cause says what a lockout or a spray is about.
type Cause string

// The causes.
const (
	UserFailures    Cause = "user_failures"    // too many failures of a user from a network
	NetworkFailures Cause = "network_failures" // too many failures of a network
	ManyUsers       Cause = "many_users"       // many users failed from one network
	OnePassword     Cause = "one_password"     // one wrong password came for many users
	Manual          Cause = "manual"           // an operator's
)

// causes gives each its number in the file.
var causes = [...]Cause{UserFailures, NetworkFailures, ManyUsers, OnePassword, Manual}

// A Kind is what an Event tells.
type Kind string

// The kinds.
const (
	Started       Kind = "lockout.started"
	Ended         Kind = "lockout.ended"
	SprayDetected Kind = "spray.detected"
)

// An Event is something to be put on record.
type Event struct {
	Kind  Kind
	Cause Cause
	// Network is the client network; of a spray with one password, that of the failure that gave it away.
	Network netip.Prefix
	// Name is the user's, "" where the whole network is locked out, and where it is not known any more after a restart.
	Name string
	// Until is when the lockout ends or has ended.
	Until time.Time
	// Failures are those that led to the lockout, Users those of the spray.
	Failures, Users int
}

// A Lockout is one in force.
type Lockout struct {
	Network netip.Prefix `json:"network"`
	// User is the key of the user, 0 where the whole network is locked out; Name its name, where it is known.
	User     Key       `json:"user,omitempty"`
	Name     string    `json:"name,omitempty"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Failures int       `json:"failures"`
	// Times is how often in a row, this one counted.
	Times int   `json:"times"`
	Cause Cause `json:"cause"`
}

// record is what is kept of a lockout, and for a while of one that was, so that the next is longer.
type record struct {
	network      netip.Prefix
	user         Key
	name         string
	since, until int64
	failures     int
	level        uint8 // how many came before it
	ended        bool  // and it was told
	removed      bool  // before its time, which is until now: it counts for nothing
	heard        bool  // of another node, which tells of its end
	cause        Cause
}

// stamp is when the record came to be as it is: of two, the later holds.
func (r *record) stamp() int64 {
	if r.removed {
		return r.until
	}
	return r.since
}

func (r *record) event(kind Kind) Event {
	return Event{Kind: kind, Cause: r.cause, Network: r.network, Name: r.name, Until: time.Unix(0, r.until), Failures: r.failures}
}

// List is the lockouts in force, the oldest first.
func (k *Keeper) List() []Lockout {
	now := k.now()
	var all []Lockout
	k.lockouts.each(func(_ Key, r *record) {
		if !r.ended && r.until > now {
			all = append(all, Lockout{
				Network: r.network, User: r.user, Name: r.name, Since: time.Unix(0, r.since), Until: time.Unix(0, r.until),
				Failures: r.failures, Times: int(r.level) + 1, Cause: r.cause,
			})
		}
	})
	slices.SortFunc(all, func(a, b Lockout) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Network.Addr().Compare(b.Network.Addr()), cmp.Compare(a.User, b.User))
	})
	return all
}

// Add locks out a client network, or one user (auth.Name.Key) from it, for a time; one that is in force is replaced. A
// network's does not touch the users known in it, a user's does so even if it is known.
func (k *Keeper) Add(network netip.Prefix, user string, length time.Duration) error {
	if length <= 0 || length > maxTime {
		return fmt.Errorf("lock out %s: %s is no time for a lockout: write such as 1h", network, length)
	}
	key, r, err := k.subject(network, user)
	if err != nil {
		return fmt.Errorf("lock out %s: %w", network, err)
	}
	now := k.now()
	r.since, r.until, r.name, r.cause = now, now+int64(length), user, Manual
	if r.user != 0 && r.user != k.User(user) {
		r.name = "" // a key is none
	}
	k.endLockout(key, false, now)
	k.put(key, r, nil)
	return nil
}

// Remove ends the lockout of a client network, or of one user from it, and forgets the failures that led to it. It says
// whether there was one.
func (k *Keeper) Remove(network netip.Prefix, user string) (bool, error) {
	key, r, err := k.subject(network, user)
	if err != nil {
		return false, fmt.Errorf("end lockout of %s: %w", network, err)
	}
	if r.user == 0 {
		k.networks.remove(key)
	} else {
		k.pairs.remove(key)
	}
	return k.endLockout(key, false, k.now()), nil
}

// errWide is the error for a network that is not counted as one.
var errWide = errors.New("lockouts are of single client networks, the address of an IPv4 client or the /64 (all users: or /48) of an IPv6 one: wider ones belong in a deny list")

// subject is what is locked out where an operator says so.
func (k *Keeper) subject(network netip.Prefix, user string) (Key, record, error) {
	counted := auth.Network(network.Addr())
	if w := wide(counted); user == "" && w.IsValid() && network.Bits() == wideBits {
		counted = w
	}
	if !counted.IsValid() || network.Bits() < counted.Bits() {
		return 0, record{}, errWide
	}
	key, r := k.hasher.ofNetwork(counted), record{network: counted}
	if user != "" {
		r.user = k.userOf(user)
		key = pair(key, r.user)
	}
	return key, r, nil
}

// userOf is the key of a user whom an operator names: by name, or, where a list has no name, by # and the key.
func (k *Keeper) userOf(user string) Key {
	var key Key
	if hex, ok := strings.CutPrefix(user, "#"); ok && len(hex) == 16 && key.UnmarshalText([]byte(hex)) == nil {
		return key
	}
	return k.User(user)
}

// lockedOut says whether key is; manual asks for an operator's lockouts only.
func (k *Keeper) lockedOut(key Key, now int64, manual bool) bool {
	if k.active.Load() == 0 {
		return false
	}
	s := k.lockouts.lock(key)
	defer s.mu.Unlock()
	r := s.get(key)
	return r != nil && !r.ended && r.until > now && (!manual || r.cause == Manual)
}

// lockOut begins a lockout, unless there is one.
func (k *Keeper) lockOut(key Key, r record, c *Config, now int64) {
	r.since = now
	k.put(key, r, c)
}

// put puts r in force. With c the length is the configuration's, and one that is in force already stays.
func (k *Keeper) put(key Key, r record, c *Config) {
	var before Event
	s := k.lockouts.lock(key)
	if old := s.get(key); old != nil {
		if c != nil && !old.ended && old.until > r.since {
			s.mu.Unlock()
			return
		}
		if !old.ended {
			before = old.event(Ended)
		}
		if c != nil && !old.removed && r.since-old.until < int64(c.MaxDuration) {
			r.level = min(old.level, math.MaxUint8-1) + 1
		}
		behind := max(old.stamp()+int64(time.Microsecond)-r.since, 0) // another node's clock may be ahead
		r.since, r.until = r.since+behind, r.until+behind
	}
	if c != nil {
		r.until = r.since + int64(grown(c.Duration, c.MaxDuration, int(r.level)))
	}
	gone := k.keep(s, key, r)
	s.mu.Unlock()
	k.changed.Store(true)
	k.share(key, &r)
	for _, e := range [...]Event{gone, before} {
		if e.Kind != "" {
			k.tell(e)
		}
	}
	k.tell(r.event(Started))
}

// keep keeps r for key in its shard, which is locked. gone is the end of a lockout that had to make room, if one had to.
func (k *Keeper) keep(s *shard[record], key Key, r record) (gone Event) {
	old := s.get(key)
	switch {
	case old == nil && s.n >= s.most:
		gone = k.makeRoom(s)
	case old != nil && !old.ended:
		k.active.Add(-1)
	}
	*s.use(key) = r
	if !r.ended {
		k.active.Add(1)
		k.soonest(r.until)
	}
	return gone
}

// makeRoom forgets the oldest record of a full shard; one that an operator put in force only where there is no other among
// the oldest.
func (k *Keeper) makeRoom(s *shard[record]) (gone Event) {
	key, r := s.oldest()
	for range 8 {
		if r.cause != Manual || r.ended {
			break
		}
		s.use(key) // it is the newest now
		key, r = s.oldest()
	}
	if !r.ended {
		k.active.Add(-1)
		if !r.heard {
			gone = r.event(Ended)
		}
	}
	s.remove(key)
	return gone
}

// endLockout forgets the lockout of key, and says whether one was in force; one of an operator's stays if automatic.
func (k *Keeper) endLockout(key Key, automatic bool, now int64) bool {
	s := k.lockouts.lock(key)
	r := s.get(key)
	if r == nil || automatic && r.cause == Manual {
		s.mu.Unlock()
		return false
	}
	was := *r
	// Kept as removed: another node may tell of it as it was.
	r.until = max(now, r.since+int64(time.Microsecond))
	r.ended, r.removed, r.name = true, true, ""
	gone := *r
	if !was.ended {
		k.active.Add(-1)
	}
	s.mu.Unlock()
	k.changed.Store(true)
	if !was.removed {
		k.share(key, &gone)
	}
	if was.ended {
		return false
	}
	was.until = min(was.until, now)
	k.tell(was.event(Ended))
	return true
}

// tend tells of lockouts that are over.
func (k *Keeper) tend() {
	now := k.now()
	if k.active.Load() == 0 || now < k.nextEnd.Load() {
		return
	}
	k.nextEnd.Store(math.MaxInt64)
	var over []Event
	k.lockouts.each(func(_ Key, r *record) {
		switch {
		case r.ended:
		case r.until <= now:
			if !r.heard {
				over = append(over, r.event(Ended))
			}
			r.ended, r.name = true, ""
			k.active.Add(-1)
		default:
			k.soonest(r.until)
		}
	})
	for _, e := range over {
		k.tell(e)
	}
}

// soonest has tend look at until, or before.
func (k *Keeper) soonest(until int64) {
	for {
		next := k.nextEnd.Load()
		if next <= until || k.nextEnd.CompareAndSwap(next, until) {
			return
		}
	}
}

func (k *Keeper) tell(e Event) {
	k.metrics.event(e)
	k.events(e)
}
