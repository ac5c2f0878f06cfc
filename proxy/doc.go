// Package proxy is popgate's main job: the life of a client's connection from accept to close.
//
// A Gateway serves listeners. Each connection is a session, which one goroutine at a time owns; it passes through
// stages: open (PROXY header, admission, TLS), converse (the commands before login) and carry (bytes both ways). A
// session that falls quiet goes on with its stage on a fresh goroutine: one that waits needs a small stack, and the one
// that TLS has grown is given back. Read session.go first, then login.go.
//
// The package follows RFC 1939 (POP3), RFC 2449 (CAPA, response codes), RFC 2595 (STLS), RFC 3206 (AUTH and SYS
// codes), RFC 5034 (AUTH), RFC 7301 with RFC 9325 section 3.8 (ALPN) and the PROXY protocol's specification 3.4.
//
// It promises: a session's bytes after login are carried unchanged, and none of popgate's own is among them; a
// broken connection is broken on both sides; every login attempt leaves one audit record before its reply; a
// client that does not know the password cannot tell one refusal from another.
package proxy
