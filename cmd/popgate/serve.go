package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/configs"
)

func serveCommand() *cobra.Command {
	var (
		file  string
		flags configs.Flags
	)
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `serve runs the gateway until SIGTERM or SIGINT; a second one ends it at once. SIGHUP reads the config file
and the certificates again and reopens the audit file.`,
		Example: `  popgate serve --to 10.0.0.5:110 --domain mail.example.org
  popgate serve --to 10.0.0.5 --to 10.0.0.6 --listen 127.0.0.1:1995
  popgate serve --to 10.0.0.5 --acme-domain mail.example.org --acme-email postmaster@example.org --acme-agree
  popgate serve -c /etc/popgate/popgate.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load, err := loader(file, flags)
			if err != nil {
				return err
			}
			// Without this, a closed reader of the audit on standard output would end the gateway.
			signal.Ignore(syscall.SIGPIPE)
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
			defer signal.Stop(signals)
			g, err := newGateway(load, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return g.run(cmd.Context(), signals)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "config `file`")
	c.Flags().StringArrayVar(&flags.To, "to", nil, "POP3 server to go to, `HOST[:PORT]`; may be given several times")
	c.Flags().StringVar(&flags.Domain, "domain", "", "`name` that mail clients know this gateway by, for its certificate")
	c.Flags().StringVar(&flags.Listen, "listen", "", "`address` to listen on (default :995)")
	c.Flags().StringArrayVar(&flags.ACMEDomains, "acme-domain", nil,
		"`name` to obtain a certificate for, from Let's Encrypt; may be given several times")
	c.Flags().StringVar(&flags.ACMEEmail, "acme-email", "", "`address` where Let's Encrypt may write to")
	agreeFlag(c, &flags.ACMEAgree)
	return c
}

// agreeFlag adds the flag that stands for tls.acme.agree, beside a file too.
func agreeFlag(c *cobra.Command, agree *bool) {
	c.Flags().BoolVar(agree, "acme-agree", false,
		"agree to the terms of service of the certificate issuers (Let's Encrypt: https://letsencrypt.org/repository/)")
}

// environ is the environment that a file is read with.
func environ(agree bool) []string {
	if agree {
		return configs.Agreed(os.Environ())
	}
	return os.Environ()
}

// loader says where the configuration comes from, at start and at each reload.
func loader(file string, flags configs.Flags) (func() (*configs.Config, error), error) {
	given := len(flags.To) > 0 || flags.Domain != "" || flags.Listen != "" || len(flags.ACMEDomains) > 0 || flags.ACMEEmail != ""
	switch {
	case file != "" && given:
		return nil, errors.New("--config is given together with --to, --domain, --listen, --acme-domain or --acme-email: write them into the file, or leave the file out")
	case file != "":
		return func() (*configs.Config, error) { return configs.Load(file, environ(flags.ACMEAgree)) }, nil
	case len(flags.To) > 0:
		return func() (*configs.Config, error) { return configs.FromFlags(flags, os.Environ()) }, nil
	}
	return nil, errors.New("nothing says where to go: give --to HOST:PORT for one server, or --config FILE (popgate help serve has examples)")
}

// newLogger makes the gateway's log; its level can be changed by a reload.
func newLogger(c configs.Log, level *slog.LevelVar, w interface{ Write([]byte) (int, error) }) *slog.Logger {
	level.Set(c.Slog())
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// problems writes each warning of a configuration into the log.
func problems(log *slog.Logger, warnings []string) {
	for _, w := range warnings {
		log.Warn(fmt.Sprint("config: ", w))
	}
}
