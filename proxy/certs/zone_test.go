package certs

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// tsigSecret is that of the key "popgate." which may change a zone.
var tsigSecret = base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// A zone is a DNS server that is asked about every name: each has the address 127.0.0.1, unless something else is set, and each zone
// has two labels. It takes dynamic updates of TXT records.
type zone struct {
	address string

	mu    sync.Mutex
	addrs map[string]string // name -> address, "" for none
	caa   map[string]string // name -> value of an issue property
	cname map[string]string // name -> where it leads
	txt   map[string][]string
	asked map[string]int // how often for the addresses of a name
}

func startZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{addrs: map[string]string{}, caa: map[string]string{}, cname: map[string]string{}, txt: map[string][]string{}, asked: map[string]int{}}
	pc, ln := bothPorts(t)
	z.address = pc.LocalAddr().String()
	secret := map[string]string{"popgate.": tsigSecret}
	for _, s := range []*miekg.Server{
		{PacketConn: pc, Handler: z, TsigSecret: secret},
		{Listener: ln, Handler: z, TsigSecret: secret, MsgAcceptFunc: func(miekg.Header) miekg.MsgAcceptAction { return miekg.MsgAccept }},
	} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		ended := make(chan error, 1)
		go func() { ended <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() {
			if err := errors.Join(s.Shutdown(), <-ended); err != nil {
				t.Errorf("DNS server: %v", err)
			}
		})
	}
	return z
}

// bothPorts gives one port of UDP and TCP.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		// Somebody else may have the one of TCP.
		if ln, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, ln
		}
		_ = pc.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (z *zone) set(m map[string]string, name, value string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m[name+"."] = value
}

// ServeDNS answers.
func (z *zone) ServeDNS(w miekg.ResponseWriter, r *miekg.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(miekg.Msg).SetReply(r)
	m.Authoritative = true
	if r.Opcode == miekg.OpcodeUpdate {
		z.update(w, r, m)
	} else {
		name := strings.ToLower(r.Question[0].Name)
		m.Answer = z.answer(name, r.Question[0].Qtype)
		if labels := miekg.SplitDomainName(name); len(m.Answer) == 0 && len(labels) > 1 {
			m.Ns = z.answer(strings.Join(labels[len(labels)-2:], ".")+".", miekg.TypeSOA)
		}
	}
	if tsig := r.IsTsig(); tsig != nil {
		m.SetTsig(tsig.Hdr.Name, tsig.Algorithm, 300, time.Now().Unix())
	}
	_ = w.WriteMsg(m)
}

func (z *zone) update(w miekg.ResponseWriter, r, m *miekg.Msg) {
	if r.IsTsig() == nil || w.TsigStatus() != nil {
		m.Rcode = miekg.RcodeNotAuth
		return
	}
	for _, rr := range r.Ns {
		if txt, ok := rr.(*miekg.TXT); ok {
			name := strings.ToLower(txt.Hdr.Name)
			z.txt[name] = slices.DeleteFunc(z.txt[name], func(s string) bool { return s == txt.Txt[0] })
			if txt.Hdr.Class == miekg.ClassINET {
				z.txt[name] = append(z.txt[name], txt.Txt[0])
			}
		}
	}
}

func (z *zone) answer(name string, kind uint16) (all []miekg.RR) {
	add := func(format string, args ...any) {
		all = append(all, must(miekg.NewRR(name+" 1 IN "+fmt.Sprintf(format, args...))))
	}
	apex := len(miekg.SplitDomainName(name)) == 2
	if target, leads := z.cname[name]; leads {
		add("CNAME %s", target)
		if kind != miekg.TypeCNAME {
			all = append(all, z.answer(target, kind)...)
		}
		return all
	}
	switch kind {
	case miekg.TypeA:
		z.asked[name]++
		addr, set := z.addrs[name]
		if !set {
			addr = "127.0.0.1"
		}
		if addr != "" {
			add("A %s", addr)
		}
	case miekg.TypeCAA:
		if v, ok := z.caa[name]; ok {
			add("CAA 0 issue %q", v)
		}
	case miekg.TypeSOA:
		if apex {
			add("SOA ns.%s hostmaster.%s 1 2 3 4 5", name, name)
		}
	case miekg.TypeNS:
		if apex {
			add("NS ns.%s", name)
		}
	case miekg.TypeTXT:
		for _, t := range z.txt[name] {
			add("TXT %q", t)
		}
	}
	return all
}
