package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/directory"
)

// A Directory knows where users live. It is called by many sessions at once.
type Directory interface {
	// Lookup returns the answer for q's user, or an error that wraps auth.ErrUnknownUser where the directory does not know
	// the user. It must not keep q.
	Lookup(ctx context.Context, q *auth.Query) (directory.Found, error)
	// Refresh tells that the password of q's user was refused where the answer led.
	Refresh(q *auth.Query)
	// KnowsDomain says whether there are users in the domain, without waiting long.
	KnowsDomain(domain string) bool
}

// Known is what routes may refer to.
type Known struct {
	// Directory finds a directory by its name; nil, and the nil Directory, say that there is none.
	Directory func(name string) Directory
	// Backends are the names of all backends, which is what directories may name; nil takes any name.
	Backends []string
}

// A source is a directory in the chain of a route.
type source struct {
	name string
	Directory
}

// sources finds the directories of a route.
func (k *Known) sources(c *Config, fault func(key, problem string)) []source {
	var all []source
	for i, name := range c.Directory {
		var d Directory
		if k.Directory != nil {
			d = k.Directory(name)
		}
		if d == nil {
			fault(fmt.Sprintf("directory[%d]", i), fmt.Sprintf("is %q, and directories has no entry of that name", name))
			continue
		}
		all = append(all, source{name, d})
	}
	return all
}

// An Asked is what one directory of a route said of a user.
type Asked struct {
	// Directory is its name.
	Directory string
	// How says where the answer came from, and Age how old it is.
	How directory.How
	Age time.Duration
	// Err is why there is no answer; nil where there is one. auth.ErrUnknownUser in it means that the directory does not
	// know the user.
	Err error
	// Answer is what the directory said. It prints without secrets.
	Answer directory.Answer
}

// ask asks the directories of r in their order, up to the first that knows the user or cannot tell. steps, which may be nil, takes
// what each of them said. The error wraps auth.ErrUnknownUser where none knows the user.
func (r *route) ask(ctx context.Context, q auth.Query, known *Known, steps *[]Asked) (auth.Route, error) {
	for _, s := range r.sources {
		found, err := s.Lookup(ctx, &q)
		if steps != nil {
			*steps = append(*steps, Asked{s.name, found.How, found.Age, err, found.Answer})
		}
		if errors.Is(err, auth.ErrUnknownUser) {
			continue
		}
		if err != nil && !refused(err) {
			return auth.Route{Label: r.label, Backend: r.config.Backend, Tenant: r.config.Tenant, Account: q.Name.Key, Directory: s.name}, err
		}
		answer, problem := r.follow(q.Name, &s, &found.Answer, known)
		if err == nil {
			err = problem
		}
		return answer, err
	}
	return auth.Route{}, auth.ErrUnknownUser
}

// refused says that a directory knows the user and does not let the client in.
func refused(err error) bool {
	return errors.Is(err, auth.ErrWrongPassword) || errors.Is(err, auth.ErrNetwork)
}

// follow makes a route of a directory's answer. What it returns with an error says as much as is known.
func (r *route) follow(n auth.Name, s *source, a *directory.Answer, known *Known) (auth.Route, error) {
	answer := auth.Route{
		Label:     r.label,
		Backend:   or(a.Backend, r.config.Backend),
		Tenant:    or(a.Tenant, r.config.Tenant),
		Account:   n.Key,
		Directory: s.name,
		Server:    auth.Server{Address: a.Server},
		Verified:  a.Verified,
		Disabled:  a.Disabled,
		Wait:      a.Wait,
	}
	if a.Server != "" {
		answer.Server.TLS = a.TLS
	}
	if a.Moving {
		answer.Then = r.other(answer.Backend)
	}
	unusable := func(problem string) error {
		return fmt.Errorf("%w: directory %s, user %q: %s", auth.ErrDirectoryDown, s.name, n.Full(), problem)
	}
	switch {
	case answer.Backend == "":
		return answer, unusable("the answer names no backend, and " + r.label + " has none")
	case a.Backend != "" && known.Backends != nil && !slices.Contains(known.Backends, a.Backend):
		return answer, unusable(fmt.Sprintf("the answer names backend %q, and backends has no entry of that name", a.Backend))
	}
	user := a.User
	if user == "" {
		var err error
		if user, err = r.user(n); err != nil {
			return answer, err
		}
	}
	answer.Login = auth.BackendLogin{User: user}
	if a.Secret != "" {
		answer.Login.Secret = auth.NewSecret([]byte(a.Secret))
	}
	if a.Master != "" {
		answer.Login.User, answer.Login.Authzid, answer.Login.Method = a.Master, user, auth.MethodPlain
	}
	return answer, nil
}

// other is the backend to try for a moving user whom backend refuses.
func (r *route) other(backend string) string {
	if backend == r.config.Then {
		return r.config.Backend
	}
	return r.config.Then
}

// Refresh tells the directory that r came from that the password of q's user was refused: the answer may be an old one.
func (t *Table) Refresh(q auth.Query, r *auth.Route) {
	if d := t.directories[r.Directory]; d != nil {
		d.Refresh(&q)
	}
}
