package dns

import (
	"context"
	"fmt"

	miekg "github.com/miekg/dns"
)

// exchangeWith is the client's exchange, ended by ctx too: by itself it looks at ctx only while it connects. A reply may
// come together with an error that says what is wrong with it.
func exchangeWith(ctx context.Context, c *miekg.Client, m *miekg.Msg, server string) (*miekg.Msg, error) {
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Not a deadline in the past: the client sets its own over it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	reply, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if ctx.Err() != nil && err != nil {
		return nil, fmt.Errorf("no answer from %s: %w", server, ctx.Err())
	}
	if reply != nil && (reply.Id != m.Id || !reply.Response || !sameQuestion(reply, m)) {
		return nil, fmt.Errorf("%s answered something else than it was asked", server)
	}
	return reply, err
}

// sameQuestion lets an answer repeat no question, as those to updates may.
func sameQuestion(reply, m *miekg.Msg) bool {
	if len(reply.Question) == 0 {
		return m.Opcode == miekg.OpcodeUpdate || reply.Rcode != miekg.RcodeSuccess
	}
	got, want := reply.Question[0], m.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && fqdn(got.Name) == fqdn(want.Name)
}
