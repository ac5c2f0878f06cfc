package backend

import (
	"bytes"
	"errors"
	"strings"

	"github.com/popgate/popgate/proxy/pop3"
)

// ErrBadCredentials means that a user name or a secret has an octet that would end its line, and was not sent.
var ErrBadCredentials = errors.New("the user name is empty, or name or secret has CR, LF or NUL")

var (
	errClosed   = errors.New("the server closed the connection")
	errLongLine = errors.New("the server's line does not end")
	errEarly    = errors.New("octets came before the command they would answer")
	errHeader   = errors.New("the server took the PROXY header for a command")
	errNoSTLS   = errors.New("the server refuses STLS")
	errInjected = errors.New("octets came behind the +OK to STLS, before TLS")
	errDrained  = errors.New("all servers are drained")
)

// A Kind says what a failed login means.
type Kind uint8

// The kinds of failure. Only WrongPassword is the user's.
const (
	// Down: no server could be reached, or none greeted, or none had a certificate to trust.
	Down Kind = iota
	// WrongPassword: the server refused the credentials, or, before it saw the password, the name.
	WrongPassword
	// InUse: another session has the maildrop. Like Permanent and LoginDelay it is an answer to the password.
	InUse
	// Temporary: the server says, or its silence means, that it will do later.
	Temporary
	// Permanent: the server says that a human must act.
	Permanent
	// LoginDelay: the user comes too often.
	LoginDelay
	// RefusesPlaintext: the server refuses logins that are not encrypted, or refuses them before it saw a password.
	RefusesPlaintext
	// Protocol: what the server says is not POP3, or it seems not to know the PROXY header.
	Protocol
	// Local: popgate itself is short of something (file handles, ports, memory), or the login's context ended.
	Local
	// Busy: popgate's own limits for the server, max_sessions or logins_per_second, let nobody in now.
	Busy
)

var kinds = [...]string{
	"down", "wrong password", "in use", "temporary", "permanent", "login delay", "refuses plaintext", "protocol", "local", "busy",
}

// String returns the kind in words, for logs.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return "unknown"
}

// An Error is why a login failed. All errors of Pool.Login are of this type. Its text is for logs, not for clients,
// and never has the secret in it, even where the server repeated it.
type Error struct {
	Kind Kind
	// Server is the address of the server, "" where none was asked.
	Server string
	// Step is the step that failed: connect, PROXY, TLS, greeting, STLS, XCLIENT, XOIP, USER or PASS.
	Step string
	// Reply is what the server answered, the zero Reply where it did not.
	Reply pop3.Reply
	// Err is the cause, nil where Reply says it all.
	Err error

	also *Error // what happened at another server in the same login
}

// Error returns the server, the step, its answer and the cause, and the same of other servers that were tried.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Server != "" {
		b.WriteString(e.Server + ": ")
	}
	b.WriteString(e.Step)
	if text := replyText(e.Reply); text != "" {
		b.WriteString(": " + text)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.also != nil {
		b.WriteString("; " + e.also.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error {
	return e.Err
}

func replyText(r pop3.Reply) string {
	if r == (pop3.Reply{}) {
		return ""
	}
	b := pop3.AppendErr(nil, r.Code, r.Text)
	if r.OK {
		b = pop3.AppendOK(nil, r.Text)
	}
	return strings.TrimSuffix(string(b), "\r\n")
}

// worst merges the failures of two servers into one, led by the one that says more than that a server is down. It is for
// servers that have not seen the password.
func worst(a, b *Error) *Error {
	if a == nil {
		return b
	}
	if a.Kind == Down && b.Kind != Down {
		a, b = b, a
	}
	last := a
	for last.also != nil {
		last = last.also
	}
	last.also = b
	return a
}

// refusedUser says what a -ERR to USER means. Servers that are healthy and willing say +OK to any name, so that a
// refusal here is taken for one of plaintext, unless the server says that it is about the name, or is willing: has said
// +OK to another name. No password was seen: what is true of one account only, such as that it is disabled or in use, is
// a wrong password to the client, or names could be guessed for nothing.
func refusedUser(r pop3.Reply, user string, willing bool) Kind {
	text := bare(r.Text, user)
	kind, ok := coded(r.Code)
	switch {
	case wantsTLS(text):
		return RefusesPlaintext
	case ok && kind == Temporary:
		return Temporary
	case ok && kind != WrongPassword, containsAny(text, unknownUser):
		return WrongPassword
	case !ok && containsAny(text, temporary):
		return Temporary
	case namesTLS(text):
		return RefusesPlaintext
	case willing, mailboxBusy(text):
		return WrongPassword
	case containsAny(text, unknownName) && !strings.Contains(text, "command") && !unknownCommand(text):
		return WrongPassword
	}
	return RefusesPlaintext // Dovecot does it with [AUTH], in whatever words
}

// refusedPass says what a -ERR to PASS means. What is not understood is a wrong password: taking a wrong password for
// anything else would let it be guessed uncounted. Nor may a secret that the server repeats decide, as a name may not.
func refusedPass(r pop3.Reply, user string, secret []byte) Kind {
	text := withoutSecret(bare(r.Text, user), secret)
	if wantsTLS(text) {
		return RefusesPlaintext
	}
	if kind, ok := coded(r.Code); ok {
		return kind
	}
	switch {
	case containsAny(text, temporary):
		return Temporary
	case containsAny(text, disabled):
		return Permanent
	case containsAny(text, blame):
		return WrongPassword
	case mailboxBusy(text):
		return InUse
	case containsAny(text, broken) && !containsAny(text, failed):
		return Temporary
	}
	return WrongPassword
}

// coded is the meaning of a response code, and whether it has one here.
func coded(c pop3.Code) (Kind, bool) {
	switch c {
	case pop3.CodeAuth:
		return WrongPassword, true
	case pop3.CodeInUse:
		return InUse, true
	case pop3.CodeSysTemp:
		return Temporary, true
	case pop3.CodeSysPerm:
		return Permanent, true
	case pop3.CodeLoginDelay:
		return LoginDelay, true
	}
	// A referral names a server behind the gateway: no client may see it, and popgate follows none.
	if c == "REFERRAL" || strings.HasPrefix(string(c), "REFERRAL/") {
		return Temporary, true
	}
	return 0, false
}

var (
	unknownUser = []string{
		"unknown user", "no such user", "not known here", "invalid user", "user unknown", "no mailbox",
		"no such mailbox", "unknown account", "no such account", "user not found", "not exist",
	}
	unknownName = []string{"not found", "unknown", "invalid"}  // unless it is about a command
	temporary   = []string{"temporar", "unavailable", "chdir"} // the last is Courier's, of a Maildir that is not there
	// disabled is Courier's to the right password alone; of a server that says the like to any, admins know best.
	disabled = []string{"pop3 access disabled for this account"}
	// broken is what only counts where nothing is said against the password: it is not to be guessed uncounted.
	broken = []string{
		"try again", "try later", "system error", "internal error", "server error", "i/o error", "quota exceeded",
		"no space left", "disk full", "disk is full", "out of memory", "overload", "timed out",
	}
	// failed may be said of a wrong password as well as of what is broken: "Login failed, please try again".
	failed = []string{
		"login fail", "logon fail", "log in fail", "log on fail", "authentication fail", "auth fail", "authorization fail",
		"authenticate", "not accepted", "credential", "name or password", "password fail", "bad user", "bad auth",
	}
	// taken is what servers say of a mailbox that another session has, besides words about locks.
	taken = []string{"already logged in", "already open", "another session", "another pop", "maillock", "being accessed"}
	blame = []string{
		"incorrect", "invalid", "wrong", "bad password", "bad login", "mismatch", "denied", "blocked", "too many fail",
		"too many bad", "attempts",
	}
	maildrop = []string{
		"mailbox", "mail box", "maildrop", "mail drop", "folder", "inbox", "mbox", "spool", "session",
	}
	lockedOut = []string{"account", "locked out", "failures", "failed log", "failed auth", "administrat", "disabled"}
	plaintext = []string{"plaintext", "plain text", "plain-text", "cleartext", "clear text", "clear-text"}
	forbids   = []string{
		"allow", "disabled", "forbid", "refus", "reject", "denied", "permit", "prohibit", "support", "available",
		"requir", "secur",
	}
	unknown = []string{
		"unknown", "invalid", "unrecogni", "not recogni", "unsupported", "not supported", "not implemented", "bad command",
	}
	encrypt = []string{
		"encryption required", "requires encryption", "encrypted connection", "secure connection",
		"stronger authentication", "under a layer", // qpopper; Cyrus
	}
)

// namesTLS says that a server's words are about encryption, whatever they say of it.
func namesTLS(text string) bool {
	for _, w := range [...]string{"tls", "ssl", "stls", "starttls", "secure", "insecure"} {
		if hasWord(text, w) {
			return true
		}
	}
	return containsAny(text, plaintext) || strings.Contains(text, "encrypt")
}

// wantsTLS says that a server's words mean that it takes no plaintext logins. Dovecot: "Plaintext authentication
// disallowed on non-secure (SSL/TLS) connections." Courier: "TLS required to log in." Cyrus: "Must issue a STLS
// command first". Zimbra: "only valid after entering TLS mode".
func wantsTLS(text string) bool {
	if hasWord(text, "tls") || hasWord(text, "ssl") || hasWord(text, "stls") || hasWord(text, "starttls") {
		return true
	}
	return containsAny(text, encrypt) || containsAny(text, plaintext) && containsAny(text, forbids)
}

// unknownCommand says that a server's words mean that it does not know a command. Dovecot: "Unknown command." Courier:
// "Invalid command." Cyrus: "Unrecognized command". Exchange: "Protocol error."
func unknownCommand(text string) bool {
	return strings.Contains(text, "command") && containsAny(text, unknown) || strings.Contains(text, "protocol error") ||
		strings.Contains(text, "syntax error")
}

// mailboxBusy says that a server's words mean that another session has the maildrop. qpopper: "alice.pop lock busy! Is
// another session active?" Cyrus: "Unable to lock maildrop: Mailbox is locked by POP server". An account, a user or an
// address that is locked for its failures is not that.
func mailboxBusy(text string) bool {
	if hasWord(text, "in use") || hasWord(text, "busy") || containsAny(text, taken) && !containsAny(text, lockedOut) {
		return true
	}
	locked := hasWord(text, "lock") || hasWord(text, "locked") || hasWord(text, "locking")
	return locked && containsAny(text, maildrop) && !containsAny(text, lockedOut)
}

// bare is a server's text in lower case without the user's name in it: the name is the client's choice, and a
// "sherlock" must not turn a wrong password into a locked maildrop.
func bare(text, user string) string {
	text, user = strings.ToLower(text), strings.ToLower(user)
	text = withoutWord(text, user)
	if local, domain, ok := strings.Cut(user, "@"); ok {
		text = withoutWord(withoutWord(text, local), domain)
	}
	return text
}

// withoutWord blanks word wherever it stands alone in s: a user called "i" must not take the "i" out of "in use".
func withoutWord[W string | []byte](s string, word W) string {
	if len(word) == 0 {
		return s
	}
	for {
		i := indexWord(s, word)
		if i < 0 {
			return s
		}
		s = s[:i] + s[i+len(word):]
	}
}

// withoutSecret is withoutWord of a text in lower case for a secret in whatever case, of which it leaves no copy.
func withoutSecret(text string, secret []byte) string {
	word := bytes.ToLower(secret)
	defer clear(word)
	return withoutWord(text, word)
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// hasWord says that word stands in s with no letter or digit beside it.
func hasWord(s, word string) bool {
	return indexWord(s, word) >= 0
}

func indexWord[W string | []byte](s string, word W) int {
	for i := 0; i+len(word) <= len(s); i++ {
		end := i + len(word)
		if s[i:end] == string(word) && (i == 0 || !alphanumeric(s[i-1])) && (end == len(s) || !alphanumeric(s[end])) {
			return i
		}
	}
	return -1
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}
