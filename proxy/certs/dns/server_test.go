package dns

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	miekg "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveDNS answers with h over UDP and TCP on one port of 127.0.0.1.
func serveDNS(t *testing.T, h miekg.HandlerFunc) string {
	t.Helper()
	var pc net.PacketConn
	var l net.Listener
	// The port the kernel gave for UDP may be taken for TCP.
	for range 20 {
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		_ = pc.Close()
	}
	if l == nil {
		t.Fatal("no port is free for both UDP and TCP")
	}
	for _, s := range []*miekg.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		s.MsgAcceptFunc = func(miekg.Header) miekg.MsgAcceptAction { return miekg.MsgAccept }
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() {
			defer close(done)
			_ = s.ActivateAndServe()
		}()
		<-up
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return pc.LocalAddr().String()
}

// A book answers authoritatively from lines of a zone file, follows its own CNAMEs and says NXDOMAIN to the rest.
type book struct {
	mu    sync.Mutex
	lines []miekg.RR
	asked map[string]int // "name TYPE"
}

func newBook(t *testing.T, lines ...string) *book {
	t.Helper()
	b := &book{asked: make(map[string]int)}
	b.add(t, lines...)
	return b
}

func (b *book) add(t *testing.T, lines ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range lines {
		rr, err := miekg.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		b.lines = append(b.lines, rr)
	}
}

func (b *book) count(question string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[question]
}

func (b *book) answer(m *miekg.Msg) *miekg.Msg {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := m.Question[0]
	b.asked[q.Name+" "+miekg.TypeToString[q.Qtype]]++
	reply := new(miekg.Msg).SetReply(m)
	reply.Authoritative = true
	name := q.Name
	for range 20 {
		known, next := false, ""
		for _, rr := range b.lines {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) {
				known = known || miekg.IsSubDomain(name, h.Name)
				continue
			}
			known = true
			c, alias := rr.(*miekg.CNAME)
			if h.Rrtype == q.Qtype || alias {
				reply.Answer = append(reply.Answer, miekg.Copy(rr))
			}
			if alias && q.Qtype != miekg.TypeCNAME {
				next = c.Target
			}
		}
		if !known {
			reply.Rcode = miekg.RcodeNameError
		}
		if next == "" {
			break
		}
		name = next
	}
	return reply
}

func (b *book) serve(t *testing.T) string {
	t.Helper()
	return serveDNS(t, func(w miekg.ResponseWriter, m *miekg.Msg) { _ = w.WriteMsg(b.answer(m)) })
}

func resolverAt(t *testing.T, server string) *Resolver {
	t.Helper()
	r, err := NewResolver(server)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError holds err against all the pieces an operator needs to read in it.
func wantError(t *testing.T, err error, pieces ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", pieces)
	}
	for _, p := range pieces {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q lacks %q", err, p)
		}
	}
}
