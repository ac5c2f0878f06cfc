// Package pop3 is the wire of POP3, for both sides: lines, commands, replies, capabilities.
//
// It follows RFC 1939 (the protocol), RFC 2449 (CAPA, response codes, line lengths), RFC 2595 (STLS),
// RFC 3206 (AUTH and SYS codes) and RFC 5034 (SASL). It works on readers and byte slices and knows no
// sockets, no policy and no configuration.
package pop3
