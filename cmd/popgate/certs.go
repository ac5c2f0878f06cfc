package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/policy/statefile"
	"github.com/popgate/popgate/proxy/admin"
	"github.com/popgate/popgate/proxy/certs"
)

func certsCommand() *cobra.Command {
	var (
		from   source
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "certs",
		Short: "List, renew and export certificates",
		Long: `certs asks the running gateway, through its socket (admin.socket), for its certificates: whom they are for, who issued
them, how long they last, when they will be renewed, and what went wrong last. Where no gateway runs, --config shows the same from the
files, the storage and the local CA of that config, --state-dir what is in that folder.`,
		Example: `  popgate certs
  popgate certs -c /etc/popgate/popgate.yaml
  popgate certs --json | jq -r '.[] | select(.last_error) | .name'
  popgate certs renew mail.example.org
  popgate certs export mail.example.org /root/moved`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := from.open(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			list, err := all.List(cmd.Context())
			if err != nil && len(list) == 0 {
				return err
			}
			// What is known is of use beside a storage that is down, too.
			if asJSON {
				return errors.Join(err, certsJSON(cmd.OutOrStdout(), list))
			}
			return errors.Join(err, certsTable(cmd.OutOrStdout(), list, time.Now()))
		},
	}
	flags := c.PersistentFlags()
	flags.StringVarP(&from.file, "config", "c", "", "config `file`: of the gateway to ask, or of the storage where none runs")
	flags.StringVar(&from.socket, "socket", "", "`path` of the gateway's socket")
	flags.StringVar(&from.stateDir, "state-dir", "", "`folder` to read the certificates from, without asking a gateway")
	c.MarkFlagsMutuallyExclusive("config", "socket", "state-dir")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	c.AddCommand(certsRenewCommand(&from), certsExportCommand(&from))
	return c
}

func certsRenewCommand(from *source) *cobra.Command {
	return &cobra.Command{
		Use:   "renew NAME",
		Short: "Have the running gateway renew a certificate now",
		Long: `renew has the running gateway order a new certificate for NAME at once, whatever the old one's age, and waits for it.
Sessions go on, new ones get the new certificate. Public CAs count such orders: see "rate limits" in docs/certificates.md.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := from.open(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := all.Renew(cmd.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: renewed%s\n", plain(args[0]), until(cmd.Context(), all, args[0]))
			return err
		},
	}
}

// until says how long a certificate lasts, or nothing where that cannot be found out.
func until(ctx context.Context, all admin.Certificates, name string) string {
	list, err := all.List(ctx)
	if err != nil {
		return ""
	}
	for _, s := range list {
		if s.Name == name {
			return ", valid until " + s.NotAfter.UTC().Format(time.DateTime) + " UTC"
		}
	}
	return ""
}

func certsExportCommand(from *source) *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME DIR",
		Short: "Write a certificate and its private key into a folder",
		Long: `export writes DIR/NAME.crt, the certificate with its intermediate ones, and DIR/NAME.key, its private key, which only you
may read (0600). A wildcard's files have "_" for "*". DIR is made if it is missing; files of these names are replaced.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := from.open(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			cert, key, err := all.Export(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			files, err := writePair(args[1], args[0], cert, key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(files, "\n"))
			return err
		},
	}
}

// source says where the certificates are asked for.
type source struct {
	running
	stateDir string
}

// open finds the running gateway, or the storage of one that does not run.
func (s source) open(ctx context.Context, stderr io.Writer) (admin.Certificates, error) {
	if s.stateDir != "" {
		// Beside --config it may be missing: no gateway has run yet.
		if _, err := os.ReadDir(s.stateDir); err != nil {
			return nil, fmt.Errorf("read the certificates of --state-dir: %w", err)
		}
		return offline(certs.DefaultConfig(), s.stateDir)
	}
	client, c, err := s.find(ctx)
	switch {
	case err == nil:
		return client, nil
	case !errors.Is(err, admin.ErrNoGateway):
		return nil, err
	case c == nil:
		return nil, fmt.Errorf("%w; say with --config FILE or --state-dir DIR where the certificates are stored, or with --socket PATH where a gateway listens", err)
	}
	_, _ = fmt.Fprintln(stderr, "note: no gateway runs with this config; this is what is stored") // stdout is for programs
	return offline(c.TLS, c.StateDir)
}

// stored are the certificates of a gateway that does not run.
type stored struct{ *certs.Stored }

func offline(c certs.Config, stateDir string) (admin.Certificates, error) {
	store, err := certs.Offline(c, stateDir)
	if err != nil {
		return nil, err
	}
	return stored{store}, nil
}

// Renew is for a gateway that runs: it has the listeners or the DNS access that prove a name to be ours.
func (stored) Renew(context.Context, string) error {
	return errors.New("no gateway runs that could: start it, it renews by itself what is due")
}

// certsTable prints a line for each certificate.
func certsTable(w io.Writer, list []certs.Status, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no certificates")
		return err
	}
	row, flush := columns(w)
	row("NAME", "SOURCE", "ISSUER", "KEY", "DAYS LEFT", "RENEWAL", "LAST ERROR")
	for _, s := range list {
		name, failed := plain(s.Name), "-"
		if more := len(s.Names) - 1; more > 0 {
			name += fmt.Sprintf(" (+%d)", more)
		}
		if s.LastError != "" {
			failed = plain(s.LastError)
			if !s.LastErrorAt.IsZero() {
				failed = moment(s.LastErrorAt) + ": " + failed
			}
		}
		row(orDash(name), orDash(s.Source), orDash(plain(s.Issuer)), orDash(s.KeyType), daysLeft(s.NotAfter, now), moment(s.NextRenewal), failed)
	}
	return flush()
}

// daysLeft is rounded down: 0 is the last day, and below 0 it has expired.
func daysLeft(notAfter, now time.Time) string {
	if notAfter.IsZero() {
		return "-"
	}
	return strconv.Itoa(int(math.Floor(notAfter.Sub(now).Hours() / 24)))
}

func certsJSON(w io.Writer, list []certs.Status) error {
	all := make([]admin.Certificate, len(list)) // and not nil: no certificates are [], not null
	for i, s := range list {
		all[i] = admin.Certificate(s)
	}
	return printJSON(w, all)
}

// writePair writes a certificate and its key, once they fit each other, and returns the files' names.
func writePair(dir, name string, cert, key []byte) ([]string, error) {
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("export %s: certificate and key do not fit each other: %w", name, err)
	}
	base := strings.ReplaceAll(name, "*", "_")
	if base != filepath.Base(base) || !filepath.IsLocal(base) {
		return nil, fmt.Errorf("export %q: that is no name a file can have", name)
	}
	files := []string{filepath.Join(dir, base+".crt"), filepath.Join(dir, base+".key")}
	for i, data := range [][]byte{cert, key} {
		if err := statefile.Write(files[i], data); err != nil {
			return nil, fmt.Errorf("export %s: %w", name, err)
		}
	}
	return files, nil
}
