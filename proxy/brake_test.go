package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

// loginCommands are those of the logins before slow relays: USER and PASS.
const loginCommands = 2

// tokens is a gate with so many a second, and as many at once. It is wrong about nobody: what it lets pass can be computed.
type tokens struct {
	octets, commands bucket
}

func (g *tokens) Paced() (download, commands bool) { return g.octets.rate > 0, g.commands.rate > 0 }
func (g *tokens) Download(_ context.Context, n int) time.Duration {
	return g.octets.spend(n)
}
func (g *tokens) Commands(_ context.Context, n int) time.Duration {
	return g.commands.spend(n)
}

type bucket struct {
	rate, burst int
	mu          sync.Mutex
	full        time.Time // when all that was spent is back
}

func (b *bucket) spend(n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(time.Duration(n) * time.Second / time.Duration(b.rate))
	return b.full.Sub(now) - time.Duration(b.burst)*time.Second/time.Duration(b.rate)
}

// What comes faster than it may go to the client stays with the backend. It arrives whole, and at the rate.
func TestBrakeDownload(t *testing.T) {
	gate := &tokens{octets: bucket{rate: 10_000, burst: 20_000}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		message := string(bigMessage(500_000))
		began := time.Now()
		var sent sync.WaitGroup
		sent.Go(func() { b.backend.say(message) })
		got := make([]byte, len(message))
		for at := 0; at < len(got); {
			n, err := b.client.r.Read(got[at:])
			if err != nil {
				t.Fatalf("after %d octets: %v", at, err)
			}
			at += n
			// One piece may be over the limit: the wait is behind it.
			may := 20_000 + int(time.Since(began).Seconds()*10_000) + chunkSize
			if at > may {
				t.Fatalf("after %v came %d octets, and %d may", time.Since(began), at, may)
			}
		}
		sent.Wait()
		if string(got) != message {
			t.Error("the message differs")
		}
		within(t, began, 46*time.Second, 49*time.Second)
		b.session.gw.live.each(func(s *session) {
			if n := s.relay.down.most; n > 8<<10 {
				t.Errorf("it reads %d octets at once: seconds' worth", n)
			}
		})
	})
}

// Nothing is held while a session waits, and no clock takes it for a silent one. Behind the wait the clocks go on.
func TestBrakeWaits(t *testing.T) {
	wait := 3 * time.Hour
	gate := &tokens{octets: bucket{rate: 1, burst: 1}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		gate.octets.full = time.Now().Add(wait)
		began := time.Now()
		b.backend.say("+OK\r\n")
		b.client.expect("+OK")
		synctest.Wait()
		if d := &b.session.relay.down; d.took != nil || d.out != nil {
			t.Error("it waits with a buffer")
		}
		said := make(chan struct{})
		go func() {
			defer close(said)
			b.backend.say("later\r\n")
		}()
		b.client.send("NOOP\r\n") // the other direction goes on
		b.backend.reads("NOOP\r\n")
		b.client.expect("later")
		within(t, began, wait, wait+10*time.Second)
		<-said
		began = time.Now()
		b.client.ends(false)
		within(t, began, DefaultTimeouts().Idle, DefaultTimeouts().Idle+20*time.Second)
		b.closed(audit.Idle)
	})
}

// slowBubble has a session whose both directions wait for an hour.
func slowBubble(t *testing.T, test func(t *testing.T, b *bubble)) {
	t.Helper()
	gate := &tokens{octets: bucket{rate: 1, burst: 1}, commands: bucket{rate: 1, burst: 1}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		gate.octets.full, gate.commands.full = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
		b.backend.say("+OK\r\n")
		b.client.expect("+OK")
		synctest.Wait()
		test(t, b)
	})
}

// A session that waits ends at once where its client goes, and where the gateway does.
func TestBrakeEnds(t *testing.T) {
	slowBubble(t, func(t *testing.T, b *bubble) {
		began := time.Now()
		b.client.raw.Close()
		b.backend.ends()
		b.backend.conn.Close()
		b.closed(audit.ClientGone)
		within(t, began, 0, 0)
	})
	slowBubble(t, func(t *testing.T, b *bubble) {
		b.client.send("NOOP\r\n") // waits too, so that nobody looks at the client's connection
		synctest.Wait()
		began := time.Now()
		b.gw.Close()
		b.client.ends(false)
		b.closed(audit.Shutdown)
		within(t, began, 0, 0)
	})
}

// A client that has said all it had to say gets the rest of its mail, and its QUIT is heard.
func TestBrakeHalfClosed(t *testing.T) {
	gate := &tokens{octets: bucket{rate: 1000, burst: 1000}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		message := string(bigMessage(100_000))
		b.client.send("RETR 1\r\nQUIT\r\n")
		b.backend.reads("RETR 1\r\nQUIT\r\n")
		go func() {
			b.backend.say(message)
			b.backend.say("+OK bye\r\n")
			b.backend.conn.Close()
		}()
		time.Sleep(5 * time.Second)
		if err := b.client.conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b.client.r)
		if string(got) != message+"+OK bye\r\n" || err != nil || b.client.raw.ended {
			t.Errorf("got %d octets, %v, close_notify %v", len(got), err, !b.client.raw.ended)
		}
		b.client.conn.Close()
		b.closed(audit.ClientQuit)
	})
}

// scribble writes over the chunks that nobody has borrowed.
func scribble() {
	var all []*chunk
	for range 100 {
		c := chunks.Get().(*chunk)
		for i := range c {
			c[i] = 'x'
		}
		all = append(all, c)
	}
	for _, c := range all {
		chunks.Put(c)
	}
}

// What TLS has not taken yet of a chunk outlives the chunk.
func TestTapParks(t *testing.T) {
	feed := &clientConn{}
	tp := tap{feed: feed, took: chunks.Get().(*chunk), out: chunks.Get().(*chunk)}
	n := copy(tp.took[:], "two records")
	feed.early = tp.took[4:n]
	tp.park()
	scribble()
	if tp.took != nil || tp.out != nil || string(feed.early) != "records" || cap(feed.early) > 64 {
		t.Errorf("kept %q of %d octets", feed.early, cap(feed.early))
	}
}

// Commands pass one by one, each in its turn, those of the login first; the answers come as they are.
func TestBrakeCommands(t *testing.T) {
	gate := &tokens{commands: bucket{rate: 1, burst: 5}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		began := time.Now()
		go func() {
			b.client.send(strings.Repeat("NOOP\r\n", 999) + "QUI")
			b.client.send("T\r\n")
		}()
		for i := range 999 {
			b.backend.reads("NOOP\r\n")
			due := time.Duration(max(0, loginCommands+i-5)) * time.Second
			if took := time.Since(began); took != due {
				t.Fatalf("command %d came after %v, want %v", i+1, took, due)
			}
			if i == 10 {
				synctest.Wait()
				scribble()
			}
		}
		synctest.Wait()
		if u := &b.session.relay.up; u.took != nil || u.out != nil {
			t.Error("it waits with a buffer")
		}
		b.backend.reads("QUIT\r\n")
		b.backend.conn.Close()
		b.client.ends(true)
		b.client.conn.Close()
		if e := b.closed(audit.ClientQuit); e.BytesIn != 1000*6 {
			t.Errorf("on record: %+v", e.End)
		}
	})
}

// The end of a backend ends a session whose client still has commands that wait.
func TestBrakeCommandsBackendEnds(t *testing.T) {
	gate := &tokens{commands: bucket{rate: 1, burst: loginCommands + 1}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		b.client.send("STAT\r\nSTAT\r\nSTAT\r\n")
		b.backend.reads("STAT\r\n")
		gate.commands.spend(3600)
		b.backend.reads("STAT\r\n")
		synctest.Wait()
		began := time.Now()
		b.backend.conn.Close()
		b.client.ends(true)
		b.client.conn.Close()
		b.closed(audit.BackendClosed)
		within(t, began, 0, 0)
	})
}

// The end of a client that sends no more is not hidden behind the wait for a command that may never come.
func TestBrakeCommandsClientEnds(t *testing.T) {
	gate := &tokens{commands: bucket{rate: 1, burst: loginCommands}}
	inSlowBubble(t, nil, gate, func(t *testing.T, b *bubble) {
		gate.commands.spend(loginCommands)
		b.client.send("STAT\r\n")
		b.backend.reads("STAT\r\n")
		gate.commands.spend(3600)
		began := time.Now()
		b.client.raw.Close()
		b.backend.ends()
		b.backend.conn.Close()
		b.closed(audit.ClientGone)
		within(t, began, 0, 0)
	})
}
