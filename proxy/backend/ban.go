package backend

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A server has banned popgate, it is believed, when within banWindow it has refused so many users with the very password
// that their backend took from them before, from the same network, and has let nobody in between. Nobody who guesses can
// be one of them, nor bring it about for others: he would need the right passwords. Users who change theirs are, each of
// them, for a while; that many at once with nobody getting in between is rare, and ends with the next who does.
const (
	banUsers    = 5
	banNetworks = 3
	banWindow   = 5 * time.Minute

	// goodFor is how long a login that succeeded is remembered.
	goodFor = 24 * time.Hour
	// fewGood and mostGood bound how many are: some million in 8 MiB, in a table that grows as they come. In a full bucket a newer
	// one takes the place of the oldest.
	fewGood  = 1 << 10
	mostGood = 1 << 20
)

var errBanned = errors.New("the server refuses passwords that it took before: it seems to have banned popgate")

// goodLogins remembers which logins succeeded, by fingerprints that nobody can compute or invert without this process's key,
// and that are too short to confirm a guessed password by.
type goodLogins struct {
	seed    maphash.Seed
	table   atomic.Pointer[goodTable] // nil before something was noted
	growing sync.Mutex
}

// A goodTable has slots for fingerprints' upper 40 bits, each beside 24 bits of minutes, in buckets found by the former.
type goodTable struct {
	slots []atomic.Uint64 // a power of two
	taken atomic.Int64
}

// goodBucket is how many slots a fingerprint may be in.
const goodBucket = 4

func newGoodTable(size int) *goodTable { return &goodTable{slots: make([]atomic.Uint64, size)} }

func (t *goodTable) bucket(print uint64) []atomic.Uint64 {
	i := print >> minuteBits & uint64(len(t.slots)-1) &^ (goodBucket - 1)
	return t.slots[i : i+goodBucket]
}

// set notes value, a slot's content: where its fingerprint is, else in a free slot, else in that of the oldest. Two at once may
// take one slot, of which one is forgotten.
func (t *goodTable) set(value uint64) {
	bucket := t.bucket(value)
	best, age := 0, uint64(0)
	for i := range bucket {
		slot := bucket[i].Load()
		if slot == 0 || slot&^minutes == value&^minutes {
			if bucket[i].Swap(value) == 0 {
				t.taken.Add(1)
			}
			return
		}
		if a := (value - slot) & minutes; a > age {
			best, age = i, a
		}
	}
	bucket[best].Store(value)
}

// grow gives g a table of twice the size of t, unless another has done so. What is noted meanwhile may be lost.
func (g *goodLogins) grow(t *goodTable) {
	if !g.growing.TryLock() {
		return
	}
	defer g.growing.Unlock()
	if g.table.Load() != t {
		return
	}
	larger := newGoodTable(2 * len(t.slots))
	for i := range t.slots {
		if v := t.slots[i].Load(); v != 0 {
			larger.set(v)
		}
	}
	g.table.Store(larger)
}

// fingerprint is that of a login: backend, account, the client's network and password.
func (g *goodLogins) fingerprint(a *attempt) uint64 {
	var h maphash.Hash
	h.SetSeed(g.seed)
	part := func(s string) {
		_, _ = h.WriteString(s) // it never fails
		_ = h.WriteByte(0)
	}
	part(a.pool.config.Name)
	part(a.req.Account)
	ip := site(a.req.Client.Addr.Addr()).Addr().As16()
	_, _ = h.Write(ip[:])
	// Hashed first: h would keep a copy of the password in its buffer.
	maphash.WriteComparable(&h, maphash.Bytes(g.seed, a.secret))
	return h.Sum64()
}

const (
	minuteBits = 24
	minutes    = 1<<minuteBits - 1
)

// note remembers a login.
func (g *goodLogins) note(print uint64, now time.Duration) {
	t := g.table.Load()
	if t == nil {
		g.table.CompareAndSwap(nil, newGoodTable(fewGood))
		t = g.table.Load()
	}
	t.set(print&^minutes | uint64(now/time.Minute)&minutes)
	if n := len(t.slots); n < mostGood && t.taken.Load() > int64(n/4) {
		g.grow(t)
	}
}

// knows says that a login has succeeded not long ago.
func (g *goodLogins) knows(print uint64, now time.Duration) bool {
	t := g.table.Load()
	if t == nil {
		return false
	}
	bucket := t.bucket(print)
	for i := range bucket {
		slot := bucket[i].Load()
		if slot != 0 && slot&^minutes == print&^minutes {
			return (uint64(now/time.Minute)-slot)&minutes <= uint64(goodFor/time.Minute)
		}
	}
	return false
}

// A ban is what speaks for it that a server has banned popgate.
type ban struct {
	counting atomic.Bool
	until    atomic.Int64 // it is believed till then, by Backends.now; 0 where it is not

	mu      sync.Mutex
	refused []refusal
}

type refusal struct {
	account string
	network netip.Prefix
	at      time.Duration
}

// believed says that the server seems to have banned popgate.
func (b *ban) believed(now time.Duration) bool {
	return int64(now) < b.until.Load()
}

// refuse notes that a login was refused that had succeeded before, and says that the ban is news.
func (b *ban) refuse(account string, network netip.Prefix, now time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counting.Store(true)
	b.refused = slices.DeleteFunc(b.refused, func(r refusal) bool { return now-r.at > banWindow || r.account == account })
	b.refused = append(b.refused, refusal{account, network, now})
	networks := map[netip.Prefix]bool{}
	for _, r := range b.refused {
		networks[r.network] = true
	}
	known := b.believed(now)
	if !known && (len(b.refused) < banUsers || len(networks) < banNetworks) {
		if len(b.refused) > 8*banUsers { // many users of one network
			b.refused = b.refused[1:]
		}
		return false
	}
	b.refused = b.refused[:0]
	b.until.Store(int64(now + banWindow))
	return !known
}

// lift ends the belief, and says that there was one.
func (b *ban) lift() bool {
	if !b.counting.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counting.Store(false)
	b.refused = b.refused[:0]
	return b.until.Swap(0) != 0
}

// refusedLogin looks whether a refusal may be meant for popgate and not for the user. One who had logged in with this
// password before then hears that he shall try again later. Not one who is being moved: all who were are refused where they
// had been, and are to be let in where they are.
func (a *attempt) refusedLogin(e *Error) {
	if e.Kind != WrongPassword || a.req.Moving {
		return
	}
	s, b := a.member.server, a.pool.backends
	now := b.now()
	if !b.good.knows(b.good.fingerprint(a), now) {
		return
	}
	if s.ban.refuse(a.req.Account, site(a.req.Client.Addr.Addr()), now) {
		s.sicken(now, a.pool.config.RetryAfter)
		b.log.Error("backend refuses many users with passwords that it took before; it seems to have banned popgate's address",
			slog.String("backend", s.backend), slog.String("server", s.address), slog.Any("cause", e), slog.String("fix", banFix))
	}
	if s.ban.believed(now) {
		e.Kind, e.Err = Temporary, errBanned
		s.failed(e)
	}
}

const banFix = "lift the ban there, and exempt popgate's address from its limits and penalties, or set client_info for this backend here"

// acceptedLogin notes that the server has let a user in.
func (a *attempt) acceptedLogin() {
	s, b := a.member.server, a.pool.backends
	b.good.note(b.good.fingerprint(a), b.now())
	if s.ban.lift() {
		b.log.Info("backend takes passwords again", slog.String("backend", s.backend), slog.String("server", s.address))
	}
	if a.pool.config.proxies() {
		a.informed()
	}
}

// informed notes that the server has taken what it was told of the client.
func (a *attempt) informed() {
	s, how := a.member.server, &a.pool.config.ClientInfo
	if t := s.informed.Load(); t == nil || *t != *how {
		s.informed.Store(how)
	}
	if s.deaf.Load() && s.deaf.Swap(false) {
		a.pool.backends.log.Info("backend takes clients' addresses again", slog.String("backend", s.backend), slog.String("server", s.address))
	}
}

// uninformed notes that it has not. Where it had before, its limits are popgate's from now on, or it has them on popgate
// already.
func (a *attempt) uninformed() {
	s := a.member.server
	if t := s.informed.Load(); t == nil || *t != a.pool.config.ClientInfo || !s.deaf.CompareAndSwap(false, true) {
		return
	}
	a.pool.backends.log.Error("backend no longer takes clients' addresses; its limits and penalties hit everybody at once",
		slog.String("backend", s.backend), slog.String("server", s.address), slog.String("client_info", a.pool.config.ClientInfo))
}

// deafTo says that the server no longer takes clients' addresses as c has them sent.
func (s *server) deafTo(c *Config) bool {
	t := s.informed.Load()
	return s.deaf.Load() && t != nil && *t == c.ClientInfo
}
