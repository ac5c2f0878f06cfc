//go:build unix

package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A Postgres is a PostgreSQL on a Unix socket, whose administrator is popgate.
type Postgres struct {
	*Daemon
	Dir          string // where its socket is
	Connection   string // as keywords and values, without the password
	PasswordFile string
}

// NewPostgres starts a PostgreSQL with a password.
func NewPostgres(t testing.TB, password string) *Postgres {
	t.Helper()
	path, initdb := Program(t, "postgres", "postgresql"), Program(t, "initdb", "postgresql")
	dir := Dir(t)
	attr := Nobody(t, dir)
	p := &Postgres{Dir: dir, Connection: "host=" + dir + " user=popgate dbname=postgres sslmode=disable", PasswordFile: filepath.Join(dir, "secret")}
	if err := os.WriteFile(p.PasswordFile, []byte(password+"\n"), 0o644); err != nil { // its user reads it too
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	prepare := exec.Command(initdb, "-D", data, "-U", "popgate", "-A", "scram-sha-256", "--pwfile", p.PasswordFile, "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
	prepare.SysProcAttr, prepare.Dir = attr, dir
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	connection, err := pgx.ParseConfig(p.Connection)
	if err != nil {
		t.Fatal(err)
	}
	connection.Password = password
	p.Daemon = &Daemon{
		Start: func() *exec.Cmd {
			cmd := exec.Command(path, "-D", data, "-k", dir, "-h", "", "-F")
			cmd.SysProcAttr, cmd.Dir = attr, dir
			return cmd
		},
		Ready: func() error {
			c, err := pgx.ConnectConfig(t.Context(), connection)
			if err != nil {
				return err
			}
			return c.Close(t.Context())
		},
		End: syscall.SIGINT, // which ends sessions first
	}
	p.Run(t)
	return p
}
