package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// A sqlSource asks a database.
type sqlSource struct {
	driver         string
	db             *sql.DB
	users, domains sqlQuery
	hide           hider
}

// A sqlQuery is a statement, and what the pool has prepared of it. For PostgreSQL pgx prepares by itself, and notices when a
// table has changed.
type sqlQuery struct {
	statement
	prepared atomic.Pointer[sql.Stmt]
}

// sqlWithDomains is a sqlSource with a domain_query.
type sqlWithDomains struct{ *sqlSource }

// Lookup finds the user by the query.
func (s *sqlSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	var answer Answer
	found, err := s.ask(ctx, &s.users, q, func(rows *sql.Rows) (err error) {
		answer, err = readRow(rows)
		if err == nil && rows.Next() {
			err = asContent(errors.New("the query gives more than one row; have it give the one that holds"))
		}
		return err
	})
	switch {
	case err != nil:
		return Answer{}, err
	case !found:
		return Answer{}, fmt.Errorf("the query gives no row: %w", auth.ErrUnknownUser)
	}
	return answer, nil
}

// KnowsDomain says whether the domain_query gives rows.
func (s sqlWithDomains) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	found, err := s.ask(ctx, &s.domains, &auth.Query{Name: auth.Name{Domain: domain}}, func(*sql.Rows) error { return nil })
	if errors.Is(err, auth.ErrUnknownUser) {
		return false, nil
	}
	return found, err
}

// Close ends all connections.
func (s *sqlSource) Close() error {
	_ = s.db.Close() // that a connection had died before is no fault any more
	return nil
}

// sqlAttempts is how often one question is asked where connections die: they may all have died in the pool, when the database
// was started anew.
const sqlAttempts = 3

// ask runs a query, and has row read its first row. It says whether there is one.
func (s *sqlSource) ask(ctx context.Context, query *sqlQuery, q *auth.Query, row func(*sql.Rows) error) (found bool, err error) {
	args := query.args(q)
	for _, a := range args {
		if text, ok := a.(string); ok && !utf8.ValidString(text) {
			return false, fmt.Errorf("the name is not UTF-8, which databases do not take: %w", auth.ErrUnknownUser)
		}
	}
	for attempt := 1; ; attempt++ {
		found, err = s.once(ctx, query, args, row)
		if err == nil {
			return found, nil
		}
		if attempt == sqlAttempts || ctx.Err() != nil || !passing(err) {
			return false, s.verdict(ctx, err, args)
		}
	}
}

// once asks one connection.
func (s *sqlSource) once(ctx context.Context, query *sqlQuery, args []any, row func(*sql.Rows) error) (found bool, err error) {
	rows, err := s.run(ctx, query, args)
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }() // its error is in Err too
	if found = rows.Next(); found {
		if err := row(rows); err != nil {
			return false, err
		}
	}
	return found, rows.Err()
}

// run starts the query, prepared where the driver leaves that to us.
func (s *sqlSource) run(ctx context.Context, query *sqlQuery, args []any) (*sql.Rows, error) {
	if s.driver == driverPostgres {
		return s.db.QueryContext(ctx, query.text, args...)
	}
	stmt := query.prepared.Load()
	if stmt == nil {
		fresh, err := s.db.PrepareContext(ctx, query.text)
		if err != nil {
			return nil, err
		}
		if stmt = fresh; !query.prepared.CompareAndSwap(nil, fresh) {
			_ = fresh.Close() // another lookup was faster
			stmt = query.prepared.Load()
		}
	}
	return stmt.QueryContext(ctx, args...)
}

// verdict is what a driver's error means to who asked, without what it must not tell.
func (s *sqlSource) verdict(ctx context.Context, err error, args []any) error {
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		err = fmt.Errorf("%w: %w", err, ended) // drivers call it a broken connection
	}
	cause := s.hide.clean(err)
	if errors.As(err, new(contentError)) {
		return asContent(cause)
	}
	if refusesValue(err, args) {
		return fmt.Errorf("the database takes no such name (%w): %w", cause, auth.ErrUnknownUser)
	}
	return fmt.Errorf("ask %s: %w", s.driver, cause)
}

// readRow makes an answer of the row that rows stands on.
func readRow(rows *sql.Rows) (Answer, error) {
	names, err := rows.Columns()
	if err != nil {
		return Answer{}, err
	}
	values := make([]sql.NullString, len(names))
	to := make([]any, len(names))
	for i := range values {
		to[i] = &values[i]
	}
	if err := rows.Scan(to...); err != nil {
		return Answer{}, err
	}
	var f fields
	for i, name := range names {
		if err := f.set(strings.ToLower(name), values[i].String); err != nil { // NULL is ""
			return Answer{}, asContent(fmt.Errorf("the query's column %w", err))
		}
	}
	answer, err := f.result()
	return answer, asContent(err)
}
