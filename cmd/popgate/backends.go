package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/proxy/admin"
)

func backendsCommand() *cobra.Command {
	var (
		from   running
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "backends",
		Short: "List backends and their servers, take them out of service",
		Long: `backends asks the running gateway, through its socket (admin.socket), for its backends: which servers are up, how many
sessions they hold, who waits, and what went wrong last.

STATE is up, starting (back or new, with a part of its share: slow_start), down (not reached), failing (it greets, and then
fails logins), banned (it refuses passwords that it took before) and drained (no new logins). Below the table is what
changed about the servers themselves within a week, by what they say to checks: an upgrade, mostly.`,
		Example: `  popgate backends
  popgate backends drain old/10.0.0.5:110      no new logins there; sessions go on until they end
  popgate backends undrain old/10.0.0.5:110
  popgate backends --json | jq '.[].servers[] | select(.up | not) | .address'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := from.dial(cmd.Context())
			if err != nil {
				return err
			}
			list, err := client.Backends(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return backendsTable(cmd.OutOrStdout(), list)
		},
	}
	from.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	c.AddCommand(drainCommand(&from, "drain", "Let nobody log in at a backend or a server any more",
		`drain takes a backend, or one server of it, out of service: it gets no new logins, and sessions go on until they end.
It stays so over reloads, until undrain or a restart; for longer than that write drain: true into the config file.`, "drained", true))
	c.AddCommand(drainCommand(&from, "undrain", "Put a backend or a server back into service",
		`undrain ends what drain began. What the config file drains stays drained.`, "back in service", false))
	return c
}

func drainCommand(from *running, use, short, long, done string, drained bool) *cobra.Command {
	return &cobra.Command{
		Use:   use + " NAME[/SERVER]",
		Short: short,
		Long:  long,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := from.dial(cmd.Context())
			if err != nil {
				return err
			}
			if err := client.Drain(cmd.Context(), args[0], drained); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", plain(args[0]), done)
			return err
		},
	}
}

// backendsTable prints a line for each server.
func backendsTable(w io.Writer, list []admin.Backend) error {
	row, flush := columns(w)
	row("BACKEND", "SERVER", "STATE", "WEIGHT", "SESSIONS", "QUEUE", "PACE", "ADDRESSES", "LAST ERROR")
	for _, b := range list {
		for _, s := range b.Servers {
			row(plain(b.Name), serverName(s), serverState(s), strconv.Itoa(s.Weight), outOf(s.Sessions, s.MaxSessions),
				strconv.Itoa(s.Queued), pace(s), addressesOf(s), lastErrorOf(s))
		}
		if len(b.Servers) == 0 {
			row(plain(b.Name), "(named by a directory; none yet)", "-", "-", "-", "-", "-", "-", "-")
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return changesOf(w, list, time.Now())
}

// changesOf prints what changed about servers in the last days.
func changesOf(w io.Writer, list []admin.Backend, now time.Time) error {
	const days = 7
	var b strings.Builder
	for _, one := range list {
		for _, s := range one.Servers {
			for _, c := range s.Changes {
				if now.Sub(c.At) < days*24*time.Hour {
					fmt.Fprintf(&b, "%s  %s/%s changed: %s\n", moment(c.At), plain(one.Name), plain(s.Address), plain(c.String()))
				}
			}
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(w, "\n"+b.String())
	return err
}

func serverName(s admin.Server) string {
	if s.Directory {
		return plain(s.Address) + " (directory)"
	}
	return plain(s.Address)
}

func serverState(s admin.Server) string {
	if s.Drained && s.State == "up" {
		return "drained"
	}
	if s.Drained {
		return s.State + ", drained"
	}
	return s.State
}

func outOf(n, most int) string {
	if most == 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d/%d", n, most)
}

// pace is how many logins a second there may be, and how long the last one in line still waits.
func pace(s admin.Server) string {
	switch {
	case s.LoginsPerSecond == 0:
		return "-"
	case s.AheadMS > 0:
		return fmt.Sprintf("%d/s (%.1fs behind)", s.LoginsPerSecond, float64(s.AheadMS)/1000)
	}
	return fmt.Sprintf("%d/s", s.LoginsPerSecond)
}

func addressesOf(s admin.Server) string {
	if len(s.Addresses) == 0 && s.LookupError == "" {
		return "-"
	}
	var all []string
	for _, ip := range s.Addresses {
		all = append(all, ip.String())
	}
	if s.LookupError != "" {
		all = append(all, "(old: "+plain(s.LookupError)+")")
	}
	return strings.Join(all, " ")
}

func lastErrorOf(s admin.Server) string {
	if s.LastError == "" {
		return "-"
	}
	return moment(s.LastErrorAt) + ": " + plain(s.LastError)
}
