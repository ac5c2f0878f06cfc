package wforce

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/popgate/popgate/auth/files"
)

// OnFailure says what a login gets when weakforced cannot be asked.
type OnFailure string

// The values of on_failure.
const (
	Allow  OnFailure = "allow"  // the login goes on
	Refuse OnFailure = "refuse" // the login is refused for now
)

// Form says where in the URL the name of a call stands.
type Form string

// The values of form.
const (
	FormPath  Form = "path"  // .../command/allow, weakforced's own
	FormQuery Form = "query" // ...?command=allow, as Dovecot asks
)

const (
	// maxHashBits bounds what a weakforced can learn of a password.
	maxHashBits = 32
	// longest bounds the times: above it mail clients give up before the answer comes.
	longest = 30 * time.Second
)

// Config says which weakforced to ask. Without a URL none is asked.
type Config struct {
	// The address of weakforced, such as "http://127.0.0.1:8084/" or "https://wforce.example.org/". With `form: query` it is what
	// Dovecot has in `auth_policy_server_url`. Empty asks nobody.
	URL string `yaml:"url"`
	// Where the name of a call stands: `path` appends `command/allow` to the URL's path, `query` appends `?command=allow` to the
	// URL, or `command=allow` where it ends in `&`.
	Form Form `yaml:"form"`
	// A file with weakforced's password (its `webserver` setting), sent by HTTP Basic.
	PasswordFile string `yaml:"password_file"`
	// A file with a key to send in the header `api_key_header`, in the place of the password.
	APIKeyFile string `yaml:"api_key_file"`
	// The header that `api_key_file` goes to.
	APIKeyHeader string `yaml:"api_key_header"`
	// A file with the nonce that passwords are digested with: the `auth_policy_hash_nonce` of a Dovecot that asks the same
	// weakforced. It must be there.
	NonceFile string `yaml:"nonce_file"`
	// How many bits of the digest weakforced gets to see: Dovecot's `auth_policy_hash_truncate`. Few bits tell a wrong password
	// from another one, and do not tell which it is.
	HashTruncate int `yaml:"hash_truncate"`
	// Whether weakforced is told user names in lower case, as Dovecot does it with its own `auth_username_format = %Lu`, and not
	// as the client typed them. The digest goes by the same name.
	LowerCase bool `yaml:"lower_case"`
	// How long one question or report may take, connecting included.
	Timeout time.Duration `yaml:"timeout"`
	// What a login gets when weakforced is down, too slow, or answers what is no answer. `allow`: it goes on. `refuse`: it is
	// refused for now, so that nobody comes in unasked.
	OnFailure OnFailure `yaml:"on_failure"`
	// The longest that a login waits when weakforced asks for a pause before it. 0 never waits.
	MaxWait time.Duration `yaml:"max_wait"`
	// Speak to weakforced over the network without TLS. Whoever sees that network then sees user names and the password of
	// weakforced.
	Insecure bool `yaml:"insecure"`
	// A PEM file with the certificates of the CA to believe. Empty are those that the system believes.
	TLSCA string `yaml:"tls_ca"`
	// The name that weakforced's certificate must carry. Empty is the host of the URL.
	TLSServerName string `yaml:"tls_server_name"`
	// A PEM file with the certificate to show to weakforced, and its intermediates.
	TLSCert string `yaml:"tls_cert"`
	// The file with the private key of `tls_cert`.
	TLSKey string `yaml:"tls_key"`
	// The same three calls answered by popgate itself, so that a Dovecot beside it, or another popgate, can ask it.
	Serve ServerConfig `yaml:"serve"`
}

// DefaultConfig asks nobody; with a URL it asks as Dovecot does where nothing else is said.
func DefaultConfig() Config {
	return Config{
		Form: FormPath, APIKeyHeader: "X-API-Key", HashTruncate: 12, LowerCase: true, Timeout: 2 * time.Second,
		OnFailure: Allow, MaxWait: 5 * time.Second, Serve: DefaultServerConfig(),
	}
}

// Validate tells fault of every value that cannot be meant, by its key. It opens no file and asks nobody.
func (c Config) Validate(fault func(key, problem string)) {
	c.Serve.Validate(func(key, problem string) { fault("serve."+key, problem) })
	if c.URL == "" {
		return
	}
	c.validateURL(fault)
	if c.Form != FormPath && c.Form != FormQuery {
		fault("form", fmt.Sprintf("is %q; write path or query", c.Form))
	}
	if c.PasswordFile != "" && c.APIKeyFile != "" {
		fault("api_key_file", "stands beside password_file; write one of the two")
	}
	if c.APIKeyFile != "" && !isToken(c.APIKeyHeader) {
		fault("api_key_header", fmt.Sprintf("is %q, which is no name of a header; write one such as X-API-Key", c.APIKeyHeader))
	}
	if c.NonceFile == "" {
		fault("nonce_file", "is missing; write a file with the auth_policy_hash_nonce of your Dovecot, or with any random text")
	}
	c.validateValues(fault)
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls_cert", "and tls_key belong together; write both or neither")
	}
}

func (c Config) validateValues(fault func(key, problem string)) {
	if c.HashTruncate < 1 || c.HashTruncate > maxHashBits {
		fault("hash_truncate", fmt.Sprintf("is %d; write how many bits to send, 1 to %d, such as 12", c.HashTruncate, maxHashBits))
	}
	if c.Timeout <= 0 || c.Timeout > longest {
		fault("timeout", fmt.Sprintf("%s is not above 0s and at most %s; write such as 2s", c.Timeout, longest))
	}
	if c.OnFailure != Allow && c.OnFailure != Refuse {
		fault("on_failure", fmt.Sprintf("is %q; write allow or refuse", c.OnFailure))
	}
	if c.MaxWait < 0 || c.MaxWait > longest {
		fault("max_wait", fmt.Sprintf("%s is not between 0s and %s; write such as 5s", c.MaxWait, longest))
	}
}

func (c Config) validateURL(fault func(key, problem string)) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		fault("url", `is no URL of a service; write one such as "http://127.0.0.1:8084/"`)
		return
	case u.User != nil:
		fault("url", "has a user in it; write the password to a file, and password_file")
	case strings.Contains(c.URL, "#"):
		fault("url", "has a # in it, which no service ever sees")
	case c.Form == FormPath && strings.Contains(c.URL, "?"):
		fault("url", "has a ? in it; write form: query beside it, or the URL without")
	case u.Scheme == "http" && !isLocal(u.Hostname()) && !c.Insecure:
		fault("url", "would send user names over the network for all to read; write https, an address of this machine, or insecure: true beside it")
	}
	if u.Scheme == "https" {
		return
	}
	for _, f := range []struct{ key, value string }{{"tls_ca", c.TLSCA}, {"tls_server_name", c.TLSServerName}, {"tls_cert", c.TLSCert}} {
		if f.value != "" {
			fault(f.key, "has no effect without TLS; write https in url")
		}
	}
}

// url is where the call command is asked for.
func (c Config) url(command string) string {
	switch {
	case c.Form == FormPath:
		return strings.TrimSuffix(c.URL, "/") + "/command/" + command
	case strings.HasSuffix(c.URL, "&"):
		return c.URL + "command=" + command
	}
	return c.URL + "?command=" + command
}

// where is the URL as logs have it: its query may hold a key.
func (c Config) where() string {
	u, _, _ := strings.Cut(c.URL, "?")
	return u
}

// tls is nil where the URL wants none.
func (c Config) tls() (*tls.Config, error) {
	if !strings.HasPrefix(strings.ToLower(c.URL), "https:") {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if err := files.TLS(t, c.TLSCA, c.TLSCert, c.TLSKey); err != nil {
		return nil, err
	}
	return t, nil
}

// readSecret reads a file with one line that can stand in a header. What it holds is in no error.
func readSecret(key, file string) (string, error) {
	text, err := files.Secret(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
		return "", fmt.Errorf("%s: %s has a control byte", key, file)
	}
	return text, nil
}

func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// isToken says that s can be the name of a header, RFC 9110 section 5.6.2.
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) < 0
}

// Errors of a login that weakforced was asked about.
var (
	// ErrRefused means that weakforced refuses the login.
	ErrRefused = errors.New("weakforced refuses the login")
	// ErrDown means that weakforced could not be asked, and that on_failure is refuse. It wraps the cause.
	ErrDown = errors.New("weakforced cannot be asked")
)
