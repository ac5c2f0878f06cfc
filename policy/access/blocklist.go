package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
)

// The times of asking a blocklist.
const (
	// lookupTime is how long a question may be on its way. That is longer than decisions wait: the answer comes late for this client,
	// and in time for its next connection.
	lookupTime = 3 * time.Second
	// downAfter failures in a row mean that the blocklist is down: decisions do not wait for it any more.
	downAfter = 5
	// retryAfter is how long it is then left alone, but for one question in so long a time.
	retryAfter = 10 * time.Second
)

// The results of looking at a blocklist, for metrics.
const (
	lookupListed = "listed"
	lookupClean  = "clean"
	lookupFailed = "failed" // nobody could say
	lookupLate   = "late"   // a decision was made without the answer
	lookupBusy   = "busy"   // too many questions were on their way
	lookupDown   = "down"   // the blocklist is down, and was not asked
)

// A blocklist is one DNS blocklist, with what it has answered. Any number of goroutines may use it.
type blocklist struct {
	config  BlocklistConfig
	dns     DNSConfig
	zone    string
	codes   []netip.Prefix // empty: all that do not mean a refusal to answer
	servers []string       // that ask asks
	ask     func(ctx context.Context, name string) (records, error)
	begin   func(work func(ctx context.Context)) bool
	log     *slog.Logger
	count   *prometheus.CounterVec

	mu       sync.Mutex
	known    map[netip.Addr]listing
	flying   map[netip.Addr]*flight
	failures int       // in a row
	retry    time.Time // when a blocklist that is down is asked again
	cause    error     // of the last failure
}

// A listing is what a blocklist said of an address.
type listing struct {
	code  netip.Addr // the answer; not valid where the address is not listed
	until time.Time
}

// A flight is a question on its way. code is set before done is closed.
type flight struct {
	done chan struct{}
	code netip.Addr
}

// records are the addresses that DNS has for a name, and how long that holds.
type records struct {
	addrs []netip.Addr
	ttl   time.Duration
}

func (b *blocklist) counted(result string) { b.count.WithLabelValues(b.config.Name, result).Inc() }

// look says what is known of addr, or gives the question that is on its way. Neither is there where nobody asks: then addr counts
// as not listed.
func (b *blocklist) look(addr netip.Addr) (code netip.Addr, f *flight) {
	addr = addr.Unmap().WithZone("")
	if !public(addr) {
		return netip.Addr{}, nil
	}
	// An IPv6 client has a whole /64 of addresses to come from: what is said of one holds for all.
	key := auth.Network(addr).Addr()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if l, ok := b.known[key]; ok && now.Before(l.until) {
		return l.code, nil
	}
	if f := b.flying[key]; f != nil {
		return netip.Addr{}, f
	}
	if len(b.flying) >= b.dns.MaxLookups {
		b.counted(lookupBusy)
		return netip.Addr{}, nil
	}
	if b.failures >= downAfter {
		if now.Before(b.retry) {
			b.counted(lookupDown)
			return netip.Addr{}, nil
		}
		b.retry = now.Add(retryAfter)
	}
	f = &flight{done: make(chan struct{})}
	if !b.begin(func(ctx context.Context) { b.fly(ctx, f, key, addr) }) {
		return netip.Addr{}, nil
	}
	b.flying[key] = f
	return netip.Addr{}, f
}

// wait waits for f, but not longer than ctx. A nil f is there already.
func (b *blocklist) wait(ctx context.Context, f *flight) netip.Addr {
	if f == nil {
		return netip.Addr{}
	}
	select {
	case <-f.done:
		return f.code
	default:
	}
	select {
	case <-f.done:
		return f.code
	case <-ctx.Done():
		b.counted(lookupLate)
		return netip.Addr{}
	}
}

// fly asks the blocklist, and tells all who wait.
func (b *blocklist) fly(ctx context.Context, f *flight, key, addr netip.Addr) {
	defer close(f.done)
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := b.ask(ctx, reversed(addr)+b.zone+".")
	var code netip.Addr
	if err == nil {
		code, err = b.judge(found.addrs)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flying, key)
	if err != nil {
		b.failed(err)
		return
	}
	if b.failures >= downAfter {
		b.log.Info("DNS blocklist answers again", "blocklist", b.config.Name)
	}
	b.failures, b.cause = 0, nil
	f.code = code
	b.remember(key, listing{code, time.Now().Add(found.ttl)})
	if code.IsValid() {
		b.counted(lookupListed)
	} else {
		b.counted(lookupClean)
	}
}

// failed notes that the blocklist could not answer. The caller holds the lock.
func (b *blocklist) failed(err error) {
	b.counted(lookupFailed)
	b.cause = err
	if b.failures++; b.failures == downAfter {
		b.retry = time.Now().Add(retryAfter)
		b.log.Warn("DNS blocklist is down, it refuses nobody until it answers again", "blocklist", b.config.Name, "zone", b.zone, "error", err)
	}
}

// remember keeps an answer. The caller holds the lock.
func (b *blocklist) remember(key netip.Addr, l listing) {
	if _, ok := b.known[key]; !ok && len(b.known) >= b.dns.CacheSize {
		for other := range b.known { // any of them: each can be asked for again
			delete(b.known, other)
			break
		}
	}
	b.known[key] = l
}

// failure says why the blocklist is down; nil while it is not.
func (b *blocklist) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < downAfter {
		return nil
	}
	return fmt.Errorf("DNS blocklist %s: %w", b.config.Name, b.cause)
}

var (
	refusedOne = netip.MustParseAddr("127.0.0.1")
	refusedNet = netip.MustParsePrefix("127.255.255.0/24")
	errRefused = errors.New("it refuses to answer: ask it through a DNS server of your own, or with the name that you have subscribed to")
)

// judge says what answers mean: the first that says that the address is listed, none where it is not. An answer outside
// 127.0.0.0/8 is none of a blocklist's, but of a resolver that has something to sell, or of whoever bought the zone.
func (b *blocklist) judge(answers []netip.Addr) (netip.Addr, error) {
	refused := false
	for _, a := range answers {
		switch {
		case !loopback.Contains(a):
		case len(b.codes) > 0:
			if slices.ContainsFunc(b.codes, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return a, nil
			}
			refused = refused || refusedNet.Contains(a)
		case a == refusedOne || refusedNet.Contains(a):
			refused = true
		default:
			return a, nil
		}
	}
	if refused {
		return netip.Addr{}, errRefused
	}
	return netip.Addr{}, nil
}

// public says that strangers may know something of addr.
func public(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate()
}

const hexDigits = "0123456789abcdef"

// reversed is addr as it stands before a blocklist's zone (RFC 5782 section 2), with the dot behind it.
func reversed(addr netip.Addr) string {
	if addr.Is4() {
		a := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.", a[3], a[2], a[1], a[0])
	}
	a := addr.As16()
	name := make([]byte, 0, 64)
	for i := len(a) - 1; i >= 0; i-- {
		name = append(name, hexDigits[a[i]&0xf], '.', hexDigits[a[i]>>4], '.')
	}
	return string(name)
}
