package legacy

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"iter"
	"slices"
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

// A Cluster is what the Keepers of several nodes share: what is marked travels over the bus, once a minute, and what is known is on the
// shelf, for nodes that were not there.
type Cluster struct {
	Key   [32]byte // the same on all nodes
	Bus   Bus
	Shelf Shelf // of MaxUses facts
}

// MaxUses is how many facts the shelf of a Cluster has room for.
const MaxUses = maxUsers

// busPart is the part of the bus that is the Keepers'.
const busPart = "legacy"

// join has the Keeper share with others.
func (k *Keeper) join(c *Cluster) {
	k.cluster = c
	c.Bus.Subscribe(busPart, func(message []byte) {
		if u, ok := parse(message); ok {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.add(u)
		}
	})
	c.Shelf.Own(k.take, k.facts)
}

// parse reads a use that another node has sent.
func parse(text []byte) (u Use, ok bool) {
	err := json.Unmarshal(text, &u)
	return u, err == nil && u.sound()
}

// take takes up what is on the shelf. Other nodes knew it, and this one may: it is not counted once more.
func (k *Keeper) take(f cluster.Fact) {
	u, ok := parse(f.Value)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if one := k.users[u.User]; one != nil {
		if i := slices.IndexFunc(one.uses, func(o Use) bool { return o.same(&u) }); i >= 0 {
			u.Count = max(u.Count-one.uses[i].Count, 0)
		}
	}
	k.add(u)
}

// facts are all uses, for the shelf.
func (k *Keeper) facts(yield func(cluster.Fact) bool) {
	for _, u := range k.List() {
		if !yield(k.fact(&u)) {
			return
		}
	}
}

func (k *Keeper) fact(u *Use) cluster.Fact {
	mac := hmac.New(sha256.New, k.cluster.Key[:])
	for _, text := range []string{u.User, u.Network.String(), u.Version, u.Listener} {
		_, _ = mac.Write(binary.AppendUvarint(nil, uint64(len(text)))) // it never fails
		_, _ = mac.Write([]byte(text))
	}
	value, _ := json.Marshal(u) // strings, numbers and times
	return cluster.Fact{Key: binary.LittleEndian.Uint64(mac.Sum(nil)), At: u.Last, Until: u.Last.Add(keepFor), Value: value}
}

// tell shares what is new. Others have things to tell too, and the bus bounds what waits: it takes its time, until ctx ends.
func (k *Keeper) tell(ctx context.Context) {
	if k.cluster == nil {
		return
	}
	k.mu.Lock()
	news := k.news
	k.news = map[string][]Use{}
	var totals []Use
	for name, uses := range news {
		one := k.users[name]
		if one == nil {
			continue
		}
		for _, u := range one.uses {
			if slices.ContainsFunc(uses, func(o Use) bool { return o.same(&u) }) {
				totals = append(totals, u)
			}
		}
	}
	k.mu.Unlock()
	told := 0
	for _, uses := range news {
		for _, u := range uses {
			message, err := json.Marshal(&u)
			if err != nil {
				continue
			}
			k.cluster.Bus.Publish(busPart, message)
			if told++; told%atOnce == 0 {
				pause(ctx)
			}
		}
	}
	for i := range totals {
		k.cluster.Shelf.Put(k.fact(&totals[i]))
	}
}

// tell publishes so many messages, and draws breath.
const (
	atOnce = 100
	breath = 20 * time.Millisecond
)

func pause(ctx context.Context) {
	t := time.NewTimer(breath)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
