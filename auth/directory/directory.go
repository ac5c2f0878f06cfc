package directory

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/popgate/popgate/auth"
)

// A Source knows users. Any number of goroutines may call it at once.
type Source interface {
	// Lookup says where the user of q lives. It returns an error that wraps auth.ErrUnknownUser where the source answered
	// and does not know the user, and auth.ErrWrongPassword where it has refused the password. Any other error means that
	// it could not answer: it is down, or what it said makes no sense. Lookup ends when ctx does. It must not keep q, and
	// of q.Secret nothing at all; the secret is there only where the source's Vary has VarySecret.
	Lookup(ctx context.Context, q *auth.Query) (Answer, error)
	// Close ends all that the source holds. It is called once, when no Lookup and no Run is under way any more.
	Close() error
}

// A DomainKnower is a source that can tell whether it has users in a domain, without asking for one of them.
type DomainKnower interface {
	// KnowsDomain says whether there are users in domain, which is as auth.Domain writes it. An error means that the
	// source could not answer.
	KnowsDomain(ctx context.Context, domain string) (bool, error)
}

// A Runner is a source with work beside the lookups, such as watching its file.
type Runner interface {
	// Run does that work until ctx ends. It is called at most once; that it returns earlier, with or without an error, ends
	// the work and not the source.
	Run(ctx context.Context) error
}

// An Answer is what a source says of a user it knows. It holds passwords, and prints without them.
type Answer struct {
	// Backend is the name of a backend; "" is the route's.
	Backend string
	// Server is the one server to go to, host or host:port, an IPv6 address with a port in brackets; "" leaves it to the
	// backend.
	Server string
	// TLS is how TLS starts at Server: none, starttls or implicit; "" is as the backend has it.
	TLS string
	// User is the name the backend is told; "" is what the route's username makes.
	User string
	// Secret is the password towards the backend; "" is the client's own. It is used only where the client's own has been
	// checked here or by the source.
	Secret string
	// Master is the master user to log in as, with Secret as its password, for User, who must be named then; "" for none.
	Master string
	// Hash is the user's stored password, to be checked here: {SCHEME}… or a crypt(3) form; "" for none.
	Hash string
	// Tenant is the label for limits and records; "" is the route's.
	Tenant string
	// Disabled says that the account cannot log in.
	Disabled bool
	// Moving says that the user is being moved between the route's backend and the one in its `then`.
	Moving bool
	// AllowNets are the networks from which the user may log in; none is everywhere.
	AllowNets []netip.Prefix
	// Verified says that the source has checked the password that the query brought. Only a source with VarySecret may
	// set it.
	Verified bool
	// Wait is how long a source that refuses wants the client to wait.
	Wait time.Duration
}

// Format prints the answer without what is secret in it, whatever the verb.
func (a Answer) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "backend %q server %q tls %q user %q master %q tenant %q disabled %t moving %t verified %t secret %t hash %t",
		a.Backend, a.Server, a.TLS, a.User, a.Master, a.Tenant, a.Disabled, a.Moving, a.Verified, a.Secret != "", a.Hash != "")
}

// Vary says what an answer depends on: what it is cached by.
type Vary uint8

// What an answer can depend on. The user's name is always part of it, in all its forms (Typed, Local, Domain).
const (
	VaryUser     Vary = 1 << iota
	VaryClient        // the client's address, without its port, and its certificate
	VarySNI           // the server name the client asked for
	VaryListener      // the listener's name
	VarySecret        // the password: the source is told it
)

// Opened is a source ready to be asked, and what is to be known of it.
type Opened struct {
	Source
	// Vary is what its answers depend on.
	Vary Vary
	// Memory says that a Lookup neither waits nor fails to answer: everything is in memory. Such a source is asked directly,
	// without cache, deadline or bound.
	Memory bool
}

var _ io.Closer = Opened{}
