// Package route is the table that says where a user goes: the first route whose conditions all hold.
package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth"
)

// A route is one element of the table, ready for use.
type route struct {
	config      Config
	label       string
	domains     []pattern
	users       []*regexp.Regexp
	serverNames []pattern
	username    template
	sources     []source // the directories to ask, none where the config says it all
}

// A Table holds the routes of one configuration. It never changes, so any number of goroutines may use it.
type Table struct {
	routes []*route
	// The numbers of the routes that may take a user, ascending: by the user's domain, by a domain above the user's,
	// and those that take users of any domain.
	exact, below map[string][]int
	anyone       []int

	known       Known
	directories map[string]Directory // those of all routes
	knowers     []Directory          // those of routes for users of any domain
}

// New makes a table of routes in the order of configs, which refer to what is known, and fails with every fault of any of them.
func New(configs []Config, known Known) (*Table, error) {
	t := &Table{exact: map[string][]int{}, below: map[string][]int{}, known: known, directories: map[string]Directory{}}
	var faults []error
	for i, c := range configs {
		label := fmt.Sprintf("routes[%d]", i)
		fault := func(key, problem string) {
			faults = append(faults, fmt.Errorf("%s.%s %s", label, key, problem))
		}
		r := c.compile(fault)
		r.label, r.sources = label, known.sources(&c, fault)
		t.add(r)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return t, nil
}

func (t *Table) add(r *route) {
	n := len(t.routes)
	t.routes = append(t.routes, r)
	if len(r.config.Domains) == 0 {
		t.anyone = append(t.anyone, n)
	}
	for _, s := range r.sources {
		t.directories[s.name] = s.Directory
		if len(r.config.Domains) == 0 && !slices.Contains(t.knowers, s.Directory) {
			t.knowers = append(t.knowers, s.Directory)
		}
	}
	for _, p := range r.domains {
		index := t.exact
		if p.below {
			index = t.below
		}
		if list := index[p.domain]; len(list) == 0 || list[len(list)-1] != n {
			index[p.domain] = append(list, n)
		}
	}
}

// Route returns where the user goes: the first route in order whose conditions all hold, and whose directories, if it has some,
// know the user. The client's own secret is left to the caller, who wipes the one of the answer. The error wraps
// auth.ErrUnknownUser where no route takes the user, or where the route that does cannot make a backend's name of the
// user's; auth.ErrWrongPassword or auth.ErrNetwork where a directory refuses the client; auth.ErrDirectoryDown where a
// directory cannot tell, so that no other may be asked. The route beside it says as much as is known then: of a user whom no
// directory knows, the backend where others like him are, whose pace his refusal keeps.
func (t *Table) Route(ctx context.Context, q auth.Query) (answer auth.Route, err error) {
	c := t.candidates(q.Name.Domain)
	var unknown auth.Route
	for n := c.next(); n >= 0; n = c.next() {
		r := t.routes[n]
		if r.fails(&q) != "" {
			continue
		}
		if len(r.sources) == 0 {
			err = r.answer(&q.Name, &answer)
			return answer, err
		}
		if answer, err = r.ask(ctx, q, &t.known, nil); !errors.Is(err, auth.ErrUnknownUser) || answer.Directory != "" {
			return answer, err
		}
		unknown.Backend = or(unknown.Backend, r.config.Backend)
	}
	return unknown, auth.ErrUnknownUser
}

// answer fills in a, which is zero: a route is too large to be passed on from hand to hand at each login.
func (r *route) answer(n *auth.Name, a *auth.Route) error {
	user, err := r.user(*n)
	if err != nil {
		return err
	}
	a.Label, a.Backend, a.Tenant, a.Account = r.label, r.config.Backend, r.config.Tenant, n.Key
	a.Login.User = user
	return nil
}

// user is the name that the backend is told.
func (r *route) user(n auth.Name) (string, error) {
	user, err := r.username.expand(n)
	if err != nil {
		return "", fmt.Errorf("%s: username %q: %w: %w", r.label, r.config.Username, err, auth.ErrUnknownUser)
	}
	return user, nil
}

// fails names the key of the first condition, domains left out, that q does not meet; "" if there is none.
func (r *route) fails(q *auth.Query) string {
	if len(r.users) > 0 {
		full := q.Name.Full()
		if !slices.ContainsFunc(r.users, func(re *regexp.Regexp) bool { return re.MatchString(full) }) {
			return "users"
		}
	}
	if len(r.config.Listeners) > 0 && !slices.Contains(r.config.Listeners, q.Client.Listener) {
		return "listeners"
	}
	if len(r.serverNames) > 0 && !matchAny(r.serverNames, q.Client.ServerName()) {
		return "server_names"
	}
	if len(r.config.From) == 0 {
		return ""
	}
	addr := q.Client.Addr.Addr()
	for _, p := range r.config.From {
		if p.Contains(addr) {
			return ""
		}
	}
	return "from"
}

func matchAny(ps []pattern, domain string) bool {
	for _, p := range ps {
		if p.match(domain) {
			return true
		}
	}
	return false
}

// Knows says that a route is for users of this domain by name or by a "*." pattern, or that a directory has users in it which
// a route for users of any domain asks. Other routes for users of any domain say nothing about it. It never waits long.
func (t *Table) Knows(domain string) bool {
	d, err := auth.Domain(domain)
	if err != nil || d == "" {
		return false
	}
	if len(t.exact[d]) > 0 {
		return true
	}
	for above := parent(d); above != ""; above = parent(above) {
		if len(t.below[above]) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(t.knowers, func(k Directory) bool { return k.KnowsDomain(d) })
}

// Domains lists the domains that routes name, and those of the directories that Knows asks, as far as they can list them; in
// order. Those that a "*." pattern stands for cannot be listed.
func (t *Table) Domains() []string {
	all := slices.Collect(maps.Keys(t.exact))
	for _, k := range t.knowers {
		if lister, ok := k.(interface{ Domains() []string }); ok {
			all = append(all, lister.Domains()...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// parent is the domain above d, "" for a top one.
func parent(d string) string {
	_, above, _ := strings.Cut(d, ".")
	return above
}

// candidates are the routes that may take a user of one domain, in order. They come from several ascending lists at
// once, so that ten thousand domains cost no more than one.
type candidates struct {
	lists [6][]int // more than nearly any domain needs; what is more, goes to more
	n     int
	more  [][]int
}

func (t *Table) candidates(domain string) candidates {
	var c candidates
	c.add(t.anyone)
	if domain == "" {
		return c
	}
	c.add(t.exact[domain])
	if len(t.below) > 0 {
		for above := parent(domain); above != ""; above = parent(above) {
			c.add(t.below[above])
		}
	}
	return c
}

func (c *candidates) add(list []int) {
	switch {
	case len(list) == 0:
	case c.n < len(c.lists):
		c.lists[c.n] = list
		c.n++
	default:
		c.more = append(c.more, list)
	}
}

// next takes the lowest number off all lists that begin with it, -1 when all are empty.
func (c *candidates) next() int {
	lowest := -1
	look := func(list []int) {
		if len(list) > 0 && (lowest < 0 || list[0] < lowest) {
			lowest = list[0]
		}
	}
	take := func(list *[]int) {
		if len(*list) > 0 && (*list)[0] == lowest {
			*list = (*list)[1:]
		}
	}
	for i := range c.n {
		look(c.lists[i])
	}
	for _, list := range c.more {
		look(list)
	}
	for i := range c.n {
		take(&c.lists[i])
	}
	for i := range c.more {
		take(&c.more[i])
	}
	return lowest
}
