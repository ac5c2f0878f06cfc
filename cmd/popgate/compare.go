package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy/backend"
)

func compareCommand() *cobra.Command {
	var from asClient
	c := &cobra.Command{
		Use:   "compare OLD NEW USERS",
		Short: "Say for which users another configuration changes something",
		Long: `compare takes each user of a list through two config files, and prints those for whom the backend, its servers, the
server a directory names, or the name the backend is told would change, and how many there are. USERS is a file with one
name a line, as users type it; "-" is standard input. Empty lines and lines that begin with "# " are passed over.

Directories are asked, without any password; no mail server is. The exit status is 1 when anything changes, or could not be
told.`,
		Example: `  popgate compare popgate.yaml new.yaml users.txt
  psql -At -c 'select email from users' mail | popgate compare popgate.yaml new.yaml -`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return compare(cmd, &from, args[0], args[1], args[2])
		},
	}
	from.flags(c.Flags())
	return c
}

// compare carries the command out.
func compare(cmd *cobra.Command, from *asClient, oldFile, newFile, users string) (err error) {
	before, err := openSide(oldFile, from)
	if err != nil {
		return err
	}
	defer before.close()
	after, err := openSide(newFile, from)
	if err != nil {
		return err
	}
	defer after.close()

	in, size, done, err := openUsers(cmd.InOrStdin(), users)
	if err != nil {
		return err
	}
	defer done()
	c := comparison{sides: [2]*side{before, after}, out: bufio.NewWriter(cmd.OutOrStdout())}
	c.progress = newProgress(cmd.ErrOrStderr(), "compare", size)
	err = c.all(cmd.Context(), in)
	c.progress.clear()
	if err := errors.Join(err, c.summary()); err != nil {
		return fmt.Errorf("compare %s: %w", users, err)
	}
	if c.changed+c.unsure > 0 {
		return errSaid
	}
	return nil
}

// openUsers opens the list of users. size is how many bytes it has, 0 where nobody knows.
func openUsers(stdin io.Reader, name string) (in io.Reader, size int64, done func(), err error) {
	if name == "-" {
		return stdin, 0, func() {}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("read the list of users: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, size, func() { _ = f.Close() }, nil // it was only read
}

// A side is one of the two configurations.
type side struct {
	table   *route.Table
	rules   auth.NameRules
	client  *auth.Client
	servers map[string]string // by backend, as people are shown them
	close   func()
}

func openSide(file string, from *asClient) (*side, error) {
	c, err := configs.Load(file, environ(true))
	if err != nil {
		return nil, err
	}
	lc, client, err := from.client(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := &side{rules: lc.NameRules(), client: client, servers: make(map[string]string, len(c.Backends))}
	for _, b := range c.Backends {
		list := backend.Order(b, "")
		slices.Sort(list) // only the set matters: each user has an order of his own
		s.servers[b.Name] = strings.Join(list, ", ")
	}
	if s.table, s.close, err = openTable(c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// A destination is where a user goes, in words. Two are the same if nothing changes for the user.
type destination struct {
	backend, servers, told string
	nobody                 string // why it is none of these: nobody takes the user
}

// find says where the user goes; the error is about a directory that cannot tell.
func (s *side) find(ctx context.Context, user []byte) (destination, error) {
	name, err := s.rules.Parse(user)
	if err != nil {
		return destination{nobody: "no user name"}, nil //nolint:nilerr // it is what a client would be told
	}
	r, err := s.table.Route(ctx, auth.Query{Name: name, Client: s.client})
	defer r.Login.Secret.Wipe()
	switch {
	case errors.Is(err, auth.ErrUnknownUser):
		return destination{nobody: "nobody"}, nil
	case errors.Is(err, auth.ErrNetwork):
		return destination{nobody: "not from this network"}, nil
	case err != nil:
		return destination{}, err
	}
	d := destination{backend: r.Backend, servers: s.servers[r.Backend], told: told(r.Login)}
	if r.Server.Address != "" {
		d.servers = r.Server.Address
	}
	if r.Then != "" {
		d.backend, d.servers = d.backend+", then "+r.Then, d.servers+", then "+s.servers[r.Then]
	}
	if r.Disabled {
		d.told += " (disabled)"
	}
	return d, nil
}

// A comparison takes users through both sides.
type comparison struct {
	sides    [2]*side
	out      *bufio.Writer
	progress *progress

	users, changed, unsure   int
	backends, servers, names int // of those changed, by what changes
	gained, lost             int
}

// A batch is some users, and what came of them. Batches are worked on at once and printed in their order.
type batch struct {
	users   [][]byte
	read    int64 // bytes of the list
	results []result
	done    chan struct{}
}

type result struct {
	before, after destination
	err           error
}

// batchUsers is large enough for what a batch costs itself to vanish, small enough for progress to be seen.
const batchUsers = 512

// all takes every user of in through both sides.
func (c *comparison) all(ctx context.Context, in io.Reader) error {
	// More than processors: those that wait for a directory need none.
	workers := 8 * runtime.GOMAXPROCS(0)
	work, order := make(chan *batch), make(chan *batch, 2*workers)
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			for b := range work {
				c.look(ctx, b)
				close(b.done)
			}
			return ctx.Err()
		})
	}
	group.Go(func() error {
		defer close(work)
		defer close(order)
		return split(in, func(b *batch) error {
			for _, to := range []chan *batch{order, work} {
				select {
				case to <- b:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	group.Go(func() error {
		for b := range order {
			select {
			case <-b.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := c.print(b); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// split hands the users of a list on, batch by batch.
func split(in io.Reader, hand func(*batch) error) error {
	lines := bufio.NewScanner(in)
	b := &batch{done: make(chan struct{})}
	n := 0
	for lines.Scan() {
		n++
		line := lines.Bytes()
		b.read += int64(len(line)) + 1
		line = bytes.TrimSpace(line)
		if len(line) == 0 || bytes.HasPrefix(line, []byte("# ")) {
			continue
		}
		if b.users = append(b.users, bytes.Clone(line)); len(b.users) < batchUsers {
			continue
		}
		if err := hand(b); err != nil {
			return err
		}
		b = &batch{done: make(chan struct{})}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w: a list has one user name a line", n+1, err)
	}
	return hand(b)
}

// look finds where the users of a batch go.
func (c *comparison) look(ctx context.Context, b *batch) {
	b.results = make([]result, len(b.users))
	for i, user := range b.users {
		r := &b.results[i]
		var err2 error
		r.before, r.err = c.sides[0].find(ctx, user)
		r.after, err2 = c.sides[1].find(ctx, user)
		if r.err == nil {
			r.err = err2
		}
	}
}

// print writes what changes for the users of a batch.
func (c *comparison) print(b *batch) error {
	for i, r := range b.results {
		c.users++
		switch {
		case r.err != nil:
			c.unsure++
			_, _ = fmt.Fprintf(c.out, "%s: cannot be told: %v\n", b.users[i], r.err)
		case r.before != r.after:
			c.change(b.users[i], r)
		}
	}
	if c.out.Buffered() > 0 {
		c.progress.clear() // both may go to one terminal
	}
	err := c.out.Flush() // which returns the errors of those before
	c.progress.at(b.read, c.users, fmt.Sprintf("%s users, %s change", thousands(c.users), thousands(c.changed)))
	return err
}

// change writes what changes for one user.
func (c *comparison) change(user []byte, r result) {
	c.changed++
	var what []string
	add := func(n *int, label, before, after string) {
		if before != after {
			*n++
			what = append(what, label+before+" -> "+after)
		}
	}
	switch {
	case r.before.nobody != "": // where both are, the reasons differ
		add(&c.gained, "", r.before.nobody, r.after.backend+r.after.nobody)
	case r.after.nobody != "":
		add(&c.lost, "", r.before.backend, r.after.nobody)
	default:
		add(&c.backends, "backend ", r.before.backend, r.after.backend)
		add(&c.servers, "servers ", r.before.servers, r.after.servers)
		add(&c.names, "is told ", r.before.told, r.after.told)
	}
	_, _ = fmt.Fprintf(c.out, "%s: %s\n", user, strings.Join(what, "; "))
}

// summary writes how many users there are, and for how many what changes.
func (c *comparison) summary() error {
	_, _ = fmt.Fprintf(c.out, "%s of %s users change", thousands(c.changed), thousands(c.users))
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{c.backends, "backend"}, {c.servers, "servers"}, {c.names, "name told"}, {c.gained, "taken now"}, {c.lost, "taken no more"},
	} {
		if p.n > 0 {
			parts = append(parts, p.what+" "+thousands(p.n))
		}
	}
	if len(parts) > 0 {
		_, _ = fmt.Fprintf(c.out, " (%s)", strings.Join(parts, ", "))
	}
	if c.unsure > 0 {
		_, _ = fmt.Fprintf(c.out, "; %s cannot be told", thousands(c.unsure))
	}
	_, _ = fmt.Fprintln(c.out)
	return c.out.Flush()
}
