package directory

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/popgate/popgate/auth/files"
)

// The times that are the same for every database.
const (
	sqlConnectTimeout = 10 * time.Second // the longest; a lookup's own end is mostly earlier
	sqlConnLifetime   = 30 * time.Minute // so that connections follow when a database moves
)

// openSQL makes the pool. It connects to nothing yet. Its passwords go to hide.
func openSQL(c SQLConfig, hide *hider, log *slog.Logger) (*sql.DB, error) {
	dsn := c.DSN
	if c.DSNFile != "" {
		var err error
		if dsn, err = files.Secret(c.DSNFile); err != nil {
			return nil, fmt.Errorf("dsn_file: %w", err)
		}
	}
	if c.Driver != driverSQLite {
		hide.add(dsn)
	}
	password := func() (string, error) { return "", nil }
	if c.PasswordFile != "" {
		password = func() (string, error) {
			p, err := files.Secret(c.PasswordFile)
			hide.add(p)
			return p, err
		}
	}
	if _, err := password(); err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	var to driver.Connector
	var err error
	switch c.Driver {
	case driverPostgres:
		to, err = postgresConnector(dsn, c.Prepare, hide, password, log)
	case driverMySQL:
		to, err = mysqlConnector(dsn, c.TLSCA, hide, password, log)
	default:
		to, err = newSQLite(dsn)
	}
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(boundedConnector{to})
	db.SetMaxOpenConns(c.MaxConnections)
	db.SetMaxIdleConns(c.MaxConnections)
	db.SetConnMaxIdleTime(c.IdleTime)
	db.SetConnMaxLifetime(sqlConnLifetime)
	return db, nil
}

// errDSN stands for what a driver says of a DSN that it cannot read, for it shows parts of it.
func errDSN(err error, form string) error {
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		return fmt.Errorf("dsn: %s %s: %w", file.Op, file.Path, file.Err)
	}
	return fmt.Errorf("dsn: cannot be read (what is wrong is not shown, for there may be a password in it); write it as %s", form)
}

// errAt is for a password with an "@" in it: pgx would take what is behind for the host, ask the DNS for it and show it.
var errAt = errors.New(`dsn: has more than one "@"; write one in a password as %40`)

func postgresConnector(dsn string, prepare bool, hide *hider, password func() (string, error), log *slog.Logger) (driver.Connector, error) {
	if _, rest, ok := strings.Cut(dsn, "://"); ok {
		if authority, _, _ := strings.Cut(rest, "/"); strings.Count(authority, "@") > 1 {
			return nil, errAt
		}
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errDSN(err, `"postgres://USER@HOST/DATABASE?sslmode=verify-full" or "host=HOST user=USER dbname=DATABASE sslmode=verify-full"`)
	}
	hide.add(config.Password)
	if config.TLSConfig == nil {
		warnPlain(log, config.Host)
	}
	for _, f := range config.Fallbacks { // with sslmode=prefer, the same host without TLS
		if f.TLSConfig == nil {
			warnPlain(log, f.Host)
		}
	}
	config.DialFunc = dialBounded
	config.ConnectTimeout = sqlConnectTimeout
	config.MaxProtocolMessageBodyLen = maxAnswer
	if !prepare {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "popgate"
	}
	return stdlib.GetConnector(*config, stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		p, err := password()
		if p != "" {
			c.Password = p
		}
		return err
	})), nil
}

func mysqlConnector(dsn, ca string, hide *hider, password func() (string, error), log *slog.Logger) (driver.Connector, error) {
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, errDSN(err, `"USER@tcp(HOST:3306)/DATABASE?tls=true"`)
	}
	hide.add(config.Passwd)
	config.DialFunc = dialBounded
	// None of these helps a lookup, and each gives a server or a query more than it needs.
	config.MultiStatements, config.AllowAllFiles, config.InterpolateParams, config.ColumnsWithAlias = false, false, false, false
	config.Logger = mysqlLog{log, hide}
	if ca != "" {
		roots, err := files.Roots(ca)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		host, _, err := net.SplitHostPort(config.Addr)
		if err != nil {
			host = config.Addr
		}
		config.TLS = &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
		config.AllowFallbackToPlaintext = false
	}
	if host, _, err := net.SplitHostPort(config.Addr); err == nil && (config.TLS == nil || config.AllowFallbackToPlaintext) {
		warnPlain(log, host)
	}
	err = config.Apply(mysql.BeforeConnect(func(_ context.Context, c *mysql.Config) error {
		p, err := password()
		if p != "" {
			c.Passwd = p
		}
		return err
	}))
	if err != nil {
		return nil, hide.clean(err)
	}
	to, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errDSN(err, `"USER@tcp(HOST:3306)/DATABASE?tls=true"`)
	}
	return to, nil
}

// warnPlain says that what the database answers, passwords too, may cross the network as it is. A socket's path, and this machine,
// are no network.
func warnPlain(log *slog.Logger, host string) {
	if log == nil || strings.HasPrefix(host, "/") || thisMachine(host) {
		return
	}
	log.Warn("the database may be spoken to without TLS: users' answers could be read and changed on the way; ask for TLS in the dsn",
		slog.String("host", host))
}

// thisMachine says that host is a name or address of the loopback.
func thisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// mysqlLog takes what the driver says of connections that ended; it matters only to somebody who looks for a fault.
type mysqlLog struct {
	log  *slog.Logger
	hide *hider
}

// Print takes one line of the driver's.
func (l mysqlLog) Print(v ...any) {
	if l.log != nil {
		l.log.Debug("the MySQL driver says", slog.String("text", l.hide.text(fmt.Sprint(v...))))
	}
}

// A boundedConnector gives up on servers that take a connection and say nothing: the pool dials without a lookup's deadline too.
type boundedConnector struct {
	driver.Connector
}

// Connect connects to the database.
func (b boundedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, sqlConnectTimeout)
	defer cancel()
	return b.Connector.Connect(ctx)
}
