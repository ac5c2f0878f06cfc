package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/popgate/popgate/auth"
)

// brokenRows is a source that has for everybody what nobody can follow.
type brokenRows struct{ down bool }

func (s *brokenRows) Lookup(context.Context, *auth.Query) (Answer, error) {
	if s.down {
		return Answer{}, errors.New("out of reach")
	}
	return Answer{}, fmt.Errorf("read: %w", asContent(errors.New("cannot be followed")))
}

func (*brokenRows) Close() error { return nil }

// What a stranger can put into records of his own does not have the source taken for down; that it cannot be reached does.
func TestContentErrorIsNoOutage(t *testing.T) {
	if asContent(nil) != nil {
		t.Error("no error became one")
	}
	c := DefaultConfig()
	source := &brokenRows{}
	a := newAsker(&c, Opened{Source: source, Vary: VaryUser}, &stats{seconds: newSeconds().WithLabelValues("x")}, slog.New(slog.DiscardHandler))
	ask := func() {
		for i := range 2 * brokenAfter {
			if _, err := a.ask(t.Context(), asks(t, fmt.Sprintf("user%d@example.org", i), "")); !errors.Is(err, auth.ErrDirectoryDown) {
				t.Errorf("ask = %v", err)
			}
		}
	}
	if ask(); a.health.broken() != nil || a.health.cause() != nil {
		t.Errorf("taken for down: %v", a.health.cause())
	}
	source.down = true
	if ask(); a.health.broken() == nil {
		t.Error("not taken for down")
	}
}
