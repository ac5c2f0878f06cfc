package backend

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// judgePlaintext says whether passwords go without TLS, and how they should go.
func (x *exam) judgePlaintext() {
	f, t, c := &x.Facts.Plaintext, &x.Facts.TLS, &x.pool.config
	switch {
	case t.FromStart:
	case f.wantsTLS() && c.TLS == TLSNone:
		x.odd(LevelBad, "USER in clear", "refused: "+f.Text, "nobody can log in as it is configured: "+x.plaintextRemedy())
	case f.wantsTLS():
		x.found("USER in clear", "refused, and not needed: "+f.Text)
	case f.Answer == answerTaken && c.TLS == TLSNone && !x.Facts.Connection.SameHost && t.STLS == answerTaken:
		x.odd(LevelOdd, "USER in clear", "taken", "passwords cross the network in clear though the server knows TLS")
		x.change("tls", TLSStart, "the server knows STLS: passwords need not go in clear")
	case f.Answer == answerTaken:
		x.found("USER in clear", "taken")
	case f.Answer == "":
		x.found("USER in clear", "not tried")
	case f.Answer == answerRefused:
		x.odd(LevelOdd, "USER in clear", "refused: "+f.Text,
			"the name was "+doctorName+", which it may just not know; servers do better to say +OK to every name. See with --login")
	default:
		x.odd(LevelBad, "USER in clear", how(f.Answer), "logins would end like this as well")
	}
}

// plaintextRemedy says what to do about a server that refuses passwords in clear, and writes the lines for it.
func (x *exam) plaintextRemedy() string {
	switch {
	case x.Facts.TLS.STLS == answerTaken:
		x.change("tls", TLSStart, "the server refuses passwords without TLS, and its STLS works")
		return "write tls: starttls"
	case x.Facts.TLS.Port995:
		x.change("tls", TLSImplicit, "the server refuses passwords without TLS, and speaks TLS at port 995: write that port in servers")
		return "write tls: implicit, and port 995"
	}
	return strings.TrimPrefix(plaintextFix, "write tls: starttls for this backend here, or ")
}

// judgeTLS is about STLS, TLS from the start and certificates.
func (x *exam) judgeTLS() {
	f, c := &x.Facts.TLS, &x.pool.config
	switch {
	case f.FromStart && c.TLS == TLSImplicit:
		x.found("TLS", "from the first octet on, as configured")
	case f.FromStart:
		x.odd(LevelBad, "TLS", "from the first octet on", "nobody can log in as it is configured (tls: "+c.TLS+")")
		x.change("tls", TLSImplicit, "the server speaks TLS from the first octet on")
	case c.TLS == TLSImplicit:
		x.odd(LevelBad, "TLS", "not from the first octet on", "nobody can log in as it is configured (tls: implicit)")
		if f.STLS == answerTaken {
			x.change("tls", TLSStart, "the server greets without TLS; its STLS works")
		} else {
			x.change("tls", TLSNone, "the server greets without TLS and knows no STLS; use a network that nobody else can read")
		}
	}
	if !f.FromStart {
		x.judgeSTLS()
	}
	if f.Port995 {
		x.found("port 995", "speaks TLS")
	}
	if f.Version != "" {
		x.judgeVersion()
	}
	if f.Certificate != nil {
		x.judgeCertificate(f.Certificate)
	}
}

func (x *exam) judgeSTLS() {
	f, c := &x.Facts.TLS, &x.pool.config
	offered := x.Facts.Capabilities.List.Has("STLS")
	switch {
	case f.STLS == "":
		x.found("STLS", "not tried")
	case f.STLS == answerTaken && f.Injected:
		x.odd(LevelOdd, "STLS", "works, and takes what came in clear behind it",
			"who sits between a client and the server can slip commands in. popgate sends none there; clients that use the server directly are in danger: update it")
	case f.STLS == answerTaken && !offered && x.Facts.Capabilities.Answer == answerTaken:
		x.odd(LevelOdd, "STLS", "works, and is not in CAPA", "clients will not find it")
	case f.STLS == answerTaken:
		x.found("STLS", "works; octets behind it are not taken")
	case c.TLS == TLSStart:
		x.odd(LevelBad, "STLS", x.stlsText(), "nobody can log in as it is configured: "+stlsFix)
		if f.Port995 {
			x.change("tls", TLSImplicit, "the server has no STLS, and speaks TLS at port 995: write that port in servers")
		} else if x.Facts.Plaintext.Answer == answerTaken {
			x.change("tls", TLSNone, "the server has no STLS; use a network that nobody else can read")
		}
	case offered:
		x.odd(LevelOdd, "STLS", "offered, and does not work: "+x.stlsText(), "clients that use it cannot log in")
	default:
		x.found("STLS", x.stlsText())
	}
}

func (x *exam) stlsText() string {
	if f := &x.Facts.TLS; f.STLSText != "" {
		return f.STLSText
	}
	return how(x.Facts.TLS.STLS)
}

func (x *exam) judgeVersion() {
	t := &x.Facts.TLS
	text := t.Version + " " + t.Cipher
	switch oldest := tlsVersions[x.pool.config.TLSMinVersion]; {
	case t.version < oldest:
		x.odd(x.needsTLS(), "  version", text, "older than tls_min_version; update the server, or take it as it is")
		x.changeTLS("tls_min_version", fmt.Sprintf("%q", strings.TrimPrefix(t.Version, "TLS ")), "the server knows nothing newer")
	case t.version < tls.VersionTLS12:
		x.odd(LevelOdd, "  version", text, "of no use against who tries hard; update the server")
	default:
		x.found("  version", text)
	}
}

func (x *exam) judgeCertificate(t *CertificateFacts) {
	level := x.needsTLS()
	names := orNone(strings.Join(t.Names, " "))
	if t.SelfSigned {
		names += "   (signed by itself)"
	}
	if t.Problem == "" {
		x.found("  certificate", names)
	} else {
		x.odd(level, "  certificate", names, t.Problem)
		x.certificateRemedy(t)
	}
	x.found("  issued by", fmt.Sprintf("%s   %s in the chain", orNone(t.Issuer), plural(t.Chain, "certificate")))
	left := time.Until(t.NotAfter)
	text := t.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case left < 0:
		x.odd(min(level, x.trusted()), "  expires", text, "it has expired: renew it")
	case left < soonExpired:
		x.odd(LevelOdd, "  expires", text, fmt.Sprintf("that is in %s: renew it", plural(int(left.Hours()/24)+1, "day")))
	default:
		x.found("  expires", text)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// trusted is how bad it is that a certificate has expired: with a pinned key nobody looks.
func (x *exam) trusted() Level {
	if x.tls.InsecureSkipVerify {
		return LevelOdd
	}
	return LevelBad
}

// needsTLS is how bad it is when TLS fails: it keeps users out where it is configured, and else nobody uses it.
func (x *exam) needsTLS() Level {
	if x.pool.config.TLS == TLSNone && !x.Facts.TLS.FromStart {
		return LevelOdd
	}
	return LevelBad
}

// changeTLS changes a key that only counts with TLS, where there is TLS.
func (x *exam) changeTLS(key, value, reason string) {
	mode := x.pool.config.TLS
	for _, c := range x.Changes {
		if c.Key == "tls" {
			mode = c.Value
		}
	}
	if mode != TLSNone {
		x.change(key, value, reason)
	}
}

func (x *exam) certificateRemedy(t *CertificateFacts) {
	switch {
	case t.ServerName != "":
		x.changeTLS("tls_server_name", t.ServerName, "the certificate is for this name, not for "+x.member.address.host)
	case time.Now().Before(t.NotAfter) || x.tls.InsecureSkipVerify:
		x.changeTLS("tls_pin_sha256", "["+t.KeySHA256+"]",
			"nobody that is trusted vouches for the certificate: look at the server itself whether this is its key, or write its CA's file as tls_ca")
	}
}

// judgeHeaders is about PROXY headers.
func (x *exam) judgeHeaders() {
	f, c := &x.Facts.Proxy, &x.pool.config
	text := fmt.Sprintf("v1: %s; v2: %s; without: %s", how(f.V1), how(f.V2), how(f.Without))
	switch {
	case f.Needed != "" && !c.proxies():
		x.odd(LevelBad, "PROXY", text, "the server waits for a PROXY header: nobody can log in as it is configured")
		x.change("client_info", f.Needed, "the server greets only behind a PROXY header")
	case f.Needed == "" && c.proxies():
		x.odd(LevelBad, "PROXY", text, "the server does not take the header from here: nobody can log in as it is configured: "+proxyFix)
		value, reason := ClientNone, "the server takes no PROXY header"
		if x.Facts.XClient.Offered {
			value, reason = ClientXClient, reason+", and offers XCLIENT"
		}
		x.change("client_info", value, reason)
	case f.Without == answerTaken && (f.V1 == answerTaken || f.V2 == answerTaken):
		x.odd(LevelOdd, "PROXY", text, "who reaches the server directly can make up a client's address")
	default:
		x.found("PROXY", text)
	}
}
