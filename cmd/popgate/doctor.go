package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy/backend"
)

// A consultation is one call of the doctor.
type consultation struct {
	file, wrongAs, user, passwordFile string
	timeout                           time.Duration
	asJSON                            bool
}

func doctorCommand() *cobra.Command {
	var d consultation
	c := &cobra.Command{
		Use:   "doctor [BACKEND[/SERVER]]",
		Short: "Find out what the backends' servers can do, what is odd, and the config lines to use",
		Long: `doctor talks to each server of the backends in a config file, one after the other: greeting, capabilities, TLS and its
certificate, pipelining, whether it takes passwords in clear, XCLIENT and PROXY headers. It prints what it found, marks what is
odd (?) and what keeps users from their mail, or will (!), and the lines to write for the backend where they differ from the
file's. Its exit status is 1 where there is a "!".

It makes no login and sends no password, unless --wrong-as or --login says so. Run it where popgate runs: servers treat others otherwise.
A server's log will have some connections that break off, and a few commands that it does not know.`,
		Example: `  popgate doctor -c /etc/popgate/popgate.yaml
  popgate doctor -c popgate.yaml old
  popgate doctor -c popgate.yaml old --wrong-as probe@example.org   one wrong password: how long does it take?
  popgate doctor -c popgate.yaml old --login probe@example.org --password-file probe.password
  popgate doctor -c popgate.yaml --json | jq '.[].findings[] | select(.level == "bad")'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return d.run(cmd, strings.Join(args, ""))
		},
	}
	f := c.Flags()
	f.StringVarP(&d.file, "config", "c", "", "config `file`")
	f.StringVar(&d.wrongAs, "wrong-as", "", "`account` to try one wrong password with at each server, to see how long it takes to be refused")
	f.StringVar(&d.user, "login", "", "`account` to log in as at each server, to try what clients do first")
	f.StringVar(&d.passwordFile, "password-file", "", "`file` with that account's password in its first line")
	f.DurationVar(&d.timeout, "timeout", 5*time.Second, "how long to wait for each answer")
	f.BoolVar(&d.asJSON, "json", false, "print JSON, for programs")
	_ = c.MarkFlagRequired("config") // it fails for flags that do not exist
	c.MarkFlagsRequiredTogether("login", "password-file")
	return c
}

func (d *consultation) run(cmd *cobra.Command, which string) error {
	if d.timeout <= 0 || d.timeout > 30*time.Second {
		return fmt.Errorf("--timeout %v: write more than 0 and at most 30s", d.timeout)
	}
	c, err := configs.Load(d.file, environ(true))
	if err != nil {
		return err
	}
	patients, err := patientsOf(c, which)
	if err != nil {
		return err
	}
	o := backend.DoctorOptions{Timeout: d.timeout, WrongAs: d.wrongAs}
	if d.user != "" {
		secret, err := passwordIn(d.passwordFile)
		if err != nil {
			return err
		}
		defer secret.Wipe()
		o.Login = &auth.BackendLogin{User: d.user, Secret: secret}
	}
	if strings.ContainsAny(d.wrongAs+d.user, "\r\n\x00") {
		return errors.New("--wrong-as, --login: an account has no CR, LF or NUL")
	}
	exams, err := d.examine(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), patients, o)
	if err != nil {
		return err
	}
	if d.asJSON {
		if err := printJSON(cmd.OutOrStdout(), exams); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(exams, func(e *backend.Exam) bool { return e.Worst() == backend.LevelBad }) {
		return errSaid
	}
	return nil
}

// A patient is a server to examine, of a backend of which nobody else makes use.
type patient struct {
	pool   *backend.Pool
	server string
}

// patientsOf are the servers of all backends, of the one called which, or the one server "backend/server".
func patientsOf(c *configs.Config, which string) ([]patient, error) {
	view, err := backend.New(nil, nil).Prepare(c.Backends)
	if err != nil {
		return nil, err
	}
	name, server, one := strings.Cut(which, "/")
	var all []patient
	var names []string
	for _, b := range c.Backends {
		names = append(names, b.Name)
		if which != "" && b.Name != name && b.Name != which {
			continue
		}
		pool := view.Pool(b.Name)
		if one && b.Name != which {
			return []patient{{pool, server}}, nil
		}
		for _, s := range pool.Servers() {
			all = append(all, patient{pool, s})
		}
		if which != "" && len(all) == 0 {
			return nil, fmt.Errorf("backend %s has no servers of its own; write %s/HOST:PORT for one that a directory names", plain(b.Name), plain(b.Name))
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case which == "":
		return nil, errors.New("no backend in the config file has servers of its own; write BACKEND/HOST:PORT for one that a directory names")
	}
	return nil, fmt.Errorf("there is no backend %s; there are: %s", plain(which), plain(strings.Join(names, ", ")))
}

func passwordIn(file string) (*auth.Secret, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--password-file: %w", err)
	}
	defer clear(text)
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if len(line) == 0 {
		return nil, fmt.Errorf("--password-file %s: its first line is empty", file)
	}
	return auth.NewSecret(line), nil
}

// examine examines all, and prints each when it is done, and the lines to write behind the last of a backend.
func (d *consultation) examine(ctx context.Context, stdout, stderr io.Writer, patients []patient, o backend.DoctorOptions) ([]*backend.Exam, error) {
	terminal := isTerminal(stderr)
	exams, from := []*backend.Exam{}, 0
	for i, p := range patients {
		if o.WrongAs != "" {
			_, _ = fmt.Fprintf(stderr, "%s: one login as %s with a wrong password will be made\n", plain(p.server), plain(o.WrongAs))
		}
		if terminal {
			o.Progress = func(what string) { _, _ = fmt.Fprintf(stderr, "\r%s: %s …\x1b[K", plain(p.server), what) }
		}
		e, err := p.pool.Examine(ctx, p.server, &o)
		if terminal {
			_, _ = fmt.Fprint(stderr, "\r\x1b[K")
		}
		if err != nil {
			return nil, err
		}
		exams = append(exams, e)
		if d.asJSON {
			continue
		}
		if err := examTable(stdout, e, len(exams) > 1); err != nil {
			return nil, err
		}
		if i+1 == len(patients) || patients[i+1].pool != p.pool {
			if err := changesText(stdout, exams[from:]); err != nil {
				return nil, err
			}
			from = len(exams)
		}
	}
	return exams, ctx.Err()
}

const doctorWidth = 118 // of a line, where words allow it

// examTable prints what was found of one server, a line each, and below it what is odd about it.
func examTable(w io.Writer, e *backend.Exam, apart bool) error {
	var b strings.Builder
	if apart {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s  %s\n", plain(e.Backend), plain(e.Server))
	wide := 0
	for _, f := range e.Findings {
		wide = max(wide, len(f.Item))
	}
	indent := strings.Repeat(" ", 4+wide+2)
	for _, f := range e.Findings {
		mark := [...]string{" ", "?", "!"}[f.Level]
		found := wrap(f.Found, indent)
		fmt.Fprintf(&b, "  %s %-*s  %s\n", mark, wide, f.Item, found)
		if f.Why != "" {
			fmt.Fprintf(&b, "%s-> %s\n", indent, wrap(f.Why, indent+"   "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks text into lines that begin behind indent. Blanks that come together stay so within a line.
func wrap(text, indent string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	var b strings.Builder
	at := len(indent)
	for i, word := range strings.Split(text, " ") {
		word = plain(word)
		switch {
		case i > 0 && at+1+len(word) > doctorWidth && word != "":
			b.WriteString("\n" + indent)
			at = len(indent)
		case i > 0:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}

// changesText prints the lines to write for one backend.
func changesText(w io.Writer, exams []*backend.Exam) error {
	var b strings.Builder
	name := plain(exams[0].Backend)
	order, keys, greeted := advised(exams)
	switch {
	case greeted == 0:
		fmt.Fprintf(&b, "\n  Nothing can be said about what to write for backend %s.\n", name)
	case len(order) == 0:
		fmt.Fprintf(&b, "\n  Nothing to change for backend %s in the config file.\n", name)
	default:
		fmt.Fprintf(&b, "\n  Lines to write for this backend:\n\n  backends:\n    - name: %s\n", name)
	}
	for _, key := range order {
		for i, c := range keys[key] {
			about := ""
			if len(c.servers) < greeted { // not all are alike
				about = strings.Join(c.servers, ", ") + ": "
			}
			fmt.Fprintf(&b, "      # %s\n", wrap(about+c.Reason, "      # "))
			comment := ""
			if i > 0 {
				comment = "# or, for these servers in a backend of their own: "
			}
			fmt.Fprintf(&b, "      %s%s: %s\n", comment, c.Key, c.Value)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// An advice is a line to write, and for which servers.
type advice struct {
	backend.Change
	servers []string
}

// advised puts together what the servers of one backend want: the keys in order, the values of each, and how many servers
// have said something.
func advised(exams []*backend.Exam) (order []string, keys map[string][]*advice, greeted int) {
	keys = map[string][]*advice{}
	for _, e := range exams {
		if e.Facts.Greeting.Text != "" {
			greeted++
		}
		for _, c := range e.Changes {
			if keys[c.Key] == nil {
				order = append(order, c.Key)
			}
			i := slices.IndexFunc(keys[c.Key], func(o *advice) bool { return o.Value == c.Value })
			switch {
			case i >= 0:
			case c.Key == "tls_pin_sha256" && len(keys[c.Key]) > 0: // one list has the keys of all
				i = 0
				one := keys[c.Key][0]
				if pin := strings.Trim(c.Value, "[]"); !strings.Contains(one.Value, pin) {
					one.Value = strings.TrimSuffix(one.Value, "]") + ", " + pin + "]"
				}
			default:
				i = len(keys[c.Key])
				keys[c.Key] = append(keys[c.Key], &advice{Change: c})
			}
			one := keys[c.Key][i]
			one.servers = append(one.servers, plain(e.Server))
		}
	}
	return order, keys, greeted
}
