package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
)

// A bubble is a session in its relay, over connections in memory that hold nothing back, in a time of its own.
type bubble struct {
	*rig
	client  *client
	backend *leg
	session *session
}

// inBubble runs test with a session that has just logged in.
func inBubble(t *testing.T, change func(*Timeouts), test func(t *testing.T, b *bubble)) {
	t.Helper()
	inSlowBubble(t, change, nil, test)
}

// inSlowBubble is inBubble for a session that gate, which may be nil, slows down.
func inSlowBubble(t *testing.T, change func(*Timeouts), gate braking, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		set := defaults("192.0.2.110:110")
		if change != nil {
			change(&set.timeouts)
		}
		r := newRig(t, set)
		here, there := newDuplex()
		s := &session{gw: r.gw, snap: r.snap, listener: &r.snap.Listeners[0], raw: &clientConn{Conn: there}, began: time.Now(), id: "1"}
		s.raw.session, s.conn = s, s.raw
		b := &bubble{rig: r, session: s, client: newClient(t, here)}
		var err error
		if s.visit, err = r.snap.Gate.Admit(t.Context(), &s.client); err != nil {
			t.Fatal(err)
		}
		shaken := make(chan error)
		go func() { shaken <- s.handshake() }()
		b.client.startTLS(&tls.Config{InsecureSkipVerify: true, SessionTicketsDisabled: true})
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		bHere, bThere := newDuplex()
		b.backend = &leg{t, bHere, bufio.NewReader(bHere)}
		s.talk = newDialogue(s)
		l := &login{s: s, route: auth.Route{Backend: "old"}}
		r.gw.serving.Add(1)
		r.gw.live.add(s)
		s.loggedIn(l, &backend.Conn{Conn: bThere, Server: "192.0.2.110:110"})
		if gate != nil {
			s.relay.slow(newBrake(gate, loginCommands))
		}
		go s.run(context.Background(), (*session).carry)
		synctest.Wait()
		test(t, b)
		b.client.conn.Close()
		b.backend.conn.Close()
		r.gw.Close()
	})
}

// within checks how long it is since began: at least and at most so long.
func within(t *testing.T, began time.Time, least, most time.Duration) {
	t.Helper()
	if took := time.Since(began); took < least || took > most {
		t.Errorf("it took %v, want %v to %v", took, least, most)
	}
}

func TestRelayIdle(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		idle := DefaultTimeouts().Idle
		for range 3 { // each direction by itself keeps the session
			time.Sleep(idle - time.Second)
			b.client.send("NOOP\r\n")
			b.backend.reads("NOOP\r\n")
			time.Sleep(idle - time.Second)
			b.backend.say("+OK\r\n")
			b.client.expect("+OK")
		}
		began := time.Now()
		b.client.ends(false)
		within(t, began, idle, idle)
		b.backend.ends()
		e := b.closed(audit.Idle)
		if e.BytesIn != 18 || e.BytesOut != 15 {
			t.Errorf("bytes in %d, out %d, want 18 and 15", e.BytesIn, e.BytesOut)
		}
	})
}

func TestRelayNoIdle(t *testing.T) {
	inBubble(t, func(s *Timeouts) { s.Idle = 0 }, func(t *testing.T, b *bubble) {
		time.Sleep(20 * time.Hour)
		b.client.send("NOOP\r\n")
		b.backend.reads("NOOP\r\n")
	})
}

// A backend that sends to a client who takes nothing: the session ends, and nothing is made up at its end.
func TestRelayClientStalls(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := io.WriteString(b.backend.conn, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}()
		b.closed(audit.Stalled)
		stall := DefaultTimeouts().Stall
		within(t, began, stall, stall*3/2)
		<-done
		b.client.ends(false)
	})
}

func TestRelayBackendStalls(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		began := time.Now()
		b.client.send("NOOP\r\n") // nobody takes it
		b.closed(audit.Stalled)
		stall := DefaultTimeouts().Stall
		within(t, began, stall, stall*3/2)
		b.client.ends(false)
	})
}

// A slow client is no stalled one, and the time that it takes is no silence.
func TestRelaySlowClient(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		message := strings.Repeat("a line of forty octets, counting its end\r\n", 2000)
		go b.backend.say(message)
		pause := DefaultTimeouts().Stall - time.Second
		socket := b.client.raw.Conn
		b.client.raw.Conn = &fakeConn{Conn: socket, write: socket.Write, read: func(p []byte) (int, error) {
			n, err := socket.Read(p[:min(len(p), 4<<10)])
			time.Sleep(pause / 8)
			return n, err
		}}
		got := make([]byte, len(message))
		if n, err := io.ReadFull(b.client.r, got); err != nil || string(got) != message {
			t.Errorf("%d octets of %d came: %v", n, len(message), err)
		}
		b.client.raw.Conn = socket
	})
}

// The client's close_notify half-closes; the backend goes on as long as it makes progress.
func TestRelayHalfClose(t *testing.T) {
	half := DefaultTimeouts().HalfClose
	finish := func(t *testing.T, b *bubble) {
		b.client.send("RETR 1\r\n")
		b.backend.reads("RETR 1\r\n")
		if err := b.client.conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b.backend.ends()
		for range 5 {
			time.Sleep(half - time.Second)
			b.backend.say("a line\r\n")
			b.client.expect("a line")
		}
	}
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		finish(t, b)
		b.backend.conn.Close()
		b.client.ends(true)
		b.client.conn.Close()
		if e := b.closed(audit.ClientGone); e.Retr != 1 || e.BytesOut != 40 {
			t.Errorf("retr %d, bytes out %d, want 1 and 40", e.Retr, e.BytesOut)
		}
	})
	inBubble(t, nil, func(t *testing.T, b *bubble) { // and no longer
		finish(t, b)
		began := time.Now()
		b.client.ends(false)
		within(t, began, half, half+time.Second)
		b.closed(audit.Idle)
	})
	inBubble(t, func(s *Timeouts) { s.HalfClose = 0 }, func(t *testing.T, b *bubble) { // idle counts still
		finish(t, b)
		began := time.Now()
		b.client.ends(false)
		within(t, began, DefaultTimeouts().Idle, DefaultTimeouts().Idle+time.Second)
		b.closed(audit.Idle)
	})
}

// A client that ends its stream without close_notify may have been cut off. The backend is told so by the end of its
// stream, and still reads the QUIT that was passed on, and answers it, to nobody.
func TestRelayCutClient(t *testing.T) {
	for name, quiet := range map[string]time.Duration{"busy": 0, "quiet": time.Minute} {
		inBubble(t, nil, func(t *testing.T, b *bubble) {
			time.Sleep(quiet)
			b.client.send("DELE 1\r\nQUIT\r\n")
			b.client.raw.Close()
			b.backend.reads("DELE 1\r\nQUIT\r\n")
			b.backend.ends()
			for range 3 { // slowly, but within the time that a drain has
				time.Sleep(drainTime / 4)
				if _, err := io.WriteString(b.backend.conn, "+OK\r\n"); err != nil {
					t.Errorf("%s: the backend was broken off while it answered: %v", name, err)
				}
			}
			b.backend.conn.Close()
			if e := b.closed(audit.ClientQuit); e.Dele != 1 || !e.Quit {
				t.Errorf("%s: dele %d, quit %v", name, e.Dele, e.Quit)
			}
		})
	}
}

// A client that is half closed without close_notify gets no close_notify either: of what the backend sends from then
// on nothing comes, and that must not look like a whole answer.
func TestRelayCutClientThatReads(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		b.client.send("RETR 1\r\n")
		b.backend.reads("RETR 1\r\n")
		b.backend.say("+OK\r\n")
		b.client.expect("+OK")
		_ = b.client.raw.Conn.(*duplex).CloseWrite()
		b.backend.ends()
		b.backend.say("the message\r\n.\r\n")
		b.backend.conn.Close()
		b.client.ends(false)
		b.closed(audit.ClientGone)
	})
}

// The backend of a client that is gone may not go on for ever.
func TestRelayDrainIsBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		began := time.Now()
		b.client.raw.Close()
		var talking sync.WaitGroup
		defer talking.Wait()
		talking.Go(func() {
			for {
				if _, err := io.WriteString(b.backend.conn, "more\r\n"); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
		b.closed(audit.ClientGone)
		within(t, began, 0, drainTime+time.Second)
	})
}

// A backend that has ended its stream but takes nothing does not hold the session for longer than the client's end may
// take.
func TestRelayBackendEndsDeaf(t *testing.T) {
	inBubble(t, func(s *Timeouts) { s.Stall = 0 }, func(t *testing.T, b *bubble) {
		b.client.send("NOOP\r\n") // nobody takes it
		synctest.Wait()
		began := time.Now()
		_ = b.backend.conn.(*duplex).CloseWrite()
		b.client.ends(true)
		b.closed(audit.BackendClosed)
		within(t, began, 0, 2*lingerTime)
	})
}

// Commands after the backend's end go nowhere, and a client that does not end its stream is not waited for long.
func TestRelayClientLingers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		b.client.send("QUIT\r\n")
		b.backend.reads("QUIT\r\n")
		b.backend.say("+OK bye\r\n")
		b.backend.conn.Close()
		b.client.expect("+OK bye")
		began := time.Now()
		b.client.ends(true)
		if e := b.closed(audit.ClientQuit); e.BytesIn != 6 || e.BytesOut != 9 {
			t.Errorf("bytes in %d, out %d, want 6 and 9", e.BytesIn, e.BytesOut)
		}
		within(t, began, lingerTime, lingerTime)
	})
}

// A tap without a socket to wait at holds no more than its small buffer while it waits.
func TestTapHoldsNoChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := newDuplex()
		var tp tap
		tp.open(there, nil)
		for _, size := range []int{10, smallRead, 2 * recordSize, 500, 10} {
			want := strings.Repeat("x", size)
			go func() { _, _ = io.WriteString(here, want) }()
			for got := 0; got < size; {
				p, err := tp.read()
				if err != nil {
					t.Fatal(err)
				}
				got += len(p)
			}
			waits := make(chan error)
			go func() { _, err := tp.read(); waits <- err }()
			synctest.Wait()
			if tp.out != nil && !tp.more || tp.took != nil {
				t.Errorf("after %d octets a chunk is held while nothing flows", size)
			}
			_ = there.SetReadDeadline(time.Unix(1, 0))
			if err := <-waits; !isTimeout(err) {
				t.Fatal(err)
			}
			_ = there.SetReadDeadline(time.Time{})
		}
	})
}
