package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/popgate/popgate/proxy/pop3"
)

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
	if protocol := pop3.Foreign(head); protocol != "" {
		s.sayForeign(protocol)
	} else if verb, _ := pop3.ParseCommand(head[:4]); verb != "" {
		s.sayForeign("POP3 in clear")
	}
}
