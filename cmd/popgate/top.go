package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/popgate/popgate/proxy/admin"
)

// topOnceWidth is the width of what is printed where there is no terminal.
const topOnceWidth = 100

// topOptions are what the command was asked for.
type topOptions struct {
	from     running
	interval time.Duration
	once     bool
	asJSON   bool
}

func topCommand() *cobra.Command {
	var o topOptions
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch a running gateway: sessions, logins, slow servers, lockouts",
		Long: `top asks the running gateway, through its socket (admin.socket), how it does, again and again, and shows it on the whole
screen: sessions, logins a second by what became of them, the servers with the slowest first, the newest lockouts, and
who has most sessions. What is wrong stands at the top, as in /readyz.

Keys: q quits, s sorts the servers by another column, p pauses, ? explains. Where the output is no terminal, top prints
one picture and ends, as with --once.`,
		Example: `  popgate top
  popgate top --interval 1s
  popgate top --once --interval 10s        one picture, of ten seconds
  popgate top --json | jq .totals.logins   what it is made of: counts since the start`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.from.flags(c)
	flags := c.Flags()
	flags.DurationVar(&o.interval, "interval", 2*time.Second, "`time` from one reading to the next")
	flags.BoolVar(&o.once, "once", false, "print one picture, of two readings, as plain text")
	flags.BoolVar(&o.asJSON, "json", false, "print one reading as JSON, for programs")
	c.MarkFlagsMutuallyExclusive("once", "json")
	return c
}

func (o *topOptions) run(cmd *cobra.Command) error {
	if o.interval < 500*time.Millisecond || o.interval > time.Minute {
		return fmt.Errorf("--interval %s: write something between 500ms and 1m", o.interval)
	}
	client, err := o.from.dial(cmd.Context())
	if err != nil {
		return err
	}
	first, err := client.Status(cmd.Context())
	if err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), first)
	}
	view := &topView{interval: o.interval, order: bySlowest, ascii: !unicodeTerminal(os.Getenv)}
	view.watch.add(first)
	screen := newScreen(cmd.InOrStdin(), cmd.OutOrStdout(), os.Getenv)
	if o.once || screen == nil {
		if !o.once {
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "popgate: the output is no terminal: one picture, of %s\n", o.interval) // as in sayError
		}
		return topOnce(cmd.Context(), client, view, screen, cmd.OutOrStdout())
	}
	return (&topLoop{client: client, view: view, watch: view.watch, screen: screen}).run(cmd.Context())
}

// unicodeTerminal says that the terminal shows more than ASCII, by the locale as setlocale(3) finds it.
func unicodeTerminal(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// topOnce prints one picture, of two readings.
func topOnce(ctx context.Context, client *admin.Client, view *topView, screen *screen, w io.Writer) error {
	select {
	case <-time.After(view.interval):
	case <-ctx.Done():
		return ctx.Err()
	}
	second, err := client.Status(ctx)
	if err != nil {
		return err
	}
	view.watch.add(second)
	view.now, view.width = time.Now(), topOnceWidth
	if screen != nil {
		view.width, _ = screen.size()
	}
	_, err = io.WriteString(w, strings.Join(paper(view.page(), view.width, false, view.ascii), "\n")+"\n")
	return err
}

// A topLoop is `popgate top` on a terminal.
type topLoop struct {
	client *admin.Client
	screen *screen
	watch  watch // all that came; the view's stands still while paused
	view   *topView
}

// A topReading is an answer, or why there is none.
type topReading struct {
	status *admin.Status
	err    error
}

// run draws until somebody ends it. Whatever happens, the screen is what it was before.
func (t *topLoop) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped, resized := topSignals()
	if err := t.screen.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.screen.close()) }()
	readings, keys := make(chan topReading), make(chan byte)
	go t.ask(ctx, readings)
	go t.screen.keys(ctx, keys)
	// What has changed without an answer, as how long there has been none, or the size where the system has no signal for it.
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for {
		if err := t.draw(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stopped:
			return nil
		case k := <-keys:
			if t.key(k) {
				return nil
			}
		case r := <-readings:
			t.take(r)
		case <-resized:
		case <-clock.C:
		}
	}
}

// ask reads the gateway's status at every interval.
func (t *topLoop) ask(ctx context.Context, out chan<- topReading) {
	ticker := time.NewTicker(t.view.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		timeout, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := t.client.Status(timeout)
		cancel()
		select {
		case out <- topReading{s, err}:
		case <-ctx.Done():
			return
		}
	}
}

func (t *topLoop) take(r topReading) {
	v := t.view
	switch {
	case r.err != nil && v.trouble == "":
		v.since = t.watch.last().Time
		fallthrough
	case r.err != nil:
		v.trouble = r.err.Error()
	default:
		v.trouble = ""
		t.watch.add(r.status)
		if !v.paused {
			v.watch = t.watch
		}
	}
}

// key does what a key asks for, and says whether that is to end.
func (t *topLoop) key(k byte) (quit bool) {
	const ctrlC, ctrlD = 3, 4
	v := t.view
	switch {
	case k == ctrlC, k == ctrlD, !v.help && (k == 'q' || k == 'Q'):
		return true
	case v.help:
		v.help = false
	case k == '?' || k == 'h':
		v.help = true
	case k == 's':
		v.order = v.order.next()
	case k == 'p' || k == ' ':
		v.paused = !v.paused
		v.watch = t.watch
	}
	return false
}

func (t *topLoop) draw() error {
	v := t.view
	v.width, v.height = t.screen.size()
	v.now, v.keys = time.Now(), t.screen.raw()
	return t.screen.draw(v.page(), v.width, v.ascii)
}
