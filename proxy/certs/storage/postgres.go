package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	authfiles "github.com/popgate/popgate/auth/files"
)

// inPostgres keeps records and leases in a table each. Leases and not advisory locks: those end with the connection, which the
// server may believe in for hours after the gateway's host is gone, and PgBouncer hands connections to others.
type inPostgres struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	schema  string
	named   *strings.Replacer // puts the schema's name into statements

	mu    sync.Mutex
	ready bool // the tables are there
}

// maxAnswer bounds what a server that is none, or a table that something else fills, can make us read.
const maxAnswer = 4 * maxValue

func openPostgres(p Postgres) (*inPostgres, error) {
	config, err := pgxpool.ParseConfig(p.Connection)
	if err != nil {
		return nil, fmt.Errorf("postgres.connection: %w", err)
	}
	config.MaxConns = int32(p.Connections)
	config.PingTimeout = p.Timeout
	conn := config.ConnConfig
	conn.ConnectTimeout = p.ConnectTimeout
	conn.MaxProtocolMessageBodyLen = maxAnswer
	// PgBouncer may give each transaction another connection, where what was prepared is not known.
	conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "popgate"
	}
	if p.PasswordFile != "" {
		if _, err := authfiles.Secret(p.PasswordFile); err != nil {
			return nil, fmt.Errorf("postgres.password_file: %w", err)
		}
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) (err error) {
			c.Password, err = authfiles.Secret(p.PasswordFile)
			return err
		}
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config) // connects to nothing
	if err != nil {
		return nil, fmt.Errorf("postgres.connection: %w", err)
	}
	named := strings.NewReplacer("{schema}", pgx.Identifier{p.Schema}.Sanitize())
	return &inPostgres{pool: pool, timeout: p.Timeout, schema: p.Schema, named: named}, nil
}

// COLLATE "C" has names compared bytewise, whatever the database's language; the ranges of folders depend on it.
const makeTables = `
CREATE TABLE IF NOT EXISTS {schema}.certificates (
	key text COLLATE "C" PRIMARY KEY,
	value bytea NOT NULL,
	modified timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS {schema}.locks (
	name text COLLATE "C" PRIMARY KEY,
	token text NOT NULL,
	expires timestamptz NOT NULL
)`

// prepare makes the tables if they are missing. A user who may not make any can be given them.
func (p *inPostgres) prepare(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready {
		return nil
	}
	var there bool
	err := p.pool.QueryRow(ctx, `SELECT count(*) = 2 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename IN ('certificates', 'locks')`,
		p.schema).Scan(&there)
	if err != nil || there {
		p.ready = err == nil
		return err
	}
	err = pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		// IF NOT EXISTS fails where two gateways start at once.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('popgate'), hashtext($1))`, p.schema); err != nil {
			return err
		}
		var schema bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)`, p.schema).Scan(&schema); err != nil {
			return err
		}
		text := makeTables
		if !schema {
			text = "CREATE SCHEMA {schema};" + text
		}
		for statement := range strings.SplitSeq(p.named.Replace(text), ";") {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("make popgate's tables: %w", err)
			}
		}
		return nil
	})
	p.ready = err == nil
	return err
}

// do runs what asks the database, in bounded time, and once more where it is certain that nothing was asked yet.
func (p *inPostgres) do(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	attempt := func() error {
		if err := p.prepare(ctx); err != nil {
			return err
		}
		return ask(ctx)
	}
	err := attempt()
	if err != nil && pgconn.SafeToRetry(err) && ctx.Err() == nil {
		err = attempt() // a connection that died in the pool, after the database's restart
	}
	if gone := (*pgconn.PgError)(nil); errors.As(err, &gone) && gone.Code == "42P01" {
		p.mu.Lock()
		p.ready = false // somebody dropped the tables
		p.mu.Unlock()
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fs.ErrNotExist
	case err != nil:
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

func (p *inPostgres) exec(ctx context.Context, statement string, args ...any) (rows int64, err error) {
	err = p.do(ctx, func(ctx context.Context) error {
		tag, err := p.pool.Exec(ctx, p.named.Replace(statement), args...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// row reads the one row that a query gives; none is fs.ErrNotExist.
func (p *inPostgres) row(ctx context.Context, query string, args []any, to ...any) error {
	return p.do(ctx, func(ctx context.Context) error {
		return p.pool.QueryRow(ctx, p.named.Replace(query), args...).Scan(to...)
	})
}

func (p *inPostgres) load(ctx context.Context, key string) (record []byte, err error) {
	err = p.row(ctx, `SELECT value FROM {schema}.certificates WHERE key = $1`, []any{key}, &record)
	return record, err
}

func (p *inPostgres) store(ctx context.Context, key string, record []byte) error {
	_, err := p.exec(ctx, `INSERT INTO {schema}.certificates (key, value, modified) VALUES ($1, $2, clock_timestamp())
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified`, key, record)
	return err
}

func (p *inPostgres) replace(ctx context.Context, key string, old, record []byte) (bool, error) {
	statement, args := `UPDATE {schema}.certificates SET value = $2, modified = clock_timestamp() WHERE key = $1 AND value = $3`, []any{key, record, old}
	if old == nil {
		statement, args = `INSERT INTO {schema}.certificates (key, value, modified) VALUES ($1, $2, clock_timestamp())
			ON CONFLICT (key) DO NOTHING`, args[:2]
	}
	rows, err := p.exec(ctx, statement, args...)
	return rows == 1, err
}

func (p *inPostgres) remove(ctx context.Context, key string) error {
	from, to := span(key)
	_, err := p.exec(ctx, `DELETE FROM {schema}.certificates WHERE key = $1 OR key >= $2 AND key < $3`, key, from, to)
	return err
}

func (p *inPostgres) stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info := certmagic.KeyInfo{Key: key}
	from, to := span(key)
	// The record itself comes before all that is below it.
	err := p.row(ctx, `SELECT key = $1, modified, octet_length(value) FROM {schema}.certificates
		WHERE key = $1 OR key >= $2 AND key < $3 ORDER BY key LIMIT 1`, []any{key, from, to}, &info.IsTerminal, &info.Modified, &info.Size)
	if err != nil || !info.IsTerminal {
		return certmagic.KeyInfo{Key: info.Key}, err
	}
	return info, nil
}

func (p *inPostgres) keys(ctx context.Context, folder string, deep bool) (keys []string, err error) {
	from, to := span(folder)
	// Of a folder inside, the database gives the folder alone: thousands of records lie below some.
	column := "key"
	if !deep {
		column = `DISTINCT CASE strpos(substr(key, length($1) + 1), '/') WHEN 0 THEN key
			ELSE substr(key, 1, length($1) + strpos(substr(key, length($1) + 1), '/')) END`
	}
	query := `SELECT ` + column + ` FROM {schema}.certificates WHERE key >= $1 AND key < $2 ORDER BY 1`
	args := []any{from, to}
	if folder == "" {
		query, args = strings.Replace(query, "AND key < $2 ", "", 1), args[:1] // text in the database is UTF-8, and "\xff" is not
	}
	err = p.do(ctx, func(ctx context.Context) error {
		rows, err := p.pool.Query(ctx, p.named.Replace(query), args...)
		if err != nil {
			return err
		}
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return keys, err
}

func (p *inPostgres) hold(ctx context.Context, name, token string, ttl time.Duration) (bool, error) {
	rows, err := p.exec(ctx, `INSERT INTO {schema}.locks AS l (name, token, expires)
		VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
		ON CONFLICT (name) DO UPDATE SET token = excluded.token, expires = excluded.expires
		WHERE l.token = excluded.token OR l.expires <= clock_timestamp()`, name, token, ttl.Seconds())
	return rows == 1, err
}

func (p *inPostgres) release(ctx context.Context, name, token string) (bool, error) {
	rows, err := p.exec(ctx, `DELETE FROM {schema}.locks WHERE name = $1 AND token = $2`, name, token)
	return rows == 1, err
}

// sweep goes by the database's clock, as the leases do.
func (p *inPostgres) sweep(ctx context.Context, before time.Time) (int, error) {
	rows, err := p.exec(ctx, `DELETE FROM {schema}.locks WHERE expires < clock_timestamp() - make_interval(secs => $1)`, time.Since(before).Seconds())
	return int(rows), err
}

// tryWrite puts a row into each table, and takes it out again before anybody sees it.
func (p *inPostgres) tryWrite(ctx context.Context) error {
	name := "probe/" + rand.Text()
	return p.do(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			for _, statement := range []string{
				`INSERT INTO {schema}.certificates (key, value, modified) VALUES ($1, '', clock_timestamp())`,
				`DELETE FROM {schema}.certificates WHERE key = $1`,
				`INSERT INTO {schema}.locks (name, token, expires) VALUES ($1, '', clock_timestamp())`,
				`DELETE FROM {schema}.locks WHERE name = $1`,
			} {
				if _, err := tx.Exec(ctx, p.named.Replace(statement), name); err != nil {
					return fmt.Errorf("try a write: %w", err)
				}
			}
			return nil
		})
	})
}

// health asks for the tables and whether they can be written to: a standby's cannot. See tryWrite for all else.
func (p *inPostgres) health(ctx context.Context) error {
	var readOnly string
	err := p.row(ctx, `SELECT current_setting('transaction_read_only')`, nil, &readOnly)
	if err == nil && readOnly != "off" {
		return errors.New("postgres: the database takes no writes, it may be a standby (target_session_attrs=read-write finds the primary)")
	}
	return err
}

func (p *inPostgres) close() { p.pool.Close() }
