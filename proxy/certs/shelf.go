package certs

import (
	"strings"
	"sync"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

// shelf is what handshakes look at: the names that have certificates. Nothing that takes time is done while it is changed.
type shelf struct {
	exact sync.Map // name -> *managed
	wild  sync.Map // "example.org" -> *managed, for "*.example.org"
}

// find gives what covers a name in lower case, nil where nothing does.
func (s *shelf) find(name string) *managed {
	if e, ok := s.exact.Load(name); ok {
		return e.(*managed)
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if e, ok := s.wild.Load(parent); ok {
			return e.(*managed)
		}
	}
	return nil
}

// each calls use with each name that has certificates.
func (s *shelf) each(use func(*managed)) {
	for _, m := range []*sync.Map{&s.exact, &s.wild} {
		m.Range(func(_, e any) bool { use(e.(*managed)); return true })
	}
}

func (s *shelf) put(e *managed) {
	m, key := s.place(e)
	m.Store(key, e)
}

// drop takes e away, if it is still e that stands there.
func (s *shelf) drop(e *managed) {
	m, key := s.place(e)
	m.CompareAndDelete(key, e)
}

func (s *shelf) place(e *managed) (*sync.Map, string) {
	if parent, ok := strings.CutPrefix(e.name, "*."); ok {
		return &s.wild, parent
	}
	return &s.exact, e.name
}

// budgetKeys is how many client networks, and registered domains, are kept apart.
const budgetKeys = 100_000

// budgets bound what clients can have ordered.
type budgets struct {
	hasher   store.Hasher
	networks *limit.Rates // by client network
	parents  *limit.Rates // by registered domain
}

func newBudgets() budgets {
	return budgets{hasher: store.NewHasher(), networks: limit.NewRates(budgetKeys), parents: limit.NewRates(budgetKeys)}
}
