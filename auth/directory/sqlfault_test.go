//go:build unix

package directory

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// briefly is a context for what must not be answered.
func briefly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// faultsSQL breaks the connections to a database in every way, and the database itself. Whatever happens, no answer may be that
// the user is unknown, and when the fault is over the next lookup is answered.
func faultsSQL(t *testing.T, d *database) {
	p := newFaultProxy(t, "unix", d.socket)
	c := d.config(p.addr())
	c.Query = usersQueryFor(d.driver)
	o := openTestSQL(t, c)
	for _, tt := range []struct {
		name  string
		fault fault
		end   ending
	}{{"hangs", faultHang, byDeadline}, {"refuses", faultRefuse, byItself}, {"garbage", faultGarbage, either}, {"10 MB", faultFlood, byItself}} {
		t.Run(tt.name, func(t *testing.T) {
			answersAgain(t, o)
			p.set(tt.fault)
			unanswered(t, o, tt.end) // by a connection that was there
			unanswered(t, o, tt.end) // and by a new one
			p.set(faultNone)
			answersAgain(t, o)
		})
	}
	t.Run("one connection hangs", func(t *testing.T) {
		c := c
		c.MaxConnections = 1
		o := openTestSQL(t, c)
		p.set(faultHang)
		unanswered(t, o, byDeadline)
		p.set(faultNone)
		answersAgain(t, o)
	})
	t.Run("cut", func(t *testing.T) {
		answersAgain(t, o)
		p.cut()
		answersAgain(t, o) // the same lookup, on another connection
	})
	t.Run("answers 10 MB in truth", func(t *testing.T) {
		for _, text := range []string{"SELECT repeat('x', 10000000) AS backend FROM users WHERE :user <> '' AND email LIKE 'bare%'",
			"SELECT a.email AS backend FROM users a, users b, users c, users d, users e, users f, users g, users h WHERE :user <> ''"} {
			c := c
			c.Query = text
			_, err := openTestSQL(t, c).Lookup(aMinute(t), sqlAsk("a@b.org"))
			if err == nil || errors.Is(err, auth.ErrUnknownUser) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%.40s: got %v, want that it is too long", text, err)
			}
		}
		answersAgain(t, o)
	})
	t.Run("dies and comes back", func(t *testing.T) {
		answersAgain(t, o)
		d.Down(t)
		unanswered(t, o, byItself)
		started := openTestSQL(t, c) // a source that is down is no error at start
		unanswered(t, started, byItself)
		d.Up(t)
		answersAgain(t, o)
		answersAgain(t, started)
	})
}

func answersAgain(t *testing.T, o Opened) {
	t.Helper()
	if a, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil || a.User != "u1" {
		t.Errorf("got %v, %v; want an answer", a, err)
	}
}

// An ending is what ends a lookup that gets no answer.
type ending int

const (
	byDeadline ending = iota
	byItself
	either // garbage may announce more than comes
)

// unanswered asks in vain.
func unanswered(t *testing.T, o Opened, end ending) {
	t.Helper()
	ctx := aMinute(t)
	if end != byItself {
		ctx = briefly(t)
	}
	a, err := o.Lookup(ctx, sqlAsk("full@example.org"))
	late := errors.Is(err, context.DeadlineExceeded)
	switch {
	case err == nil || errors.Is(err, auth.ErrUnknownUser) || errors.Is(err, auth.ErrWrongPassword):
		t.Errorf("got %v, %v; want that the source could not answer", a, err)
	case late && end == byItself || !late && end == byDeadline:
		t.Errorf("got %v, which is not how it should end", err)
	case strings.Contains(err.Error(), realPassword):
		t.Errorf("the password is in %q", err)
	}
}
