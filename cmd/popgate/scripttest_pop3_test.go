package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// A popClient speaks only what the script says.
type popClient struct {
	conn  net.Conn
	lines *bufio.Reader
}

// cmdPOP3 is one step of a client:
//
//	pop3 NAME dial HOST:PORT [FROM]   connect, from that address
//	pop3 NAME tls SERVERNAME          TLS from here on, the server's certificate held against tls/ca.pem
//	pop3 NAME send LINE...            send these lines in one write
//	pop3 NAME expect REGEXP...        read as many lines, each must match
//	pop3 NAME flood OCTETS            send as much without a line end, or as much as the server takes
//	pop3 NAME closed                  read the end; a byte before it is a fault
func cmdPOP3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: pop3 NAME dial|tls|send|expect|flood|closed ARG...")
	}
	s, name, step, args := stageOf(ts), args[0], args[1], args[2:]
	if step == "dial" {
		c, err := dialPOP3(args)
		ts.Check(err)
		s.clients[name] = c
		return
	}
	c := s.clients[name]
	if c == nil {
		ts.Fatalf("pop3 client %s has not dialled", name)
	}
	ts.Check(c.conn.SetDeadline(time.Now().Add(patience)))
	switch {
	case step == "tls" && len(args) == 1:
		ts.Check(c.startTLS(filepath.Join(s.work, "tls", "ca.pem"), args[0]))
	case step == "send":
		_, err := io.WriteString(c.conn, strings.Join(args, "\r\n")+"\r\n")
		ts.Check(err)
	case step == "flood" && len(args) == 1:
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		_, err = io.CopyN(c.conn, endless{}, int64(n))
		ts.Logf("[%s] %v", name, err) // the server may well have closed by now
	case step == "expect":
		for _, pattern := range args {
			line, err := c.lines.ReadString('\n')
			ts.Logf("[%s] %s", name, line)
			if err != nil {
				ts.Fatalf("%s waits for %q: %v", name, pattern, err)
			}
			if !regexp.MustCompile(pattern).MatchString(strings.TrimSuffix(line, "\r\n")) {
				ts.Fatalf("%s got %q, want %q", name, line, pattern)
			}
		}
	case step == "closed":
		if line, err := c.lines.ReadString('\n'); line != "" || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			ts.Fatalf("%s waits for the end and got %q, %v", name, line, err)
		}
	default:
		ts.Fatalf("unknown step %q", step)
	}
}

// endless is a line that does not end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	return len(p), nil
}

// cmdCrowd opens connections that never say a word, and keeps them while the script runs.
func cmdCrowd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: crowd HOST:PORT COUNT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for i := range n {
		c, err := dialPOP3(args[:1])
		ts.Check(err)
		stageOf(ts).clients[fmt.Sprintf("crowd %s %d", args[0], i)] = c
	}
}

func dialPOP3(args []string) (*popClient, error) {
	if len(args) < 1 || len(args) > 2 {
		return nil, errors.New("usage: pop3 NAME dial HOST:PORT [FROM]")
	}
	dialer := net.Dialer{Timeout: patience}
	if len(args) == 2 {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(args[1])}
	}
	conn, err := dialer.Dial("tcp", args[0])
	if err != nil {
		return nil, err
	}
	return &popClient{conn: conn, lines: bufio.NewReader(conn)}, nil
}

func (c *popClient) startTLS(caFile, serverName string) error {
	if n := c.lines.Buffered(); n > 0 {
		return errors.New("the server spoke before TLS")
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn := tls.Client(c.conn, &tls.Config{RootCAs: roots, ServerName: serverName, NextProtos: []string{"pop3"}})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	c.conn, c.lines = conn, bufio.NewReader(conn)
	return nil
}
