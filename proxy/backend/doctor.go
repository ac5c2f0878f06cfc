package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/popgate/popgate/auth"
)

const (
	// doctorWithin bounds all that is asked of one server.
	doctorWithin = time.Minute
	// doctorGuess bounds the wait for a server that is spoken to in a way that it may not know.
	doctorGuess = 3 * time.Second
	// doctorName is whose name the server hears where no account was given to try.
	doctorName = "popgate-doctor"

	tooLong = "it took too long, and was ended"
)

// DoctorOptions say how far an examination goes.
type DoctorOptions struct {
	// Timeout bounds each wait: for a connection, a greeting, an answer.
	Timeout time.Duration
	// WrongAs is an account to try one wrong password with, to see how long the server takes to refuse it; "" for none.
	WrongAs string
	// Login is a login to make, in the way that is configured; nil for none. The caller wipes its secret.
	Login *auth.BackendLogin
	// Progress is told what comes next. It may be nil.
	Progress func(what string)
}

// An Exam is what a server was found to be.
type Exam struct {
	Backend string `json:"backend"`
	Server  string `json:"server"`
	// Facts are what was seen.
	Facts Facts `json:"facts"`
	// Findings say it in words, in the order to read them in.
	Findings []Finding `json:"findings"`
	// Changes are the keys of the backend to write differently.
	Changes []Change `json:"changes,omitempty"`
}

// Worst is the level of the worst finding.
func (e *Exam) Worst() Level {
	worst := LevelOK
	for _, f := range e.Findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// A Level says how much a finding matters.
type Level uint8

// The levels. Odd is worth knowing; Bad keeps users from their mail, or will.
const (
	LevelOK Level = iota
	LevelOdd
	LevelBad
)

// MarshalText gives ok, odd or bad.
func (l Level) MarshalText() ([]byte, error) {
	return []byte([...]string{"ok", "odd", "bad"}[min(l, LevelBad)]), nil
}

// A Finding is one line of an examination.
type Finding struct {
	Item  string `json:"item"`
	Found string `json:"found"`
	Level Level  `json:"level"`
	// Why is what is odd or bad about it, and what to do; "" where nothing is.
	Why string `json:"why,omitempty"`
}

// A Change is one key of a backend's section to write differently.
type Change struct {
	Key    string `json:"key"`
	Value  string `json:"value"` // in YAML
	Reason string `json:"reason"`
}

// An exam is an examination at work. It uses one connection at a time.
type exam struct {
	pool   *Pool
	member *member
	opts   *DoctorOptions
	tls    *tls.Config // the configured one, for what it trusts
	way    way
	local  netip.AddrPort // where connections come from
	Exam
}

// Servers are the addresses of the backend's configured servers.
func (p *Pool) Servers() []string {
	all := make([]string, 0, len(p.members))
	for _, m := range p.members {
		all = append(all, m.address.text)
	}
	return all
}

// Examine finds out what a server of the backend is like, one connection after the other, each wait bounded, and all
// within a minute. The error is about address alone. It is meant for a pool of which nobody else makes use.
func (p *Pool) Examine(ctx context.Context, address string, o *DoctorOptions) (*Exam, error) {
	m, err := p.named(auth.Server{Address: address})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorWithin)
	defer cancel()
	x := &exam{pool: p, member: m, opts: o, tls: m.tls}
	x.Backend, x.Server = p.config.Name, m.address.text
	if x.tls == nil {
		x.tls = serverTLS(p.tls, &p.config, m.address.host)
	}
	x.examine(ctx)
	x.judge()
	return &x.Exam, nil
}

// saying tells what comes next.
func (x *exam) saying(what string) {
	if x.opts.Progress != nil {
		x.opts.Progress(what)
	}
}

func (x *exam) examine(ctx context.Context) {
	x.saying("name and connection")
	if x.member.address.ip.IsValid() {
		x.Facts.Connection.Addresses = []netip.Addr{x.member.address.ip.Addr()}
	} else if ips, err := x.pool.backends.addresses(ctx, x.member.address); err != nil {
		x.Facts.Error = err.Error()
		return
	} else {
		x.Facts.Connection.Addresses = ips
	}
	if err := x.approach(ctx); err != nil {
		x.Facts.Error = err.Error()
		return
	}
	for _, probe := range []struct {
		what string
		do   func(context.Context)
	}{
		{"capabilities", x.talk},
		{"a name without TLS", x.plaintext},
		{"STLS", x.startTLS},
		{"octets behind STLS", x.inject},
		{"port 995", x.port995},
		{"PROXY headers", x.headers},
		{"a login", x.login}, // first: a failure before it would slow it down
		{"a wrong password", x.wrong},
	} {
		if ctx.Err() != nil {
			x.Facts.Error = tooLong
			return
		}
		x.saying(probe.what)
		probe.do(ctx)
	}
	if ctx.Err() != nil {
		x.Facts.Error = tooLong
	}
}

// approach finds the way to speak to the server: the configured one, or else another that it greets to.
func (x *exam) approach(ctx context.Context) error {
	c := &x.pool.config
	configured := way{tls: x.pool.planOf(x.member).mode == TLSImplicit}
	if c.proxies() {
		configured.header = c.ClientInfo
	}
	var failed error
	ways := []way{configured, {}, {tls: true}, {header: ClientProxyV2}, {tls: true, header: ClientProxyV2}}
	for i, w := range ways {
		if i > 0 && w == configured {
			continue
		}
		timeout := x.opts.Timeout
		if i > 0 {
			timeout = min(timeout, doctorGuess)
		}
		v, err := x.open(ctx, w, timeout)
		var f *visitError
		if errors.As(err, &f) && (f.step == stepConnect || f.refused) {
			return err // nothing else would help
		}
		if failed == nil {
			failed = err
		}
		if err != nil {
			continue
		}
		if w.header == "" || x.header(ctx, v) == answerTaken {
			x.met(v)
			v.close()
			return nil
		}
		failed = errHeader // it greeted all the same, for it looked at the header later
	}
	return failed
}

// met notes what the first connection showed.
func (x *exam) met(v *visit) {
	x.way = v.way
	if local, ok := v.raw.LocalAddr().(*net.TCPAddr); ok {
		x.local = local.AddrPort()
	}
	f := &x.Facts
	f.Connection.Took, f.Connection.SameHost = milliseconds(v.connected), v.sameHost()
	f.Greeting = GreetingFacts{Text: v.line, Took: milliseconds(v.greeted), APOP: v.stamped()}
	f.XClient.Offered = v.greeting.Code == "XCLIENT"
	f.Proxy.Needed, f.TLS.FromStart = v.way.header, v.way.tls
	if v.state != nil {
		x.shown(v.state)
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}
