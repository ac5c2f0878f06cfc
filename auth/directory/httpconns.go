package directory

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// maxHTTPHead and maxHTTPBody bound an answer, in bytes.
	maxHTTPHead = 16 << 10
	maxHTTPBody = 64 << 10
	// maxHTTPIdle is how many connections are kept, httpIdleTime for how long nobody may have used one.
	maxHTTPIdle  = 64
	httpIdleTime = 30 * time.Second
)

// httpConns are the connections to one service. net/http has a client for that, which writes headers in an order and a case of
// its own and adds others; services that were written for nginx are asked exactly as nginx asks.
type httpConns struct {
	target target
	tls    *tls.Config        // nil without TLS
	idle   chan *httpConn     // nil where no connection is kept
	ended  context.Context    // of the source
	end    context.CancelFunc // ends it
}

// An httpConn is one connection. What is read from it is counted down from what may come.
type httpConn struct {
	net.Conn
	left   io.LimitedReader
	r      *bufio.Reader
	parked time.Time
}

func newHTTPConns(t target, keep bool) *httpConns {
	c := &httpConns{target: t}
	c.ended, c.end = context.WithCancel(context.Background())
	if keep {
		c.idle = make(chan *httpConn, maxHTTPIdle)
	}
	return c
}

// close ends the connections that are kept.
func (c *httpConns) close() {
	c.end()
	for c.idle != nil {
		select {
		case conn := <-c.idle:
			conn.Close()
		default:
			return
		}
	}
}

// An httpAnswer is an answer.
type httpAnswer struct {
	status int
	header http.Header
	body   []byte // where it was wanted
	last   bool   // on its connection
}

// ask sends a request as it is and gives the answer, with its body if that is wanted.
func (c *httpConns) ask(ctx context.Context, request []byte, body bool) (httpAnswer, error) {
	if conn := c.parked(); conn != nil {
		// One that the service has closed meanwhile is no fault; that it has seen the request is no harm either, for
		// questions change nothing.
		a, err := c.askOn(ctx, conn, request, body)
		if ctx.Err() != nil || err == nil && a.status != http.StatusRequestTimeout { // how some say that they close
			return a, err
		}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return httpAnswer{}, err
	}
	return c.askOn(ctx, conn, request, body)
}

func (c *httpConns) dial(ctx context.Context) (*httpConn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, c.target.network, c.target.address)
	if err != nil {
		return nil, err // which says what was dialled
	}
	conn := &httpConn{Conn: raw}
	if c.tls != nil {
		t := tls.Client(raw, c.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS with it: %w", err)
		}
		conn.Conn = t
	}
	conn.left.R = conn.Conn
	conn.r = bufio.NewReader(&conn.left)
	return conn, nil
}

// askOn asks on one connection, and parks or closes it.
func (c *httpConns) askOn(ctx context.Context, conn *httpConn, request []byte, body bool) (httpAnswer, error) {
	done := untilDone(ctx, conn.Conn)
	a, err := conn.exchange(request, body || c.idle != nil)
	if late := done(); late && ctx.Err() != nil {
		return httpAnswer{}, fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	if err != nil {
		conn.Close()
		return httpAnswer{}, err
	}
	c.park(conn, a.last)
	return a, nil
}

// exchange sends the request and reads the answer. Where the body is not wanted it is left unread.
func (conn *httpConn) exchange(request []byte, body bool) (httpAnswer, error) {
	if _, err := conn.Write(request); err != nil {
		return httpAnswer{}, err
	}
	conn.left.N = maxHTTPHead
	resp, err := http.ReadResponse(conn.r, nil) //nolint:bodyclose // which would wait for all that is left of it
	for err == nil && resp.StatusCode < http.StatusOK {
		// RFC 9110 section 15.2: the answer itself comes behind it. Left unread, it would be taken for that to the next question,
		// which is another user's.
		resp, err = http.ReadResponse(conn.r, nil) //nolint:bodyclose // as above
	}
	switch {
	case err != nil && conn.left.N <= 0:
		return httpAnswer{}, fmt.Errorf("the header of the answer is longer than %d bytes", maxHTTPHead)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return httpAnswer{}, errors.New("the connection was closed before the answer")
	case err != nil: // the library shows pieces of the answer, in which there may be a password
		if netErr := (net.Error)(nil); errors.As(err, &netErr) {
			return httpAnswer{}, err
		}
		return httpAnswer{}, errors.New("the answer is not HTTP")
	}
	a := httpAnswer{status: resp.StatusCode, header: resp.Header, last: resp.Close}
	if !body {
		return a, nil
	}
	conn.left.N = maxHTTPBody + maxHTTPHead // and room for what is around its chunks
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxHTTPBody+1))
	switch {
	case len(a.body) > maxHTTPBody || err != nil && conn.left.N <= 0:
		return httpAnswer{}, fmt.Errorf("the body of the answer is longer than %d bytes", maxHTTPBody)
	case err != nil:
		return httpAnswer{}, fmt.Errorf("read the body of the answer: %w", err)
	}
	return a, nil
}

// parked gives a connection that may still be good, or nil.
func (c *httpConns) parked() *httpConn {
	for c.idle != nil {
		select {
		case conn := <-c.idle:
			if time.Since(conn.parked) < httpIdleTime {
				return conn
			}
			conn.Close()
		default:
			return nil
		}
	}
	return nil
}

// park keeps a connection for the next question, if it is fit for one: what the service sent beyond its answer would be taken
// for the next answer, which is another user's.
func (c *httpConns) park(conn *httpConn, last bool) {
	if c.idle == nil || last || conn.r.Buffered() > 0 || c.ended.Err() != nil {
		conn.Close()
		return
	}
	conn.parked = time.Now()
	select {
	case c.idle <- conn:
		if c.ended.Err() != nil {
			c.close()
		}
	default:
		conn.Close()
	}
}
