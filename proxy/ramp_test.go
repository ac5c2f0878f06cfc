package proxy

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// endless is a listener whose clients are all there at once, and never end. Each is closed, for nobody serves its address.
type endless struct {
	net.Listener
	taken  chan time.Time
	every  time.Duration // how long until the next comes
	closed chan struct{}
}

func (l *endless) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	case <-time.After(l.every):
	}
	here, there := net.Pipe()
	there.Close()
	select {
	case l.taken <- time.Now():
	default: // enough
	}
	return here, nil
}

func (l *endless) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// inStorm serves clients of which one comes every so often, and ends when it is over.
func inStorm(t *testing.T, bounds Bounds, every time.Duration, storm func(t *testing.T, g *Gateway, l *endless)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		s.bounds = bounds
		g := newRig(t, s).gw
		l := &endless{taken: make(chan time.Time, 1<<20), every: every, closed: make(chan struct{})}
		served := make(chan error)
		go func() { served <- g.Serve(context.Background(), l, "nowhere") }()
		storm(t, g, l)
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// storming is the default but for what makes it slower to test.
func storming() Bounds {
	b := DefaultBounds()
	b.AcceptRate, b.AcceptBurst = 20, 100
	return b
}

// After a start the first connections are taken at once, then more and more a second, in the end all that come.
func TestAcceptRamp(t *testing.T) {
	b := storming()
	inStorm(t, b, 100*time.Microsecond, func(t *testing.T, g *Gateway, l *endless) {
		began := time.Now()
		time.Sleep(2 * b.AcceptRamp)
		g.Close()
		close(l.taken)
		n, last, perSecond := 0, time.Duration(0), map[int]int{}
		for at := range l.taken {
			last = at.Sub(began)
			if n++; n <= b.AcceptBurst && last > time.Second {
				t.Fatalf("connection %d waited until %v", n, last)
			}
			perSecond[int(last.Seconds())]++
		}
		// A fifth is chance, and a tenth of a second's turns may come at once.
		for second, most := range map[int]int{1: 40, 3: 40, 10: 20 * 8 * 3 / 2, 20: 20 * 64} {
			if got := perSecond[second]; got < 1 || got > most {
				t.Errorf("in second %d came %d, want 1 to %d", second, got, most)
			}
		}
		if early, late := perSecond[2], perSecond[21]; late < 8*early {
			t.Errorf("%d a second at first and %d a second later: the rate does not rise", early, late)
		}
		if got := perSecond[50]; got < 9000 {
			t.Errorf("behind the ramp came %d a second, want all 10,000", got)
		}
		if got := testutil.ToFloat64(g.metrics.accept.waits); got < 15 || got > 36 {
			t.Errorf("connections were held back for %v s, want nearly all of the ramp", got)
		}
	})
}

// A gateway with few clients knows nothing of the ramp, nor does one that has none.
func TestAcceptRampQuiet(t *testing.T) {
	none := storming()
	none.AcceptRamp = 0
	for name, tt := range map[string]struct {
		bounds Bounds
		every  time.Duration
	}{"few": {storming(), 100 * time.Millisecond}, "none": {none, 100 * time.Microsecond}} {
		inStorm(t, tt.bounds, tt.every, func(t *testing.T, g *Gateway, l *endless) {
			time.Sleep(20 * time.Second)
			g.Close()
			if got, want := len(l.taken), int(20*time.Second/tt.every); got < want-1 {
				t.Errorf("%s: %d were taken, want %d", name, got, want)
			}
			if got := testutil.ToFloat64(g.metrics.accept.waits); got != 0 {
				t.Errorf("%s: waited for %v s", name, got)
			}
		})
	}
}

// A listener that a reload adds to a gateway that has run for a while is no start, and the end does not wait for turns.
func TestAcceptRampEnds(t *testing.T) {
	b := storming()
	b.AcceptRate, b.AcceptBurst = 1, 0
	inStorm(t, b, time.Millisecond, func(t *testing.T, g *Gateway, l *endless) {
		time.Sleep(time.Second)
		began := time.Now()
		g.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
	if r := newRamp(time.Now().Add(-2*b.AcceptRamp), &b); r != nil {
		t.Error("a listener long after the start has a ramp")
	}
}
