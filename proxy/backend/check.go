package backend

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

const (
	checkDead   = 10 * time.Second // one that is not, without a retry_after
	checkGap    = time.Second      // at least, between two checks of one server
	checkWithin = time.Minute      // all of one check
	checkSpread = time.Second      // over which the first checks of a view are spread

	never = 365 * 24 * time.Hour

	maxCapabilities = 64
)

// checkSteps are what a check goes on with behind the greeting.
func checkSteps(kind string) []step {
	capa, quit := step{"CAPA", (*attempt).capa}, step{"QUIT", (*attempt).quit}
	switch kind {
	case CheckGreeting:
		return []step{quit}
	case CheckLogin:
		return []step{capa, {"USER", (*attempt).user}, {"PASS", (*attempt).pass}, quit}
	}
	return []step{capa, quit}
}

// Run checks the servers of the view in use until ctx ends, and returns nil then: it asks each for its capabilities
// soon, and every few minutes from then on, and finds out when a dead one is back.
func (b *Backends) Run(ctx context.Context) error {
	var keeping sync.WaitGroup
	keeping.Go(func() { b.keepProfiles(ctx) })
	for ctx.Err() == nil {
		b.watch(ctx, b.view.Load())
	}
	keeping.Wait()
	b.saveProfiles()
	return nil
}

// watch checks the servers of v until another view is used.
func (b *Backends) watch(ctx context.Context, v *View) {
	ctx, cancel := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for _, p := range v.list {
		for _, m := range p.members {
			watchers.Go(func() { p.watch(ctx, m) })
			if !m.address.ip.IsValid() {
				watchers.Go(func() { p.keepResolved(ctx, m, func() bool { return false }) })
			}
		}
	}
	guest := func(w watched) {
		watchers.Go(func() { b.watchGuest(ctx, w) })
		if !w.member.address.ip.IsValid() {
			watchers.Go(func() { w.pool.keepResolved(ctx, w.member, w.guest.gone.Load) })
		}
	}
	for _, w := range b.adopt(v) {
		guest(w)
	}
	for going := true; going; {
		select {
		case one := <-b.guests.arrived:
			if w, ok := b.welcome(v, one); ok {
				guest(w)
			}
		case <-b.changed:
			going = false
		case <-ctx.Done():
			going = false
		}
	}
	cancel()
	watchers.Wait()
}

func (p *Pool) watch(ctx context.Context, m *member) {
	delay := rand.N(checkSpread)
	for wait(ctx, delay, m.server.poke) {
		p.checkServer(ctx, m)
		if !wait(ctx, checkGap, nil) {
			return
		}
		delay = p.checkAgain(m)
	}
}

// wait waits for d, or for a poke. It says that ctx goes on.
func wait(ctx context.Context, d time.Duration, poke <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-poke:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// checkAgain is when a server is to be checked again, with jitter, so that many gateways do not come at once.
func (p *Pool) checkAgain(m *member) time.Duration {
	d := p.config.Check.Interval
	if d == 0 {
		d = never
	}
	if !m.server.up() {
		d = checkDead
		if p.config.RetryAfter > 0 {
			d = p.config.RetryAfter
		}
	}
	return d*4/5 + rand.N(d*2/5+1)
}

// checkServer looks at one server. It marks the server dead or alive as a login would; one that fails the check's own login
// is passed over until it succeeds, or another's does.
func (p *Pool) checkServer(ctx context.Context, m *member) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	a := attempt{pool: p, member: m, as: p.probe}
	if p.probe != nil {
		a.secret = reveal(p.probe)
	}
	defer a.close()
	err := a.run(ctx, p.planOf(m).check)
	if err != nil && !a.lives(err) {
		m.server.tally().failed.Add(1)
		p.backends.log.Debug("check of a server failed", slog.String("backend", p.config.Name), slog.Any("cause", err))
		if p.probe != nil && !a.greeted.IsZero() && err.Kind != Local {
			a.sicken(err, "server fails the check's login; it is passed over")
		}
		return
	}
	m.server.tally().checked.Add(1)
	if p.probe != nil && err == nil {
		a.succeeded()
	}
	a.profile()
	a.warnPublic()
}

// lives says that err is the answer of a server that works. That the account of the check is in use, by the check of
// another node for instance, is none; that it is refused is for an admin to see to, and no reason to shut anybody out.
func (a *attempt) lives(err *Error) bool {
	if a.as == nil {
		return false
	}
	switch err.Kind {
	case InUse, LoginDelay:
		return true
	case WrongPassword, Permanent:
		a.advise(warnProbe, "backend refuses the check's login", "see check.user and check.password_file of this backend",
			slog.Any("cause", err))
		return true
	}
	return false
}

// capa asks for the capabilities. A server without CAPA is one of the time before 1998.
func (a *attempt) capa(ctx context.Context) error {
	r, err := a.command(ctx, append(a.line[:0], "CAPA\r\n"...))
	if err != nil {
		return err
	}
	var caps pop3.Capabilities
	if r.OK {
		if caps, err = a.list(); err != nil {
			return err
		}
	} else {
		if wantsTLS(strings.ToLower(r.Text)) {
			_ = a.refusesPlaintext("CAPA", r) // for its log line
		}
		if a.outOfStep(ctx) {
			return errHeader
		}
		caps = oldCapabilities
	}
	if before := a.member.server.caps.Swap(&caps); before == nil || !slices.Equal(*before, caps) {
		a.pool.backends.view.Load().refresh()
	}
	if c := &a.pool.config; a.mode() == TLSNone && !c.proxies() && caps.Has("STLS") && !caps.Has("USER") {
		// RFC 2449 section 6.3: a server lists USER where it takes it. Dovecot does not list it to addresses that it
		// does not trust, so this is known before the first user fails. Behind a PROXY header it may trust the client.
		_ = a.refusesPlaintext("CAPA", pop3.Reply{OK: true, Text: strings.Join(caps, ", ")})
	}
	return nil
}

// outOfStep says that a -ERR to CAPA was an answer to the PROXY header. QUIT is then answered with what belongs to CAPA,
// and there is more to come, where a server of the time before CAPA says one line and goes.
func (a *attempt) outOfStep(ctx context.Context) bool {
	if !a.pool.config.proxies() {
		return false
	}
	if _, err := a.command(ctx, append(a.line[:0], "QUIT\r\n"...)); err != nil {
		return errors.Is(err, errEarly)
	}
	_, err := a.next()
	return err == nil
}

// list reads the lines of an answer up to its final dot.
func (a *attempt) list() (pop3.Capabilities, error) {
	caps := pop3.Capabilities{}
	for range maxCapabilities {
		line, err := a.next()
		if err != nil {
			return nil, err
		}
		if string(line) == "." {
			slices.Sort(caps)
			return slices.Compact(caps), nil
		}
		if c := pop3.ParseCapability(line); c != "" {
			caps = append(caps, c)
		}
	}
	return nil, &Error{Kind: Protocol, Err: errors.New("the list of capabilities does not end")}
}

// quit takes leave, so that the server's log has no aborted connections in it. What it answers does not matter.
func (a *attempt) quit(ctx context.Context) error {
	_, _ = a.command(ctx, append(a.line[:0], "QUIT\r\n"...))
	return nil
}

// warnPublic says once a day that passwords cross a network that may be anybody's. Of a server that is configured by its
// address Config.Hints says it.
func (a *attempt) warnPublic() {
	tcp, ok := a.raw.RemoteAddr().(*net.TCPAddr)
	if a.mode() != TLSNone || a.member.address.ip.IsValid() || !ok || private(tcp.AddrPort().Addr().Unmap()) {
		return
	}
	a.advise(warnPublic, "passwords go to this backend in plaintext, over an address that is not private",
		"write tls: starttls or tls: implicit for this backend")
}
