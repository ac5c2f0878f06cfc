package directory

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth/files"
)

// The values of HTTPConfig.Format.
const (
	formatNginx = "nginx"
	formatJSON  = "json"
)

// HTTPConfig is the section `http` of a directory.
type HTTPConfig struct {
	// The address of the service, such as "https://auth.example.org/pop3", "http://127.0.0.1:8080/auth" or, for a Unix socket,
	// "unix:/run/auth.sock:/auth". Users' passwords go there: without TLS it must be on this machine.
	URL string `yaml:"url"`
	// The form of question and answer: `nginx` is that of nginx's `auth_http`, so that a service written for nginx works as it
	// is; `json` sends and takes JSON.
	Format string `yaml:"format"`
	// Headers to send beside those of the format, at their end, such as the secret that the service knows popgate by.
	Headers []HTTPHeader `yaml:"headers"`
	// Take host names from a service of the format `nginx` in `Auth-Server`, and not IP addresses alone. `allowed_servers`
	// holds for both.
	HostNames bool `yaml:"host_names"`
	// Send the user's password to a service of the format `json`, which may then check it. In the format `nginx` it is
	// always sent.
	SendPassword bool `yaml:"send_password"`
	// Keep connections to the service open for further questions, in HTTP/1.1. Otherwise each question has a connection of
	// its own, as nginx does it.
	KeepAlive bool `yaml:"keep_alive"`
	// Send passwords over the network without TLS. Whoever sees that network then sees them.
	Insecure bool `yaml:"insecure"`
	// A PEM file with the certificates of the CA to believe. Empty are those that the system believes.
	TLSCA string `yaml:"tls_ca"`
	// The name that the service's certificate must carry. Empty is the host of the URL.
	TLSServerName string `yaml:"tls_server_name"`
	// A PEM file with the certificate to show to the service, and its intermediates.
	TLSCert string `yaml:"tls_cert"`
	// The file with the private key of `tls_cert`.
	TLSKey string `yaml:"tls_key"`
}

// HTTPHeader is one of the headers to send.
type HTTPHeader struct {
	// The name, such as X-Auth-Key.
	Name string `yaml:"name"`
	// The value.
	Value string `yaml:"value"`
	// A file with the value, when it is a secret. It is read again for each question, so that it can be changed without a
	// restart.
	ValueFile string `yaml:"value_file"`
}

// defaultHTTP is what holds where the section says nothing.
func defaultHTTP() HTTPConfig { return HTTPConfig{Format: formatNginx} }

// A target is a URL taken apart.
type target struct {
	network, address string // to dial
	host             string // of the URL, without a port; "localhost" for a socket, as nginx has it
	hostport         string // with the port, where the URL has one
	path             string // with the query
	tls, local       bool
}

// parseTarget reads the address of a service.
func parseTarget(text string) (target, error) {
	if rest, ok := strings.CutPrefix(text, "unix:"); ok {
		socket, path, _ := strings.Cut(rest, ":")
		u, err := url.ParseRequestURI("http://localhost/" + strings.TrimPrefix(path, "/"))
		if err != nil || !strings.HasPrefix(socket, "/") {
			return target{}, errors.New(`is no socket; write "unix:/run/auth.sock:/path"`)
		}
		return target{network: "unix", address: socket, host: "localhost", hostport: "localhost", path: u.RequestURI(), local: true}, nil
	}
	u, err := url.Parse(text)
	switch {
	case text == "":
		return target{}, errors.New(`is missing; write one such as "https://auth.example.org/pop3"`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return target{}, errors.New(`is no URL of a service; write one such as "https://auth.example.org/pop3"`)
	case u.User != nil:
		return target{}, errors.New("has a user in it; send what the service knows popgate by in one of headers")
	case u.Fragment != "":
		return target{}, errors.New("has a # in it, which no service ever sees")
	}
	t := target{network: "tcp", host: u.Hostname(), hostport: u.Host, path: u.RequestURI(), tls: u.Scheme == "https"}
	port := u.Port()
	if port == "" {
		port = u.Scheme // a port by its name
	}
	t.address = net.JoinHostPort(t.host, port)
	if addr, err := netip.ParseAddr(t.host); err == nil {
		t.local = addr.Unmap().IsLoopback()
		if addr.Is6() {
			t.host = "[" + t.host + "]"
		}
	} else {
		t.local = t.host == "localhost"
	}
	return t, nil
}

// ours are the headers that popgate writes by itself, beside all that begin with Auth- and Proxy-Protocol-.
var ours = []string{
	"host", "client-ip", "client-host", "connection", "content-length", "content-type", "transfer-encoding", "accept-encoding", "te", "trailer",
	"upgrade", "expect",
}

// validate reports what is wrong with c by itself. It opens no file and asks nobody.
func (c HTTPConfig) validate(fault func(key, problem string)) {
	t, err := parseTarget(c.URL)
	switch {
	case err != nil:
		fault("url", err.Error())
	case !t.tls && !t.local && !c.Insecure:
		fault("url", "would send passwords over the network for all to read; write https, an address of this machine, or insecure: true beside it")
	}
	if c.Format != formatNginx && c.Format != formatJSON {
		fault("format", fmt.Sprintf("is %q; write nginx or json", clip(c.Format)))
	}
	if c.SendPassword && c.Format == formatNginx {
		fault("send_password", "is for the format json; in the format nginx passwords are always sent")
	}
	if c.HostNames && c.Format == formatJSON {
		fault("host_names", "is for the format nginx; in the format json host names are always taken")
	}
	for i, h := range c.Headers {
		h.validate(func(key, problem string) { fault(fmt.Sprintf("headers[%d].%s", i, key), problem) })
	}
	c.validateTLS(err != nil || t.tls, fault)
}

// validateTLS reports what is wrong with the keys of TLS, which may not be in use.
func (c HTTPConfig) validateTLS(inUse bool, fault func(key, problem string)) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls_cert", "and tls_key belong together; write both or neither")
	}
	if !inUse {
		for _, f := range []struct{ key, value string }{{"tls_ca", c.TLSCA}, {"tls_server_name", c.TLSServerName}, {"tls_cert", c.TLSCert}} {
			if f.value != "" {
				fault(f.key, "has no effect without TLS; write https in url")
			}
		}
	}
}

func (h HTTPHeader) validate(fault func(key, problem string)) {
	name := strings.ToLower(h.Name)
	switch {
	case name == "" || strings.IndexFunc(name, notInToken) >= 0:
		fault("name", fmt.Sprintf("is %q, which is no name of a header; write one such as X-Auth-Key", clip(h.Name)))
	case slices.Contains(ours, name) || strings.HasPrefix(name, "auth-") || strings.HasPrefix(name, "proxy-protocol-"):
		fault("name", fmt.Sprintf("is %q, which popgate writes by itself", clip(h.Name)))
	}
	switch {
	case (h.Value == "") == (h.ValueFile == ""):
		fault("value", "and value_file: write one of the two")
	case hasControl(h.Value):
		fault("value", "has a control byte, which no header may have")
	}
}

// notInToken tells what no name of a header has, RFC 9110 section 5.6.2.
func notInToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// hasControl says that s has a byte that would end a line or a text somewhere.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// newHTTP makes the source of a section. It reads the files that the section names, and connects to nothing yet.
func newHTTP(name string, c HTTPConfig, log *slog.Logger) (Opened, error) {
	t, err := parseTarget(c.URL)
	if err != nil {
		return Opened{}, fmt.Errorf("url %w", err)
	}
	h := &httpSource{config: c, target: t, log: log.With("directory", name)}
	h.conns = newHTTPConns(t, c.KeepAlive)
	if t.tls {
		// A connection for each question would be a full handshake for each without the tickets.
		h.conns.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
		if c.TLSServerName == "" {
			h.conns.tls.ServerName = strings.Trim(t.host, "[]")
		}
		if err := files.TLS(h.conns.tls, c.TLSCA, c.TLSCert, c.TLSKey); err != nil {
			return Opened{}, err
		}
	}
	if _, err := h.headers(); err != nil {
		return Opened{}, err
	}
	o := Opened{Source: h, Vary: VaryUser | VaryClient | VarySNI | VaryListener}
	if c.Format == formatNginx || c.SendPassword {
		o.Vary |= VarySecret
	}
	return o, nil
}
