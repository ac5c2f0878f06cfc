package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy/admin"
)

// running says which running gateway is asked.
type running struct{ file, socket string }

// flags has c, and the commands below it, take from the command line which gateway it is.
func (r *running) flags(c *cobra.Command) {
	c.PersistentFlags().StringVarP(&r.file, "config", "c", "", "config `file` of the gateway to ask")
	c.PersistentFlags().StringVar(&r.socket, "socket", "", "`path` of the gateway's socket")
	c.MarkFlagsMutuallyExclusive("config", "socket")
}

// dial finds it.
func (r running) dial(ctx context.Context) (*admin.Client, error) {
	client, _, err := r.find(ctx)
	if errors.Is(err, admin.ErrNoGateway) {
		return nil, fmt.Errorf("%w; say with --config FILE or --socket PATH which gateway to ask", err)
	}
	return client, err
}

// find finds it, and returns its config where a file of it was named, also beside admin.ErrNoGateway.
func (r running) find(ctx context.Context) (client *admin.Client, c *configs.Config, err error) {
	section := admin.SocketConfig{Socket: r.socket}
	switch {
	case r.file != "":
		if c, err = configs.Load(r.file, environ(true)); err != nil {
			return nil, nil, err
		}
		section = c.Admin
	case r.socket == "":
		section.Socket = os.Getenv("POPGATE_ADMIN_SOCKET")
	}
	client, err = dialAny(ctx, section.Paths(os.Getenv))
	return client, c, err
}

// dialAny finds a running gateway on one of the sockets. A gateway that may not be asked counts for more than none.
func dialAny(ctx context.Context, paths []string) (*admin.Client, error) {
	var first error
	for _, path := range paths {
		client, err := admin.Dial(ctx, path)
		if err == nil {
			return client, nil
		}
		if first == nil || errors.Is(first, admin.ErrNoGateway) && !errors.Is(err, admin.ErrNoGateway) {
			first = err
		}
	}
	return nil, first
}
