package directory

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors of MySQL and MariaDB by number.
const (
	mysqlShutdown      = 1053
	mysqlUnknownStmt   = 1243
	mysqlMixed         = 1267 // collations: the value has characters that the column cannot have
	mysqlMixed3        = 1270
	mysqlMixedMany     = 1271
	mysqlBadCharacters = 1300
	mysqlWrongValue    = 1366
	mysqlKilled        = 1927
	mysqlNoConversion  = 3854
	mysqlIdleTooLong   = 4031
)

// passing says that the same question may be answered by another connection: this one has died, or the server has forgotten
// what was prepared on it.
func passing(err error) bool {
	if dial := (*pgconn.ConnectError)(nil); errors.As(err, &dial) || errors.Is(err, errAnswerTooLong) {
		return false
	}
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return slices.Contains([]string{"57P01", "57P02", "26000"}, pg.Code) || strings.HasPrefix(pg.Code, "08") ||
			pg.Code == "0A000" && strings.Contains(pg.Message, "cached plan")
	}
	if my := (*mysql.MySQLError)(nil); errors.As(err, &my) {
		return slices.Contains([]uint16{mysqlShutdown, mysqlUnknownStmt, mysqlKilled, mysqlIdleTooLong}, my.Number)
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op != "dial" && !op.Timeout()
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// refusesValue says that the database objects to what somebody typed, as to letters where it compares with a number, and is not
// at fault itself: strangers could make it seem down.
func refusesValue(err error, args []any) bool {
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "22") // data exception
	}
	my := (*mysql.MySQLError)(nil)
	if !errors.As(err, &my) || !slices.ContainsFunc(args, sqlNotASCII) {
		return false
	}
	return slices.Contains([]uint16{mysqlMixed, mysqlMixed3, mysqlMixedMany, mysqlBadCharacters, mysqlWrongValue, mysqlNoConversion}, my.Number)
}

func sqlNotASCII(arg any) bool {
	text, _ := arg.(string)
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0
}
