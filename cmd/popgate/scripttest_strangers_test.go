package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdStrangers makes handshakes for as many invented names, half of them of domains that nobody knows, half below example.org. Each must end
// with the alert unrecognized_name.
func cmdStrangers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: strangers HOST:PORT COUNT")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var next atomic.Int64
	failed := make(chan error, 16)
	var all sync.WaitGroup
	for range cap(failed) {
		all.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				name := fmt.Sprintf("mail.invented-%d.example.%s", i, []string{"org", "net"}[i%2])
				if err := refusedAt(args[0], name); err != nil {
					failed <- fmt.Errorf("%s: %w", name, err)
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		ts.Fatalf("%v", err)
	default:
	}
}

func refusedAt(address, name string) error {
	const unrecognizedName = tls.AlertError(112)
	dialer := &net.Dialer{Timeout: patience}
	c, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{ServerName: name})
	if err == nil {
		c.Close()
		return errors.New("a handshake went well")
	}
	var alert tls.AlertError
	var op *net.OpError
	if errors.As(err, &alert) && alert == unrecognizedName || errors.As(err, &op) && op.Err.Error() == unrecognizedName.Error() {
		return nil
	}
	return fmt.Errorf("want the alert: %w", err)
}
