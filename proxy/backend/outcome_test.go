package backend

import (
	"errors"
	"strings"
	"testing"

	"github.com/popgate/popgate/proxy/pop3"
)

func TestRefusedPass(t *testing.T) {
	tests := []struct {
		reply string
		user  string
		want  Kind
	}{
		{"-ERR [AUTH] Authentication failed.", "alice", WrongPassword},
		{"-ERR [auth] lower case code", "alice", WrongPassword},
		{"-ERR [IN-USE] Do you have another POP session running?", "alice", InUse},
		{"-ERR [LOGIN-DELAY] wait", "alice", LoginDelay},
		{"-ERR [SYS/PERM] account disabled", "alice", Permanent},
		{"-ERR [SYS/TEMP] Temporary authentication failure.", "alice", Temporary},
		{"-ERR [REFERRAL/alice@10.0.0.6:110] moved", "alice", Temporary},
		{"-ERR [REFERRAL] moved", "alice", Temporary},
		{"-ERR [UTF8] what", "alice", WrongPassword},

		{"-ERR", "alice", WrongPassword},
		{"-ERR Login failed.", "alice", WrongPassword},
		{"-ERR authorization failed", "alice", WrongPassword},
		{"-ERR Passwort falsch", "alice", WrongPassword},
		{"-ERR Invalid password, please try again", "alice", WrongPassword},
		{"-ERR incorrect password; your mailbox will be locked", "alice", WrongPassword},
		{"-ERR account is locked", "alice", WrongPassword},
		{"-ERR you are locked out", "alice", WrongPassword},
		{"-ERR please try again", "alice", Temporary},
		{"-ERR Login failed, please try again.", "alice", WrongPassword},
		{"-ERR Authentication failed: try again later", "alice", WrongPassword},
		{"-ERR Unable to authenticate, try again", "alice", WrongPassword},
		{"-ERR user name or password not accepted, try again", "alice", WrongPassword},
		{"-ERR Temporary failure, invalid state of the database", "alice", Temporary},
		{"-ERR Service unavailable", "alice", Temporary},
		{"-ERR maildrop already locked", "alice", InUse},
		{"-ERR unable to lock mailbox", "alice", InUse},
		{"-ERR mailbox in use", "alice", InUse},
		{"-ERR Mailbox busy.", "alice", InUse},
		{"-ERR mailbox lock held by another session", "alice", InUse},
		{"-ERR Failed to lock mail drop", "alice", InUse},
		{"-ERR cannot lock folder", "alice", InUse},
		{"-ERR /var/mail/.alice.pop lock busy! Is another session active? (11)", "alice", InUse},
		{"-ERR locked by another POP3 session", "alice", InUse},

		// What old servers say without a code.
		{"-ERR Can't get lock.  Mailbox in use", "alice", InUse}, // UW ipop3d
		{"-ERR Your mailbox is already locked", "alice", InUse},  // hMailServer
		{"-ERR maildrop locked, try again later", "alice", InUse},
		{"-ERR alice is already logged in", "alice", InUse},
		{"-ERR maillock error 5 on /var/mail/alice", "alice", InUse},
		{"-ERR Unable to open mailbox: it is being accessed by another process", "alice", InUse},
		{"-ERR System error, can't open spool file, do you own it?", "alice", Temporary},  // qpopper
		{"-ERR Unable to copy mail spool file, quota exceeded (122)", "alice", Temporary}, // qpopper
		{"-ERR Temporary problem, please try again later", "alice", Temporary},            // Courier
		{"-ERR POP3 access disabled for this account.", "alice", Permanent},               // Courier
		{"-ERR POP3 access disabled via insecure connection.", "alice", RefusesPlaintext}, // Courier
		{"-ERR chdir alice/Maildir failed", "alice", Temporary},                           // Courier
		{"-ERR chdir Maildir (./Maildir): Permission denied", "alice", Temporary},         // Courier
		{"-ERR Login failed: pop3 access disabled for xchdir", "xchdir", WrongPassword},
		{"-ERR Login failed for chdir", "chdir@example.org", WrongPassword},
		{"-ERR Server Unavailable. 21", "alice", Temporary},                                // Exchange
		{"-ERR Logon failure: unknown user name or bad password.", "alice", WrongPassword}, // Exchange
		{"-ERR invalid password (internal error 5)", "alice", WrongPassword},
		{"-ERR account locked, already logged in", "alice", WrongPassword},
		{"-ERR no", "another session", WrongPassword},
		{"-ERR no such user: another session", "another session", WrongPassword},

		{"-ERR Login blocked", "alice", WrongPassword},
		{"-ERR Your IP is blocked", "alice", WrongPassword},
		{"-ERR too many failures", "alice", WrongPassword},
		{"-ERR Too many failed attempts, try again in an hour", "alice", WrongPassword},
		{"-ERR User is locked", "alice", WrongPassword},
		{"-ERR account locked", "alice", WrongPassword},
		{"-ERR mailbox of this account is locked", "alice", WrongPassword},
		{"-ERR mailbox locked after repeated failures", "alice", WrongPassword},
		{"-ERR mailbox locked by the administrator", "alice", WrongPassword},
		{"-ERR access denied, mailbox locked", "alice", WrongPassword},
		{"-ERR the mailbox server's clock is fast", "alice", WrongPassword},
		{"-ERR clocked out of the mailbox", "alice", WrongPassword},
		{"-ERR mailbox unlocked for nobody", "alice", WrongPassword},
		{"-ERR plain users have no mailbox", "alice", WrongPassword},
		{"-ERR that keeps us busybodies away", "alice", WrongPassword},

		// What the client chose to be called must not decide.
		{"-ERR no password of sherlock@example.org", "sherlock@example.org", WrongPassword},
		{"-ERR login failed for LOCK@example.org", "lock@example.org", WrongPassword},
		{"-ERR login failed for lock", "lock@example.org", WrongPassword},
		{"-ERR login failed for starttls@ssl", "starttls@ssl", WrongPassword},
		{"-ERR bad luck, temporary@example.org", "temporary@example.org", WrongPassword},
		{"-ERR mailbox in use", "i", InUse},
		{"-ERR @ mailbox in use", "@", InUse},
		{"-ERR unknown command: PASS hunter2 ssl", "alice", WrongPassword},

		{"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.", "alice", RefusesPlaintext},
		{"-ERR [AUTH] Cleartext authentication disallowed on non-secure connections.", "alice", RefusesPlaintext},
		{"-ERR TLS required to log in.", "alice", RefusesPlaintext},
		{"-ERR Must issue a STLS command first", "alice", RefusesPlaintext},
		{"-ERR only valid after entering TLS mode", "alice", RefusesPlaintext},
		{"-ERR [AUTH] You must use stronger authentication such as AUTH or APOP", "alice", RefusesPlaintext},
		{"-ERR USER command only available under a layer", "alice", RefusesPlaintext},
		{"-ERR Encryption required", "alice", RefusesPlaintext},
		{"-ERR plain text passwords are forbidden", "alice", RefusesPlaintext},
		{"-ERR cleartext password mismatch", "alice", WrongPassword},
		{"-ERR hasslers are not welcome", "alice", WrongPassword},
	}
	for _, tt := range tests {
		r, err := pop3.ParseReply([]byte(tt.reply))
		if err != nil {
			t.Fatal(err)
		}
		if got := refusedPass(r, tt.user, []byte("Hunter2 SSL")); got != tt.want {
			t.Errorf("%q to %s: got %q, want %q", tt.reply, tt.user, got, tt.want)
		}
	}
}

func TestRefusedUser(t *testing.T) {
	tests := []struct {
		reply         string
		want, willing Kind // of a server that has not said +OK to another name, and of one that has
	}{
		{"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.", RefusesPlaintext,
			RefusesPlaintext},
		{"-ERR unknown user; use SSL", RefusesPlaintext, RefusesPlaintext},
		{"-ERR cleartext is invalid", RefusesPlaintext, RefusesPlaintext},
		{"-ERR this is not secure", RefusesPlaintext, RefusesPlaintext},
		{"-ERR encrypt", RefusesPlaintext, RefusesPlaintext},

		{"-ERR [AUTH] Klartext verboten", RefusesPlaintext, WrongPassword},
		{"-ERR Command is not valid in this state.", RefusesPlaintext, WrongPassword}, // Exchange
		{"-ERR Unknown AUTHORIZATION state command", RefusesPlaintext, WrongPassword}, // UW
		{"-ERR command not found", RefusesPlaintext, WrongPassword},
		{"-ERR Protocol error: invalid", RefusesPlaintext, WrongPassword},
		{"-ERR", RefusesPlaintext, WrongPassword},
		{"-ERR go away", RefusesPlaintext, WrongPassword},

		{"-ERR no such user", WrongPassword, WrongPassword},
		{"-ERR no such user at secure", WrongPassword, WrongPassword},
		{"-ERR [AUTH] unknown user alice", WrongPassword, WrongPassword},
		{"-ERR alice not known here", WrongPassword, WrongPassword},
		{"-ERR invalid user name", WrongPassword, WrongPassword},
		{"-ERR User unknown", WrongPassword, WrongPassword},
		{"-ERR sorry, no mailbox for alice here", WrongPassword, WrongPassword}, // RFC 1939's own example
		{"-ERR alice does not exist", WrongPassword, WrongPassword},
		{"-ERR alice: not found", WrongPassword, WrongPassword},
		{"-ERR alice: unknown", WrongPassword, WrongPassword},
		{"-ERR [AUTH] Invalid login", WrongPassword, WrongPassword},

		{"-ERR [IN-USE] busy", WrongPassword, WrongPassword},
		{"-ERR mailbox busy", WrongPassword, WrongPassword},
		{"-ERR maildrop locked", WrongPassword, WrongPassword},
		{"-ERR [SYS/PERM] gone", WrongPassword, WrongPassword},
		{"-ERR [LOGIN-DELAY] wait", WrongPassword, WrongPassword},

		{"-ERR [SYS/TEMP] no such user right now", Temporary, Temporary},
		{"-ERR temporarily out of order", Temporary, Temporary},
		{"-ERR [REFERRAL/alice@10.0.0.6] moved", Temporary, Temporary},
	}
	for _, tt := range tests {
		r, err := pop3.ParseReply([]byte(tt.reply))
		if err != nil {
			t.Fatal(err)
		}
		if got := refusedUser(r, "alice", false); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.reply, got, tt.want)
		}
		if got := refusedUser(r, "alice", true); got != tt.willing {
			t.Errorf("%q of a willing server: got %q, want %q", tt.reply, got, tt.willing)
		}
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("connection refused")
	a := &Error{Kind: Down, Server: "10.0.0.5:110", Step: "connect", Err: cause}
	b := &Error{
		Kind: Temporary, Server: "10.0.0.6:110", Step: "USER",
		Reply: pop3.Reply{Code: pop3.CodeSysTemp, Text: "later"},
	}
	c := &Error{Kind: Down, Server: "10.0.0.7:110", Step: "connect", Err: cause}
	e := worst(worst(worst(nil, a), b), c)
	const want = "10.0.0.6:110: USER: -ERR [SYS/TEMP] later; 10.0.0.5:110: connect: connection refused; " +
		"10.0.0.7:110: connect: connection refused"
	if e.Error() != want || e.Kind != Temporary {
		t.Errorf("got %q: %q, want %q", e.Kind, e, want)
	}
	if !errors.Is(a, cause) {
		t.Error("the cause cannot be told")
	}
	if got := (Kind(99)).String() + Local.String(); got != "unknownlocal" {
		t.Errorf("got %q", got)
	}
}

// FuzzRefused holds that no words of a server, and no name of a client, bring about a kind that says something about
// popgate or the network, nor before the password one about the account.
func FuzzRefused(f *testing.F) {
	f.Add("-ERR [AUTH] Plaintext authentication disallowed", "alice@example.org")
	f.Add("-ERR mailbox of lock@x in use", "lock@x")
	f.Add("-ERR \xff\x00[REFERRAL/", "@")
	f.Add("-ERR ıİ lock", "İ")
	f.Fuzz(func(t *testing.T, line, user string) {
		r, err := pop3.ParseReply([]byte(line))
		if err != nil {
			return
		}
		switch kind := refusedPass(r, user, []byte("hunter2")); kind {
		case WrongPassword, InUse, Temporary, Permanent, LoginDelay, RefusesPlaintext:
		default:
			t.Errorf("%q to PASS gives %q", line, kind)
		}
		for _, willing := range []bool{false, true} {
			switch kind := refusedUser(r, user, willing); kind {
			case WrongPassword, Temporary, RefusesPlaintext:
			default:
				t.Errorf("%q to USER gives %q", line, kind)
			}
		}
		if user != "" && len(bare(r.Text, user)) > len(strings.ToLower(r.Text)) {
			t.Errorf("%q without %q has grown", r.Text, user)
		}
	})
}

// TestSecretLeavesNoCopy holds that a password is looked for in a refusal without a string of it being made, which nobody
// could wipe.
func TestSecretLeavesNoCopy(t *testing.T) {
	secret := []byte(strings.Repeat("long secret ", 20))
	text := strings.Repeat("nothing of it ", 30)
	if n := testing.AllocsPerRun(100, func() { withoutSecret(text, secret) }); n > 1 {
		t.Errorf("got %v allocations, want the one that is wiped", n)
	}
	if got := withoutSecret("no: xlong, long!", []byte("LoNg")); got != "no: xlong, !" {
		t.Errorf("got %q", got)
	}
}
