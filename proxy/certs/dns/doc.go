// Package dns answers DNS-01 challenges and looks up what decides whether a certificate may be asked for.
//
// A Provider (libdns interfaces) writes and removes records: rfc2136, acme_dns, exec, webhook, or one that was compiled in
// (CompileIn). A Solver puts one to use: it finds the place of the record (CNAME delegation, zone), writes it, waits until
// it is seen, removes it. A Resolver answers Addrs and CAA. Nothing here knows certmagic or ACME: a challenge is a name and
// a value.
//
// # Why not certmagic's DNS01Solver
//
// certmagic (v0.25.6) takes any acmez.Solver as ACMEIssuer.DNS01Solver. Its own is not used, because it is content once a
// single name server shows the record, while the CA may ask any of them; gives up at the first look-up that goes wrong; has
// one OverrideDomain for all names and follows no CNAME when it writes; goes to public resolvers where /etc/resolv.conf
// names none; asks for the zone under one lock for all names; and tells nobody what it is waiting for. The adapter for
// package certs is:
//
//	type dns01 struct{ solver *dns.Solver }
//
//	func (d dns01) Present(ctx context.Context, c acme.Challenge) error {
//		return d.solver.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
//	}
//
// and the same for Wait (acmez.Waiter) and CleanUp. A Solver that is set turns HTTP-01 and TLS-ALPN-01 off, as certmagic has
// it. ACMEIssuer.CertObtainTimeout covers the wait too: it must be longer than Config.Longest, or an order ends before its
// record is seen.
package dns
