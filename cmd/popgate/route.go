package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/directory"
	"github.com/popgate/popgate/auth/passwd"
	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/backend"
)

func routeCommand() *cobra.Command {
	var (
		file string
		from asClient
	)
	c := &cobra.Command{
		Use:   "route -c FILE USER",
		Short: "Say where a user goes, and why",
		Long: `route goes through the routes of a config file as a login of USER would, and prints which one matches and why,
the backend, its servers in the order they would be tried, and the name the backend is told. Its exit status is 1 when
nobody would take the user. It asks no mail server, but the directories of the routes that it comes to, as a login would; without
a password, so that one whose answer depends on it cannot answer.`,
		Example: `  popgate route -c popgate.yaml alice@example.org
  popgate route -c popgate.yaml alice --listener office --from 192.0.2.7 --sni mail.example.org`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := configs.Load(file, environ(true)) // serve may have been given the agreement
			if err != nil {
				return err
			}
			q, err := question(c, args[0], &from)
			if err != nil {
				return err
			}
			return explain(cmd.Context(), cmd.OutOrStdout(), c, q)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "config `file`")
	from.flags(c.Flags())
	_ = c.MarkFlagRequired("config") // it fails for flags that do not exist
	return c
}

// asClient is the client that a question about routes is asked for.
type asClient struct{ sni, from, listener string }

func (a *asClient) flags(f *pflag.FlagSet) {
	f.StringVar(&a.sni, "sni", "", "server `name` the client asks for")
	f.StringVar(&a.from, "from", "", "`address` the client comes from (default 127.0.0.1)")
	f.StringVar(&a.listener, "listener", "", "`name` of the listener the client comes to (default the first)")
}

// client makes the client, and finds its listener.
func (a *asClient) client(c *configs.Config) (proxy.ListenerConfig, *auth.Client, error) {
	lc, err := pickListener(c, a.listener)
	if err != nil {
		return lc, nil, err
	}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if a.from != "" {
		if addr, err = netip.ParseAddr(a.from); err != nil {
			return lc, nil, fmt.Errorf("--from %q: write an IP address, such as 192.0.2.7", a.from)
		}
	}
	sni, err := auth.Domain(a.sni)
	if err != nil {
		return lc, nil, fmt.Errorf("--sni %q: write a host name, such as mail.example.org", a.sni)
	}
	return lc, &auth.Client{Addr: netip.AddrPortFrom(addr.Unmap(), 0), Listener: lc.Name, TLS: &auth.TLS{ServerName: sni}}, nil
}

// question makes the router's query of what was given on the command line.
func question(c *configs.Config, user string, from *asClient) (auth.Query, error) {
	lc, client, err := from.client(c)
	if err != nil {
		return auth.Query{}, err
	}
	name, err := lc.NameRules().Parse([]byte(user))
	if err != nil {
		return auth.Query{}, fmt.Errorf("user %q: %w: blanks, control characters and %q are in no name", user, err, lc.Forbidden)
	}
	return auth.Query{Name: name, Client: client}, nil
}

func pickListener(c *configs.Config, name string) (proxy.ListenerConfig, error) {
	if name == "" {
		return c.Listeners[0], nil
	}
	names := make([]string, 0, len(c.Listeners))
	for _, l := range c.Listeners {
		if l.Name == name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return proxy.ListenerConfig{}, fmt.Errorf("--listener %q: there is none of that name; there are: %s", name, strings.Join(names, ", "))
}

// known is what routes may refer to.
func known(c *configs.Config, v *directory.View) route.Known {
	k := route.Known{
		Backends: make([]string, 0, len(c.Backends)),
		Directory: func(name string) route.Directory {
			if d := v.Directory(name); d != nil {
				return d
			}
			return nil
		},
	}
	for _, b := range c.Backends {
		k.Backends = append(k.Backends, b.Name)
	}
	return k
}

// directories are those of a configuration that no gateway runs with.
type directories struct {
	*directory.View
	keeper *directory.Keeper
}

func openDirectories(c *configs.Config) (d directories, err error) {
	d.keeper = directory.New(passwd.New(0), nil, nil)
	if d.View, err = d.keeper.Prepare(c.Directories); err != nil {
		d.close()
	}
	return d, err
}

// close ends what they hold.
func (d directories) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = d.keeper.Run(ctx) // an ended one: all it does is close
}

func (d directories) table(c *configs.Config) (*route.Table, error) {
	return route.New(c.Routes, known(c, d.View))
}

// openTable makes the table of a configuration, with its directories. close ends what they hold.
func openTable(c *configs.Config) (t *route.Table, close func(), err error) {
	d, err := openDirectories(c)
	if err != nil {
		return nil, nil, err
	}
	if t, err = d.table(c); err != nil {
		d.close()
		return nil, nil, err
	}
	return t, d.close, nil
}

// explain prints the way of q through the routes.
func explain(ctx context.Context, w io.Writer, c *configs.Config, q auth.Query) error {
	table, done, err := openTable(c)
	if err != nil {
		return err
	}
	defer done()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key, value string) { _, _ = fmt.Fprintf(t, "%s\t%s\n", key, value) } // Flush returns the error
	row("user", q.Name.Full())
	row("listener", q.Client.Listener)
	steps, answer, err := table.Explain(ctx, q)
	answer.Login.Secret.Wipe()
	for _, s := range steps {
		row(s.Label, verdict(s))
		for _, a := range s.Asked {
			row("  directory "+a.Directory, said(a))
		}
	}
	if err != nil {
		row("result", refusal(err))
		if err := t.Flush(); err != nil {
			return err
		}
		return errSaid
	}
	last := steps[len(steps)-1]
	row("backend", answer.Backend)
	if answer.Server.Address != "" {
		row("server", answer.Server.Address+" (named by directory "+answer.Directory+")")
	} else {
		row("servers", strings.Join(servers(c, answer.Backend, answer.Account), ", ")+" (in the order they are tried)")
	}
	row("is told", told(answer.Login))
	if last.Username == "" {
		row("", "(the directory names it)")
	}
	for _, r := range []struct{ key, value string }{{"tenant", answer.Tenant}, {"then", answer.Then}} {
		if r.value != "" {
			row(r.key, r.value)
		}
	}
	if answer.Then != "" {
		row("", "(tried where "+answer.Backend+" refuses the password: the user is moving)")
	}
	if answer.Disabled {
		row("result", "the account is disabled: whoever has the right password is told so")
	}
	return t.Flush()
}

// told says what the backend is told.
func told(l auth.BackendLogin) string {
	if l.Method == auth.MethodPlain {
		return fmt.Sprintf("AUTH PLAIN for %s as master user %s", l.Authzid, l.User)
	}
	return "USER " + l.User
}

// said says what a directory answered, without what is secret in it.
func said(a route.Asked) string {
	how := string(a.How)
	if a.How != directory.Fresh {
		how += ", " + a.Age.Round(time.Second).String() + " old"
	}
	switch {
	case errors.Is(a.Err, auth.ErrUnknownUser):
		return "does not know the user (" + how + ")"
	case a.Err != nil:
		return a.Err.Error()
	}
	var parts []string
	for _, p := range []struct{ key, value string }{
		{"backend", a.Answer.Backend}, {"server", a.Answer.Server}, {"tls", a.Answer.TLS}, {"user", a.Answer.User},
		{"master", a.Answer.Master}, {"tenant", a.Answer.Tenant},
	} {
		if p.value != "" {
			parts = append(parts, p.key+" "+p.value)
		}
	}
	for _, p := range []struct {
		key string
		is  bool
	}{{"has a password hash", a.Answer.Hash != ""}, {"disabled", a.Answer.Disabled}, {"moving", a.Answer.Moving}} {
		if p.is {
			parts = append(parts, p.key)
		}
	}
	if len(parts) == 0 {
		parts = []string{"nothing more"}
	}
	return "knows the user: " + strings.Join(parts, ", ") + " (" + how + ")"
}

// refusal says what a client hears for want of a route.
func refusal(err error) string {
	switch {
	case errors.Is(err, auth.ErrUnknownUser):
		return "nobody takes the user: the client hears the same as for a wrong password"
	case errors.Is(err, auth.ErrDirectoryDown):
		return "nobody knows where the user goes: the client is told to try later ([SYS/TEMP]): " + err.Error()
	}
	return "the client hears the same as for a wrong password: " + err.Error()
}

// servers lists the servers of the backend called name as they would be tried for account.
func servers(c *configs.Config, name, account string) []string {
	for _, b := range c.Backends {
		if b.Name == name {
			return backend.Order(b, account)
		}
	}
	return nil // configs.Load has made sure that routes lead to backends
}

func verdict(s route.Step) string {
	switch {
	case s.Matches && s.Unknown:
		return "matches, and no directory of it knows the user: on to the next route"
	case s.Matches && s.Condition != "":
		return fmt.Sprintf("matches, but its %s cannot be made: wants %s, got %s", s.Condition, s.Want, s.Got)
	case s.Matches && s.Backend == "":
		return "matches"
	case s.Matches:
		return "matches: to backend " + s.Backend
	}
	return fmt.Sprintf("no: %s wants %s, got %s", s.Condition, s.Want, s.Got)
}
