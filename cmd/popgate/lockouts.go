package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/policy/lockout"
)

func lockoutsCommand() *cobra.Command {
	var (
		from   running
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "lockouts",
		Short: "List who is locked out after too many failed logins, lock out and let in",
		Long: `lockouts asks the running gateway, through its socket (admin.socket), who is locked out: client networks, and single users
from a client network. Their logins are answered as one with a wrong password is, whatever the password.

CAUSE is user_failures or network_failures (too many failed logins), many_users or one_password (password spraying) and manual
(popgate lockouts add). TIMES is how often in a row, this one counted: each lockout is twice as long as the one before. A USER
that is - is everybody in that network, but for those who have logged in from there before. After a restart users are known by
a key alone, such as #0123456789abcdef, which remove takes as well. Nodes of a cluster share their lockouts.`,
		Example: `  popgate lockouts
  popgate lockouts add 192.0.2.7 --for 1h                              nobody new logs in from there
  popgate lockouts add 2001:db8:1:2::/64 --user anna@example.org --for 24h
  popgate lockouts remove 192.0.2.7 --user anna@example.org
  popgate lockouts --json | jq '.[] | select(.cause != "manual") | .network'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := from.dial(cmd.Context())
			if err != nil {
				return err
			}
			list, err := client.Lockouts(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return lockoutsTable(cmd.OutOrStdout(), list, time.Now())
		},
	}
	from.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	c.AddCommand(lockoutsAddCommand(&from), lockoutsRemoveCommand(&from))
	return c
}

func lockoutsAddCommand(from *running) *cobra.Command {
	var (
		user   string
		length time.Duration
	)
	c := &cobra.Command{
		Use:   "add NETWORK --for TIME",
		Short: "Lock out a client network, or one user from it",
		Long: `add locks out a client network: the address of an IPv4 client, the /64 of an IPv6 client or its /48. Those who have logged in
from there before go on; with --user it is that one user who is locked out there, known or not. A lockout that is in force is
replaced. It lasts over restarts until its time is over. What shall stay out for good, and networks that are wider, belong into
access rules of the config file.`,
		Example: `  popgate lockouts add 192.0.2.7 --for 1h
  popgate lockouts add 192.0.2.7 --user anna@example.org --for 30m`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 {
				return fmt.Errorf("lock out %s: for how long? write such as --for 1h", plain(args[0]))
			}
			client, err := from.dial(cmd.Context())
			if err != nil {
				return err
			}
			if err := client.LockOut(cmd.Context(), args[0], user, length); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: locked out for %s\n", subjectText(args[0], user), length)
			return err
		},
	}
	c.Flags().StringVar(&user, "user", "", "lock out this `user` alone, such as anna@example.org")
	c.Flags().DurationVar(&length, "for", 0, "how long, such as 30m or 24h")
	return c
}

func lockoutsRemoveCommand(from *running) *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "remove NETWORK",
		Short: "Let a client network, or one user from it, log in again",
		Long: `remove ends a lockout, whoever began it, and forgets the failed logins that led to it. A user's lockout is not the network's:
popgate lockouts lists both, and each is removed by itself.`,
		Example: `  popgate lockouts remove 192.0.2.7
  popgate lockouts remove 192.0.2.7 --user anna@example.org`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := from.dial(cmd.Context())
			if err != nil {
				return err
			}
			if err := client.EndLockout(cmd.Context(), args[0], user); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: may log in again\n", subjectText(args[0], user))
			return err
		},
	}
	c.Flags().StringVar(&user, "user", "", "the `user` who is locked out, or the #key that stands for it")
	return c
}

func subjectText(network, user string) string {
	if user == "" {
		return plain(network)
	}
	return plain(user) + " from " + plain(network)
}

// lockoutsTable prints a line for each lockout.
func lockoutsTable(w io.Writer, list []lockout.Lockout, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "nobody is locked out")
		return err
	}
	row, flush := columns(w)
	row("NETWORK", "USER", "CAUSE", "FAILURES", "SINCE", "LEFT", "TIMES")
	for _, l := range list {
		row(networkText(l.Network), lockedUser(&l), string(l.Cause), strconv.Itoa(l.Failures), moment(l.Since),
			max(l.Until.Sub(now), 0).Round(time.Second).String(), strconv.Itoa(l.Times))
	}
	return flush()
}

func lockedUser(l *lockout.Lockout) string {
	switch {
	case l.User == 0:
		return "-"
	case l.Name == "":
		return "#" + l.User.String()
	}
	return plain(l.Name)
}
