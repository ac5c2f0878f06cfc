package audit

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// version is the schema's. It changes when a field or a value changes its meaning or goes; new ones may come any time.
const version = 1

// maxText bounds in bytes what a stranger can put into one field of a record.
const maxText = 256

// timeFormat is RFC 3339 in microseconds, always of one width, so that records sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// Name says what happened. The set is closed: docs/audit.md lists it, from the comments here.
type Name string

// The events.
const (
	LoginAccepted      Name = "login.accepted"      // A login succeeded; the client hears of it after the record is written.
	LoginRefused       Name = "login.refused"       // A login did not succeed, for `reason`; the client hears of it after the record is written.
	SessionOpened      Name = "session.opened"      // A client came in, and TLS is still to come. Written only with `audit.session_opened: true`.
	SessionClosed      Name = "session.closed"      // A session ended, for `reason`: one record for each, whether anybody logged in or not.
	ConnectionsRefused Name = "connections.refused" // Connections turned away at the door in the last 10 seconds, summed by `reason` and `network`.
	ConfigReloaded     Name = "config.reloaded"     // A new configuration is in force.
	GatewayStarted     Name = "gateway.started"     // The gateway takes connections.
	GatewayStopped     Name = "gateway.stopped"     // The gateway has ended its sessions and stops.
	LockoutStarted     Name = "lockout.started"     // A client network, or one user from it, is locked out: its logins are refused as with a wrong password until `lockout.until`.
	LockoutEnded       Name = "lockout.ended"       // A lockout is over: its time has come, an operator ended it, or another one takes its place.
	SprayDetected      Name = "spray.detected"      // Somebody tries many users from one network, or one password on many users.
	CertificateIssued  Name = "certificate.issued"  // A certificate was obtained, for the first time or in the place of an older one.
	CertificateFailed  Name = "certificate.failed"  // An issuer did not give a certificate; the next one is asked, or the same one later.
	CertificateRevoked Name = "certificate.revoked" // An issuer has revoked a certificate in use; another one is ordered at once.
)

// An Event is one thing that happened. Name must be set; of the other fields, those that are known.
// Its maker keeps it: whoever records it only reads it, and only until the call returns.
type Event struct {
	Name Name `json:"-"`
	// Time is when it happened; the zero Time is now.
	Time time.Time `json:"-"`
	// The session's id: the same in all its records and in the log.
	Session string `json:"session,omitempty"`
	// The listener that took the connection.
	Listener string `json:"listener,omitempty"`
	// The client's address and port, after any PROXY header.
	Client netip.AddrPort `json:"client,omitzero"`
	// The client's TLS connection; missing as long as there is none.
	TLS *TLS `json:"tls,omitempty"`
	// The user name, as valid UTF-8 of at most 256 bytes.
	User string `json:"user,omitempty"`
	// The tenant that the route gives.
	Tenant string `json:"tenant,omitempty"`
	// The backend that the route leads to.
	Backend string `json:"backend,omitempty"`
	// The address of the backend's server that was asked.
	Server string `json:"server,omitempty"`
	// How the client logged in: `USER` (with PASS), `PLAIN` or `LOGIN`.
	Mechanism auth.Mechanism `json:"mechanism,omitempty"`
	// Why it was refused or ended: see the reasons below.
	Reason Reason `json:"reason,omitempty"`
	// The limit that refused, as the configuration has it, such as `per_ip.connections`.
	Limit string `json:"limit,omitempty"`
	// The rule of `access` that the client or the login did not meet. One that only logs (`action: log`) is written too,
	// in records of logins that went on.
	Rule string `json:"rule,omitempty"`
	// What the rule held against it, and what it found, such as `country KP`: docs/access.md lists them.
	Because string `json:"because,omitempty"`
	// Whether the same wrong password came for the user from its network before: then it counted for nothing, and goes to
	// no line in Dovecot's shape.
	Repeated bool `json:"repeated,omitempty"`
	// Whether the client came by the legacy lane: without TLS, or with TLS 1.0 or 1.1, where a listener lets it on purpose.
	Legacy bool `json:"legacy,omitempty"`
	// The client network of summed refusals and of lockouts: an IPv4 address, an IPv6 /64 or /48; missing in the sum of
	// all networks that had no place of their own.
	Network netip.Prefix `json:"network,omitzero"`
	// How many connections were refused.
	Count int64 `json:"count,omitempty"`
	// The lockout or spray that the event is about. Its `network` and, where it is of one user, its `user` stand outside.
	Lockout *Lockout `json:"lockout,omitempty"`
	// The certificate that the event is about.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Local is the address that the client connected to, where it is known. It goes to lines in Dovecot's shape alone.
	Local netip.Addr `json:"-"`
	// End is what a session came to: it belongs to SessionClosed, where all of it is written, zeros too.
	*End
}

// End is what a session came to.
type End struct {
	// RETR commands seen: messages asked for.
	Retr int64 `json:"retr"`
	// TOP commands seen: heads of messages asked for.
	Top int64 `json:"top"`
	// DELE commands seen: messages marked for deletion.
	Dele int64 `json:"dele"`
	// Whether the client said QUIT. Without it the backend deletes nothing.
	Quit bool `json:"quit"`
	// Bytes carried from the client to the backend, after the login.
	BytesIn int64 `json:"bytes_in"`
	// Bytes carried from the backend to the client, after the login; what TLS adds is not counted.
	BytesOut int64 `json:"bytes_out"`
	// How long the session lasted, in milliseconds.
	DurationMS int64 `json:"duration_ms"`
}

// Lockout is what a record says of a lockout or a spray.
type Lockout struct {
	// What it is for: `user_failures`, `network_failures`, `many_users` (from one network), `one_password` (for many users) or
	// `manual`, by an operator.
	Cause string `json:"cause"`
	// How many failed logins led to it.
	Failures int `json:"failures,omitempty"`
	// How many users failed from the network, or with the password.
	Users int `json:"users,omitempty"`
	// When the lockout ends, or has ended.
	Until time.Time `json:"until,omitzero"`
}

// Certificate is what a record says of a certificate that popgate obtains.
type Certificate struct {
	// The name it is for.
	Name string `json:"name"`
	// Who issues it: the host of its ACME server.
	Issuer string `json:"issuer"`
	// Its serial number, in hexadecimal.
	Serial string `json:"serial,omitempty"`
	// When it expires.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Why there is none, in at most 256 bytes.
	Problem string `json:"problem,omitempty"`
}

// TLS is what a record says of the client's TLS connection.
type TLS struct {
	// The TLS version.
	Version string `json:"version,omitempty"`
	// The cipher suite, by its name in the IANA registry.
	Cipher string `json:"cipher,omitempty"`
	// The key exchange group.
	Group string `json:"group,omitempty"`
	// The host name that the client asked for (SNI).
	ServerName string `json:"server_name,omitempty"`
	// Whether the handshake took up an earlier session.
	Resumed bool `json:"resumed"`
	// The subject of the certificate that the client showed, where it was asked for one.
	Subject string `json:"subject,omitempty"`
}

// TLSOf is t as records show it; nil for nil. A session needs to make it only once.
func TLSOf(t *auth.TLS) *TLS {
	if t == nil {
		return nil
	}
	return &TLS{
		Version: clip(t.Version), Cipher: clip(t.Cipher), Group: clip(t.Group),
		ServerName: clip(t.ServerName), Resumed: t.Resumed, Subject: clip(t.Subject),
	}
}

// A line is an event as it is written.
type line struct {
	// The version of this schema.
	Version int `json:"v"`
	// When it happened: RFC 3339, UTC, microseconds.
	Time string `json:"time"`
	// What happened: see the events above.
	Name Name `json:"event"`
	// The gateway's own name (`node` in the configuration).
	Node string `json:"node"`
	Event
}

// encode writes ev as one line. What e held before is gone.
func (e *entry) encode(node string, ev *Event) error {
	at := ev.Time
	if at.IsZero() {
		at = time.Now()
	}
	e.name = ev.Name
	e.line = line{Version: version, Time: at.UTC().Format(timeFormat), Name: ev.Name, Node: node, Event: *ev}
	e.line.User = clip(ev.User)
	if c := ev.Certificate; c != nil {
		clipped := *c
		clipped.Problem = clip(c.Problem)
		e.line.Certificate = &clipped
	}
	e.text.Reset()
	err := e.json.Encode(&e.line)
	e.line = line{} // an entry is kept for the next record: it must not keep this one alive
	return err
}

// encoder is set to write addresses and names as they are: nobody puts an audit record into a page of HTML unescaped.
func (e *entry) encoder() *json.Encoder {
	enc := json.NewEncoder(&e.text)
	enc.SetEscapeHTML(false)
	return enc
}

// clip makes s valid UTF-8 of at most maxText bytes.
func clip(s string) string {
	if len(s) > 4*maxText {
		s = s[:4*maxText] // no more than this can matter
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
