package directory

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"modernc.org/sqlite"
)

// A sqliteConnector opens a file for reading. A new file in its place is seen by the next lookup.
type sqliteConnector struct {
	path, uri string
}

// sqliteBusy is how long a lookup waits for one who writes; with a write-ahead log it never has to.
const sqliteBusy = "busy_timeout(1000)"

// newSQLite reads a dsn: a path, or a URI as SQLite has them.
func newSQLite(dsn string) (sqliteConnector, error) {
	u := &url.URL{Scheme: "file", Path: dsn}
	if strings.HasPrefix(dsn, "file:") {
		var err error
		if u, err = url.Parse(dsn); err != nil {
			return sqliteConnector{}, fmt.Errorf("dsn: %w", err)
		}
		if u.Path == "" {
			if u.Path, err = url.PathUnescape(u.Opaque); err != nil {
				return sqliteConnector{}, fmt.Errorf("dsn: %w", err)
			}
		}
		if u.Host != "" && u.Host != "localhost" {
			return sqliteConnector{}, fmt.Errorf("dsn: %q names the host %q; write file:/path/of/file", clip(dsn), clip(u.Host))
		}
	}
	if u.Path == "" || u.Path == ":memory:" {
		return sqliteConnector{}, fmt.Errorf("dsn: %q names no file", clip(dsn))
	}
	options := u.Query()
	options.Set("mode", "ro")
	options.Add("_pragma", sqliteBusy)
	return sqliteConnector{u.Path, "file:" + (&url.URL{Path: u.Path}).EscapedPath() + "?" + options.Encode()}, nil
}

// Connect opens the file.
func (c sqliteConnector) Connect(context.Context) (driver.Conn, error) {
	file, err := os.Stat(c.path) // before it is opened, so that a file which comes in between is taken for changed
	if err != nil {
		return nil, err
	}
	conn, err := c.Driver().Open(c.uri)
	if err != nil {
		return nil, err
	}
	own, ok := conn.(sqliteDriverConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the SQLite driver's connection has another shape than it had")
	}
	return &sqliteConn{own, c.path, file}, nil
}

// Driver is SQLite's.
func (sqliteConnector) Driver() driver.Driver { return new(sqlite.Driver) }

// sqliteDriverConn is what the pool uses of the driver's connection.
type sqliteDriverConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
}

// A sqliteConn knows which file it has open.
type sqliteConn struct {
	sqliteDriverConn
	path string
	file fs.FileInfo
}

// ResetSession is called before a connection is used again: one whose file was replaced is done with.
func (c *sqliteConn) ResetSession(ctx context.Context) error {
	now, err := os.Stat(c.path)
	if err != nil || !os.SameFile(now, c.file) {
		return driver.ErrBadConn
	}
	return c.sqliteDriverConn.ResetSession(ctx)
}
