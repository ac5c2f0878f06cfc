package lockout

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

// A Bus carries messages to the Keepers of other nodes, as cluster.Bus does.
type Bus interface {
	Publish(part string, message []byte)
	Subscribe(part string, hear func(message []byte))
}

// A Shelf keeps facts that outlive the nodes, as cluster.Shelf does.
type Shelf interface {
	Put(f cluster.Fact)
	Own(take func(cluster.Fact), all iter.Seq[cluster.Fact])
}

// A Cluster is what the Keepers of several nodes share. Failures, and the digests of wrong secrets, travel over the bus alone;
// known-good pairs and lockouts are on the shelves as well. Each node decides by what it has in memory.
type Cluster struct {
	Key      [32]byte // the same on all nodes; digests are made with keys that come from it
	Bus      Bus
	Known    Shelf // of MaxKnown facts
	Lockouts Shelf // of MaxLockouts facts
}

// How many facts the shelves of a Cluster have room for.
const (
	MaxKnown    = maxKnown
	MaxLockouts = maxLockouts
)

// busPart is the part of the bus that is the Keepers'.
const busPart = "lockout"

// What a message is about; its first byte.
const (
	aboutFailure = 'f'
	aboutSuccess = 's'
	aboutLockout = 'l'
)

// tellEvery is how often other nodes are told of a known-good pair that goes on logging in, at least.
const tellEvery = 24 * time.Hour

// join has the Keeper share with others.
func (k *Keeper) join(c *Cluster) {
	k.cluster = c
	for purpose, key := range map[string]*[keySize]byte{"lockout names": &k.hasher.names, "lockout secrets": &k.hasher.secrets} {
		derived, err := hkdf.Key(sha256.New, c.Key[:], nil, purpose, keySize)
		if err != nil {
			panic(fmt.Sprintf("derive a key: %v", err)) // a slip of ours: HKDF refuses lengths only
		}
		copy(key[:], derived)
	}
	k.hasher.ready()
	c.Bus.Subscribe(busPart, k.hear)
	c.Known.Own(k.takeKnown, k.allKnown)
	c.Lockouts.Own(k.takeLockout, k.allLockouts)
}

// toTell says whether the others are told that a pair logged in again. The days of pairs begin at different times.
func (v *View) toTell(key Key, before, now int64) bool {
	every := max(int64(min(tellEvery, v.config.KnownFor/8)), 1)
	shift := int64(uint64(key) % uint64(every))
	return (before+shift)/every != (now+shift)/every
}

// tellSuccess tells the others of a login, and keeps the pair.
func (k *Keeper) tellSuccess(t *Try, now int64) {
	m := append(make([]byte, 0, 1+networkSize+8), aboutSuccess)
	m = appendNetwork(m, t.login.Network.Prefix)
	k.cluster.Bus.Publish(busPart, binary.BigEndian.AppendUint64(m, uint64(t.login.User)))
	k.cluster.Known.Put(k.knownFact(t.pair, now))
}

// tellFailure tells the others of a failure that counted here.
func (k *Keeper) tellFailure(t *Try) {
	if k.cluster == nil {
		return
	}
	m := append(make([]byte, 0, failureSize), aboutFailure, 0)
	if t.good {
		m[1] = 1
	}
	m = appendNetwork(m, t.login.Network.Prefix)
	m = binary.BigEndian.AppendUint64(m, uint64(t.login.User))
	k.cluster.Bus.Publish(busPart, binary.BigEndian.AppendUint64(m, uint64(t.login.Secret)))
}

// share tells the others of a lockout that began or was ended, and keeps it.
func (k *Keeper) share(key Key, r *record) {
	if k.cluster == nil {
		return
	}
	m := append(make([]byte, 0, 1+recordSize+len(r.name)), aboutLockout)
	k.cluster.Bus.Publish(busPart, append(r.append(m), r.name...)) // the name is nowhere kept
	k.cluster.Lockouts.Put(k.lockoutFact(key, r))
}

func (k *Keeper) knownFact(key Key, success int64) cluster.Fact {
	c := k.config()
	return cluster.Fact{Key: uint64(key), At: time.Unix(0, success), Until: time.Unix(0, success+int64(c.KnownFor))}
}

// lockoutFact lasts as long as the lockout makes the next one longer.
func (k *Keeper) lockoutFact(key Key, r *record) cluster.Fact {
	c := k.config()
	return cluster.Fact{Key: uint64(key), At: time.Unix(0, r.stamp()), Until: time.Unix(0, r.until+int64(c.MaxDuration)), Value: r.append(nil)}
}

// allKnown is every known-good pair.
func (k *Keeper) allKnown(yield func(cluster.Fact) bool) {
	facts(k.known, func(key Key, g *known) cluster.Fact { return k.knownFact(key, g.success) })(yield)
}

// allLockouts is every lockout, those that were ended too: others must not bring them back.
func (k *Keeper) allLockouts(yield func(cluster.Fact) bool) { facts(k.lockouts, k.lockoutFact)(yield) }

// facts are those of a table, one shard after the other, none of which is locked meanwhile.
func facts[V any](t *table[V], fact func(Key, *V) cluster.Fact) iter.Seq[cluster.Fact] {
	return func(yield func(cluster.Fact) bool) {
		for i := range t.shards {
			var some []cluster.Fact
			t.eachOf(i, func(key Key, v *V) { some = append(some, fact(key, v)) })
			for _, f := range some {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// networkSize is what a network takes: its length, whether it is one of IPv4, and an address.
const (
	networkSize = 2 + 16
	failureSize = 2 + networkSize + 8 + 8
)

func appendNetwork(b []byte, p netip.Prefix) []byte {
	is4 := byte(0)
	if p.Addr().Is4() {
		is4 = 1
	}
	a := p.Addr().As16()
	return append(append(b, byte(p.Bits()), is4), a[:]...)
}

// readNetwork reads what appendNetwork has written. It takes masked networks only, or one had many keys.
func readNetwork(b []byte) (netip.Prefix, bool) {
	addr := netip.AddrFrom16([16]byte(b[2:networkSize]))
	if b[1] == 1 {
		addr = addr.Unmap()
	}
	p, err := addr.Prefix(int(b[0]))
	return p, err == nil && b[1] <= 1 && p.Addr() == addr
}
