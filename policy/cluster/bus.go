package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// How the bus goes about it.
const (
	gather = 2 * time.Millisecond // for which messages are gathered into one frame
	retry  = time.Second          // after which Redis is tried again
	quiet  = 5 * time.Second      // after which a quiet Redis is asked whether it is there
)

// BusOptions are what a Bus is given besides its client.
type BusOptions struct {
	Key        [32]byte // the cluster's for messages: who does not have it is not believed
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// A Bus carries messages to all other nodes of the cluster, over Redis: at most once, and not at all while Redis is away.
// Nobody waits for it. Its methods may be called at once; Subscribe and Missed belong before Run.
type Bus struct {
	client   *Client
	channel  string
	author   *author
	reader   *reader
	handlers map[string]func([]byte)
	missed   []func()
	log      *slog.Logger
	metrics  *busMetrics
	trouble  [2]atomic.Pointer[error] // of publishing, of listening
	wake     chan struct{}

	mu      sync.Mutex
	pending []byte // messages
	number  int    // of them
	full    bool   // there were more than may wait
}

// The places in Bus.trouble.
const (
	publishing = iota
	listening
)

// NewBus makes a Bus of all who have the client's prefix and the key. It starts nothing: see Run.
func NewBus(c *Client, o BusOptions) *Bus {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := newAuthor(o.Key)
	b := &Bus{
		client: c, channel: c.Key("facts", "bus"), author: a, reader: newReader(o.Key, a.id), handlers: make(map[string]func([]byte)),
		log: o.Log, metrics: newBusMetrics(o.Registerer), wake: make(chan struct{}, 1),
	}
	b.handlers[busPart] = func([]byte) { b.tellMissed() }
	return b
}

// Subscribe has hear called with each message that another node publishes for part, one at a time. It must be quick, and
// not keep the message.
func (b *Bus) Subscribe(part string, hear func(message []byte)) { b.handlers[part] = hear }

// Missed has f called when messages of others may have been missed. It must be quick.
func (b *Bus) Missed(f func()) { b.missed = append(b.missed, f) }

// Again has all other nodes do as if they had missed messages: this one could not send some.
func (b *Bus) Again() { b.Publish(busPart, nil) }

// busPart is the part of what the buses tell each other.
const busPart = "bus"

// Publish sends a message, of 4 KiB at most, to the part of that name on all other nodes. It returns at once; what cannot be sent
// is counted and forgotten.
func (b *Bus) Publish(part string, message []byte) {
	if len(part) > 255 || len(message) > maxMessage {
		b.metrics.lost.Inc()
		return
	}
	b.mu.Lock()
	full := len(b.pending)+3+len(part)+len(message) > maxMessages
	if full || b.trouble[publishing].Load() != nil {
		b.full = b.full || full
		b.mu.Unlock()
		b.metrics.lost.Inc()
		return
	}
	b.pending = appendMessage(b.pending, part, message)
	b.number++
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Trouble is why messages do not come or go, nil while they do.
func (b *Bus) Trouble() error {
	for i := range b.trouble {
		if err := b.trouble[i].Load(); err != nil {
			return fmt.Errorf("messages between nodes: %w", *err)
		}
	}
	return nil
}

// Run carries messages until ctx ends. It returns nil: Redis may come and go.
func (b *Bus) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { b.listen(ctx) })
	b.send(ctx)
	both.Wait()
	return nil
}

// send publishes what is pending. While Redis is away it tries with nothing.
func (b *Bus) send(ctx context.Context) {
	for {
		wait := gather
		if err := b.sendPending(ctx); err != nil {
			wait = retry
		} else if !b.await(ctx) {
			return
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// await waits until there is something to send.
func (b *Bus) await(ctx context.Context) bool {
	select {
	case <-b.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *Bus) sendPending(ctx context.Context) error {
	b.mu.Lock()
	messages, number, full := b.pending, b.number, b.full
	b.pending, b.number, b.full = nil, 0, false
	b.mu.Unlock()
	frame := b.author.frame(messages, time.Now())
	_, err := b.client.result(ctx, func(ctx context.Context) (any, error) { return b.client.redis.Publish(ctx, b.channel, frame).Result() })
	if ctx.Err() != nil {
		return err
	}
	if was := b.note(publishing, err); err == nil && (was || full) {
		b.Again() // others were not told of all
	}
	if err != nil {
		// Not sent again: it may have arrived, and nothing is to count twice.
		b.metrics.lost.Add(float64(number))
		return err
	}
	b.metrics.sent.Add(float64(number))
	return nil
}

// note keeps what went wrong, logs where that changes, and says whether something was wrong before.
func (b *Bus) note(what int, err error) (trouble bool) {
	var now *error
	if err != nil {
		now = &err
	}
	was := b.trouble[what].Swap(now)
	doing := [...]string{"messages to nodes", "messages of nodes"}[what]
	switch {
	case err != nil && was == nil:
		b.client.outage.begin(b.log, doing, err)
	case err == nil && was != nil:
		b.client.outage.end(b.log, doing)
	}
	return was != nil
}

// listen hears what others publish, and begins anew whenever that ends.
func (b *Bus) listen(ctx context.Context) {
	again := false
	for ctx.Err() == nil {
		err := b.follow(ctx, again)
		if ctx.Err() != nil {
			return
		}
		b.note(listening, fmt.Errorf("redis: %w", err))
		again = true
		if !pause(ctx, retry) {
			return
		}
	}
}

// follow hears what others publish, until the connection fails.
func (b *Bus) follow(ctx context.Context, again bool) error {
	s := b.client.redis.Subscribe(ctx, b.channel)
	defer func() { _ = s.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // the library reads on when ctx ends
	defer stop()
	asked := false
	for {
		got, err := s.ReceiveTimeout(ctx, quiet)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !asked {
			if err := s.Ping(ctx); err != nil {
				return err
			}
			asked = true
			continue
		}
		if err != nil {
			return err
		}
		asked = false
		switch got := got.(type) {
		case *redis.Subscription:
			b.note(listening, nil)
			if again {
				b.tellMissed()
			}
		case *redis.Message:
			b.hear([]byte(got.Payload), time.Now())
		}
	}
}

func (b *Bus) tellMissed() {
	for _, f := range b.missed {
		f()
	}
}

// hear hands out the messages of a frame.
func (b *Bus) hear(frame []byte, now time.Time) {
	messages, err := b.reader.open(frame, now)
	if err == nil && !eachMessage(messages, func(part string, message []byte) {
		if hear := b.handlers[part]; hear != nil {
			b.metrics.heard.Inc()
			hear(message)
		}
	}) {
		err = errForged
	}
	switch {
	case err == nil:
	case errors.Is(err, errStale):
		if b.metrics.stale.Inc(); b.metrics.once() {
			b.log.Warn("cluster: a message of another node is not believed: do the clocks of the nodes agree?", "error", err)
		}
	default:
		if b.metrics.refused.Inc(); b.metrics.once() {
			b.log.Warn("cluster: a message is not believed: do all nodes have the same key_file?", "error", err)
		}
	}
}

// pause waits, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// busMetrics are what a Bus tells of itself.
type busMetrics struct {
	sent, heard, lost, stale, refused prometheus.Counter
	said                              time.Time // when a message that is not believed was logged last
}

func newBusMetrics(reg prometheus.Registerer) *busMetrics {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_cluster_messages_total", Help: "Messages between nodes, by what became of them.",
	}, []string{"result"})
	if reg != nil {
		reg.MustRegister(v)
	}
	of := v.WithLabelValues
	return &busMetrics{sent: of("sent"), heard: of("heard"), lost: of("lost"), stale: of("stale"), refused: of("refused")}
}

// once says whether to log of what anybody could send without end.
func (m *busMetrics) once() bool {
	if !m.said.IsZero() && time.Since(m.said) < time.Minute {
		return false
	}
	m.said = time.Now()
	return true
}
