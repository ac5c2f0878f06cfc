package backend

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/popgate/popgate/auth"
)

// An address is a server's address, taken apart once.
type address struct {
	text string // host:port, always with a port: what the server is known by
	host string // the host alone, as certificates carry it
	port uint16
	ip   netip.AddrPort // the address itself where the host is none that must be looked up
	name *hostState     // what is known of the host where it must be; a server's, and not from parsing
}

func parseAddress(s, tlsMode string) (address, error) {
	host, port, err := splitAddress(s)
	if err != nil {
		return address{}, err
	}
	if port == "" {
		port = "110"
		if tlsMode == TLSImplicit {
			port = "995"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return address{}, fmt.Errorf("has the port %q; write a number from 1 to 65535", port)
	}
	port = strconv.FormatUint(n, 10)
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		ap := netip.AddrPortFrom(ip, uint16(n))
		return address{text: ap.String(), host: ip.WithZone("").String(), port: uint16(n), ip: ap}, nil
	}
	host = strings.ToLower(host)
	if !hostName(host) {
		return address{}, fmt.Errorf("has the host %q, which is neither a name nor an IP address", host)
	}
	return address{text: net.JoinHostPort(host, port), host: strings.TrimSuffix(host, "."), port: uint16(n)}, nil
}

// splitAddress parts host and port; the port may be missing, an IPv6 address without one may do without brackets.
func splitAddress(s string) (host, port string, err error) {
	if s == "" {
		return "", "", errors.New("is missing; write host:port")
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return s, "", nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]"), "", nil
	}
	if !strings.Contains(s, ":") {
		return s, "", nil
	}
	host, port, err = net.SplitHostPort(s)
	if err != nil || port == "" {
		return "", "", fmt.Errorf("is %q; write host:port, an IPv6 address in brackets", s)
	}
	return host, port, nil
}

// hostName says that s, in lower case, can be looked up as a host name. A last label of digits alone is a mistyped address.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	return auth.Hostname(s) && strings.Trim(last, "0123456789") != ""
}
