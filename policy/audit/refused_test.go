package audit

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func network(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 32)
}

// plainWriter takes all that is written.
type plainWriter struct {
	mu   sync.Mutex
	text []byte
}

func (w *plainWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	return len(b), nil
}

func (*plainWriter) Close() error { return nil }

// take empties w.
func (w *plainWriter) take() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text
	w.text = nil
	return text
}

func TestRefusedEachTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New("gw1", nil, nil)
		w := &plainWriter{}
		useWriter(l, w, Refuse)
		stop := run(t, l)
		synctest.Wait() // the ticker counts from here
		refuse := func(reason Reason, n netip.Prefix, times int) {
			for range times {
				l.Refused(Refusal{Reason: reason, Network: n})
			}
		}
		refuse(TooManySessions, network(1), 3)
		refuse(TooManySessions, netip.MustParsePrefix("2001:db8::/64"), 2)
		refuse(ProxyHeader, network(1), 1)
		<-time.After(summaryEvery - time.Nanosecond)
		synctest.Wait()
		if got := rows(t, w); got != "" {
			t.Errorf("before ten seconds: got %s", got)
		}
		<-time.After(time.Nanosecond)
		synctest.Wait()
		if got, want := rows(t, w), "proxy_header 192.0.0.1/32 1, too_many_sessions 192.0.0.1/32 3, too_many_sessions 2001:db8::/64 2"; got != want {
			t.Errorf("after ten seconds: got %s, want %s", got, want)
		}
		<-time.After(summaryEvery)
		synctest.Wait()
		if got := rows(t, w); got != "" {
			t.Errorf("when nothing was refused: got %s", got)
		}
		refuse(TooManySessions, network(2), 1)
		stop()
		if got, want := rows(t, w), "too_many_sessions 192.0.0.2/32 1"; got != want {
			t.Errorf("at the end: got %s, want %s", got, want)
		}
	})
}

// rows are the summaries written since it was last called.
func rows(t *testing.T, w *plainWriter) string {
	t.Helper()
	var all []string
	for _, r := range records(t, w.take()) {
		if r["event"] != string(ConnectionsRefused) {
			t.Errorf("got event %v, want %v", r["event"], ConnectionsRefused)
		}
		all = append(all, fmt.Sprint(r["reason"], " ", r["network"], " ", r["count"]))
	}
	return strings.Join(all, ", ")
}

// TestRefusedIsBounded: many networks are summed, and none is lost from the sum.
func TestRefusedIsBounded(t *testing.T) {
	var r refusals
	var wg sync.WaitGroup
	const networks, times = 1000, 5
	for range times {
		wg.Go(func() {
			for i := range networks {
				r.add(Refusal{Reason: TooManySessions, Network: network(i)})
				r.add(Refusal{Reason: TLSFailed, Network: network(i)})
			}
		})
	}
	wg.Wait()
	all := r.take()
	if len(all) != maxRows+2 {
		t.Errorf("rows: got %d, want %d and one for the rest of each reason", len(all), maxRows)
	}
	sums := map[Reason]int64{}
	for i, row := range all {
		sums[row.Reason] += row.count
		if first := i == 0 || all[i-1].Reason != row.Reason; row.Network.IsValid() == first {
			t.Errorf("row %d: got %v, want the rest of a reason first", i, row)
		}
	}
	if sums[TooManySessions] != networks*times || sums[TLSFailed] != networks*times || len(sums) != 2 {
		t.Errorf("sums: got %v, want %d of each", sums, networks*times)
	}
	if got := r.take(); len(got) != 0 {
		t.Errorf("once more: got %v, want nothing", got)
	}
}
