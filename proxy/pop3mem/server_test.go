package pop3mem

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

const greeting = "< +OK popgate's mail in memory is ready\n"

const login = greeting + "> USER alice\n> PASS se cret\n"

func TestDeleteOnlyByQuit(t *testing.T) {
	s := mailbox(Options{})
	addr := start(t, s)
	p := dial(t, addr)
	p.play(login + "< +OK\n< +OK 2 messages\n> DELE 1\n< +OK deleted\n")
	other := dial(t, addr)
	other.play(login + "< +OK\n< -ERR [IN-USE] the mailbox is in use by another session\n")
	_ = p.conn.Close()
	// The lock goes when the server sees the end of the connection; until then another login is refused.
	p = loginUntil(t, addr, "< +OK 2 messages\n")
	s.Add("alice", "se cret", []byte("Subject: three\n\n"))
	p.play("> STAT\n< +OK 2 56\n> DELE 1\n< +OK deleted\n> QUIT\n< +OK bye\n<EOF\n")
	p = dial(t, addr)
	p.play(login + "< +OK\n< +OK 2 messages\n> UIDL\n< +OK 2 messages (34 octets)\n< 1 popgate-2\n< 2 popgate-3\n< .\n")
	if n := s.Messages("alice"); n != 2 {
		t.Errorf("%d messages left", n)
	}
	if n := s.Messages("bob"); n != 0 {
		t.Errorf("bob has %d messages", n)
	}
}

// loginUntil tries until the mailbox is free.
func loginUntil(t *testing.T, addr, want string) *player {
	t.Helper()
	for {
		p := dial(t, addr)
		p.play(login + "< +OK\n")
		line, err := p.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, "[IN-USE]") {
			if "< "+strings.ReplaceAll(line, "\r", "") != want {
				t.Fatalf("login: %q, want %q", line, want)
			}
			return p
		}
		_ = p.conn.Close()
	}
}

func TestSTLS(t *testing.T) {
	cert, roots := selfSigned(t)
	s := mailbox(Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, RefusePlaintext: true})
	addr := start(t, s)
	p := dial(t, addr)
	p.play(greeting + "> CAPA\n< +OK Capability list follows\n< TOP\n< UIDL\n< RESP-CODES\n< AUTH-RESP-CODE\n< PIPELINING\n< STLS\n< .\n" +
		"> STLS\n< +OK begin TLS\n")
	p.use(tls.Client(p.conn, &tls.Config{RootCAs: roots, ServerName: "mail.example.org"}))
	p.play(`> CAPA
< +OK Capability list follows
< TOP
< UIDL
< RESP-CODES
< AUTH-RESP-CODE
< PIPELINING
< USER
< SASL PLAIN LOGIN
< .
> STLS
< -ERR TLS is on already
> USER alice
> PASS se cret
< +OK
< +OK 2 messages
> STLS
< -ERR already logged in
> QUIT
< +OK bye
<EOF
`) // the end is a close_notify, or it would be an unexpected EOF
	p = dial(t, addr)
	p.play(greeting + "> STLS\n> USER alice\n< +OK begin TLS\n<EOF\n")
}

func TestImplicitTLS(t *testing.T) {
	cert, roots := selfSigned(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	s := mailbox(Options{TLS: config, RefusePlaintext: true})
	start(t, s)
	go func() { _ = s.Serve(l) }()
	p := dial(t, l.Addr().String())
	p.use(tls.Client(p.conn, &tls.Config{RootCAs: roots, ServerName: "mail.example.org"}))
	p.play(login + "< +OK\n< +OK 2 messages\n> QUIT\n< +OK bye\n<EOF\n")
}

func TestObserve(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s := mailbox(Options{Observe: func(client net.Addr, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, client.String()+" "+string(line))
	}})
	p := dial(t, start(t, s))
	p.play(greeting + "> AUTH PLAIN\n< + \n> *\n< -ERR malformed or cancelled\n> PASS x\n< -ERR USER first\n> QUIT\n< +OK bye\n<EOF\n")
	mu.Lock()
	defer mu.Unlock()
	from := p.conn.LocalAddr().String() + " "
	want := from + strings.Join([]string{"AUTH PLAIN", "*", "PASS x", "QUIT"}, "|"+from)
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("seen %q, want %q", got, want)
	}
}

func TestCloseEndsSessions(t *testing.T) {
	s := mailbox(Options{})
	addr := start(t, s)
	p := dial(t, addr)
	p.play(greeting)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.r.ReadByte(); err == nil {
		t.Error("the session goes on")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
	if err := l.Close(); err == nil {
		t.Error("Serve left its listener open")
	}
}

func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := New(Options{}).Serve(l); err == nil || errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve of a dead listener: %v", err)
	}
}

// Many sessions at once, each with mail of its own, with the race detector looking.
func TestManyAtOnce(t *testing.T) {
	s := New(Options{})
	addr := start(t, s)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			user := fmt.Sprintf("user%d", i)
			s.Add(user, "x", bytes.Repeat([]byte("0123456789\r\n"), 1000))
			p := dial(t, addr)
			p.play(greeting + "> USER " + user + "\n> PASS x\n> DELE 1\n> QUIT\n< +OK\n< +OK 1 messages\n< +OK deleted\n< +OK bye\n<EOF\n")
			if n := s.Messages(user); n != 0 {
				t.Errorf("%s has %d messages left", user, n)
			}
		})
	}
	wg.Wait()
}

func BenchmarkSession(b *testing.B) {
	s := New(Options{})
	s.Add("alice", "secret", Welcome("alice")...)
	addr := start(b, s)
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(conn, "USER alice\r\nPASS secret\r\nSTAT\r\nQUIT\r\n"); err != nil {
			b.Fatal(err)
		}
		if reply, err := io.ReadAll(conn); !bytes.HasSuffix(reply, []byte("+OK bye\r\n")) {
			b.Fatalf("%q, %v", reply, err)
		}
		_ = conn.Close()
	}
}

func BenchmarkRetr(b *testing.B) {
	s := New(Options{})
	s.Add("alice", "secret", bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 13_000))
	p := dial(b, start(b, s))
	p.play(greeting + "> USER alice\n> PASS secret\n< +OK\n< +OK 1 messages\n")
	b.SetBytes(13_000 * 78)
	for b.Loop() {
		if err := p.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
		p.play("> RETR 1\n< +OK 1014000 octets\n")
		if _, err := io.CopyN(io.Discard, p.r, 13_000*78+3); err != nil {
			b.Fatal(err)
		}
	}
}
