package backend

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	lookupTimeout = 10 * time.Second
	// lookupGap is between two look-ups at least, though connections fail.
	lookupGap = time.Second
	// maxAddresses bounds how many addresses of a name are used.
	maxAddresses = 16
)

// A hostState is what is known of a server's name. The last good answer stays until there is a new one.
type hostState struct {
	last   atomic.Pointer[[]netip.Addr]
	best   atomic.Pointer[netip.Addr] // answered last
	failed atomic.Pointer[lastError]  // why there is nothing newer; nil where the last look-up went well
	poke   chan struct{}              // asks for a look-up
}

// again asks for a look-up soon: none of the addresses answered.
func (n *hostState) again() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// prefer notes which address answered, for the next connection to begin with.
func (n *hostState) prefer(ip netip.Addr) {
	if b := n.best.Load(); b == nil || *b != ip {
		n.best.Store(&ip)
	}
}

// shun has the next connection begin with another address than ip, which answered, and whose server then did not greet. Which
// one is left to chance: any of them may be down.
func (n *hostState) shun(ip netip.Addr) {
	known := n.last.Load()
	if known == nil || len(*known) < 2 {
		return
	}
	if i := slices.Index(*known, ip); i >= 0 {
		next := (*known)[(i+1+rand.N(len(*known)-1))%len(*known)]
		n.best.Store(&next)
	}
}

// addresses are those of a's name as it was looked up last, the one that answered last first. A name that was never looked
// up is looked up now.
func (b *Backends) addresses(ctx context.Context, a address) ([]netip.Addr, error) {
	known := a.name.last.Load()
	if known == nil {
		ips, err := b.resolve(ctx, a)
		if err != nil {
			return nil, err
		}
		known = &ips
	}
	best := a.name.best.Load()
	if best == nil || (*known)[0] == *best {
		return *known, nil
	}
	i := slices.Index(*known, *best)
	if i < 0 {
		return *known, nil
	}
	ips := append(make([]netip.Addr, 0, len(*known)), *best)
	return append(append(ips, (*known)[:i]...), (*known)[i+1:]...), nil
}

// resolve looks a's name up, and remembers a good answer.
func (b *Backends) resolve(ctx context.Context, a address) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	name := a.text[:strings.LastIndexByte(a.text, ':')] // with the dot at its end, where it has one
	ips, err := b.lookup(ctx, "ip", name)
	if err == nil && len(ips) == 0 {
		err = errors.New("the DNS has no address for it")
	}
	if err != nil {
		return nil, err
	}
	ips = interleave(ips)
	a.name.last.Store(&ips)
	return ips, nil
}

// interleave puts addresses of IPv6 and IPv4 in turn, IPv6 first (RFC 8305 section 4), each in the order in which the
// resolver has them.
func interleave(ips []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr
	for _, ip := range ips {
		f := 0
		if ip = ip.Unmap(); ip.Is4() {
			f = 1
		}
		if !slices.Contains(families[f], ip) {
			families[f] = append(families[f], ip)
		}
	}
	var all []netip.Addr
	for len(all) < maxAddresses && len(families[0])+len(families[1]) > 0 {
		for f := range families {
			if len(families[f]) > 0 {
				all, families[f] = append(all, families[f][0]), families[f][1:]
			}
		}
	}
	return all
}

// keepResolved looks the name of m up, every interval and when its addresses fail, until ctx ends or over says so.
func (p *Pool) keepResolved(ctx context.Context, m *member, over func() bool) {
	b, n := p.backends, m.address.name
	for delay := time.Duration(0); wait(ctx, delay, n.poke) && !over(); {
		_, err := b.resolve(ctx, m.address)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			n.failed.Store(nil)
		default:
			n.failed.Store(&lastError{time.Now(), err.Error()})
			if m.server.due(warnName, b.now()) {
				b.log.Warn("look up a server's name", slog.String("backend", m.server.backend), slog.String("server", m.server.address),
					slog.Any("cause", err), slog.Bool("last_answer_stands", n.last.Load() != nil))
			}
		}
		if !wait(ctx, lookupGap, nil) {
			return
		}
		d := p.config.ResolveInterval
		delay = d*4/5 + rand.N(d*2/5+1)
	}
}
