package pop3mem

import (
	"io"
	"strings"
	"testing"

	"github.com/popgate/popgate/proxy/pop3"
)

// mailbox is a server whose user alice has two messages.
func mailbox(o Options) *Server {
	s := New(o)
	s.Add("alice", "se cret", []byte("Subject: one\n\nfirst\n.\n..two\nthird"), []byte("Subject: two\r\n\r\n"))
	return s
}

func TestTranscripts(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		script  string
	}{
		{"a whole session", Options{}, greeting + `> CAPA
< +OK Capability list follows
< TOP
< UIDL
< RESP-CODES
< AUTH-RESP-CODE
< PIPELINING
< USER
< SASL PLAIN LOGIN
< .
> USER alice
< +OK
> PASS se cret
< +OK 2 messages
> STAT
< +OK 2 56
> LIST
< +OK 2 messages (56 octets)
< 1 40
< 2 16
< .
> LIST 2
< +OK 2 16
> UIDL
< +OK 2 messages (56 octets)
< 1 popgate-1
< 2 popgate-2
< .
> UIDL 1
< +OK 1 popgate-1
> RETR 1
< +OK 40 octets
< Subject: one
< 
< first
< ..
< ...two
< third
< .
> TOP 1 0
< +OK top of message follows
< Subject: one
< 
< .
> TOP 1 2
< +OK top of message follows
< Subject: one
< 
< first
< ..
< .
> TOP 2 99
< +OK top of message follows
< Subject: two
< 
< .
> DELE 1
< +OK deleted
> DELE 1
< -ERR no such message
> RETR 1
< -ERR no such message
> LIST 1
< -ERR no such message
> STAT
< +OK 1 16
> LIST
< +OK 1 messages (16 octets)
< 2 16
< .
> RSET
< +OK
> STAT
< +OK 2 56
> NOOP
< +OK
> QUIT
< +OK bye
<EOF
`},
		{"pipelined to the end", Options{}, "> user alice\n> pass se cret\n> stat\n> retr 2\n> noop\n> quit\n" + greeting +
			"< +OK\n< +OK 2 messages\n< +OK 2 56\n< +OK 16 octets\n< Subject: two\n< \n< .\n< +OK\n< +OK bye\n<EOF\n"},
		{"wrong credentials", Options{}, greeting + `> PASS se cret
< -ERR USER first
> USER
< -ERR USER needs a name
> USER alice
< +OK
> PASS secret
< -ERR [AUTH] wrong user name or password
> PASS se cret
< -ERR USER first
> USER bob
< +OK
> PASS se cret
< -ERR [AUTH] wrong user name or password
> USER alice
< +OK
> PASS  se cret
< -ERR [AUTH] wrong user name or password
> QUIT
< +OK bye
<EOF
`},
		{"wrong commands", Options{}, greeting + `> STAT
< -ERR log in first
> RETR 1
< -ERR log in first
> XTND
< -ERR unknown command
> UTF8
< -ERR unknown command
> STLS
< -ERR unknown command
> APOP alice 00
< -ERR unknown command
> 
< -ERR unknown command
> USER alice
> PASS se cret
< +OK
< +OK 2 messages
> USER alice
< -ERR already logged in
> AUTH PLAIN
< -ERR already logged in
> RETR
< -ERR no such message
> RETR 0
< -ERR no such message
> RETR 3
< -ERR no such message
> RETR -1
< -ERR no such message
> RETR 1x
< -ERR no such message
> RETR 99999999999999999999
< -ERR no such message
> TOP 1
< -ERR TOP needs a message and a number of lines
> TOP 3 1
< -ERR no such message
> LANG
< -ERR unknown command
`},
		{"AUTH", Options{}, greeting + `> AUTH
< +OK
< PLAIN
< LOGIN
< .
> AUTH CRAM-MD5
< -ERR unknown mechanism
> AUTH PLAIN
< + 
> *
< -ERR malformed or cancelled
> AUTH PLAIN =
< -ERR malformed or cancelled
> AUTH PLAIN cm9vdABhbGljZQBzZSBjcmV0
< -ERR [AUTH] nobody acts for others here
> AUTH PLAIN AGFsaWNlAHNlY3JldA==
< -ERR [AUTH] wrong user name or password
> auth login
< + VXNlcm5hbWU6
> YWxpY2U=
< + UGFzc3dvcmQ6
> c2UgY3JldA==
< +OK 2 messages
`},
		{"AUTH PLAIN at once, pipelined", Options{}, "> AUTH PLAIN AGFsaWNlAHNlIGNyZXQ=\n> STAT\n" + greeting + "< +OK 2 messages\n< +OK 2 56\n"},
		{"like an old server", Options{NoCapa: true, NoAuth: true, Greeting: "QPOP <1896.697170952@example.org>"}, `< +OK QPOP <1896.697170952@example.org>
> CAPA
< -ERR unknown command
> AUTH PLAIN
< -ERR unknown command
> AUTH
< -ERR unknown command
`},
		{"other capabilities", Options{Capabilities: pop3.Capabilities{"TOP", "EXPIRE NEVER"}}, greeting + "> CAPA\n< +OK Capability list follows\n< TOP\n< EXPIRE NEVER\n< .\n"},
		{"plaintext refused", Options{RefusePlaintext: true}, greeting + `> CAPA
< +OK Capability list follows
< TOP
< UIDL
< RESP-CODES
< AUTH-RESP-CODE
< PIPELINING
< .
> USER alice
< -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.
> AUTH PLAIN AGFsaWNlAHNlIGNyZXQ=
< -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.
`},
		{"a long line", Options{}, greeting + "> USER " + strings.Repeat("x", lineLimit) + "\n< -ERR line too long\n<EOF\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { dial(t, start(t, mailbox(tt.options))).play(tt.script) })
	}
}

// A client may wait for an answer with half of its next line sent.
func TestHalfALine(t *testing.T) {
	p := dial(t, start(t, mailbox(Options{})))
	p.play(greeting)
	if _, err := io.WriteString(p.conn, "USER alice\r\nPASS se"); err != nil {
		t.Fatal(err)
	}
	p.play("< +OK\n")
	if _, err := io.WriteString(p.conn, " cret\n"); err != nil {
		t.Fatal(err)
	}
	p.play("< +OK 2 messages\n")
}
