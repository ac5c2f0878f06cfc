package backend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"

	"github.com/popgate/popgate/proxy/pop3"
)

// diagnose looks in e for what is wrong with a configuration, here or at the server. No login gets past that, so it is
// said loudly, once a while, with what to change.
func (a *attempt) diagnose(e *Error) {
	if e.Kind == Local {
		return
	}
	cause := slog.Any("cause", e)
	if fix := certificateFix(e.Err); fix != "" {
		e.Kind = Down
		a.advise(warnCertificate, "backend's certificate is not trusted; nobody can log in there", fix, cause)
		return
	}
	switch {
	case errors.Is(e.Err, errHeader):
		a.uninformed()
		a.advise(warnProxy, "backend seems not to expect PROXY headers; nobody can log in there", proxyFix, cause)
	case errors.Is(e.Err, errNoSTLS):
		a.advise(warnSTLS, "backend refuses STLS; nobody can log in there", stlsFix, cause)
	case e.Step == stepConnect || a.answers > 0:
	case a.pool.config.proxies() && gone(e.Err):
		a.goneBehindHeader(e)
	case !a.pool.config.proxies() && a.greeted.IsZero() && (gone(e.Err) || timedOut(e.Err)):
		e.Err = fmt.Errorf("%w; a server that waits for a PROXY header does the same, see client_info", e.Err)
	}
}

// goneBehindHeader is about a server that left before it answered anything. It may not know the header: that of version
// 2 has a QUIT in it. It may know it but not take it from here, as Dovecot does where haproxy_trusted_networks is
// missing. Or it may have something against the client that the header names: a client shall not bring about a line
// that says that nobody can log in, and the check that is due soon finds out.
func (a *attempt) goneBehindHeader(e *Error) {
	e.Err = fmt.Errorf("%w behind the PROXY header; it may not expect one, or not from here", e.Err)
	if a.greeted.IsZero() {
		e.Kind = Protocol
	}
	if a.req != nil {
		a.member.server.suspect()
		return
	}
	a.uninformed()
	a.advise(warnProxy, "backend closes connections that begin with a PROXY header", proxyFix, slog.Any("cause", e))
}

// advise says loudly, once a while, what an admin has to change: problem is what is the matter, fix the remedy, and facts is
// what shows it.
func (a *attempt) advise(w warning, problem, fix string, facts ...slog.Attr) {
	s, b := a.member.server, a.pool.backends
	if !s.due(w, b.now()) {
		return
	}
	attrs := append([]slog.Attr{slog.String("backend", s.backend), slog.String("server", s.address)}, facts...)
	b.log.LogAttrs(context.Background(), w.level(), problem, append(attrs, slog.String("fix", fix))...)
}

const (
	plaintextFix = "write tls: starttls for this backend here, or let popgate's address log in without TLS there: " +
		"in Dovecot login_trusted_networks, or disable_plaintext_auth = no (2.4: auth_allow_cleartext = yes)"
	proxyFix = "in Dovecot write haproxy = yes for the inet_listener of this port, and popgate's address into " +
		"haproxy_trusted_networks; or write client_info: none or xclient for this backend here"
	stlsFix = "where the server has no STLS, write tls: implicit for this backend here, with the port for it (995), or " +
		"tls: none on a network that nobody else can read"
)

// certificateFix says what to do about a certificate that was refused, "" where err is about something else.
func certificateFix(err error) string {
	var refused *tls.CertificateVerificationError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, errPin):
		return "where the server was given a new key, write its SHA-256 into tls_pin_sha256 for this backend here"
	case !errors.As(err, &refused):
		return ""
	case errors.As(err, &name):
		return "write the name that the server's certificate has as tls_server_name for this backend here"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the server's certificate and look at both clocks; a key in tls_pin_sha256 without tls_ca for this " +
			"backend here is taken whatever the date"
	}
	return "name the file with the certificate of the server's CA as tls_ca for this backend here, or write the SHA-256 " +
		"of the server's key into tls_pin_sha256"
}

// mistaken says that r, which came to a first command, looks like the answer to the PROXY header before it.
func (a *attempt) mistaken(r pop3.Reply) bool {
	if r.OK || !a.pool.config.proxies() || a.answers != 1 {
		return false
	}
	text := strings.ToLower(r.Text)
	if a.as != nil {
		text = bare(text, a.as.User)
	}
	_, meant := coded(r.Code)
	return !meant && !wantsTLS(text) && unknownCommand(text)
}

// gone says that err is the end of a connection by the server.
func gone(err error) bool {
	return errors.Is(err, errClosed) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
