package route

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/popgate/popgate/auth"
)

// A Step is what one route of the table has to say about a user.
type Step struct {
	// Label names the route, such as "routes[2]".
	Label string
	// Backend is where the route leads.
	Backend string
	// Matches says that all conditions of the route hold.
	Matches bool
	// Condition is the key of what stands in the way: the first condition that does not hold, or "username" where the
	// route matches and cannot make a backend's name of the user's. "" means that nothing does.
	Condition string
	// Want and Got are what that key asks for and what was there instead.
	Want, Got string
	// Asked is what the directories of a route said that matches, up to the first that knows the user or cannot tell.
	Asked []Asked
	// Unknown says that none of them knows the user, so that the next route is tried.
	Unknown bool
	// Username is the route's template of the name that the backend is told; "" where a directory named it.
	Username string
}

// Explain tells how the table comes to its answer: every route in order, up to the one that decides; and the answer, or why
// there is none, which are what Route would have returned. Directories are asked.
func (t *Table) Explain(ctx context.Context, q auth.Query) (steps []Step, answer auth.Route, err error) {
	var unknown auth.Route
	for _, r := range t.routes {
		s := r.explain(q)
		if !s.Matches {
			steps = append(steps, s)
			continue
		}
		if answer, err = t.decide(ctx, r, q, &s); s.Unknown {
			steps = append(steps, s)
			unknown.Backend = or(unknown.Backend, r.config.Backend)
			continue
		}
		return append(steps, s), answer, err
	}
	return steps, unknown, auth.ErrUnknownUser
}

// decide is the answer of a route whose conditions hold.
func (t *Table) decide(ctx context.Context, r *route, q auth.Query, s *Step) (answer auth.Route, err error) {
	s.Username = r.config.Username
	if len(r.sources) == 0 {
		err = r.answer(&q.Name, &answer)
	} else {
		answer, err = r.ask(ctx, q, &t.known, &s.Asked)
		last := &s.Asked[len(s.Asked)-1]
		if s.Unknown = errors.Is(last.Err, auth.ErrUnknownUser); s.Unknown {
			return auth.Route{}, err
		}
		if last.Answer.User != "" {
			s.Username = ""
		}
		s.Backend = or(answer.Backend, s.Backend)
	}
	if errors.Is(err, auth.ErrUnknownUser) {
		s.Condition, s.Want, s.Got = "username", r.config.Username, q.Name.Typed
	}
	return answer, err
}

func (r *route) explain(q auth.Query) Step {
	s := Step{Label: r.label, Backend: r.config.Backend}
	if len(r.config.Domains) > 0 && !matchAny(r.domains, q.Name.Domain) {
		s.Condition = "domains"
	} else {
		s.Condition = r.fails(&q)
	}
	switch s.Condition {
	case "domains":
		s.Want, s.Got = oneOf(r.config.Domains), or(q.Name.Domain, "a name without a domain")
	case "users":
		s.Want, s.Got = oneOf(r.config.Users), q.Name.Full()
	case "listeners":
		s.Want, s.Got = oneOf(r.config.Listeners), or(q.Client.Listener, "no listener")
	case "server_names":
		s.Want, s.Got = oneOf(r.config.ServerNames), or(q.Client.ServerName(), "no server name")
	case "from":
		s.Want, s.Got = oneOf(r.config.From), "no address"
		if addr := q.Client.Addr.Addr(); addr.IsValid() {
			s.Got = addr.String()
		}
	default:
		s.Matches = true
	}
	return s
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// oneOf writes a list of what would have done.
func oneOf[T any](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}
