package store

import (
	"sync"
	"time"
)

const (
	// lumpFor is what is paid for ahead of use: a quarter of a second's worth, so that Redis is asked a few times a second however
	// small the pieces are.
	lumpFor = 250 * time.Millisecond
	// lumpIdle is after how long without use what was paid for is forgotten.
	lumpIdle = 2 * time.Second
	// mostLumps bounds the rates that are paid for in lumps. Beyond it each node paces by itself.
	mostLumps = 1 << 16
)

// lump is what this node has paid for of one rate.
type lump struct {
	left  int64   // turns paid for and not spent; below 0 they are owed
	asked int64   // turns being paid for
	full  float64 // microseconds of turns that may be out
	due   int64   // when what is paid for has come back but for the burst
	used  int64
}

// lumps are many rates'.
type lumps struct {
	mu sync.Mutex
	m  map[Key]*lump
}

// spend spends n turns of a's, and says how long to wait before going on.
func (l *lumps) spend(q *queue, a *Ask, n, now int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.m[a.Key]
	if p == nil {
		if len(l.m) >= mostLumps {
			return 0
		}
		p = &lump{}
		l.m[a.Key] = p
	}
	p.left -= n
	p.used, p.full = now, full(a)
	if size := max(int64(lumpFor)/a.Turn, 1); p.asked == 0 && p.left < size/2+1 {
		if ask := size - p.left; q.pay(a, ask, p) {
			p.asked = ask
		}
	}
	return time.Duration(max(p.due-now, 0))
}

// paid says that p's turns are paid for, all that are out being so for so many microseconds.
func (l *lumps) paid(p *lump, out float64, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.left += p.asked
	p.asked = 0
	p.due = now + int64(max(out-p.full, 0)*1000)
}

// sweep forgets what is not in use any more.
func (l *lumps) sweep(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, p := range l.m {
		if p.asked == 0 && now-p.used > int64(lumpIdle) {
			delete(l.m, k)
		}
	}
}

// reset forgets all: turns that are being paid for may never be.
func (l *lumps) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = map[Key]*lump{}
}
