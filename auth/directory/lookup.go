package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/passwd"
)

// A Directory is one source with its cache. Any goroutine may use it, for as long as it likes: its source is closed when nobody
// can use it any more.
type Directory struct {
	// Name is what the configuration calls it.
	Name string
	*core
}

// A core is all of a directory but the handle, which others hold.
type core struct {
	config    Config
	asker     *asker
	cache     *cache // nil where the source has everything in memory
	domains   *domains
	stats     *stats
	passwords *passwd.Checker
}

// A Found is what a directory says of a user it knows.
type Found struct {
	Answer
	// How and Age say where the answer comes from, and how old it is.
	How How
	Age time.Duration
}

// Lookup says where the user of q lives. Its answer is checked: what it names can be told to a server, and a server it names is an
// allowed one. The error wraps auth.ErrUnknownUser, auth.ErrWrongPassword, auth.ErrNetwork or auth.ErrDirectoryDown, or
// is ctx's; in the first case the next directory may know the user. What the source said is returned beside
// auth.ErrWrongPassword and auth.ErrNetwork.
//
// Where q has a secret, Verified says that it is the right one; an answer with a Secret is never given without. Where q has
// none, there is no Secret in the answer.
func (d *Directory) Lookup(ctx context.Context, q *auth.Query) (Found, error) {
	defer runtime.KeepAlive(d) // its source closes when nobody holds it
	if d.cache == nil {
		return d.ask(ctx, q)
	}
	f := d.cache.lookup(ctx, q)
	out := Found{How: f.how, Age: time.Duration(d.cache.now() - f.at)}
	if f.answer != nil {
		out.Answer = *f.answer
	}
	if f.err != nil {
		return out, f.err
	}
	return out, d.admit(ctx, q, &out.Answer)
}

// ask asks a source that has everything in memory.
func (d *Directory) ask(ctx context.Context, q *auth.Query) (Found, error) {
	if !d.asker.begin() {
		return Found{How: Fresh}, d.asker.down(errClosed)
	}
	defer d.asker.flying.Done()
	own := *q
	if d.asker.source.Vary&VarySecret == 0 {
		own.Secret = nil
	}
	answer, err := d.asker.answer(ctx, &own)
	out := Found{Answer: answer, How: Fresh}
	if err != nil {
		return out, err
	}
	return out, d.admit(ctx, q, &out.Answer)
}

// admit holds the client to what the answer asks of it: its network, and its password where that is checked here.
func (d *Directory) admit(ctx context.Context, q *auth.Query, a *Answer) error {
	if len(a.AllowNets) > 0 && !within(a.AllowNets, q.Client.Addr.Addr()) {
		return fmt.Errorf("directory %s: %w", d.Name, auth.ErrNetwork)
	}
	if q.Secret == nil {
		a.Secret = "" // nobody has shown that he may use it
		return nil
	}
	if d.config.Verify && a.Hash != "" && !a.Verified {
		if err := d.verify(ctx, q, a.Hash); err != nil {
			return err
		}
		a.Verified = true
	}
	if a.Secret != "" && !a.Verified {
		return fmt.Errorf("%w: directory %s gives a password for user %q to log in with at the backend, and nobody has checked the client's own: "+
			"write verify: true, and have the directory give the user's password hash", auth.ErrDirectoryDown, d.Name, q.Name.Full())
	}
	return nil
}

// verify checks the client's password against the user's hash.
func (d *Directory) verify(ctx context.Context, q *auth.Query, hash string) error {
	err := d.passwords.Check(ctx, q.Client.Network(), hash, q.Secret.Reveal())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, passwd.ErrWrong):
		return fmt.Errorf("directory %s: %w", d.Name, auth.ErrWrongPassword)
	case ctx.Err() != nil:
		return err
	}
	return fmt.Errorf("%w: directory %s: the password hash of user %q: %w", auth.ErrDirectoryDown, d.Name, q.Name.Full(), err)
}

func within(nets []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range nets {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Refresh says that the password of q's user was refused, so that the directory's answer may be an old one: a later login has it
// fetched anew, at most once in 10 seconds a user. What is known stays in use until the source has given something else.
func (d *Directory) Refresh(q *auth.Query) {
	if d.cache != nil {
		d.cache.refresh(q)
	}
}

// Trouble says why the source could not answer its last lookup, or what is wrong with it while it goes on answering; nil when
// nothing is.
func (d *Directory) Trouble() error {
	if err := d.asker.health.cause(); err != nil {
		return err
	}
	if t, ok := d.asker.source.Source.(Troubled); ok {
		if err := t.Trouble(); err != nil {
			return fmt.Errorf("directory %s: %w", d.Name, err)
		}
	}
	return nil
}

// Domains lists the domains that the directory has users in, in order; none where it cannot list them.
func (d *Directory) Domains() []string {
	defer runtime.KeepAlive(d)
	if l, ok := d.asker.source.Source.(DomainLister); ok {
		return l.Domains()
	}
	return nil
}
