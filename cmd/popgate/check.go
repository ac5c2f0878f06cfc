package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/certs"
)

func checkCommand() *cobra.Command {
	var (
		file  string
		print bool
		agree bool
	)
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Find every fault of a config file",
		Long: `check reads a config file and the files it names, and prints every fault at once, each with its line and the
key's path. Its exit status is 1 when there is one. It opens no port and asks no server.`,
		Example: `  popgate check -c /etc/popgate/popgate.yaml
  popgate check -c popgate.yaml --print     what is in force, defaults included`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configs.Load(file, environ(agree), filesOf)
			if err != nil {
				return err
			}
			if print {
				return c.Print(cmd.OutOrStdout())
			}
			return report(cmd.OutOrStdout(), cmd.ErrOrStderr(), file, c)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "config `file`")
	c.Flags().BoolVar(&print, "print", false, "print the effective config, secrets hidden")
	agreeFlag(c, &agree)
	_ = c.MarkFlagRequired("config") // it fails for flags that do not exist
	return c
}

// filesOf looks at the files that a configuration names. Its faults have the lines of the keys.
func filesOf(c *configs.Config, sound func(section string) bool) configs.Faults {
	var faults configs.Faults
	add := func(key, problem string) { faults = append(faults, c.Fault(key, problem)) }
	addAll := func(section string, err error) {
		var fs auth.Faults
		if err != nil && !errors.As(err, &fs) {
			add(section, err.Error())
		}
		for _, f := range fs {
			add(f.Key, f.Err.Error())
		}
	}
	if sound("tls") {
		_, err := certs.Check(c.TLS)
		for _, p := range certs.Problems(err) {
			add(p.Key, p.Problem)
		}
	}
	if sound("cluster") {
		_, err := policy.Join(c.Cluster, c.Node, nil, nil)
		addAll("cluster", err)
	}
	if sound("access") && sound("weakforced") {
		for _, f := range policy.Files(c.Access, c.Weakforced) {
			add(f.Key, f.Err.Error())
		}
	}
	if sound("backends") {
		_, err := backend.New(nil, nil).Prepare(c.Backends)
		addAll("backends", err)
	}
	if sound("directories") {
		d, err := openDirectories(c)
		addAll("directories", err)
		if err == nil {
			defer d.close()
		}
		if err == nil && sound("") {
			_, err = d.table(c)
			addAll("routes", err)
		}
	}
	return faults
}

// report says that all is well, and what is worth knowing.
func report(stdout, stderr io.Writer, file string, c *configs.Config) error {
	for _, w := range append(c.Warnings, hints(c)...) {
		if _, err := fmt.Fprintln(stderr, "note:", w); err != nil {
			return err
		}
	}
	if len(c.TLS.Certificates) == 0 && !c.ACME() {
		if _, err := fmt.Fprintln(stderr, "note: no tls.certificates: a local CA in", c.StateDir, "will issue, which mail clients do not trust"); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(stdout, "%s: no faults; listeners: %d, backends: %d, directories: %d, routes: %d\n",
		file, len(c.Listeners), len(c.Backends), len(c.Directories), len(c.Routes))
	return err
}
