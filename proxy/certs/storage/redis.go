package storage

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/popgate/popgate/policy/cluster"
)

// inRedis keeps each record in a hash (v: the record, t: when it was stored, in ms) and their names in a sorted set, which Redis orders bytewise.
type inRedis struct {
	client *cluster.Client
}

const (
	redisPart = "certs"
	pageSize  = 1000
)

func openRedis(c cluster.Config) (*inRedis, error) {
	client, err := cluster.New(c)
	if err != nil {
		return nil, fmt.Errorf("redis.%w", err)
	}
	return &inRedis{client}, nil
}

func (r *inRedis) index() string            { return r.client.Key(redisPart, "index") }
func (r *inRedis) record(key string) string { return r.client.Key(redisPart, "record:"+key) }
func (r *inRedis) lease(name string) string { return r.client.Key(redisPart, "lock:"+name) }

func (r *inRedis) load(ctx context.Context, key string) ([]byte, error) {
	v, err := r.client.Do(ctx, "HGET", r.record(key), "v")
	if err != nil && strings.Contains(err.Error(), "WRONGTYPE") {
		return nil, fmt.Errorf("%w: %s is none of popgate's: %w", ErrUnreadable, key, err)
	}
	if err != nil {
		return nil, err
	}
	s, ok := v.(string)
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(s), nil
}

const storeScript = `
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'v', ARGV[2], 't', t[1] .. string.format('%03d', math.floor(t[2] / 1000)))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1`

func (r *inRedis) store(ctx context.Context, key string, record []byte) error {
	_, err := r.client.Eval(ctx, storeScript, []string{r.record(key), r.index()}, key, record)
	return err
}

// Empty is nothing: no record of ours is.
const replaceScript = `
if (redis.call('HGET', KEYS[1], 'v') or '') ~= ARGV[3] then return 0 end` + storeScript

func (r *inRedis) replace(ctx context.Context, key string, old, record []byte) (bool, error) {
	v, err := r.client.Eval(ctx, replaceScript, []string{r.record(key), r.index()}, key, record, old)
	return v == int64(1), err
}

// The names go last, so that a deletion that was cut off can be done again.
const removeScript = `
for i, name in ipairs(ARGV) do
	redis.call('DEL', KEYS[i + 1])
	redis.call('ZREM', KEYS[1], name)
end
return 1`

func (r *inRedis) remove(ctx context.Context, key string) error {
	page := []string{key}
	for from, to := span(key); len(page) > 0; {
		keys, args := []string{r.index()}, make([]any, 0, len(page))
		for _, k := range page {
			keys, args = append(keys, r.record(k)), append(args, k)
		}
		if _, err := r.client.Eval(ctx, removeScript, keys, args...); err != nil {
			return err
		}
		var err error
		if page, err = r.page(ctx, from, to); err != nil {
			return err
		}
	}
	return nil
}

// page gives the first names from from on and before to.
func (r *inRedis) page(ctx context.Context, from, to string) ([]string, error) {
	first, last := "["+from, "("+to
	if from == "" {
		first = "-"
	}
	v, err := r.client.Do(ctx, "ZRANGEBYLEX", r.index(), first, last, "LIMIT", 0, pageSize)
	if err != nil {
		return nil, err
	}
	list, _ := v.([]any)
	keys := make([]string, 0, len(list))
	for _, item := range list {
		s, _ := item.(string)
		keys = append(keys, s)
	}
	return keys, nil
}

func (r *inRedis) keys(ctx context.Context, folder string, deep bool) ([]string, error) {
	from, to := span(folder)
	inside := len(from)
	var keys []string
	for {
		page, err := r.page(ctx, from, to)
		if err != nil {
			return nil, err
		}
		keys = append(keys, page...)
		if len(page) < pageSize {
			return keys, nil
		}
		last := page[len(page)-1]
		from = last + "\x00"
		// One of a folder is enough: go on behind it.
		if next := strings.IndexByte(last[inside:], '/'); next >= 0 && !deep {
			_, from = span(last[:inside+next])
		}
	}
}

// Two values for a record, one for a folder, none for neither.
const statScript = `
local t = redis.call('HGET', KEYS[1], 't')
if t then return {t, redis.call('HSTRLEN', KEYS[1], 'v')} end
return redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], ARGV[2], 'LIMIT', 0, 1)`

func (r *inRedis) stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	from, to := span(key)
	v, err := r.client.Eval(ctx, statScript, []string{r.record(key), r.index()}, "["+from, "("+to)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	switch found, _ := v.([]any); len(found) {
	case 2:
		millis := int64(0)
		if text, ok := found[0].(string); ok {
			_, err = fmt.Sscan(text, &millis)
		}
		size, _ := found[1].(int64)
		return certmagic.KeyInfo{Key: key, Modified: time.UnixMilli(millis), Size: size, IsTerminal: true}, err
	case 1:
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, fs.ErrNotExist
}

const holdScript = `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`

func (r *inRedis) hold(ctx context.Context, name, token string, ttl time.Duration) (bool, error) {
	v, err := r.client.Eval(ctx, holdScript, []string{r.lease(name)}, token, ttl.Milliseconds())
	return v == int64(1), err
}

const releaseScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`

func (r *inRedis) release(ctx context.Context, name, token string) (bool, error) {
	v, err := r.client.Eval(ctx, releaseScript, []string{r.lease(name)}, token)
	return v == int64(1), err
}

func (r *inRedis) health(ctx context.Context) error { return r.client.Health(ctx, redisPart) }

func (r *inRedis) close() { _ = r.client.Close() }
