package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/popgate/popgate/auth/directory"
	"github.com/popgate/popgate/auth/passwd"
	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/certs"
)

// A gateway is the running whole: the parts that outlive reloads, and what the configuration in force made of them.
type gateway struct {
	load     func() (*configs.Config, error)
	log      *slog.Logger
	level    slog.LevelVar
	registry *prometheus.Registry
	keeper   *certs.Keeper
	policy   *policy.Keeper
	audit    *audit.Log
	dirs     *directory.Keeper
	backends *backend.Backends
	proxy    *proxy.Gateway
	reloads  *prometheus.CounterVec

	config   *configs.Config
	stopping atomic.Bool
	open     map[string]*listening // by address, or path
	serving  sync.WaitGroup
	failed   chan error
	up       func() // called once clients can come; may be nil
}

// newGateway loads the configuration and makes everything that needs no network. Its log goes to stderr.
func newGateway(load func() (*configs.Config, error), stderr io.Writer) (*gateway, error) {
	c, err := load()
	if err != nil {
		return nil, err
	}
	g := &gateway{load: load, config: c, registry: prometheus.NewRegistry(), open: make(map[string]*listening), failed: make(chan error, 1)}
	g.log = newLogger(c.Log, &g.level, stderr)
	g.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "popgate_build_info", Help: "The version that runs; always 1."}, []string{"version", "goversion"})
	build.WithLabelValues(strings.Fields(versionText())[0], runtime.Version()).Set(1)
	g.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "popgate_config_reloads_total", Help: "Reloads of the configuration, by result."}, []string{"result"})
	g.registry.MustRegister(build, g.reloads)
	g.keeper = certs.New(c.StateDir, g.log, g.registry)
	g.audit = audit.New(c.Node, g.log, g.registry)
	shared, err := policy.Join(c.Cluster, c.Node, g.log, g.registry)
	if err != nil {
		return nil, err
	}
	g.policy = policy.New(policy.Options{Dir: c.StateDir, Events: g.lockedOut, Log: g.log, Registerer: g.registry, Cluster: shared})
	g.dirs = directory.New(passwd.New(0), g.log, g.registry)
	g.backends = backend.New(g.log, g.registry)
	if err := g.backends.Remember(c.StateDir); err != nil {
		g.log.Warn("read what was known of backends; changes since then are not told", "cause", err)
	}
	g.proxy = proxy.New(g.audit, g.log, g.registry)
	if shared != nil {
		g.proxy.ShareMoved(shared.Moved())
	}
	return g, nil
}

// prepared is a configuration made ready: nothing of it can fail any more.
type prepared struct {
	config   *configs.Config
	certs    *certs.View
	audit    *audit.View
	dirs     *directory.View
	backends *backend.View
	gate     *policy.Gate
	snapshot *proxy.Snapshot
	opened   []*listening
}

// prepare makes a configuration ready without touching what runs. On an error it leaves nothing behind.
func (g *gateway) prepare(ctx context.Context, c *configs.Config) (p *prepared, err error) {
	p = &prepared{config: c}
	var opened *certs.View // p is nil on an error
	// The certificates' storage has connections of its own.
	defer func() {
		if err != nil {
			opened.Discard()
		}
	}()
	if p.dirs, err = g.dirs.Prepare(c.Directories); err != nil {
		return nil, err
	}
	table, err := route.New(c.Routes, known(c, p.dirs))
	if err != nil {
		return nil, err
	}
	opened, err = g.keeper.Prepare(c.TLS, wantedNames(c), certsListeners(c, g.proxy.Hello),
		certs.Deps{Knows: table.Knows, Domains: table.Domains, Post: g.audit.Post})
	backends, err2 := g.backends.Prepare(c.Backends)
	view, err3 := g.audit.Prepare(c.Audit)
	gate, err4 := g.policy.Prepare(policy.Parts{Limits: c.Limits, Lockout: c.Lockout, Access: c.Access, Weakforced: c.Weakforced})
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return nil, err
	}
	p.certs, p.backends, p.audit, p.gate = opened, backends, view, gate
	p.snapshot = &proxy.Snapshot{
		Router:       table,
		Gate:         gate,
		Backends:     backends,
		Timeouts:     c.Timeouts,
		Bounds:       c.Bounds,
		FailureDelay: c.Limits.FailureDelay,
	}
	for _, l := range c.Listeners {
		p.snapshot.Listeners = append(p.snapshot.Listeners, proxy.Listener{ListenerConfig: l, TLSConfig: p.certs.TLS(l.Name)})
	}
	return p, g.listen(ctx, p)
}

// certsListeners is what the certificates' keeper must know of the listeners where TLS starts here.
func certsListeners(c *configs.Config, hello proxyHello) []certs.Listener {
	var ls []certs.Listener
	for _, l := range c.Listeners {
		if l.TLS != proxy.TLSOffloaded {
			ls = append(ls, certs.Listener{
				Name: l.Name, DefaultName: l.DefaultName, LenientALPN: l.ALPN == "lenient", AlertUnknown: l.UnknownName == "alert",
				Legacy: l.Legacy, OnHello: hello,
			})
		}
	}
	return ls
}

// wantedNames are the names that routes expect clients to ask for, for the local CA to issue.
func wantedNames(c *configs.Config) []string {
	var names []string
	for _, r := range c.Routes {
		for _, n := range r.ServerNames {
			if !strings.HasPrefix(n, "*.") {
				names = append(names, n)
			}
		}
	}
	return names
}

// apply puts p in force.
func (g *gateway) apply(ctx context.Context, p *prepared) {
	g.config = p.config
	g.level.Set(p.config.Log.Slog())
	g.keeper.Use(p.certs)
	g.audit.Use(p.audit)
	g.dirs.Use(p.dirs)
	g.backends.Use(p.backends)
	g.policy.Use(p.gate)
	g.proxy.Apply(p.snapshot)
	problems(g.log, p.config.Warnings)
	problems(g.log, hints(p.config))

	kept := wanted(p.config)
	for address, l := range g.open {
		if kept[address] == "" {
			l.close()
			delete(g.open, address)
			g.log.Info("stopped listening", "address", address)
		}
	}
	for _, l := range p.opened {
		g.serve(ctx, l)
	}
}

// A reloading is a configuration read again, or why it cannot be used.
type reloading struct {
	p   *prepared
	err error
}

// reread reads the configuration again and makes it ready. It touches nothing of what runs, so that it may hang, on
// a file system or a pipe, while signals are still obeyed.
func (g *gateway) reread(ctx context.Context) reloading {
	c, err := g.load()
	if err != nil {
		return reloading{err: err}
	}
	if err := ctx.Err(); err != nil {
		return reloading{err: err} // it hung until the gateway had stopped: nothing is made ready, and no file written, any more
	}
	p, err := g.prepare(ctx, c)
	return reloading{p, err}
}

// reload puts a configuration read again in force. Where it cannot be used, the one in force stays.
func (g *gateway) reload(ctx context.Context, r reloading) {
	if r.err != nil {
		g.reloads.WithLabelValues("failed").Inc()
		for line := range strings.Lines(r.err.Error()) {
			g.log.Error("reload: " + strings.TrimSpace(line))
		}
		g.log.Error("reload: the configuration in force stays")
		// The operator may have moved the audit file away all the same.
		if err := g.audit.Reopen(); err != nil {
			g.log.Error("reopen the audit file", "error", err)
		}
		return
	}
	if c := r.p.config; c.StateDir != g.config.StateDir || c.Node != g.config.Node || c.Log.Format != g.config.Log.Format ||
		!reflect.DeepEqual(c.Cluster, g.config.Cluster) {
		g.log.Warn("reload: node, state_dir, log.format and cluster change with a restart only")
	}
	g.apply(ctx, r.p)
	g.reloads.WithLabelValues("done").Inc()
	g.audit.Post(&audit.Event{Name: audit.ConfigReloaded})
	g.log.Info("reloaded the configuration")
}

// run serves until a signal says to stop, and stops as the configuration says.
func (g *gateway) run(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keepPasswordsOutOfCoreDumps(g.log)
	g.policy.Load()
	p, err := g.prepare(ctx, g.config)
	if err != nil {
		return err
	}
	var background sync.WaitGroup
	for _, part := range []func(context.Context) error{g.keeper.Run, g.dirs.Run, g.backends.Run, g.policy.Run, tidy} {
		background.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				g.log.Error("background work ended", "error", err)
			}
		})
	}
	written := make(chan error, 1)
	auditing, endAudit := context.WithCancel(context.WithoutCancel(ctx))
	defer endAudit()
	go func() { written <- g.audit.Run(auditing) }()

	g.apply(ctx, p)
	g.audit.Post(&audit.Event{Name: audit.GatewayStarted})
	g.log.Info("popgate is up", "version", versionText(), "node", g.config.Node)
	if g.up != nil {
		g.up()
	}
	err = g.attend(ctx, signals)

	g.audit.Post(&audit.Event{Name: audit.GatewayStopped})
	cancel()
	g.serving.Wait()
	background.Wait()
	endAudit() // last: it writes what the others have left
	return errors.Join(err, <-written)
}

// attend waits for signals and obeys them. It returns when the sessions have ended.
func (g *gateway) attend(ctx context.Context, signals <-chan os.Signal) error {
	var failure error
	ready := make(chan reloading, 1)
	busy, again := false, false
	reread := func() {
		busy, again = true, false
		go func() { ready <- g.reread(ctx) }()
	}
	for {
		select {
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP && busy:
				again = true
				continue
			case s == syscall.SIGHUP:
				reread()
				continue
			}
			g.log.Info("stopping", "signal", s.String(), "sessions", g.proxy.Sessions(), "grace", g.config.Shutdown.Grace.String())
		case r := <-ready:
			g.reload(ctx, r)
			if busy = false; again {
				reread()
			}
			continue
		case failure = <-g.failed:
			g.log.Error("stopping, for a listener failed", "error", failure)
		case <-ctx.Done():
		}
		g.stop(signals)
		return failure
	}
}

// stop lets the sessions end within the grace. A second signal ends it at once.
func (g *gateway) stop(signals <-chan os.Signal) {
	g.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Shutdown.Delay+g.config.Shutdown.Grace)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGHUP {
					g.log.Warn("ending at once", "signal", s.String(), "sessions", g.proxy.Sessions())
					cancel()
					return
				}
			case <-done:
				return
			}
		}
	}()
	select {
	case <-time.After(g.config.Shutdown.Delay): // /readyz says no already: load balancers look elsewhere
	case <-ctx.Done():
	}
	if err := g.proxy.Shutdown(ctx); err != nil {
		g.log.Warn("closed the sessions that did not end by themselves", "error", err)
	}
}

// ready is what /readyz says.
func (g *gateway) ready() (ok bool, notes []string) {
	if g.stopping.Load() {
		notes = append(notes, "stopping")
	}
	if err := g.audit.Trouble(); err != nil {
		notes = append(notes, "audit: records are not written: "+err.Error())
	}
	if err := g.keeper.Trouble(); err != nil {
		notes = append(notes, "certificates: "+err.Error())
	}
	if err := g.dirs.Trouble(); err != nil {
		for line := range strings.Lines(err.Error()) {
			notes = append(notes, "degraded: "+strings.TrimSpace(line)+": known users go on")
		}
	}
	notes = append(notes, g.backends.Trouble()...)
	if err := g.policy.Trouble(); err != nil {
		for line := range strings.Lines(err.Error()) {
			notes = append(notes, "policy: "+strings.TrimSpace(line))
		}
	}
	return !g.stopping.Load(), notes
}

// lockedOut records a lockout or a spray; the audit calls them what lockout does.
func (g *gateway) lockedOut(e lockout.Event) {
	r := &audit.Event{Name: audit.Name(e.Kind), User: e.Name, Network: e.Network, Lockout: &audit.Lockout{
		Cause: string(e.Cause), Failures: e.Failures, Users: e.Users, Until: e.Until,
	}}
	g.audit.Post(r)
}
