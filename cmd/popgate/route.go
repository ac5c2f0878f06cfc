package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/backend"
)

func routeCommand() *cobra.Command {
	var file, sni, from, listener string
	c := &cobra.Command{
		Use:   "route USER",
		Short: "Say where a user goes, and why",
		Long: `route goes through the routes of a config file as a login of USER would, and prints which one matches and why,
the backend, its servers in the order they would be tried, and the name the backend is told. Its exit status is 1 when
nobody would take the user. It asks no server.`,
		Example: `  popgate route -c popgate.yaml alice@example.org
  popgate route -c popgate.yaml alice --listener office --from 192.0.2.7 --sni mail.example.org`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := configs.Load(file, environ(true)) // serve may have been given the agreement
			if err != nil {
				return err
			}
			q, err := question(c, args[0], listener, sni, from)
			if err != nil {
				return err
			}
			return explain(cmd.OutOrStdout(), c, q)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "config `file`")
	c.Flags().StringVar(&sni, "sni", "", "server `name` the client asks for")
	c.Flags().StringVar(&from, "from", "", "`address` the client comes from (default 127.0.0.1)")
	c.Flags().StringVar(&listener, "listener", "", "`name` of the listener the client comes to (default the first)")
	_ = c.MarkFlagRequired("config") // it fails for flags that do not exist
	return c
}

// question makes the router's query of what was given on the command line.
func question(c *configs.Config, user, listener, sni, from string) (auth.Query, error) {
	lc, err := pickListener(c, listener)
	if err != nil {
		return auth.Query{}, err
	}
	name, err := lc.NameRules().Parse([]byte(user))
	if err != nil {
		return auth.Query{}, fmt.Errorf("user %q: %w: blanks, control characters and %q are in no name", user, err, lc.Forbidden)
	}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if from != "" {
		if addr, err = netip.ParseAddr(from); err != nil {
			return auth.Query{}, fmt.Errorf("--from %q: write an IP address, such as 192.0.2.7", from)
		}
	}
	client := &auth.Client{Addr: netip.AddrPortFrom(addr.Unmap(), 0), Listener: lc.Name}
	if sni, err = auth.Domain(sni); err != nil {
		return auth.Query{}, fmt.Errorf("--sni: %w", err)
	}
	client.TLS = &auth.TLS{ServerName: sni}
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

// explain prints the way of q through the routes.
func explain(w io.Writer, c *configs.Config, q auth.Query) error {
	table, err := route.New(c.Routes)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key, value string) { _, _ = fmt.Fprintf(t, "%s\t%s\n", key, value) } // Flush returns the error
	row("user", q.Name.Full())
	row("listener", q.Client.Listener)
	for _, s := range table.Explain(q) {
		row(s.Label, verdict(s))
	}
	answer, err := table.Route(nil, q) //nolint:staticcheck // the table asks nobody, so there is nothing to cancel
	if err != nil {
		row("result", "nobody takes the user: the client hears the same as for a wrong password")
		if err := t.Flush(); err != nil {
			return err
		}
		return errSaid
	}
	row("backend", answer.Backend)
	row("servers", strings.Join(servers(c, answer.Backend, answer.Account), ", ")+" (in the order they are tried)")
	row("is told", "USER "+answer.Login.User)
	if answer.Tenant != "" {
		row("tenant", answer.Tenant)
	}
	return t.Flush()
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
	case s.Matches && s.Condition == "":
		return "matches: to backend " + s.Backend
	case s.Matches:
		return fmt.Sprintf("matches, but its %s cannot be made: wants %s, got %s", s.Condition, s.Want, s.Got)
	}
	return fmt.Sprintf("no: %s wants %s, got %s", s.Condition, s.Want, s.Got)
}
