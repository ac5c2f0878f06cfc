// Package certs makes the whole *tls.Config of each listener: the certificate files an operator
// names and their renewal, a local CA where there are none, session ticket keys, ALPN.
//
// A Keeper is made once and outlives every reload of the configuration. Prepare turns a Config
// into a View without touching what runs; Use puts the view in force; Run looks every few seconds whether
// the files of the view in force have changed, renews what the local CA issued and changes the ticket
// keys. The configs of a view stay the same for its whole life: a renewed certificate appears in them
// by itself, and no config is ever cloned for a connection.
//
// ALPN is RFC 7301 with the name "pop3"; a client that offers only other protocols gets the
// no_application_protocol alert (RFC 9325, 3.8, against ALPACA) unless its listener is lenient.
package certs
