package route

import (
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
}

// Explain tells how the table comes to its answer: every route in order, up to the first that matches.
func (t *Table) Explain(q auth.Query) []Step {
	var steps []Step
	for _, r := range t.routes {
		s := r.explain(q)
		steps = append(steps, s)
		if s.Matches {
			break
		}
	}
	return steps
}

func (r *route) explain(q auth.Query) Step {
	s := Step{Label: r.label, Backend: r.config.Backend}
	if len(r.config.Domains) > 0 && !matchAny(r.domains, q.Name.Domain) {
		s.Condition = "domains"
	} else {
		s.Condition = r.fails(q)
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
		if _, err := r.answer(q.Name); err != nil {
			s.Condition, s.Want, s.Got = "username", r.config.Username, q.Name.Typed
		}
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
