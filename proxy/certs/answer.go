package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challengePath is where issuers ask for the answer to an HTTP-01 challenge (RFC 8555, 8.3).
const challengePath = "/.well-known/acme-challenge/"

var errNoChallenge = errors.New("no challenge")

// certmagic's own answers go by the name alone: what the process knows of a name first, and then what the first issuer left in the storage.
// What a node that was killed left there would be told to another issuer, and a name that two of a process want at once has the
// answer of one of them. So the token decides wherever an issuer says which one it wants.

// challengeKey is where certmagic keeps the challenge of a name for other nodes.
func challengeKey(issuer, name string) string {
	return path.Join("acme", certmagic.StorageKeys.Safe(issuer), "challenge_tokens", certmagic.StorageKeys.Safe(name)+".json")
}

// challenge reads an issuer's challenge of a name from the storage; nil where there is none that can be read.
func (v *acmeView) challenge(ctx context.Context, iss *issuer, name string) *acme.Challenge {
	data, err := v.store.storage.Load(ctx, challengeKey(iss.acme.IssuerKey(), name))
	if err != nil {
		return nil
	}
	c := new(acme.Challenge)
	if json.Unmarshal(data, c) != nil || c.KeyAuthorization == "" {
		return nil
	}
	return c
}

// answerHTTP gives the answer to an HTTP-01 challenge, whichever node's and issuer's it is.
func (v *acmeView) answerHTTP(r *http.Request) (answer string, ok bool) {
	token, asked := strings.CutPrefix(r.URL.Path, challengePath)
	if r.Method != http.MethodGet || !asked || token == "" {
		return "", false
	}
	name, err := normal(hostOf(r.Host))
	if err != nil {
		return "", false
	}
	// The name is compared so that nobody who leads another one here is told anything.
	fits := func(c acme.Challenge) bool {
		return c.Token == token && c.KeyAuthorization != "" && strings.EqualFold(c.Identifier.Value, name)
	}
	// The storage may be down.
	if own, ok := certmagic.GetACMEChallenge(name); ok && fits(own.Challenge) {
		return own.KeyAuthorization, true
	}
	for _, iss := range v.issuers {
		if c := v.challenge(r.Context(), iss, name); c != nil && fits(*c) {
			return c.KeyAuthorization, true
		}
	}
	return "", false
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// answerALPN gives the certificate that answers a TLS-ALPN-01 challenge (RFC 8737, 3). There an issuer names no token: of several
// challenges of a name it is the one that was put into the storage last.
func (v *acmeView) answerALPN(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "" || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmez.ACMETLS1Protocol {
		return nil, errNoChallenge
	}
	name := strings.ToLower(hello.ServerName)
	var last *acme.Challenge
	var when time.Time
	for _, iss := range v.issuers {
		c := v.challenge(hello.Context(), iss, name)
		if c == nil || c.Type != acme.ChallengeTypeTLSALPN01 {
			continue
		}
		info, err := v.store.storage.Stat(hello.Context(), challengeKey(iss.acme.IssuerKey(), name))
		if last == nil || err == nil && info.Modified.After(when) {
			last, when = c, info.Modified
		}
	}
	if last == nil {
		// The storage may be down, or the issuer be one of a view before.
		own, ok := certmagic.GetACMEChallenge(name)
		if !ok || own.Type != acme.ChallengeTypeTLSALPN01 {
			return nil, errNoChallenge
		}
		last = &own.Challenge
	}
	return acmez.TLSALPN01ChallengeCert(*last)
}

// answer is what an asker at the door of HTTP-01 gets.
func (d *doors) answer(w http.ResponseWriter, r *http.Request) {
	v := d.m.view.Load()
	if v == nil {
		http.NotFound(w, r)
		return
	}
	answer, ok := v.answerHTTP(r)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, answer) // who does not hear it asks again
}
