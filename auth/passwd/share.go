package passwd

import (
	"context"
	"net/netip"
	"sync"

	"golang.org/x/sync/semaphore"
)

// shares bound what each client network has of the queue for workers: as much as keeps all of them busy, and no more. The rest of
// its checks wait behind each other, so that a flood of guesses from one network holds up another's check by one round.
type shares struct {
	workers int64
	mu      sync.Mutex
	by      map[netip.Prefix]*share // those with checks that run or wait
}

// A share is that of one network. It is by network and not by user: a user's name is known to strangers, who could fill what is his.
type share struct {
	*semaphore.Weighted
	checks int // that hold it or wait for it
}

// acquire waits for a place in the queue.
func (s *shares) acquire(ctx context.Context, from netip.Prefix, threads int64) (release func(), err error) {
	s.mu.Lock()
	own := s.by[from]
	if own == nil {
		own = &share{Weighted: semaphore.NewWeighted(s.workers)}
		s.by[from] = own
	}
	own.checks++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if own.checks--; own.checks == 0 {
			delete(s.by, from)
		}
	}
	if err := own.Acquire(ctx, threads); err != nil {
		leave()
		return nil, err
	}
	return func() {
		own.Release(threads)
		leave()
	}, nil
}
