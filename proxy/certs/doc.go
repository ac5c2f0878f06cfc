// Package certs makes the whole *tls.Config of each listener: the certificate files an operator
// names and their renewal, certificates obtained by ACME, a local CA where there are neither, client certificates,
// session ticket keys, ALPN.
//
// A Keeper is made once and outlives every reload of the configuration. Prepare turns a Config
// into a View without touching what runs; Use puts the view in force; Run looks every few seconds whether
// the files of the view in force have changed, obtains and renews certificates, renews what the local CA issued and changes the ticket
// keys. The configs of a view stay the same for its whole life: a renewed certificate appears in them
// by itself, and no config is ever cloned for a connection.
//
// ACME is certmagic's work: orders, accounts, locks and the layout of the storage. When to order, and what clients
// get, is not left to it. Each name that popgate obtains is visited when something is due (visit.go): read from the storage,
// and ordered where need be, in the background, paced, with a back-off of its own. Handshakes look into a map in memory, and wait
// a few seconds at most for a visit at work; none asks the storage or an issuer itself, so neither can hold one up.
// Which names clients may have ordered is decided in ondemand.go.
//
// ALPN is RFC 7301 with the name "pop3"; a client that offers only other protocols gets the
// no_application_protocol alert (RFC 9325, 3.8, against ALPACA) unless its listener is lenient.
package certs
