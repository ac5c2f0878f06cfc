package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/popgate/popgate/auth"
)

// value reads what a map says: [user<delimiter>]host[:port]. The port is behind the last colon and may be a service's name; the
// user is before the last delimiter. Without a host the server is left to the backend, as Perdition leaves it to outgoing_server.
func (p *perdition) value(s string) (Answer, error) {
	host, port := s, ""
	if open, end := strings.IndexByte(s, '['), strings.LastIndexByte(s, ']'); open >= 0 && end-open > 2 {
		host = s[:end+1]
		rest := s[end+1:]
		if rest != "" && rest[0] != ':' {
			return Answer{}, fmt.Errorf("has %q behind its address", clip(rest))
		}
		port = strings.TrimPrefix(rest, ":")
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
	}
	var a Answer
	if i := strings.LastIndex(host, p.delimiter); i >= 0 {
		a.User, host = host[:i], host[i+len(p.delimiter):]
	}
	if err := field(a.User, maxField, false, false); err != nil {
		return Answer{}, fmt.Errorf("has a user that %w", err)
	}
	if host == "" {
		return a, nil
	}
	err := setServer(&a, host, port)
	return a, err
}

// setServer puts a host and a port, which may be "" or a service's name, into an answer.
func setServer(a *Answer, host, port string) error {
	if len(host) > 2 && host[0] == '[' {
		host = host[1 : len(host)-1]
	} else if strings.Contains(host, ":") {
		return fmt.Errorf("has the host %q: write an IPv6 address as [2001:db8::1], with a port behind it", clip(host))
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	} else if d, err := auth.Domain(host); err == nil && d != "" {
		host = d
	} else {
		return fmt.Errorf("has the host %q, which is neither an address nor a host name", clip(host))
	}
	if port != "" {
		n, err := net.LookupPort("tcp", port)
		if err != nil || n == 0 {
			return fmt.Errorf("has the port %q, which is neither a number nor a service", clip(port))
		}
		port = strconv.Itoa(n)
	}
	if a.Server = host; port != "" {
		a.Server = net.JoinHostPort(host, port)
	}
	return nil
}

// How long DNS may take to tell the name of one of our own addresses, how long its word is taken, and how long it is left alone
// when it has none.
const (
	hostNameWait  = 2 * time.Second
	hostNameLife  = 10 * time.Minute
	hostNamePause = 10 * time.Second
	maxHostNames  = 4096
)

// hostNames remembers the names of the addresses that clients connect to. The zero value is ready for use.
type hostNames struct {
	mu    sync.Mutex
	known map[netip.Addr]hostName
	ask   func(ctx context.Context, addr string) ([]string, error) // nil: net.DefaultResolver.LookupAddr
}

type hostName struct {
	name  string // "" for an address without one
	err   error  // why it is not known
	until time.Time
}

// name is the host name of an address, in auth.Domain's form; "" where it has none. An old one is better than none.
func (h *hostNames) name(ctx context.Context, addr netip.Addr) (string, error) {
	if !addr.IsValid() {
		return "", nil
	}
	addr = addr.WithZone("")
	h.mu.Lock()
	known := h.known[addr]
	h.mu.Unlock()
	if time.Now().Before(known.until) {
		return known.name, known.err
	}
	fresh := h.look(ctx, addr)
	if fresh.err != nil && known.name != "" {
		fresh.name, fresh.err = known.name, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil || len(h.known) >= maxHostNames {
		h.known = map[netip.Addr]hostName{}
	}
	h.known[addr] = fresh
	return fresh.name, fresh.err
}

// look asks DNS. That a client leaves is no reason to ask again.
func (h *hostNames) look(ctx context.Context, addr netip.Addr) hostName {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hostNameWait)
	defer cancel()
	ask := h.ask
	if ask == nil {
		ask = net.DefaultResolver.LookupAddr
	}
	names, err := ask(ctx, addr.String())
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		names, err = nil, nil
	}
	if err != nil {
		return hostName{until: time.Now().Add(hostNamePause), err: fmt.Errorf("ask for the host name of %s, for add_domain: %w", addr, err)}
	}
	fresh := hostName{until: time.Now().Add(hostNameLife)}
	if len(names) > 0 {
		fresh.name, _ = auth.Domain(names[0])
	}
	return fresh
}
