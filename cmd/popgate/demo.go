package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy/pop3mem"
)

func demoCommand() *cobra.Command {
	var listen, metrics string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try popgate: a small POP3 server and the gateway in front of it",
		Long: `demo starts a small plaintext POP3 server with two mailboxes in two domains, and the gateway in front of it, and
prints commands that fetch the mail. All of it stays on this machine, and nothing is left when it ends (Ctrl-C).`,
		Example: `  popgate demo
  popgate demo --listen 127.0.0.1:1995`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
			defer signal.Stop(signals)
			return demo(cmd.Context(), listen, metrics, cmd.OutOrStdout(), cmd.ErrOrStderr(), signals)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:10995", "`address` for mail clients")
	c.Flags().StringVar(&metrics, "metrics", "127.0.0.1:10996", "`address` for metrics and health")
	return c
}

// demoConfig is the demo's config file, which it prints the place of: a start for one's own.
const demoConfig = `# The configuration of popgate demo.
state_dir: "{{.Dir}}"
listeners:
  - {name: pop3s, address: "{{.Listen}}", default_name: localhost}
backends:
  - {name: old, servers: [{address: "{{.Server}}"}]}
routes:
  - {domains: [example.org], backend: old, tenant: one}
  - {domains: [example.net], backend: old, tenant: two, username: "{local}-{domain}"}
audit: {path: "{{.Dir}}/audit.jsonl"}
metrics: {address: "{{.Metrics}}"}
admin: {socket: "{{.Dir}}/popgate.sock"}
log: {level: error}
`

const demoText = `popgate demo: a POP3 server in clear on {{.Server}}, and popgate with TLS in front of it on {{.Listen}}.
Two mailboxes in two domains: alice@example.org and bob@example.net, password "open sesame".

List the mail, then fetch the first message:
  curl --cacert {{.Dir}}/local-ca.crt --user 'alice@example.org:open sesame' pop3s://localhost:{{.Port}}/
  curl --cacert {{.Dir}}/local-ca.crt --user 'bob@example.net:open sesame' pop3s://localhost:{{.Port}}/1

Talk POP3 by hand (USER alice@example.org, PASS open sesame, LIST, RETR 1, QUIT):
  openssl s_client -quiet -crlf -CAfile {{.Dir}}/local-ca.crt -connect localhost:{{.Port}}

See what it did:
  cat {{.Dir}}/audit.jsonl
  curl http://{{.Metrics}}/metrics
  curl http://{{.Metrics}}/readyz

Its config file, a start for your own:
  {{.Dir}}/popgate.yaml

Ctrl-C ends it.
`

// demo runs the demonstration until a signal or the end of ctx.
func demo(ctx context.Context, listen, metrics string, stdout, stderr io.Writer, signals <-chan os.Signal) (err error) {
	dir, err := os.MkdirTemp("", "popgate-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	server := pop3mem.New(pop3mem.Options{})
	const password = "open sesame"
	server.Add("alice@example.org", password, pop3mem.Welcome("alice@example.org")...)
	server.Add("bob-example.net", password, pop3mem.Welcome("bob@example.net")...)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start the demo's POP3 server: %w", err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ln) }) // it ends by Close, and where it does not, popgate says that it is gone
	defer func() {
		_ = server.Close() // its sessions are of the demo's own
		served.Wait()
	}()

	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("--listen %q: write HOST:PORT", listen)
	}
	facts := map[string]string{"Dir": dir, "Listen": listen, "Port": port, "Server": ln.Addr().String(), "Metrics": metrics}
	file := filepath.Join(dir, "popgate.yaml")
	if err := os.WriteFile(file, []byte(fill(demoConfig, facts)), 0o600); err != nil {
		return fmt.Errorf("write the demo's config file: %w", err)
	}
	g, err := newGateway(func() (*configs.Config, error) { return configs.Load(file, os.Environ()) }, stderr)
	if err != nil {
		return err
	}
	g.up = func() { _, _ = io.WriteString(stdout, fill(demoText, facts)) } // nobody is there to miss it otherwise
	return g.run(ctx, signals)
}

// fill puts the facts into a text of this file.
func fill(text string, facts map[string]string) string {
	var b strings.Builder
	template.Must(template.New("").Parse(text)).Execute(&b, facts) //nolint:errcheck // a strings.Builder takes everything
	return b.String()
}
