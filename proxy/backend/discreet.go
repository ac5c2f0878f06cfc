package backend

import (
	"bytes"
	"strings"

	"github.com/popgate/popgate/proxy/pop3"
)

// repeated stands in logs for the text of a server that repeats the password: some say what they did not like.
const repeated = "(not shown: the password is in it)"

// pieceSize is how many octets of a secret give it away. Servers cut long lines short before they repeat them.
const pieceSize = 8

// discreet is the answer to PASS, of which line is the octets, as logs may show it.
func discreet(r pop3.Reply, line, secret []byte) pop3.Reply {
	if _, known := coded(r.Code); !known {
		r.Code = ""
	}
	// The text too, from which ParseReply has dropped what stood between.
	if !repeats(line, secret) && !repeats([]byte(r.Text), secret) {
		return r
	}
	if strings.HasPrefix(string(r.Code), "REFERRAL") { // anything may stand behind it
		r.Code = ""
	}
	r.Text = repeated
	return r
}

// repeats says that text has secret in it, or a piece of it, in whatever case.
func repeats(text, secret []byte) bool {
	text, secret = lower(text), lower(secret)
	defer clear(text)
	defer clear(secret)
	n := min(len(secret), pieceSize)
	if n == 0 {
		return false
	}
	for len(text) >= n {
		if bytes.Contains(secret, text[:n]) {
			return true
		}
		text = text[1:]
	}
	return false
}

// lower is a copy of b in lower case, octet by octet: what is no UTF-8 stays what it is.
func lower(b []byte) []byte {
	b = bytes.Clone(b)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return b
}
