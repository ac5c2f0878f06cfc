// Package wforce speaks the protocol of weakforced, which Dovecot calls auth policy, from both ends: it asks a weakforced
// whether a login may go on and reports what became of it, and it serves the same calls, so that a Dovecot beside popgate
// can ask popgate.
//
// What the package promises: the password never leaves, only a few bits of a digest of it, equal to those that Dovecot
// sends; no login waits longer than the configured times for a server that is slow or down; what waits to be reported is
// bounded; and what the other side sends is read up to a bound, and believed only if it is what the protocol says.
package wforce
