package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/policy/legacy"
)

// legacyReport is what the command was asked for.
type legacyReport struct {
	from          running
	tenant        string
	days          int
	asJSON, asCSV bool
}

func legacyReportCommand() *cobra.Command {
	var r legacyReport
	c := &cobra.Command{
		Use:   "legacy-report",
		Short: "Say who still logs in without TLS, or with TLS 1.0 or 1.1",
		Long: `legacy-report asks the running gateway, through its socket (admin.socket), who has logged in by the legacy lane in the last 180 days:
at a listener with legacy: true, without TLS or with TLS 1.0 or 1.1. There is a line for each user, network, TLS version and
listener, the latest first; at most 8 for a user.

LAST DAY is the last one on which the lane is open to the user (tls.legacy_until of an access rule), as the config had it when
the user last came. LOGINS are those that succeeded.`,
		Example: `  popgate legacy-report
  popgate legacy-report --tenant acme --days 30
  popgate legacy-report --csv >legacy.csv
  popgate legacy-report --json | jq -r '.[].user' | sort -u           whom to write to`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.days < 0 {
				return fmt.Errorf("--days %d: write how many, such as 30", r.days)
			}
			client, err := r.from.dial(cmd.Context())
			if err != nil {
				return err
			}
			uses, err := client.Legacy(cmd.Context())
			if err != nil {
				return err
			}
			return r.print(cmd.OutOrStdout(), uses, time.Now())
		},
	}
	r.from.flags(c)
	flags := c.Flags()
	flags.StringVar(&r.tenant, "tenant", "", "users of this `tenant` alone")
	flags.IntVar(&r.days, "days", 0, "only who came in the last so many `days`")
	flags.BoolVar(&r.asJSON, "json", false, "print JSON, for programs")
	flags.BoolVar(&r.asCSV, "csv", false, "print CSV, for spreadsheets")
	c.MarkFlagsMutuallyExclusive("json", "csv")
	return c
}

func (r *legacyReport) print(w io.Writer, uses []legacy.Use, now time.Time) error {
	uses = slices.DeleteFunc(uses, func(u legacy.Use) bool {
		return r.tenant != "" && u.Tenant != r.tenant || r.days > 0 && u.Last.Before(now.AddDate(0, 0, -r.days))
	})
	switch {
	case r.asJSON:
		return printJSON(w, uses)
	case r.asCSV:
		return legacyCSV(w, uses)
	}
	return legacyTable(w, uses)
}

func legacyTable(w io.Writer, uses []legacy.Use) error {
	if len(uses) == 0 {
		_, err := fmt.Fprintln(w, "nobody has used the legacy lane")
		return err
	}
	row, flush := columns(w)
	row("USER", "TENANT", "NETWORK", "TLS", "LISTENER", "LOGINS", "LAST", "LAST DAY")
	users := map[string]bool{}
	for _, u := range uses {
		users[u.User] = true
		row(plain(u.User), orDash(plain(u.Tenant)), networkText(u.Network), plain(u.Version), plain(u.Listener),
			strconv.FormatInt(u.Count, 10), moment(u.Last), orDash(lastDay(u.Until)))
	}
	if err := flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d users\n", len(users))
	return err
}

// lastDay is the day that ends at until.
func lastDay(until time.Time) string {
	if until.IsZero() {
		return ""
	}
	return until.Add(-time.Nanosecond).Format(time.DateOnly)
}

// legacyCSV prints times so that programs read them, and no cell that a spreadsheet would take for a formula.
func legacyCSV(w io.Writer, uses []legacy.Use) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"user", "tenant", "network", "tls", "listener", "logins", "first", "last", "last_day"}) // Flush keeps the error
	for _, u := range uses {
		cells := []string{u.User, u.Tenant, networkText(u.Network), u.Version, u.Listener, strconv.FormatInt(u.Count, 10),
			u.First.UTC().Format(time.RFC3339), u.Last.UTC().Format(time.RFC3339), lastDay(u.Until)}
		for i, cell := range cells {
			if strings.IndexAny(cell, "=+-@\t\r") == 0 {
				cells[i] = "'" + cell
			}
		}
		_ = c.Write(cells)
	}
	c.Flush()
	return c.Error()
}
