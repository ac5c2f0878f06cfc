package proxy

import (
	"fmt"
	"net/netip"

	"github.com/popgate/popgate/policy/access"
)

// validateLegacy reports what cannot work of the legacy lane.
func (c ListenerConfig) validateLegacy(fault func(key, problem string)) {
	switch {
	case c.Legacy && c.TLS == TLSOffloaded:
		fault("legacy", "is true, and TLS ends before popgate, which says what versions it takes: remove it")
	case c.Legacy && len(c.LegacyNetworks) == 0:
		fault("legacy_networks", "is empty; a legacy listener is for named networks only: write those of its clients, such as [192.0.2.0/24]")
	case !c.Legacy && len(c.LegacyNetworks) > 0:
		fault("legacy_networks", "is for listeners with legacy: true; write that too, or remove it")
	}
	for i, p := range c.LegacyNetworks {
		key := fmt.Sprintf("legacy_networks[%d]", i)
		switch {
		case !p.IsValid():
			fault(key, "is not a network: write it such as 192.0.2.0/24 or 2001:db8::/32")
		case p.Bits() == 0:
			fault(key, fmt.Sprintf("is %s, which is everybody: old TLS and passwords in clear are for named networks only", p))
		case p.Addr().Is4In6():
			fault(key, fmt.Sprintf("is %s, an IPv4 network in IPv6 form: write it as IPv4, such as 192.0.2.0/24", p))
		}
	}
}

// Hint is what an operator should be reminded of, "" where there is nothing.
func (c ListenerConfig) Hint() string {
	switch {
	case !c.Legacy:
		return ""
	case c.TLS == TLSOptional:
		return fmt.Sprintf("listener %s takes passwords in clear, and TLS 1.0 and 1.1, from %v: anybody on the way there can read them; "+
			"`popgate legacy-report` says who still needs it", c.Name, c.LegacyNetworks)
	}
	return fmt.Sprintf("listener %s takes TLS 1.0 and 1.1 from %v: they protect passwords poorly; `popgate legacy-report` says who still needs it",
		c.Name, c.LegacyNetworks)
}

// takes says that the listener is for clients from an address.
func (c ListenerConfig) takes(a netip.Addr) bool {
	return !c.Legacy || contains(c.LegacyNetworks, a)
}

// legacy says that the client came as none could on a listener of today: without TLS, or with TLS 1.0 or 1.1.
func (s *session) legacy() bool {
	if !s.listener.Legacy || s.client.TLS == nil && s.listener.TLS != TLSOptional { // TLS is still to come
		return false
	}
	return access.Legacy(s.client.TLS)
}

// clientEnded says that the client's end of its stream, which has come, is one of its own making. Over TLS that takes a close_notify,
// or anybody on the way could cut it short; where TLS does not end here, there is nothing else to go by.
func (s *session) clientEnded() bool {
	return !s.raw.ended || s.client.TLS == nil || s.client.TLS.Offloaded
}
