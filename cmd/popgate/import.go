package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/configs/convert"
)

func importCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import nginx|perdition|dovecot FILE...",
		Short: "Make a config file out of another mail proxy's",
		Long: `import reads the configuration of another mail proxy and prints one of popgate's that does the same. What it cannot carry
over stands at its head, line by line, each with the reason; and what is left to do. It changes nothing.`,
		Example: `  popgate import nginx /etc/nginx/nginx.conf > popgate.yaml
  popgate import perdition /etc/perdition/perdition.conf > popgate.yaml
  popgate import dovecot /etc/dovecot/dovecot.conf > popgate.yaml
  popgate check -c popgate.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, p := range convert.Programs() {
		c.AddCommand(&cobra.Command{
			Use:   p.Name + " FILE...",
			Short: "Read " + p.Files,
			Args:  cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, files []string) error {
				text, err := p.Convert(files)
				if err != nil {
					return fmt.Errorf("import %s: %w", p.Name, err)
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			},
		})
	}
	return c
}
