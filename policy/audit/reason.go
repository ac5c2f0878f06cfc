package audit

// Reason says why something was refused or ended. The set is closed: docs/audit.md lists it, from the comments here.
type Reason string

// The reasons. A new one is one line here, its meaning in the comment; TestDocs then wants docs/audit.md renewed.
const (
	WrongPassword           Reason = "wrong_password"            // The backend refused the user name or the password; or a directory did, or the hash that one gave, and no backend was asked.
	UnknownUser             Reason = "unknown_user"              // No route and no directory knows the user.
	BadName                 Reason = "bad_name"                  // What AUTH brought cannot be a user name.
	LockedOut               Reason = "locked_out"                // The client's network, or the user from it, is locked out, or has no attempt left. The password was not looked at, and the answer is that to a wrong one.
	WrongNetwork            Reason = "wrong_network"             // The directory lets the user log in from other networks only.
	DirectoryDown           Reason = "directory_down"            // A directory could not say where the user goes, or said what cannot be followed.
	Disabled                Reason = "disabled"                  // After the right password: the backend says that the account needs its administrator, or the directory that it is disabled.
	InUse                   Reason = "in_use"                    // After the right password: the backend says that the mailbox is in use, or the user has as many sessions as one may have (`limit`).
	LoginDelay              Reason = "login_delay"               // After the right password: the user logs in too often (`limit`), or the backend says so.
	AccessDenied            Reason = "access_denied"             // A rule of `access` refuses the client or the login: `rule` names it, `because` says why. Or the client is not of the `legacy_networks` of its listener.
	PolicyRefused           Reason = "policy_refused"            // weakforced refuses the login.
	PolicyDown              Reason = "policy_down"               // weakforced cannot be asked, and `weakforced.on_failure` is `refuse`.
	RateLimited             Reason = "rate_limited"              // Too many new connections, or too many logins that failed or went on: `limit` says which and whose.
	TooManySessions         Reason = "too_many_sessions"         // There are as many sessions as there may be: `limit` says whose.
	TooManyHandshakes       Reason = "too_many_handshakes"       // As many TLS handshakes are under way as there may be at once: `limit` says whose.
	TooManyFailures         Reason = "too_many_failures"         // Too many logins failed on this connection.
	BackendDown             Reason = "backend_down"              // No server of the backend could be reached, greeted, or showed a certificate that is trusted.
	BackendRefused          Reason = "backend_refused"           // The backend could not serve the login for now, and said nothing about the password.
	BackendRefusesPlaintext Reason = "backend_refuses_plaintext" // The backend wants TLS from popgate before it takes a login.
	BackendLoginRefused     Reason = "backend_login_refused"     // The backend refused a user whose password was checked already: what is wrong is the password or master user that popgate has for it.
	BackendProtocol         Reason = "backend_protocol"          // The backend answered something that is not POP3, or took a PROXY header for a command.
	BackendClosed           Reason = "backend_closed"            // The backend ended the session in good order.
	BackendGone             Reason = "backend_gone"              // The connection to the backend broke.
	ClientQuit              Reason = "client_quit"               // The client said QUIT.
	ClientGone              Reason = "client_gone"               // The client went away without QUIT, or its connection broke.
	NotPOP3                 Reason = "not_pop3"                  // The client speaks another protocol, such as HTTP or SMTP.
	ProtocolError           Reason = "protocol_error"            // The client broke the rules of POP3: too many bad commands, too long a line, bytes behind STLS.
	ProxyHeader             Reason = "proxy_header"              // The PROXY header was missing, broken, or came from a network that may not send one.
	TLSFailed               Reason = "tls_failed"                // The TLS handshake failed.
	Timeout                 Reason = "timeout"                   // The client took too long to log in, the backend to answer, or a TLS handshake got no turn within `timeouts.handshake` (`bounds.handshakes`).
	Idle                    Reason = "idle"                      // No byte passed for longer than `timeouts.idle`.
	Stalled                 Reason = "stalled"                   // One side took no bytes for longer than `timeouts.stall`.
	AuditFailed             Reason = "audit_failed"              // The record of the login could not be written, and `audit.on_failure` is `refuse`.
	Shutdown                Reason = "shutdown"                  // The gateway stops.
	Internal                Reason = "internal"                  // A fault of popgate itself; the log says more.
)
