package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// A shelving is a Shelf while it runs.
type shelving struct {
	*Shelf
	marker string    // of the Redis that this node's facts are in
	read   time.Time // when all was read last
	took   time.Duration
	lost   bool // Redis lost what was there, and not all of it is back
}

// end puts what has been left, should Redis take it soon.
func (r *shelving) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = r.flush(ctx) // the other nodes know it too
	return nil
}

// turn writes what is pending, and finds out what Redis lost and what this node missed.
func (r *shelving) turn(ctx context.Context) error {
	marker, err := r.flush(ctx)
	if err != nil {
		return err
	}
	if marker != r.marker {
		r.mu.Lock()
		r.stale, r.behind = true, true
		r.mu.Unlock()
		r.lost = r.lost || r.marker != ""
		r.marker, r.read = marker, time.Time{}
	}
	if r.begin(&r.stale, time.Since(r.read) >= max(reloadOnce, reloadRest*r.took)) {
		began := time.Now()
		if err := r.load(ctx); err != nil {
			r.undo(&r.stale)
			return err
		}
		r.read, r.took = time.Now(), time.Since(began)
	}
	if r.begin(&r.behind, true) {
		if err := r.putAll(ctx); err != nil {
			r.undo(&r.behind)
			return err
		}
		if r.lost {
			r.lost = false
			r.bus.Again() // who began meanwhile found nothing
		}
	}
	return nil
}

// begin says whether what flag stands for is to be done now; then it is down.
func (r *shelving) begin(flag *bool, now bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !*flag || !now {
		return false
	}
	*flag = false
	return true
}

func (r *shelving) undo(flag *bool) {
	r.mu.Lock()
	*flag = true
	r.mu.Unlock()
}

// flush writes what is pending, and asks Redis for its marker in any case.
func (r *shelving) flush(ctx context.Context) (marker string, err error) {
	for {
		batch := r.batch()
		if marker, err = r.write(ctx, batch); err != nil {
			r.giveBack(batch)
			return "", err
		}
		if len(batch) < batchSize {
			return marker, nil
		}
	}
}

// batch takes some of what is pending.
func (r *shelving) batch() []Fact {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch []Fact
	for key, f := range r.pending {
		if batch = append(batch, f); len(batch) > batchSize {
			return batch[:batchSize]
		}
		delete(r.pending, key)
	}
	return batch
}

// giveBack leaves for later what could not be written, unless there is newer by now.
func (r *shelving) giveBack(batch []Fact) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range batch {
		if _, ok := r.pending[f.Key]; !ok {
			r.pending[f.Key] = f
		}
	}
}

// putLua puts facts, unless there are later ones, and clears away what is over or too much. Where Redis has a part of the facts
// only, as when it was short of memory, it begins anew, with another marker.
const putLua = `local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local function drop(all)
  if #all > 0 then
    redis.call('ZREM', KEYS[1], unpack(all))
    redis.call('HDEL', KEYS[2], unpack(all))
  end
end
if redis.call('ZCARD', KEYS[1]) ~= redis.call('HLEN', KEYS[2]) then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) end
redis.call('SET', KEYS[3], ARGV[2], 'NX')
for i = 3, #ARGV, 3 do
  local old = redis.call('HGET', KEYS[2], ARGV[i])
  if tonumber(ARGV[i + 1]) > now and (not old or struct.unpack('>I7', old) < struct.unpack('>I7', ARGV[i + 2])) then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
  end
end
drop(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 500))
local over = redis.call('ZCARD', KEYS[1]) - ARGV[1]
if over > 0 then drop(redis.call('ZRANGE', KEYS[1], 0, math.min(over, 500) - 1)) end
return redis.call('GET', KEYS[3])
`

var errNoMarker = errors.New("redis: what is there was not made by popgate")

func (r *shelving) write(ctx context.Context, batch []Fact) (marker string, err error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand
	args := make([]any, 0, 2+3*len(batch))
	args = append(args, r.o.Most, random[:])
	for _, f := range batch {
		args = append(args, fieldOf(f.Key), f.Until.UnixMicro(), r.sealed(f))
	}
	v, err := r.put.Run(ctx, r.keys, args...)
	if err != nil {
		return "", err
	}
	marker, ok := v.(string)
	if !ok {
		return "", errNoMarker
	}
	r.metrics.put.Add(float64(len(batch)))
	return marker, nil
}

// putAll puts back all that is known, at a pace that leaves Redis time for others.
func (r *shelving) putAll(ctx context.Context) error {
	var batch []Fact
	put := func() error {
		if _, err := r.write(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
		if !pause(ctx, breath) {
			return ctx.Err()
		}
		_, err := r.flush(ctx) // what comes up meanwhile does not wait for the end
		return err
	}
	for f := range r.all {
		if batch = append(batch, f); len(batch) == batchSize {
			if err := put(); err != nil {
				return err
			}
		}
	}
	return put()
}

// load reads the shelf, page by page.
func (r *shelving) load(ctx context.Context) error {
	cursor := uint64(0)
	for {
		page, next, err := r.page(ctx, cursor)
		if err != nil {
			return err
		}
		r.takePage(page)
		if cursor = next; cursor == 0 {
			return nil
		}
		if !pause(ctx, breath/2) {
			return ctx.Err()
		}
	}
}

func (r *shelving) page(ctx context.Context, cursor uint64) (page []string, next uint64, err error) {
	_, err = r.client.result(ctx, func(ctx context.Context) (any, error) {
		var err error
		page, next, err = r.client.redis.HScan(ctx, r.keys[1], cursor, "", pageSize).Result()
		return nil, err
	})
	return page, next, err
}

// takePage hands on the facts of a page, but for those of which there is news that are not yet written.
func (r *shelving) takePage(page []string) {
	for i := 0; i+1 < len(page); i += 2 {
		f, err := r.open(page[i], []byte(page[i+1]))
		if err != nil {
			r.metrics.refused.Inc()
			continue
		}
		r.mu.Lock()
		_, newer := r.pending[f.Key]
		r.mu.Unlock()
		if !newer && f.Until.After(time.Now()) {
			r.metrics.taken.Inc()
			r.take(f)
		}
	}
}
