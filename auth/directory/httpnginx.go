package directory

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
)

// maxAsks is how often in one lookup a service may say WAIT.
const maxAsks = 10

// errAgain is a service that says WAIT.
var errAgain = errors.New("the service says WAIT")

// lookupNginx asks as nginx's auth_http does.
func (h *httpSource) lookupNginx(ctx context.Context, q *auth.Query, secret []byte, extra string) (Answer, error) {
	request := h.nginxRequest(q, secret, extra)
	defer clear(request)
	for range maxAsks {
		said, err := h.conns.ask(ctx, request, false)
		if err != nil {
			return Answer{}, err
		}
		answer, err := h.nginxAnswer(said.header, secret)
		if !errors.Is(err, errAgain) {
			return answer, err
		}
		if err := pause(ctx, answer.Wait); err != nil {
			return Answer{}, err
		}
	}
	return Answer{}, asContent(fmt.Errorf("%w again and again", errAgain))
}

// pause waits, but not for longer than ctx leaves time for an answer behind it.
func pause(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return asContent(fmt.Errorf("%w for %s, which is longer than the directory's timeout", errAgain, d))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// nginxRequest writes the question, its headers in nginx's order and each of them once.
func (h *httpSource) nginxRequest(q *auth.Query, secret []byte, extra string) []byte {
	b := make([]byte, 0, 1024+3*len(secret)+len(extra)) // never grown, or pieces of the password would stay behind
	version := "1.0"
	if h.config.KeepAlive {
		version = "1.1"
	}
	b = append(b, "GET "+h.target.path+" HTTP/"+version+"\r\nHost: "+h.target.host+"\r\nAuth-Method: plain\r\nAuth-User: "...)
	b = escape(b, []byte(q.Name.Typed))
	b = append(b, "\r\nAuth-Pass: "...)
	b = escape(b, secret)
	b = append(b, "\r\nAuth-Protocol: pop3\r\nAuth-Login-Attempt: "...)
	b = strconv.AppendInt(b, int64(max(q.Attempt, 1)), 10)
	b = append(b, "\r\nClient-IP: "+q.Client.Addr.Addr().String()+"\r\n"...)
	if q.Client.Proxied {
		b = appendEnd(b, "Proxy-Protocol-", q.Client.Addr)
		b = appendEnd(b, "Proxy-Protocol-Server-", q.Client.Local)
	}
	if t := q.Client.TLS; t != nil {
		b = appendTLS(b, t)
	}
	return append(b, extra+"\r\n"...)
}

// escape writes what nginx escapes, and as it does: octets up to the blank, and "%".
func escape(b, s []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range s {
		if c <= ' ' || c == '%' {
			b = append(b, '%', digits[c>>4], digits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func appendEnd(b []byte, prefix string, a netip.AddrPort) []byte {
	return append(b, prefix+"Addr: "+a.Addr().String()+"\r\n"+prefix+"Port: "+strconv.Itoa(int(a.Port()))+"\r\n"...)
}

// appendTLS writes what is known of the client's TLS in OpenSSL's words, which are nginx's.
func appendTLS(b []byte, t *auth.TLS) []byte {
	b = append(b, "Auth-SSL: on\r\n"...)
	for _, f := range []struct{ name, value string }{
		{"Auth-SSL-Protocol", strings.Replace(t.Version, "TLS ", "TLSv", 1)},
		{"Auth-SSL-Cipher", opensslCipher(t.Cipher)},
		{"Auth-SSL-Verify", verified(t)},
		{"Auth-SSL-Subject", t.Subject},
		{"Auth-SSL-Issuer", t.Issuer},
		{"Auth-SSL-Serial", t.Serial},
		{"Auth-SSL-Fingerprint", t.Fingerprint},
	} {
		if f.value != "" && !hasControl(f.value) { // what a proxy before us vouches for is its own text
			b = append(b, f.name+": "+f.value+"\r\n"...)
		}
	}
	return b
}

// verified is what nginx says of a client certificate that is right; one that is not ends the handshake here.
func verified(t *auth.TLS) string {
	if t.Subject == "" {
		return ""
	}
	return "SUCCESS"
}

// opensslCipher makes OpenSSL's name of a cipher suite from IANA's. Those of TLS 1.3 are the same.
func opensslCipher(name string) string {
	exchange, cipher, ok := strings.Cut(strings.TrimPrefix(name, "TLS_"), "_WITH_")
	if !ok {
		return name
	}
	cipher = strings.NewReplacer("AES_128", "AES128", "AES_256", "AES256", "3DES_EDE_CBC", "DES_CBC3", "_POLY1305_SHA256", "_POLY1305").Replace(cipher)
	if strings.HasPrefix(cipher, "AES") {
		cipher = strings.Replace(cipher, "_CBC_", "_", 1)
	}
	if exchange == "RSA" { // which OpenSSL leaves unsaid
		return strings.ReplaceAll(cipher, "_", "-")
	}
	return strings.ReplaceAll(exchange+"-"+cipher, "_", "-")
}

// nginxAnswer reads an answer. As with nginx neither its status nor its body matters. Beside errAgain and
// auth.ErrWrongPassword the answer has Wait.
func (h *httpSource) nginxAnswer(header http.Header, secret []byte) (Answer, error) {
	values := make(map[string]string, 6)
	for _, name := range []string{"Auth-Status", "Auth-Server", "Auth-Port", "Auth-User", "Auth-Pass", "Auth-Wait"} {
		value, err := single(header, name)
		if err != nil {
			return Answer{}, asContent(err)
		}
		values[name] = value
	}
	answer := Answer{Wait: seconds(values["Auth-Wait"])}
	switch status := values["Auth-Status"]; status {
	case "OK":
	case "":
		return Answer{}, errors.New("the answer has no Auth-Status")
	case "WAIT":
		return answer, errAgain
	default:
		return answer, refused(status, secret)
	}
	server, err := h.server(values["Auth-Server"], values["Auth-Port"])
	if err != nil {
		return Answer{}, asContent(err)
	}
	return Answer{Server: server, User: values["Auth-User"], Secret: values["Auth-Pass"], Verified: true}, nil
}

// single gives the one value of a header, "" where there is none.
func single(header http.Header, name string) (string, error) {
	all := header[name]
	for _, value := range all {
		if value != all[0] {
			return "", fmt.Errorf("the answer has %s with different values", name)
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	if hasControl(all[0]) {
		return "", fmt.Errorf("the answer has a control byte in %s", name)
	}
	return all[0], nil
}

// server puts together Auth-Server and Auth-Port.
func (h *httpSource) server(host, port string) (string, error) {
	if host == "" || port == "" {
		return "", errors.New("the answer has no Auth-Server or no Auth-Port")
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case strings.HasPrefix(host, "unix:"):
		return "", errors.New("the answer has a socket in Auth-Server; popgate goes to IP addresses and host names")
	case err == nil:
		host = addr.String()
	case !h.config.HostNames:
		return "", fmt.Errorf("the answer has %q in Auth-Server, which is no IP address; write host_names: true if it is a host's name", clip(host))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("the answer has %q in Auth-Port, which is no port", clip(port))
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}
