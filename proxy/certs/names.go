package certs

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth"
)

// normal gives the form in which names are compared: DNS names as auth.Domain writes them, perhaps with one leading
// "*." label; IP addresses as netip prints them.
func normal(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().WithZone("").String(), nil
	}
	written, wild := strings.CutPrefix(name, "*.")
	host, err := auth.Domain(written)
	if err != nil || host == "" {
		return "", fmt.Errorf("%q is neither a DNS name nor an IP address", name)
	}
	if wild {
		return "*." + host, nil
	}
	return host, nil
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
