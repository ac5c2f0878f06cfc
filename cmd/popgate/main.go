// Command popgate is a gateway in front of POP3 servers: it speaks TLS with mail clients, finds out where each user's
// mailbox is, logs in there, carries the mail, and keeps a record of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	_ "time/tzdata" // hours of access rules name time zones, and a small container has none

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/configs"
)

// version is set by the build (-ldflags "-X main.version=v1.2.3").
var version = ""

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// errSaid is an error whose message has been written already.
var errSaid = errors.New("said already")

// run carries out one command line, without the program's name, and returns the exit status: 0, or 1 when it could
// not be done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "popgate COMMAND",
		Short: "A TLS gateway in front of POP3 servers",
		Long: `popgate stands in front of POP3 servers. Mail clients connect to it with TLS; it finds out where each
user's mailbox is, logs in there, usually in plaintext, and carries the mail.`,
		Example: `  popgate demo                                   try it: a small POP3 server and the gateway in front of it
  popgate serve --to 10.0.0.5:110                TLS in front of one server, without a config file
  popgate serve -c /etc/popgate/popgate.yaml     with one
  popgate check -c popgate.yaml                  find every fault in it
  popgate doctor -c popgate.yaml                 find out what the mail servers behind it can do
  popgate route -c popgate.yaml alice@example.org`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), checkCommand(), routeCommand(), compareCommand(), importCommand(), certsCommand(), backendsCommand(), topCommand(), lockoutsCommand(), legacyReportCommand(), doctorCommand(), demoCommand(), versionCommand())
	begun := false
	onBegin(root, func() { begun = true })
	c, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errSaid):
		sayError(stderr, err)
	}
	if !begun {
		_, _ = fmt.Fprintf(stderr, "usage: %s; more: %s --help\n", c.UseLine(), c.CommandPath()) // as in sayError
	}
	return 1
}

// onBegin has f called when c, or a command below it, begins its work: what fails before that is how it was called.
func onBegin(c *cobra.Command, f func()) {
	if work := c.RunE; work != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			f()
			return work(cmd, args)
		}
	}
	for _, sub := range c.Commands() {
		onBegin(sub, f)
	}
}

// sayError writes an error for people: each fault of a configuration has a line of its own.
func sayError(w io.Writer, err error) {
	var faults configs.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			_, _ = fmt.Fprintln(w, f.Error()) // there is nowhere to say that stderr is gone
		}
		return
	}
	_, _ = fmt.Fprintln(w, "popgate:", err)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "popgate", versionText())
			return err
		},
	}
}

// versionText is the version this program was built as, with the compiler's.
func versionText() string {
	v, goVersion := version, ""
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		if v == "" {
			v = info.Main.Version
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v + " " + goVersion
}
