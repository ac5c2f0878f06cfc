package store

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// mostFilled is how many counts are written in one call, and few how many may be left for the last one.
	mostFilled, few = 1000, 200
	// mostRounds bounds how often what has changed meanwhile is written before the last time.
	mostRounds = 20
	// firstPause and longPause are the first and the longest time between two tries to reach Redis.
	firstPause, longPause = 50 * time.Millisecond, 2 * time.Second
	// farewell is how long a node that ends may take to say so.
	farewell = time.Second
)

// Run keeps this node's counts in Redis, and its own part up, until ctx ends. It must be called once.
func (s *Shared) Run(ctx context.Context) error {
	defer s.leave(ctx)
	pause := firstPause
	for ctx.Err() == nil {
		err := s.merge(ctx)
		if err == nil {
			began := time.Now()
			if err = s.serve(ctx); time.Since(began) > longPause {
				pause = firstPause
			}
		}
		s.cutOff(err)
		// A Redis that has only lost our counts is there: they are written at once, the first time.
		if ctx.Err() != nil || errors.Is(err, errGone) && pause == firstPause {
			pause *= 2 // should it be lost at once again
			continue
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, longPause)
	}
	return nil
}

// turn changes the mode. Only Run's goroutine does.
func (s *Shared) turn(m mode, why error) {
	s.gate.Lock()
	s.mode = m
	s.gate.Unlock()
	s.health.turn(m, why, s)
}

// cutOff ends being together with Redis: whoever waits decides alone.
func (s *Shared) cutOff(why error) {
	s.turn(away, why) // from here on nothing is queued
	d := &s.sender
	d.streak = 0
	d.batch.reset()
	s.queue.take(&d.batch)
	s.unsent(&d.batch, 0)
	s.lumps.reset()
}

// leave tells the other nodes that this one counts nothing any more.
func (s *Shared) leave(ctx context.Context) {
	if s.sender.member == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := s.nodes.Leave(ctx, s.sender.member, s.sender.hash); err != nil {
		s.log.Debug("the other nodes will count this one's sessions until its lease ends", "error", err)
	}
}

// merge writes this node's counts to Redis anew, under a name that nothing sent earlier changes, and tells the turns that were taken
// alone. Decisions go on alone meanwhile, so what changes is written again, until little is left; that is held for as long as it takes
// to look, and from then on changes are sent.
func (s *Shared) merge(ctx context.Context) error {
	d := &s.sender
	d.complained = false
	former, formerHash := d.member, d.hash
	member := s.nodes.Member()
	hash := d.prefix + "n:" + member

	s.gate.Lock()
	s.mode = merging
	s.term++
	s.owed.forgetChanges()
	s.gate.Unlock()
	s.health.turn(merging, nil, s)

	f := filling{s: s, hash: hash}
	if err := f.add(ctx, s.memory.Places()); err != nil {
		return err
	}
	for range mostRounds {
		debts, changed := s.owed.take()
		if err := s.repay(ctx, "", debts); err != nil {
			return err
		}
		if err := f.add(ctx, s.counts(changed)); err != nil {
			return err
		}
		if len(changed)+len(debts) <= few {
			break
		}
	}

	// Nobody changes anything while the last counts are read; who comes after that queues behind them.
	s.gate.Lock()
	debts, changed := s.owed.take()
	for k, n := range s.counts(changed) {
		f.put(k, n)
	}
	s.mode = together
	s.gate.Unlock()

	if err := f.flush(ctx); err != nil {
		s.owed.back(debts)
		return err
	}
	if err := s.join(ctx, member, former); err != nil {
		s.owed.back(debts)
		return err
	}
	d.member, d.hash, d.calls = member, hash, 0
	s.metrics.resyncs.Inc()
	s.health.turn(together, nil, s)
	if formerHash != "" {
		if _, err := s.client.Do(ctx, "UNLINK", formerHash); err != nil {
			return err
		}
	}
	return s.repay(ctx, member, debts)
}

func (s *Shared) join(ctx context.Context, member, former string) error {
	ctx, cancel := context.WithTimeout(ctx, s.sender.patience)
	defer cancel()
	return s.nodes.Join(ctx, member, former)
}

// counts are the places held of the keys, none included.
func (s *Shared) counts(keys map[Key]struct{}) func(yield func(Key, int64) bool) {
	return func(yield func(Key, int64) bool) {
		for k := range keys {
			if !yield(k, s.memory.Count(k)) {
				return
			}
		}
	}
}

// repay tells Redis of turns that were taken without it, as far as this node still has them out.
func (s *Shared) repay(ctx context.Context, member string, debts map[Key]debt) error {
	var b batch
	now := s.memory.now()
	for k, d := range debts {
		paid := d.paid
		if paid > 0 { // what time has brought back since is not owed any more
			paid = min(paid, max(micros(s.memory.until(k, now)-now), 0))
		}
		if paid != 0 {
			b.blob = append(b.blob, 0)
			begin := len(b.blob) - 1
			b.put(tellTurn, k, paid, d.full)
			b.add(begin, entry{})
		}
		delete(debts, k) // should it fail, it may have been told
		if len(b.entries) == mostEntries {
			if err := s.tell(ctx, member, &b); err != nil {
				s.owed.back(debts)
				return err
			}
		}
	}
	return s.tell(ctx, member, &b)
}

// tell sends a batch that nobody waits for.
func (s *Shared) tell(ctx context.Context, member string, b *batch) error {
	if len(b.entries) == 0 {
		return nil
	}
	reply, err := s.call(ctx, member, b.blob)
	if err == nil {
		err = s.deal(b, 0, len(b.entries), reply)
	}
	b.reset()
	return err
}

// filling writes counts into a hash of Redis.
type filling struct {
	s    *Shared
	hash string
	blob []byte
	n    int
}

func (f *filling) add(ctx context.Context, counts func(yield func(Key, int64) bool)) error {
	for k, n := range counts {
		f.put(k, n)
		if f.n >= mostFilled {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
	}
	return f.flush(ctx)
}

func (f *filling) put(k Key, n int64) {
	f.blob = binary.LittleEndian.AppendUint64(f.blob, uint64(k))
	f.blob = binary.LittleEndian.AppendUint64(f.blob, math.Float64bits(float64(n)))
	f.n++
}

// flush writes what was put, and makes the hash if nothing was.
func (f *filling) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.s.sender.patience)
	defer cancel()
	_, err := f.s.sender.fill.Run(ctx, []string{f.hash}, 2*f.s.config.Lease.Milliseconds(), f.blob)
	f.blob, f.n = f.blob[:0], 0
	return err
}
