package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A stream is mail clients that log in over and over, as long as none of them fails.
type stream struct {
	address string
	ca      string
	logins  atomic.Int64
	quit    chan struct{}
	end     sync.Once
	clients sync.WaitGroup
	mu      sync.Mutex
	failed  error // guarded by mu
}

// streamPause is what a client waits between two sessions.
const streamPause = 30 * time.Millisecond

// cmdStream is one step of it:
//
//	stream NAME start HOST:PORT COUNT   COUNT clients, u0@example.org and so on, log in and quit over and over
//	stream NAME more LOGINS             wait for so many logins more
//	stream NAME stop                    end it
//
// One login that fails fails the script.
func cmdStream(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: stream NAME start|more|stop ARG...")
	}
	s, name, step, args := stageOf(ts), args[0], args[1], args[2:]
	f := s.streams[name]
	switch {
	case step == "start" && len(args) == 2 && f == nil:
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		f = &stream{address: args[0], ca: filepath.Join(s.work, "tls", "ca.pem"), quit: make(chan struct{})}
		for i := range n {
			f.clients.Go(func() { f.run(fmt.Sprintf("u%d@example.org", i)) })
		}
		s.streams[name] = f
		s.servers = append(s.servers, f.stop)
	case step == "more" && len(args) == 1 && f != nil:
		n, err := strconv.ParseInt(args[0], 10, 64)
		ts.Check(err)
		want := f.logins.Load() + n
		eventually(ts, "logins", func() (bool, error) {
			ts.Check(f.fault())
			got := f.logins.Load()
			return got >= want, fmt.Errorf("%d logins, want %d", got, want)
		})
	case step == "stop" && len(args) == 0 && f != nil:
		ts.Check(f.stop())
		ts.Logf("%d logins", f.logins.Load())
	default:
		ts.Fatalf("stream %s: cannot %s %q", name, step, args)
	}
}

// cmdRetry logs in with a new connection again and again until that works.
func cmdRetry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: retry HOST:PORT USER")
	}
	f := &stream{address: args[0], ca: filepath.Join(stageOf(ts).work, "tls", "ca.pem")}
	eventually(ts, "login of "+args[1], func() (bool, error) {
		err := f.once(args[1])
		return err == nil, err
	})
}

// cmdUntil runs a program again and again until it prints what is wanted.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM ARG...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	eventually(ts, args[0], func() (bool, error) {
		err := ts.Exec(args[1], args[2:]...)
		return err == nil && re.MatchString(ts.ReadFile("stdout")), err
	})
}

func (f *stream) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *stream) stop() error {
	f.end.Do(func() { close(f.quit) })
	f.clients.Wait()
	return f.fault()
}

func (f *stream) run(user string) {
	for n := 1; ; n++ {
		select {
		case <-f.quit:
			return
		case <-time.After(streamPause): // there are other tests on the machine
		}
		if err := f.once(user); err != nil {
			f.mu.Lock()
			f.failed = errors.Join(f.failed, fmt.Errorf("login %d of %s: %w", n, user, err))
			f.mu.Unlock()
			return
		}
		f.logins.Add(1)
	}
}

// once is a whole session.
func (f *stream) once(user string) error {
	c, err := dialPOP3([]string{f.address})
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	raw := c.conn
	defer func() { _ = raw.Close() }()
	if err := c.startTLS(f.ca, "mail.example.org"); err != nil {
		return err
	}
	for i, line := range []string{"", "USER " + user, "PASS " + password, "QUIT"} {
		if line != "" {
			if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
				return err
			}
		}
		reply, err := c.lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
		if !strings.HasPrefix(reply, "+OK") {
			return fmt.Errorf("answer %d: %q", i, reply)
		}
	}
	if _, err := c.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after QUIT: %v, want the end", err)
	}
	return nil
}
