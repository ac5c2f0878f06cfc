package directory

import (
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// The values of SQLConfig.Driver.
const (
	driverPostgres = "postgres"
	driverMySQL    = "mysql"
	driverSQLite   = "sqlite"
)

// SQLConfig is the section `sql` of a directory.
type SQLConfig struct {
	// Which database it is: `postgres`, `mysql` (MariaDB too) or `sqlite`.
	Driver string `yaml:"driver"`
	// Where the database is and how to log in there. For PostgreSQL "postgres://popgate@db.example.org/mail?sslmode=verify-full"
	// or "host=… user=… dbname=…"; for MySQL "popgate@tcp(db.example.org:3306)/mail?tls=true"; for SQLite the path of the file,
	// which is opened for reading only.
	DSN string `yaml:"dsn"`
	// A file with what `dsn` would hold, when there is a password in it.
	DSNFile string `yaml:"dsn_file"`
	// A file with the password of the database's user, in place of one in the dsn. It is read again for each new connection, so that the
	// password can be changed without a restart.
	PasswordFile string `yaml:"password_file"`
	// A PEM file with the CAs to believe for MySQL, which is then spoken to over TLS alone. For PostgreSQL write sslrootcert
	// into the dsn.
	TLSCA string `yaml:"tls_ca"`
	// The SELECT that finds a user. Its parameters are :user (the name as typed), :local and :domain (its parts), :sni (the server name
	// the client asked for), :client (the client's address) and :listener. Its columns are the answer, by their names: backend, server,
	// host, port, tls, user (or username), password, master, hash, tenant, disabled, moving and allow_nets; NULL is the same as no such column.
	// No row is an unknown user, and more than one is an error.
	Query string `yaml:"query"`
	// A SELECT that finds a domain, with the parameter :domain: rows mean that there are users in it. Certificates for customers' own
	// names ask it. Empty means that this directory knows no domains by themselves.
	DomainQuery string `yaml:"domain_query"`
	// How many connections to the database there may be.
	MaxConnections int `yaml:"max_connections"`
	// How long a connection is kept that nobody uses. 0 keeps it.
	IdleTime time.Duration `yaml:"idle_time"`
	// Whether the query is prepared once on each connection. Turn it off where a PgBouncer in transaction mode stands before PostgreSQL.
	Prepare bool `yaml:"prepare"`
}

// defaultSQL is what holds where the section says nothing.
func defaultSQL() SQLConfig {
	return SQLConfig{MaxConnections: 16, IdleTime: 5 * time.Minute, Prepare: true}
}

// maxConnections bounds the connections of one directory.
const maxConnections = 1000

// validate reports what is wrong with c by itself. It opens no file and asks nobody.
func (c SQLConfig) validate(fault func(key, problem string)) {
	if !slices.Contains([]string{driverPostgres, driverMySQL, driverSQLite}, c.Driver) {
		fault("driver", fmt.Sprintf("is %q; write postgres, mysql or sqlite", clip(c.Driver)))
		return // what else there is cannot be judged
	}
	if (c.DSN == "") == (c.DSNFile == "") {
		fault("dsn", "and dsn_file: write one of the two, which says where the database is")
	}
	c.validateDriver(fault)
	if _, err := c.userStatement(); err != nil {
		fault("query", err.Error())
	}
	if c.DomainQuery != "" {
		if _, err := c.domainStatement(); err != nil {
			fault("domain_query", err.Error())
		}
	}
	if c.MaxConnections < 1 || c.MaxConnections > maxConnections {
		fault("max_connections", fmt.Sprintf("is %d; write a number from 1 to %d", c.MaxConnections, maxConnections))
	}
	if c.IdleTime < 0 {
		fault("idle_time", "is negative; write a duration such as 5m, or 0 to keep connections")
	}
}

// validateDriver reports keys that mean nothing to the driver.
func (c SQLConfig) validateDriver(fault func(key, problem string)) {
	if c.TLSCA != "" && c.Driver != driverMySQL {
		fault("tls_ca", "is for mysql alone; for postgres write sslmode=verify-full and sslrootcert=FILE into the dsn")
	}
	if c.PasswordFile != "" && c.Driver == driverSQLite {
		fault("password_file", "means nothing to sqlite, which has no users")
	}
	if !c.Prepare && c.Driver != driverPostgres {
		fault("prepare", "can be false for postgres alone")
	}
}

func (c SQLConfig) userStatement() (statement, error) {
	return parseStatement(c.Driver, c.Query, "user", "local", "domain", "sni", "client", "listener")
}

func (c SQLConfig) domainStatement() (statement, error) {
	return parseStatement(c.Driver, c.DomainQuery, "domain")
}

// newSQL makes the source of a section. It reads the files that the section names, and connects to nothing yet.
func newSQL(_ string, c SQLConfig, log *slog.Logger) (Opened, error) {
	s := &sqlSource{driver: c.Driver}
	var err error
	if s.users.statement, err = c.userStatement(); err != nil {
		return Opened{}, fmt.Errorf("query %w", err)
	}
	if c.DomainQuery != "" {
		if s.domains.statement, err = c.domainStatement(); err != nil {
			return Opened{}, fmt.Errorf("domain_query %w", err)
		}
	}
	if s.db, err = openSQL(c, &s.hide, log); err != nil {
		return Opened{}, err
	}
	o := Opened{Source: s, Vary: s.users.vary()}
	if c.DomainQuery != "" {
		o.Source = sqlWithDomains{s}
	}
	return o, nil
}
