package store

import (
	"context"
	_ "embed" // the scripts
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

var (
	//go:embed shared.lua
	decideLua string
	//go:embed shared_fill.lua
	fillLua string
)

const (
	// mostEntries is how many go in one call: Redis serves nobody else meanwhile.
	mostEntries = 128
	// slowAfter is how many calls in a row must take longer than the deadline until nobody waits for them any more, and quickAfter
	// how many must be in time until they do again.
	slowAfter, quickAfter = 3, 5
	// probeEvery is how often a slow Redis is asked at least, whether there is anything to ask or not.
	probeEvery = 200 * time.Millisecond
	// refusedBadly is what the script answers where it finds something else than what it keeps.
	refusedBadly = 255
	// callEvery is how far apart calls begin at least, unless the deadline is below patientFrom: a short sleep may take a millisecond. One
	// decision after a while is asked for at once; of many, several go together, which costs a fraction.
	callEvery, patientFrom = 250 * time.Microsecond, 5 * time.Millisecond
	// tellAfter is how long what nobody waits for may wait for a decision to go along with.
	tellAfter = 2 * time.Millisecond
)

var (
	errGone = errors.New("it has lost what this node had written there")
	errOver = errors.New("more is waiting to be sent there than may")
)

// sender is what Run alone uses, but for what is atomic.
type sender struct {
	decide, fill *cluster.Script
	prefix       string // of all keys
	member, hash string // this node's, since the counts were last written anew
	calls        int64  // since then
	patience     time.Duration
	deadline     time.Duration

	batch      batch
	streak     int  // calls in a row that were slow; below 0: that were not
	complained bool // of other people's keys, since the counts were last written anew

	apart time.Duration // how far calls are
	last  time.Time     // when the last one began
	pause *time.Timer
	begun atomic.Int64 // when the call under way began, after origin; 0: there is none
}

// origin is the zero of sender.begun.
var origin = time.Now()

func (d *sender) init(c *cluster.Client, config cluster.ShareConfig) {
	d.decide, d.fill = c.Script(decideLua), c.Script(fillLua)
	d.prefix = c.Key(part, "")
	d.deadline = config.Deadline
	// A connection may have to be made in that time. What has not come by then will not.
	d.patience = min(max(50*config.Deadline, 250*time.Millisecond), config.Redis.Timeout)
	if config.Deadline >= patientFrom {
		d.apart = callEvery
	}
	d.pause = time.NewTimer(time.Hour)
	d.pause.Stop()
}

// stuck says that the call under way has taken longer than anybody would wait for the next.
func (d *sender) stuck() bool {
	begun := d.begun.Load()
	return begun != 0 && int64(time.Since(origin))-begun > int64(d.deadline)
}

// serve sends what waits, until something is wrong or ctx ends.
func (s *Shared) serve(ctx context.Context) error {
	beat := time.NewTicker(s.config.Lease / 4)
	defer beat.Stop()
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	var later <-chan time.Time
	for {
		idle := false // whether to ask though there is nothing to ask
		select {
		case <-s.queue.wake:
		case <-s.queue.later:
			if later == nil {
				later = time.After(tellAfter)
			}
			continue
		case <-later:
		case <-beat.C:
			if err := s.beat(ctx); err != nil {
				return err
			}
			idle = true
		case <-probe.C:
			idle = s.mode == slow // only this goroutine changes it, so it may look without the gate
		case <-ctx.Done():
			return ctx.Err()
		}
		later = nil
		if err := s.sendAll(ctx, idle); err != nil {
			return err
		}
	}
}

// sendAll sends what waits, in so many calls that they are not too close together.
func (s *Shared) sendAll(ctx context.Context, idle bool) error {
	d := &s.sender
	if pause := d.apart - time.Since(d.last); pause > 0 {
		d.pause.Reset(pause)
		<-d.pause.C
	}
	d.last = time.Now()
	d.batch.reset()
	if !s.queue.take(&d.batch) {
		s.unsent(&d.batch, 0)
		return errOver
	}
	if len(d.batch.entries) == 0 && !idle {
		return nil
	}
	return s.send(ctx, &d.batch)
}

// beat says that this node is alive, and looks whether its counts are still what they should be.
func (s *Shared) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.sender.patience)
	defer cancel()
	s.lumps.sweep(s.memory.now())
	known, err := s.nodes.Beat(ctx, s.sender.member, s.sender.hash)
	if err == nil && !known {
		err = errGone
	}
	return err
}

// send sends a batch in as many calls as it takes, at least one. What has not been sent when one fails is unsent.
func (s *Shared) send(ctx context.Context, b *batch) error {
	begin := 0
	for first := 0; first == 0 || first < len(b.entries); {
		n := min(first+mostEntries, len(b.entries))
		end := begin
		if n > 0 {
			end = b.entries[n-1].end
		}
		reply, err := s.call(ctx, s.sender.member, b.blob[begin:end])
		if errors.Is(err, errGone) {
			s.unsent(b, first) // nothing of it was done
			return err
		}
		if err == nil {
			err = s.deal(b, first, n, reply)
		}
		if err != nil {
			for _, e := range b.entries[first:n] {
				e.fail() // it may have been done or not
			}
			s.unsent(b, n)
			return err
		}
		begin, first = end, max(n, 1)
	}
	return nil
}

// call runs the script once, for member unless that is "", and says what it answered.
func (s *Shared) call(ctx context.Context, member string, blob []byte) (string, error) {
	d := &s.sender
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	begun := time.Now()
	d.begun.Store(max(int64(begun.Sub(origin)), 1)) // 0 is for none
	v, err := d.decide.Run(ctx, []string{s.nodes.Key()}, d.prefix, member, d.calls, 2*s.config.Lease.Milliseconds(), blob)
	d.begun.Store(0)
	if err != nil {
		return "", err
	}
	took := time.Since(begun)
	s.metrics.roundTrip.Observe(took.Seconds())
	reply, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("redis: the script of the counts was answered with %T, want a string", v)
	}
	if reply == "gone" {
		return "", errGone
	}
	if member != "" {
		// The script has counted this call too. Should the two numbers ever differ, something was lost or done twice.
		d.calls++
		s.pace(took)
	}
	return reply, nil
}

// pace has decisions wait for Redis only as long as it answers in time.
func (s *Shared) pace(took time.Duration) {
	d := &s.sender
	if took > d.deadline {
		d.streak = max(d.streak, 0) + 1
	} else {
		d.streak = min(d.streak, 0) - 1
	}
	switch {
	case s.mode == together && d.streak >= slowAfter:
		s.turn(slow, fmt.Errorf("redis: %d calls in a row took longer than %s, the last one %s", d.streak, d.deadline, took.Round(time.Microsecond)))
	case s.mode == slow && d.streak <= -quickAfter:
		s.turn(together, nil)
	}
}

// deal gives out the answers to the entries from first to n.
func (s *Shared) deal(b *batch, first, n int, reply string) error {
	begin := 0
	if first > 0 {
		begin = b.entries[first-1].end
	}
	for i := first; i < n; i++ {
		e := &b.entries[i]
		asks := b.blob[begin+1 : e.end]
		begin = e.end
		rest, verdict, err := e.read(asks, reply)
		if err != nil {
			return err
		}
		reply = rest
		s.close(e, asks, verdict)
	}
	if reply != "" {
		return errShape
	}
	return nil
}

var errShape = errors.New("redis: the script of the counts was answered with something else than it answers")

// read reads one entry's answer. A price that is no number is an answer of the wrong shape too.
func (e *entry) read(asks []byte, reply string) (rest string, verdict int, err error) {
	if reply == "" {
		return "", alone, errShape
	}
	code := reply[0]
	reply = reply[1:]
	switch {
	case code == refusedBadly:
		return reply, alone, nil
	case int(code) > len(asks)/askSize:
		return "", alone, errShape
	case code > 0:
		return reply, int(code) - 1, nil
	}
	for ; len(asks) >= askSize; asks = asks[askSize:] {
		if asks[0] != askTurn && asks[0] != tellTurn {
			continue
		}
		if len(reply) < 8 {
			return "", alone, errShape
		}
		out := math.Float64frombits(binary.LittleEndian.Uint64([]byte(reply[:8])))
		reply = reply[8:]
		if !(math.Abs(out) <= 2*micros(maxSpan)) { // nor is it NaN
			return "", alone, errShape
		}
		if e.order != nil {
			e.order.out = append(e.order.out, out)
		}
		e.out = out
	}
	return reply, granted, nil
}

// close ends an entry with its verdict. What this node has granted alone, Redis is told: because nobody waited any more for its no, or
// because it cannot say.
func (s *Shared) close(e *entry, asks []byte, verdict int) {
	if e.lump != nil {
		s.lumps.paid(e.lump, e.out, s.memory.now())
		return
	}
	if e.order == nil {
		return
	}
	if verdict == alone && !s.sender.complained {
		s.sender.complained = true
		s.log.Warn("Redis keeps something else under a key of popgate's; what is counted there, each node counts alone", "prefix", s.sender.prefix)
	}
	if verdict == alone {
		s.force(asks)
	}
	if e.order.answer(verdict) {
		return
	}
	if verdict >= 0 {
		s.force(asks)
	}
	e.order.release()
}

// force tells Redis that what was asked for has been taken.
func (s *Shared) force(asks []byte) {
	begin, ok := s.queue.open()
	if !ok {
		return
	}
	// In the queue's own bytes, behind what its asker may have given back meanwhile: the sum is right in any order.
	b := &s.queue.batch
	from := len(b.blob)
	b.blob = append(b.blob, asks...)
	for told := b.blob[from:]; len(told) >= askSize; told = told[askSize:] {
		switch told[0] {
		case askPlace:
			told[0] = tellPlace
			binary.LittleEndian.PutUint64(told[9:], math.Float64bits(1))
		case askTurn:
			told[0] = tellTurn
		}
	}
	s.queue.close(begin, entry{})
}

// fail answers that nobody knows.
func (e *entry) fail() {
	if e.order != nil && !e.order.answer(alone) {
		e.order.release()
	}
}

// unsent ends the entries from first on, of which Redis knows nothing: the places are written anew, and the turns are owed.
func (s *Shared) unsent(b *batch, first int) {
	begin := 0
	if first > 0 {
		begin = b.entries[first-1].end
	}
	for i := first; i < len(b.entries); i++ {
		e := &b.entries[i]
		s.owed.addSent(b.blob[begin+1 : e.end])
		begin = e.end
		e.fail()
	}
}
