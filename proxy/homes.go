package proxy

import (
	"hash/maphash"
	"slices"

	"github.com/popgate/popgate/auth"
)

// homes remembers which backends have refused a user, and somebody of a domain, so that a user whom nobody asks for keeps the pace of
// where he is at home, and one who is nowhere that of one and the same backend, where others of the domain are. It is bounded: the
// newer takes the place of the older. Names are kept as keyed digests.
type homes struct {
	seed  maphash.Seed
	slots []home // nil until somebody was refused
}

// A home is that of a user, or of a domain.
type home struct {
	key uint64
	at  [homeBackends]*ticks // as many as are known, from the first on
}

const (
	homeSlots    = 1 << 14
	homeBackends = 4 // that the users of one domain are told apart by
)

// moved takes note that t's backend has refused the user.
func (h *homes) moved(user auth.Name, t *ticks) {
	if user.Key == "" {
		return
	}
	if h.slots == nil {
		h.seed, h.slots = maphash.MakeSeed(), make([]home, homeSlots)
	}
	key, domain := h.keys(user)
	*h.slot(key) = home{key: key, at: [homeBackends]*ticks{t}}
	d := h.slot(domain)
	if d.key != domain {
		*d = home{key: domain}
	}
	if i := slices.IndexFunc(d.at[:], func(old *ticks) bool { return old == nil || old == t }); i >= 0 {
		d.at[i] = t
	}
}

// of is what the user's refusals are to look like: his own backend's, one of his domain's, or else one of all; always the same one.
func (h *homes) of(user auth.Name, all []*ticks) *ticks {
	if h.slots == nil || len(all) == 0 {
		return nil
	}
	key, domain := h.keys(user)
	for _, k := range [...]uint64{key, domain} {
		if s := h.slot(k); s.key == k {
			n := slices.Index(s.at[:], nil)
			if n < 0 {
				n = len(s.at)
			}
			return s.at[(key>>8)%uint64(n)]
		}
	}
	return all[(key>>8)%uint64(len(all))]
}

func (h *homes) slot(key uint64) *home { return &h.slots[(key>>32)%homeSlots] }

// keys are those of a user and of the domain.
func (h *homes) keys(user auth.Name) (name, domain uint64) {
	return maphash.String(h.seed, user.Key) | 1, maphash.String(h.seed, "@"+user.Domain) | 1 // no slot's zero
}
