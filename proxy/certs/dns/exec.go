package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/libdns/libdns"
)

// program runs a program of the operator's to change the DNS, one run at a time: a script that edits a zone file must
// not meet itself.
type program struct {
	config  Exec
	timeout time.Duration
	log     *slog.Logger
	turn    chan struct{} // holds one token
}

func newExec(c Config, log *slog.Logger) (*program, error) {
	path := c.Exec.Command[0]
	if _, err := exec.LookPath(path); err != nil {
		return nil, fmt.Errorf("exec.command: %w", err)
	}
	p := &program{config: c.Exec, timeout: c.Timeout, log: log, turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p, nil
}

// Zone is name: which zone it is in matters to the program alone.
func (p *program) Zone(_ context.Context, name string) (string, error) { return fqdn(name), nil }

// AppendRecords runs the program with `present FQDN VALUE` for each record.
func (p *program) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, "present", zone, recs)
}

// DeleteRecords runs the program with `cleanup FQDN VALUE` for each record.
func (p *program) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, "cleanup", zone, recs)
}

func (p *program) change(ctx context.Context, action, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	wanted, err := records(zone, recs)
	if err != nil {
		return nil, err
	}
	for i, r := range wanted {
		if err := p.run(ctx, action, r); err != nil {
			return asTXT(recs[:i]), err
		}
	}
	return asTXT(recs), nil
}

func (p *program) run(ctx context.Context, action string, r record) error {
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end another run: %w", p.config.Command[0], ctx.Err())
	}
	// The time begins with the turn, or a queue would use it up.
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	args := slices.Concat(p.config.Command[1:], []string{action, r.fqdn, r.value})
	cmd := exec.CommandContext(ctx, p.config.Command[0], args...)
	cmd.Env = p.environment(action, r)
	cmd.Dir = "/"
	// Whoever inherited the output must not hold us after the program's end.
	cmd.WaitDelay = time.Second
	withChildren(cmd)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		p.log.Warn("DNS program ended and left something running that holds its output", "program", p.config.Command[0], "action", action)
		err = nil
	}
	if err == nil {
		p.log.Debug("DNS program ran", "program", p.config.Command[0], "action", action, "name", host(r.fqdn), "output", excerpt(out.data))
		return nil
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("killed, it may run for %s (timeout): %w", p.timeout, ctx.Err())
	case ctx.Err() != nil:
		err = fmt.Errorf("killed: %w", ctx.Err())
	}
	return fmt.Errorf("run %s %s %s: %w; it wrote: %s", p.config.Command[0], action, host(r.fqdn), err, excerpt(out.data))
}

// environment holds nothing of popgate's own but what programs cannot do without: passwords may come in by it.
func (p *program) environment(action string, r record) []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "LANG", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	env = append(env, "POPGATE_ACTION="+action, "POPGATE_FQDN="+r.fqdn, "POPGATE_VALUE="+r.value)
	return append(env, p.config.Env...)
}

// A tail keeps the end of what is written to it.
type tail struct{ data []byte }

func (t *tail) Write(b []byte) (int, error) {
	const most = 4 << 10
	t.data = append(t.data, b...)
	if len(t.data) > most {
		t.data = append([]byte(nil), t.data[len(t.data)-most:]...)
	}
	return len(b), nil
}
