package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3"
)

// How a relay ends. What each means for the two connections is in run.
var (
	errEndBackendClosed = errors.New("backend closed the session")
	errEndBackendGone   = errors.New("connection to the backend broke")
	errEndClientGone    = errors.New("connection to the client broke")
	errEndIdle          = errors.New("nothing was sent for too long")
	errEndStalled       = errors.New("one side took nothing for too long")
)

// drainTime bounds how long a backend whose client is gone may go on: it shall still read the QUIT that was passed
// on, which a reset would destroy.
const drainTime = 5 * time.Second

// A relay carries bytes between a client and its backend, unchanged. download runs on the session's goroutine,
// upload on one more, for which run waits.
type relay struct {
	s       *session
	conn    *backend.Conn
	who     identity
	up      lane   // client to backend
	down    lane   // backend to client
	early   []byte // what the client sent behind its login
	stalls  stall  // of the backend
	brake   *brake // nil in nearly all relays
	seen    pop3.Observer
	begun   bool
	last    atomic.Int64 // when a byte moved last, in nanoseconds since the session began
	silence atomic.Int64 // how long none may move, in nanoseconds; 0 is for ever
	ending  ending
	sync.WaitGroup
}

// An ending is how far the end of a relay has come. Each direction learns from it what the other one has met.
type ending struct {
	clientDeaf  atomic.Bool // the client takes no more: what comes for it is thrown away
	backendDeaf atomic.Bool // the backend takes no more: what comes for it is thrown away
	backendTold atomic.Bool // the backend has been told that no more comes
	quit        atomic.Bool // the client has said QUIT
	meant       atomic.Bool // a deadline that strikes ends its direction; before, it was set to look around
	up          error       // why the upload ended, for whoever has waited for it
}

// A lane is one direction, as its goroutine knows it.
type lane struct {
	tap
	socket interface{ SetReadDeadline(time.Time) error } // what the lane waits at
	quiet  bool                                          // it waits on a fresh goroutine
	moved  time.Duration                                 // when a byte came last, since the session began
	octets int64                                         // carried so far
	until  atomic.Int64                                  // when a wait of ours ends, in nanoseconds since the session began
}

// identity is whose session it is, for the record at its end.
type identity struct{ user, tenant, backend string }

func newRelay(s *session, l *login, conn *backend.Conn) *relay {
	r := &relay{s: s, conn: conn, who: identity{l.creds.Name.Full(), l.route.Tenant, l.route.Backend}}
	r.early = append(r.early, s.talk.lines.Buffered()...)
	r.down.open(conn.Conn, nil)
	r.down.socket = conn
	r.up.socket = s.raw
	if s.conn == net.Conn(s.raw) {
		r.early, s.raw.early = append(r.early, s.raw.early...), nil // the tap goes past it
		r.up.open(s.raw.Conn, nil)
	} else {
		r.up.open(s.conn, s.raw)
	}
	r.silence.Store(int64(s.snap.Timeouts.Idle))
	r.slow(newBrake(s.visit, s.talk.commands))
	// The dialogue's write deadline is still set; with no limit for the relay it must go.
	_ = s.raw.SetWriteDeadline(time.Time{})
	_ = conn.SetDeadline(time.Time{})
	s.raw.stalls.limit.Store(int64(s.snap.Timeouts.Stall))
	r.stalls.limit.Store(int64(s.snap.Timeouts.Stall))
	return r
}

// run carries bytes until both directions are done, closes both connections as the end asks for, and says why it
// ended; or it returns errQuiet, and is to be called again on a fresh goroutine.
//
// The client's end of its stream is passed on, and the backend may still finish what it sends. The backend's end
// is the session's: all it sent is written, then the client's stream ends properly. A connection that breaks is
// never ended as if nothing were wrong, for the client would take half a message for a whole one.
func (r *relay) run(ctx context.Context) error {
	if !r.begun {
		r.begin(ctx)
	}
	err := r.download(ctx)
	if errors.Is(err, errQuiet) {
		return err
	}
	r.mean()
	_ = r.conn.SetWriteDeadline(time.Now().Add(lingerTime)) // upload may wait for a backend that takes nothing
	switch {
	case errors.Is(err, errEndBackendClosed) && !r.ending.clientDeaf.Load(): // or what was thrown away would not be missed
		r.ending.backendDeaf.Store(true)
		r.s.closeStream()
	case errors.Is(err, errEndClientGone):
		_ = r.s.raw.Close()
		r.drain()
	default:
		_ = r.s.raw.Close()
	}
	r.Wait()
	_ = r.conn.Close()
	return r.cause(err)
}

// begin starts the clocks of both directions, and the upload.
func (r *relay) begin(ctx context.Context) {
	r.begun = true
	r.moved(&r.up)
	r.moved(&r.down)
	_ = r.rearm(&r.up) // an error shows in the next read
	_ = r.rearm(&r.down)
	r.Go(func() { r.upload(ctx) })
}

// cause is why the session ended, from how the two directions did.
func (r *relay) cause(down error) error {
	switch {
	case r.seen.Quit && (errors.Is(down, errEndBackendClosed) || errors.Is(down, errEndClientGone)):
		return errQuit // many a client does not wait for the answer
	case r.ending.up != nil:
		return r.ending.up // it came first, and ended the other direction
	case errors.Is(down, errEndBackendClosed) && r.ending.backendTold.Load():
		return errEndClientGone // without QUIT; the backend only followed
	}
	return down
}

// upload carries what the client sends, on a goroutine of its own, and leaves why it ended in ending.up.
func (r *relay) upload(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			r.s.slipped(p)
			r.ending.up = errInternal
			r.cut()
		}
	}()
	err := r.send(ctx, r.early)
	r.early = nil
	for err == nil {
		var p []byte
		p, err = r.up.read()
		if len(p) > 0 {
			r.moved(&r.up)
			if werr := r.send(ctx, p); werr != nil {
				err = werr
				break
			}
		}
		if err != nil && isTimeout(err) {
			err = r.rearm(&r.up)
		}
	}
	r.up.rest()
	if errors.Is(err, errQuiet) {
		r.Go(func() { r.upload(ctx) })
		return
	}
	r.ending.up = r.uploadEnded(err)
}

// forward writes what came from the client to the backend.
func (r *relay) forward(p []byte) error {
	if len(p) == 0 || r.ending.backendDeaf.Load() {
		return nil
	}
	if r.seen.Observe(p); r.seen.Quit {
		r.ending.quit.Store(true)
	}
	if err := r.stalls.arm(r.conn); err != nil {
		return errEndBackendGone
	}
	n, err := r.conn.Write(p)
	r.up.octets += int64(n)
	r.s.gw.metrics.bytesIn.Add(float64(n))
	switch {
	case err == nil:
		return nil
	case isTimeout(err):
		return errEndStalled
	}
	return errEndBackendGone
}

// uploadEnded does what the end of the client's direction asks for; err is what ended it.
func (r *relay) uploadEnded(err error) error {
	switch {
	case r.ending.meant.Load():
		return nil // download has ended the session
	case errors.Is(err, errEndBackendGone):
		return err // download sees it too, after what the backend has still sent
	case errors.Is(err, errEndStalled), errors.Is(err, errEndIdle):
		r.cut()
		return err
	case errors.Is(err, io.EOF) && r.s.clientEnded():
		if d := r.s.snap.Timeouts.HalfClose; d > 0 {
			r.silence.Store(int64(d))
		}
		r.endBackend()
		// The backend has its time from now on. download sets its own deadline when this one strikes.
		r.last.Store(int64(time.Since(r.s.began)))
		_ = r.conn.SetReadDeadline(time.Now().Add(quietTime))
		return nil
	}
	r.ending.clientDeaf.Store(true)
	r.s.raw.stalls.limit.Store(0)
	_ = r.s.raw.SetWriteDeadline(time.Unix(1, 0)) // download may wait for a client that takes nothing
	r.drainBy(time.Now().Add(drainTime))
	return errEndClientGone
}

// download carries what the backend sends. It always returns why it ended, or errQuiet.
func (r *relay) download(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.s.slipped(p)
			r.cut()
			err = errInternal
		}
	}()
	early := r.conn.Leftover
	r.conn.Leftover = nil
	if err = r.deliver(early); err == nil {
		r.delivered(ctx, len(early))
	}
	for err == nil {
		var p []byte
		p, err = r.down.read()
		if len(p) > 0 {
			r.moved(&r.down)
			if werr := r.deliver(p); werr != nil {
				err = werr
				break
			}
			r.delivered(ctx, len(p))
		}
		if err != nil {
			err = r.downloadEnded(err)
		}
	}
	r.down.rest()
	return err
}

// downloadEnded makes of an error of reading why the session ended, nil where it does not.
func (r *relay) downloadEnded(err error) error {
	switch {
	case isTimeout(err):
		return r.rearm(&r.down)
	case errors.Is(err, io.EOF) && r.backendEnded():
		return errEndBackendClosed
	}
	return errEndBackendGone
}

// backendEnded says that the end of what came from the backend is one of its own making. Over TLS that takes a
// close_notify, or anybody on the way could cut a message short; after QUIT there is nothing to cut, and many servers
// end without one.
func (r *relay) backendEnded() bool {
	if r.conn.Truncated() {
		return r.ending.quit.Load()
	}
	return r.ending.backendTold.Load() || !brokenOff(r.conn.Conn)
}

// deliver writes what came from the backend to the client.
func (r *relay) deliver(p []byte) error {
	if len(p) == 0 || r.ending.clientDeaf.Load() {
		return nil
	}
	n, err := r.s.conn.Write(p)
	r.down.octets += int64(n)
	r.s.gw.metrics.bytesOut.Add(float64(n))
	r.moved(&r.down) // a slow client takes its time, which is no silence
	switch {
	case err == nil, r.ending.clientDeaf.Load():
		return nil
	case isTimeout(err):
		return errEndStalled
	}
	return errEndClientGone
}

// moved notes that a byte has moved in a lane. If the lane was quiet, it is watched for falling quiet again.
func (r *relay) moved(l *lane) {
	l.moved = time.Since(r.s.began)
	r.last.Store(int64(l.moved))
	if l.quiet && !r.ending.meant.Load() {
		l.quiet = false
		_ = l.socket.SetReadDeadline(time.Now().Add(quietTime)) // an error shows in the next read
		if r.ending.meant.Load() {                              // looked at after arming, or the meant deadline would be lost
			_ = l.socket.SetReadDeadline(time.Now().Add(drainTime)) // the longest that one may be
		}
	}
}

// rearm is called when the deadline of a lane has struck. It sets the next one, and returns nil when the lane is to
// wait on, errQuiet when it is to do so on a fresh goroutine, errEndIdle when it has waited too long. Deadlines are
// set when they strike and not at each read, for setting one costs more than a small read.
func (r *relay) rearm(l *lane) error {
	if r.ending.meant.Load() {
		return errEndIdle
	}
	now := time.Since(r.s.began)
	left := quietTime - (now - l.moved)
	result := error(nil)
	if left <= 0 {
		if !l.quiet {
			l.quiet, result = true, errQuiet
		}
		limit := time.Duration(r.silence.Load())
		last := max(r.last.Load(), r.up.until.Load(), r.down.until.Load()) // to wait for a turn is no silence
		left = time.Duration(last) + limit - now
		if limit > 0 && left <= 0 {
			return errEndIdle
		}
		if limit <= 0 {
			left = 0
		}
	}
	if err := l.socket.SetReadDeadline(after(left)); err != nil || r.ending.meant.Load() { // looked at after arming
		return errEndIdle
	}
	return result
}

// after is the time d from now, and none for 0.
func after(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// mean says that the relay is ending: what strikes or wakes a direction from now on is meant to end it.
func (r *relay) mean() {
	r.ending.meant.Store(true)
	r.brake.release()
}

// cut ends the other direction: both connections are of no more use.
func (r *relay) cut() {
	r.mean()
	past := time.Unix(1, 0)
	_ = r.s.raw.SetDeadline(past)
	_ = r.conn.SetDeadline(past)
}

// drainBy lets the backend go on until t at most, with its client gone.
func (r *relay) drainBy(t time.Time) {
	r.mean()
	r.endBackend()
	_ = r.conn.SetReadDeadline(t)
}

// endBackend tells the backend that no more comes. Where it fails, download finds the connection broken.
func (r *relay) endBackend() {
	r.ending.backendTold.Store(true)
	_ = closeWrite(r.conn)
}

// drain reads what the backend still sends to nobody.
func (r *relay) drain() {
	r.drainBy(time.Now().Add(drainTime))
	for {
		if _, err := r.down.read(); err != nil {
			r.down.rest()
			return
		}
	}
}

// describe adds to the session's last record.
func (r *relay) describe(e *audit.Event) {
	e.User, e.Tenant, e.Backend, e.Server = r.who.user, r.who.tenant, r.who.backend, r.conn.Server
	e.Retr, e.Top, e.Dele, e.Quit = int64(r.seen.Retr), int64(r.seen.Top), int64(r.seen.Dele), r.seen.Quit
	e.BytesIn, e.BytesOut = r.up.octets, r.down.octets
}
