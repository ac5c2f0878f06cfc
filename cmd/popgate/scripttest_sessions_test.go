package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/popgate/popgate/proxy/pop3mem"
)

// sessionMail is what sessions fetch over and over: more than one TLS record.
var sessionMail = []byte("Subject: test\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 1000))

// cmdMailbox starts a POP3 server in memory on $BACKEND, with a mailbox for each of the sessions that cmdSessions opens.
func cmdMailbox(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mailbox COUNT")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	server := pop3mem.New(pop3mem.Options{})
	for i := range n {
		server.Add(sessionUser(i), "open sesame", sessionMail)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	go func() { _ = server.Serve(ln) }() // it ends with the script
	s := stageOf(ts)
	s.servers = append(s.servers, server.Close)
	ts.Setenv("BACKEND", ln.Addr().String())
}

func sessionUser(i int) string { return fmt.Sprintf("user%d@example.org", i) }

// sessions are clients that have logged in and fetch a message without end, each checked against what it is.
type sessions struct {
	roots   *x509.CertPool
	clients []*tls.Conn
	rounds  []atomic.Int64 // by client
	stop    chan struct{}
	running sync.WaitGroup
	failed  chan error // the first one
}

// cmdSessions lets many clients fetch mail at once:
//
//	sessions open COUNT HOST:PORT SERVERNAME CA.pem   log in, and begin
//	sessions more                                     wait until each has fetched the message once more, from its beginning
//	sessions end                                      wait for the message at work in each, and say QUIT
func cmdSessions(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	switch {
	case !neg && len(args) == 5 && args[0] == "open" && s.sessions == nil:
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		s.sessions, err = openSessions(n, args[2], args[3], ts.MkAbs(args[4]))
		ts.Check(err)
		s.servers = append(s.servers, s.sessions.close)
	case !neg && len(args) == 1 && args[0] == "more" && s.sessions != nil:
		ts.Check(s.sessions.more())
	case !neg && len(args) == 1 && args[0] == "end" && s.sessions != nil:
		ts.Check(s.sessions.end())
	default:
		ts.Fatalf("usage: sessions open COUNT HOST:PORT SERVERNAME CA.pem, then sessions more, sessions end")
	}
}

func openSessions(n int, address, serverName, caFile string) (*sessions, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	s := &sessions{roots: x509.NewCertPool(), rounds: make([]atomic.Int64, n), stop: make(chan struct{}), failed: make(chan error, 1)}
	s.roots.AppendCertsFromPEM(pem)
	for i := range n {
		c, err := s.login(i, address, serverName)
		if err != nil {
			_ = s.close()
			return nil, fmt.Errorf("session %d: %w", i, err)
		}
		s.clients = append(s.clients, c)
	}
	for i, c := range s.clients {
		s.running.Go(func() {
			if err := s.fetch(c, &s.rounds[i]); err != nil {
				select {
				case s.failed <- fmt.Errorf("session %d in round %d: %w", i, s.rounds[i].Load(), err):
				default:
				}
			}
		})
	}
	return s, nil
}

// login opens a session. Its certificate may be one of seconds; whether it is in its time is not what is looked at here.
func (s *sessions) login(i int, address, serverName string) (*tls.Conn, error) {
	dialer := &net.Dialer{Timeout: patience}
	c, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{
		ServerName: serverName, InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, cert := range cs.PeerCertificates[1:] {
				between.AddCert(cert)
			}
			leaf := cs.PeerCertificates[0]
			_, err := leaf.Verify(x509.VerifyOptions{DNSName: serverName, Roots: s.roots, Intermediates: between, CurrentTime: leaf.NotAfter})
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(c)
	for _, command := range []string{"", "USER " + sessionUser(i) + "\r\n", "PASS open sesame\r\n"} {
		if _, err := c.Write([]byte(command)); err != nil {
			return nil, err
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			return nil, fmt.Errorf("behind %q: %q, %w", command, line, err)
		}
	}
	return c, nil
}

// fetch goes on until stop, and says QUIT then.
func (s *sessions) fetch(c *tls.Conn, rounds *atomic.Int64) error {
	lines := bufio.NewReader(c)
	want := append(bytes.Clone(sessionMail), ".\r\n"...)
	got := make([]byte, len(want))
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for {
		command := "RETR 1\r\n"
		select {
		case <-s.stop:
			command = "QUIT\r\n"
		case <-pace.C:
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write([]byte(command)); err != nil {
			return err
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			return fmt.Errorf("%.4s: %q, %w", command, line, err)
		}
		if command == "QUIT\r\n" {
			return nil
		}
		for n := 0; n < len(got); {
			more, err := lines.Read(got[n:])
			if err != nil {
				return fmt.Errorf("after %d of %d bytes: %w", n, len(got), err)
			}
			n += more
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("the message differs at %d", difference(got, want))
		}
		rounds.Add(1)
	}
}

func (s *sessions) more() error {
	then := make([]int64, len(s.rounds))
	for i := range s.rounds {
		then[i] = s.rounds[i].Load()
	}
	late := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for i := 0; i < len(s.rounds); {
		// The round at work then may have begun long before.
		if s.rounds[i].Load() >= then[i]+2 {
			i++
			continue
		}
		select {
		case err := <-s.failed:
			return err
		case <-late:
			return fmt.Errorf("session %d fetches nothing any more", i)
		case <-look.C:
		}
	}
	return nil
}

func (s *sessions) end() error {
	close(s.stop)
	s.running.Wait()
	select {
	case err := <-s.failed:
		return err
	default:
		return nil
	}
}

func (s *sessions) close() error {
	for _, c := range s.clients {
		c.Close()
	}
	s.running.Wait()
	return nil
}
