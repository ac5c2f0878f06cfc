package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3"
)

// said keeps the log readable when the same thing happens a thousand times: a sentence is said once a minute for
// each subject, with the number of times it was not said.
type said struct {
	mu   sync.Mutex
	last map[string]*saying
}

type saying struct {
	at    time.Time
	quiet int
}

const sayEvery = time.Minute

// maxSayings bounds the memory; subjects are listeners, servers and protocols, so it is not reached in earnest.
const maxSayings = 1000

// now tells whether subject may be spoken of now, and how often it was not since the last time.
func (s *said) now(subject string) (quiet int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || len(s.last) >= maxSayings {
		s.last = make(map[string]*saying)
	}
	e := s.last[subject]
	if e == nil {
		e = new(saying)
		s.last[subject] = e
	}
	if !e.at.IsZero() && time.Since(e.at) < sayEvery {
		e.quiet++
		return 0, false
	}
	quiet, e.at, e.quiet = e.quiet, time.Now(), 0
	return quiet, true
}

func (g *Gateway) say(level slog.Level, subject, sentence string, attrs ...any) {
	quiet, ok := g.said.now(subject)
	if !ok {
		return
	}
	if quiet > 0 {
		attrs = append(attrs, "repeated", quiet)
	}
	g.log.Log(context.Background(), level, sentence, attrs...)
}

// sayStranger tells of a connection that does not fit a listener's PROXY protocol settings.
func (g *Gateway) sayStranger(s *session, what string) {
	g.say(slog.LevelWarn, "proxy "+s.listener.Name,
		fmt.Sprintf("%s connected to listener %s and %s; it was closed. Only load balancers in proxy_protocol_from may connect there, and they must send a PROXY header (HAProxy: send-proxy-v2)",
			s.raw.RemoteAddr(), s.listener.Name, what))
}

// sayForeign tells of a client that speaks another protocol.
func (s *session) sayForeign(protocol string) {
	s.gw.say(slog.LevelWarn, "foreign "+s.listener.Name+" "+protocol,
		fmt.Sprintf("%s spoke %s to the POP3 listener %s on %s and was closed; %s",
			s.client.Addr, protocol, s.listener.Name, s.listener.Address, advice(protocol, s.listener.TLS)))
}

// advice is what to do about a client that speaks protocol to a listener whose TLS starts so.
func advice(protocol, starts string) string {
	switch {
	case protocol == "TLS":
		return "its port is set to start with plain POP3 and STLS: let the client use the port for POP3 over TLS (995), or make this listener tls: implicit"
	case protocol == "POP3 in clear":
		return "this port expects TLS from the first byte: switch SSL/TLS on in the mail client, or offer it a listener with tls: starttls"
	case protocol == "PROXY protocol":
		return "if a load balancer sends these headers, name its network in proxy_protocol_from of this listener; if not, switch them off there"
	case protocol == "HTTP":
		return "a browser, a health check or a scanner has the wrong port; let health checks ask /healthz on the metrics address"
	case starts == TLSImplicit:
		return "its settings name the wrong port: POP3 over TLS is spoken here"
	}
	return "its settings name the wrong port: POP3 is spoken here"
}

// sayIfForeign tells of a client whose handshake failed because it does not speak TLS at all.
func (s *session) sayIfForeign(err error) {
	var e tls.RecordHeaderError
	if !errors.As(err, &e) {
		return
	}
	head := e.RecordHeader[:]
	protocol := pop3.Foreign(head)
	if protocol == "" {
		switch string(bytes.ToUpper(head[:4])) {
		case "CAPA", "USER", "QUIT", "AUTH", "STLS", "NOOP":
			protocol = "POP3 in clear"
		default:
			return
		}
	}
	s.sayForeign(protocol)
}

// sayRefused puts into the log what an operator must know of a refused login, and no more: that somebody mistyped a
// password is in the audit.
func (g *Gateway) sayRefused(l *login, o outcome, cause error) {
	switch o.reason {
	case audit.BackendDown, audit.BackendRefused, audit.BackendProtocol, audit.Internal, audit.Timeout:
	default:
		return
	}
	subject := l.route.Backend
	var e *backend.Error
	if errors.As(cause, &e) {
		subject += " " + e.Server
	}
	g.say(slog.LevelError, "login "+subject+" "+string(o.reason), "log in at a backend",
		"session", l.s.id, "backend", l.route.Backend, "reason", string(o.reason), "error", cause)
}
