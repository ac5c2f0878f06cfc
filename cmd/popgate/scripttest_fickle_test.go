package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// fickleModes are what a fickle server can be like.
var fickleModes = []string{"good", "refuses", "silent", "dies", "mute"}

// A fickle server stands before a good one, and is good or bad as the script says.
type fickle struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu     sync.Mutex
	mode   string
	closed bool
	conns  []net.Conn
}

// cmdFickle makes a server at $VAR and says what it is like:
//
//	fickle VAR HOST:PORT   what it passes everything to
//	fickle VAR good        it does
//	fickle VAR refuses     it takes connections and resets them
//	fickle VAR silent      it takes connections and says nothing
//	fickle VAR dies        it closes when it sees PASS
//	fickle VAR mute        it says nothing any more when it sees PASS
func cmdFickle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fickle VAR HOST:PORT|good|refuses|silent|dies|mute")
	}
	s := stageOf(ts)
	f := s.fickle[args[0]]
	if slices.Contains(fickleModes, args[1]) {
		if f == nil {
			ts.Fatalf("there is no fickle server %s", args[0])
		}
		f.mu.Lock()
		f.mode = args[1]
		f.mu.Unlock()
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	f = &fickle{listener: l, target: args[1], mode: "good"}
	s.fickle[args[0]] = f
	s.servers = append(s.servers, f.close)
	f.work.Go(f.accept)
	ts.Setenv(args[0], l.Addr().String())
}

func (f *fickle) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode
}

// keep has a connection closed with the server.
func (f *fickle) keep(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
	}
	f.conns = append(f.conns, c)
}

func (f *fickle) close() error {
	err := f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.work.Wait()
	return err
}

func (f *fickle) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.keep(c)
		f.work.Go(func() { f.serve(c.(*net.TCPConn)) })
	}
}

func (f *fickle) serve(c *net.TCPConn) {
	defer func() { _ = c.Close() }()
	switch f.now() {
	case "refuses":
		_ = c.SetLinger(0)
		return
	case "silent":
		_, _ = io.Copy(io.Discard, c) // until either end has had enough
		return
	}
	server, err := net.Dial("tcp", f.target)
	if err != nil {
		return
	}
	f.keep(server)
	defer func() { _ = server.Close() }()
	f.work.Go(func() {
		_, _ = io.Copy(c, server)
		_ = c.CloseWrite()
	})
	_ = f.commands(server, c)
}

// commands passes them on, as long as the server is good.
func (f *fickle) commands(server, client net.Conn) error {
	for lines := bufio.NewReader(client); ; {
		line, err := lines.ReadBytes('\n')
		if bytes.HasPrefix(line, []byte("PASS ")) {
			switch f.now() {
			case "dies":
				return errors.New("dies")
			case "mute":
				_, err := io.Copy(io.Discard, client)
				return err
			}
		}
		if _, e := server.Write(line); err != nil || e != nil {
			return errors.Join(err, e)
		}
	}
}
