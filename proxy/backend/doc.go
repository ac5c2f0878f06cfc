// Package backend holds the pools of POP3 servers behind the gateway: it chooses a server for an account, opens a
// connection, says who the client is, and logs in.
//
// What the package promises:
//
//   - An account meets the same server as long as that server lives: weighted rendezvous hashing, equal on all nodes.
//   - Another server is tried only as long as PASS has not been sent. The password is written once, to one server,
//     behind an answered USER, and the buffer it stood in is wiped.
//   - Only what a server does before and in its greeting can mark it dead, and never what one client could bring about:
//     failures behind the greeting count by the networks of clients. Running out of our own file handles or ports marks
//     nothing.
//   - A server has no more sessions, and no more logins a second, than the configuration says; the queue before it is bounded.
//   - A refusal that is meant for popgate, and not for a user, is not held against the user.
//   - One reply a command: octets that come before their command, or behind the +OK to STLS, end the connection
//     (CVE-2011-0411 and its kin).
//   - Every read has a deadline and a bound.
//
// The dialogue is RFC 1939, STLS is RFC 2595, AUTH PLAIN is RFC 5034 and RFC 4616, CAPA and response codes are RFC 2449 and RFC 3206. XCLIENT is Dovecot's,
// XOIP Zimbra's, PROXY is HAProxy's.
package backend
