package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Nodes tells who is alive: each node writes into Redis until when it is to be taken for that, by Redis' clock. Its methods may be called
// at once.
//
// What a node keeps in Redis for others to see hangs on a membership. A node that finds that what it keeps is not as it left it takes
// another one, which says how often it did so: a command on its way to Redis in the name of the former then changes nothing any more.
type Nodes struct {
	key    string
	id     string
	lease  time.Duration
	join   *Script
	beat   *Script
	client *Client

	count atomic.Int64 // memberships so far
	alive atomic.Pointer[[]string]
}

// The score of a member is the time until which it is alive, in milliseconds. Who was dead for a lease is cleared away.
const (
	clockLua = `local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
	aliveLua = `redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], 4 * ARGV[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
`
	joinLua = clockLua + `if ARGV[3] ~= '' then redis.call('ZREM', KEYS[1], ARGV[3]) end
` + aliveLua
	// A key that lives twice the lease is there for as long as anybody counts it.
	beatLua = clockLua + `if redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2]) == 0 then return {} end
` + aliveLua
)

// NewNodes is what knows the nodes among whom this one, called name, counts what c keeps for part. The name need not be unique.
func NewNodes(c *Client, part, name string, lease time.Duration) *Nodes {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	n := &Nodes{
		key: c.Key(part, "nodes"), id: name + "/" + hex.EncodeToString(random[:]), lease: lease,
		join: c.Script(joinLua), beat: c.Script(beatLua), client: c,
	}
	n.alive.Store(&[]string{name})
	return n
}

// ID is this node's name with what tells this run of it from all others.
func (n *Nodes) ID() string { return n.id }

// Key is the ZSET of all members, by the time in milliseconds until which each is alive.
func (n *Nodes) Key() string { return n.key }

// Alive is how many nodes were alive when Redis last said so, this one included; it is never below 1.
func (n *Nodes) Alive() int { return len(*n.alive.Load()) }

// Names are those of the nodes that Alive counts, in order. One that was started again within its lease is there twice.
func (n *Nodes) Names() []string { return *n.alive.Load() }

// Member makes the name of a new membership, by which others do not know this node before Join.
func (n *Nodes) Member() string { return fmt.Sprintf("%s/%d", n.id, n.count.Add(1)) }

// Join makes this node known as member, and no more as the former one, unless that is "".
func (n *Nodes) Join(ctx context.Context, member, former string) error {
	v, err := n.join.Run(ctx, []string{n.key}, member, n.lease.Milliseconds(), former)
	if err != nil {
		return err
	}
	_, err = n.counted(v)
	return err
}

// Beat says that member is alive, and keeps its key of Redis alive too. It is false if that key is gone: Redis was emptied, or has taken
// this node for dead.
func (n *Nodes) Beat(ctx context.Context, member, key string) (known bool, err error) {
	v, err := n.beat.Run(ctx, []string{n.key, key}, member, n.lease.Milliseconds())
	if err != nil {
		return false, err
	}
	return n.counted(v)
}

func (n *Nodes) counted(v any) (known bool, err error) {
	members, ok := v.([]any)
	if !ok {
		return false, fmt.Errorf("redis: the script of the nodes was answered with %T, want a list", v)
	}
	if len(members) == 0 {
		return false, nil
	}
	names := make([]string, 0, len(members))
	for _, m := range members {
		name := fmt.Sprint(m)
		for range 2 { // which run, and which membership of it
			if i := strings.LastIndexByte(name, '/'); i > 0 {
				name = name[:i]
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	n.alive.Store(&names)
	return true, nil
}

// Leave makes member unknown, and removes its key.
func (n *Nodes) Leave(ctx context.Context, member, key string) error {
	if _, err := n.client.Do(ctx, "ZREM", n.key, member); err != nil {
		return err
	}
	_, err := n.client.Do(ctx, "UNLINK", key)
	return err
}
