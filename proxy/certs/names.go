package certs

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// normal gives the form in which names are compared: DNS names as A-labels in lower case, without the root's
// dot and perhaps with one leading "*." label; IP addresses as netip prints them.
func normal(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().WithZone("").String(), nil
	}
	host, wild := strings.CutPrefix(strings.TrimSuffix(name, "."), "*.")
	host = strings.ToLower(host)
	// Only what needs IDNA goes through it: its strict profile refuses names with underscores.
	if !isASCII(host) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return "", fmt.Errorf("%q is not a DNS name: %w", name, err)
		}
		host = ascii
	}
	if !isHost(host) {
		return "", fmt.Errorf("%q is neither a DNS name nor an IP address", name)
	}
	if wild {
		return "*." + host, nil
	}
	return host, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// isHost takes underscores too: they are in use inside company networks.
func isHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// covered lists the names a certificate is good for, in its own order. The common name counts only where there is nothing
// else: clients have stopped looking at it, but one that has switched verification off may still ask for it.
func covered(leaf *x509.Certificate) []string {
	raw := slices.Clip(leaf.DNSNames) // or append would write into the certificate
	for _, ip := range leaf.IPAddresses {
		raw = append(raw, ip.String())
	}
	if len(raw) == 0 {
		raw = []string{leaf.Subject.CommonName}
	}
	names := make([]string, 0, len(raw))
	for _, r := range raw {
		// What is no host name nobody can ask for; CAs of one's own put all kinds of text there.
		if n, err := normal(r); err == nil {
			names = append(names, n)
		}
	}
	return names
}
