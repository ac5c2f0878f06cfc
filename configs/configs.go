// Package configs knows the shape of popgate's configuration file and loads it: strictly, with every fault at once, each with
// its line and the key's path. What a section means is decided by the package that declares it.
package configs

//go:generate go test -run TestPage -update .

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth/directory"
	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/wforce"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/admin"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/certs"
	"github.com/popgate/popgate/proxy/certs/storage"
)

// Config is the whole configuration. Whoever got it from this package may share it, as long as nobody changes it.
type Config struct {
	// The name of this gateway in audit records. Empty is the host's name.
	Node string `yaml:"node"`
	// The folder for what popgate must find again after a restart, such as the local CA. It is made if it is missing, for
	// popgate's user alone. Empty is the folder that systemd gives (`$STATE_DIRECTORY`); else `popgate` in the user's own state
	// folder (`$XDG_STATE_HOME`, by default `~/.local/state`); for root `/var/lib/popgate`.
	StateDir string `yaml:"state_dir"`
	// The addresses that clients connect to. Without this key there is one listener, `pop3s`, for TLS on port 995 of all
	// addresses.
	Listeners []proxy.ListenerConfig `yaml:"listeners"`
	// TLS towards clients, of all listeners.
	TLS certs.Config `yaml:"tls"`
	// The mail servers behind popgate. This is the one key without which popgate does not start.
	Backends []backend.Config `yaml:"backends"`
	// Sources outside this file that know where each user lives: files, databases and services. Routes ask them by name.
	Directories []directory.Config `yaml:"directories"`
	// Who goes to which backend. The first route whose conditions all hold is taken; a route without conditions takes everybody.
	// Without this key, and with just one backend, everybody goes there.
	Routes []route.Config `yaml:"routes"`
	// How much clients and users may take of popgate.
	Limits policy.Config `yaml:"limits"`
	// What failed logins cost: delays, and lockouts of client networks and of users from a network.
	Lockout lockout.Config `yaml:"lockout"`
	// Who may come in at all: networks, countries, blocklists, hours, TLS versions, accounts.
	Access access.Config `yaml:"access"`
	// A policy service of weakforced's kind: one that popgate asks, and the one that popgate is for others.
	Weakforced wforce.Config `yaml:"weakforced"`
	// What several popgates share, so that limits and lockouts are those of all of them together.
	Cluster cluster.ShareConfig `yaml:"cluster"`
	// How long popgate waits for what.
	Timeouts proxy.Timeouts `yaml:"timeouts"`
	// How much a client may ask before it has logged in.
	Bounds proxy.Bounds `yaml:"bounds"`
	// How popgate stops, after SIGTERM or SIGINT.
	Shutdown proxy.Shutdown `yaml:"shutdown"`
	// What popgate tells about itself on standard error. Who logged in is in the audit.
	Log Log `yaml:"log"`
	// The record of every login, every refusal and every session.
	Audit audit.Config `yaml:"audit"`
	// Metrics for Prometheus, and the health checks.
	Metrics admin.Config `yaml:"metrics"`
	// What a running popgate can be asked and told by its own commands, on this machine alone.
	Admin admin.SocketConfig `yaml:"admin"`

	// Warnings are what looks wrong and is harmless, each a sentence.
	Warnings []string `yaml:"-"`

	places *report // where the keys were written
}

// Log is the section `log`.
type Log struct {
	// The least important messages to write: `debug`, `info`, `warn` or `error`.
	Level string `yaml:"level"`
	// How messages are written: `text` (key=value) or `json`.
	Format string `yaml:"format"`
}

// DefaultLog is the section's default.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// Validate reports what cannot work, by key.
func (l Log) Validate(fault func(key, problem string)) {
	switch l.Level {
	case "debug", "info", "warn", "error":
	default:
		fault("level", fmt.Sprintf("is %s; write debug, info, warn or error", show(l.Level)))
	}
	if l.Format != "text" && l.Format != "json" {
		fault("format", fmt.Sprintf("is %s; write text or json", show(l.Format)))
	}
}

// Slog returns the level of a valid Log for a slog.Handler.
func (l Log) Slog() slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[l.Level]
}

// Default returns a Config as it is before anything is said. It is not valid: it has no backend.
func Default() *Config {
	listener := proxy.DefaultListener()
	listener.Name, listener.Address = "pop3s", ":995"
	return &Config{
		Listeners:  []proxy.ListenerConfig{listener},
		TLS:        certs.DefaultConfig(),
		Limits:     policy.DefaultConfig(),
		Lockout:    lockout.DefaultConfig(),
		Access:     access.DefaultConfig(),
		Weakforced: wforce.DefaultConfig(),
		Cluster:    cluster.DefaultShareConfig(),
		Timeouts:   proxy.DefaultTimeouts(),
		Bounds:     proxy.DefaultBounds(),
		Shutdown:   proxy.DefaultShutdown(),
		Log:        DefaultLog(),
		Audit:      audit.DefaultConfig(),
		Metrics:    admin.DefaultConfig(),
	}
}

// elements returns what each entry of a list begins as, by its type.
func elements() map[reflect.Type]reflect.Value {
	values := map[reflect.Type]reflect.Value{}
	for _, e := range []any{
		proxy.DefaultListener(), certs.Files{}, certs.Issuer{}, backend.DefaultConfig(), backend.DefaultServerConfig(),
		directory.DefaultConfig(), directory.HTTPHeader{}, route.DefaultConfig(), limit.DefaultOverride(),
		access.ListConfig{}, access.BlocklistConfig{}, access.DefaultRule(),
	} {
		values[reflect.TypeOf(e)] = reflect.ValueOf(e)
	}
	return values
}

// A Look finds what is wrong with the things that a configuration names, such as files. It may look at the sections that sound
// says have no fault themselves, and sound("") says that none has; of the others nothing is certain.
type Look func(c *Config, sound func(section string) bool) Faults

// Load reads the file at path and lays the variables of env, a list as os.Environ gives it, over it. It opens no file
// that the configuration names; looks may. A configuration that cannot work gives Faults, all at once.
func Load(path string, env []string, looks ...Look) (*Config, error) {
	r := newReport(path)
	text, ok := read(path, r)
	if !ok {
		return nil, r.err()
	}
	return loadText(text, env, r, looks...)
}

func loadText(text []byte, env []string, r *report, looks ...Look) (*Config, error) {
	root, ok := parse(text, r)
	if !ok {
		return nil, r.err()
	}
	vars := variables(env)
	b := &builder{report: r, vars: vars, keys: allKeys()}
	// Only what is no mapping gives no tree, and that has been reported.
	tree, _ := b.value(root, reflect.TypeFor[Config](), "").(map[string]any)
	if tree == nil {
		return nil, r.err()
	}
	return assemble(tree, vars, r, looks...)
}

// assemble makes a Config of the written keys and the environment, and checks it.
func assemble(tree map[string]any, vars map[string]string, r *report, looks ...Look) (*Config, error) {
	c := Default()
	// After the file's tree: for a key that both write, faults then name the variable, whose value it is.
	values, warnings := overrides(allKeys(), vars, r)
	c.Warnings = warnings
	// Go on whatever was found: all faults are wanted at once.
	if err := decode(c, tree, values, elements(), r); err != nil {
		return nil, err
	}
	if tree["routes"] == nil {
		c.catchAll(r)
	}
	c.complete(vars, r)
	c.check(r)
	c.places = r
	var found Faults
	for _, look := range looks {
		found = append(found, look(c, r.sound)...)
	}
	r.faults = append(r.faults, found...)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Fault makes a Fault of what turned out to be wrong with the value of a key after the loading, such as a file that it names and that
// is not there. The path is as Load's faults have it; the place is that of the key, or of the nearest that was written around it.
func (c *Config) Fault(path, problem string) Fault {
	if c.places == nil {
		return Fault{Key: path, Problem: problem}
	}
	return c.places.fault(c.places.origin(path), path, problem, "")
}

// complete fills in what depends on the machine.
func (c *Config) complete(vars map[string]string, r *report) {
	if c.Node == "" {
		// Asked here and not where it is used, so that the print shows what the audit will say.
		name, err := os.Hostname()
		if err != nil {
			r.follow("node", "is not written, and the host's name is not known: "+err.Error(), "write a name")
		}
		c.Node = name
	}
	if c.StateDir == "" {
		dir, err := stateDir(vars, os.Geteuid() == 0)
		if err != nil {
			r.follow("state_dir", err.Error(), "write a folder, or set POPGATE_STATE_DIR")
		}
		c.StateDir = dir
	}
}

// catchAll routes everybody to the one backend.
func (c *Config) catchAll(r *report) {
	if len(c.Backends) != 1 {
		return
	}
	all := route.DefaultConfig()
	all.Backend = c.Backends[0].Name
	c.Routes = []route.Config{all}
	r.broken["routes"] = true // not the user's words: what is wrong with them follows from the backend
}

// stateDir returns the folder for popgate's state that the surroundings suggest.
func stateDir(vars map[string]string, root bool) (string, error) {
	// systemd parts several folders by colons.
	if dir, _, _ := strings.Cut(vars["STATE_DIRECTORY"], ":"); dir != "" {
		return dir, nil
	}
	switch xdg, home := vars["XDG_STATE_HOME"], vars["HOME"]; {
	case filepath.IsAbs(xdg): // the specification has relative ones ignored
		return filepath.Join(xdg, "popgate"), nil
	case root:
		return "/var/lib/popgate", nil
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local/state/popgate"), nil
	}
	return "", errors.New("is not written, and neither STATE_DIRECTORY nor HOME says where state belongs")
}

// check reports what no section can see by itself, and what each does.
func (c *Config) check(r *report) {
	c.checkNames(r)
	c.checkDirectories()
	apart(c.endpoints(), r)
	c.checkTLS(r)
	for _, list := range []struct {
		key, hint string
		length    int
	}{
		{"listeners", "remove the key for one on port 995, or write what to listen on", len(c.Listeners)},
		{"backends", "write at least: " + least, len(c.Backends)},
		{"routes", "say which backend users go to, such as: routes: [{backend: NAME}]", len(c.Routes)},
	} {
		// Without any backend, to ask for routes too would be noise.
		if list.length == 0 && (list.key != "routes" || len(c.Backends) > 0) {
			r.follow(list.key, "needs at least one entry", list.hint)
		}
	}
	validate(reflect.ValueOf(*c), "", r)
}

// checkNames looks whether names are there once, and what refers to them.
func (c *Config) checkNames(r *report) {
	listeners, backends, directories := register{list: "listeners"}, register{list: "backends"}, register{list: "directories"}
	for _, l := range c.Listeners {
		listeners.names = append(listeners.names, l.Name)
	}
	for _, b := range c.Backends {
		backends.names = append(backends.names, b.Name)
	}
	for _, d := range c.Directories {
		directories.names = append(directories.names, d.Name)
	}
	for i, rt := range c.Routes {
		backends.refer(fmt.Sprintf("routes[%d].backend", i), rt.Backend, r)
		backends.refer(fmt.Sprintf("routes[%d].then", i), rt.Then, r)
		for j, name := range rt.Directory {
			directories.refer(fmt.Sprintf("routes[%d].directory[%d]", i, j), name, r)
		}
		for j, name := range rt.Listeners {
			listeners.refer(fmt.Sprintf("routes[%d].listeners[%d]", i, j), name, r)
		}
	}
	for i, rule := range c.Access.Rules {
		for j, name := range rule.Listeners {
			listeners.refer(fmt.Sprintf("access.rules[%d].listeners[%d]", i, j), name, r)
		}
		for j, name := range rule.Backends {
			backends.refer(fmt.Sprintf("access.rules[%d].backends[%d]", i, j), name, r)
		}
	}
	for i, name := range c.TLS.ClientCA.Listeners {
		listeners.refer(fmt.Sprintf("tls.client_ca.listeners[%d]", i), name, r)
	}
	// Only now: to have a name twice is no reason to keep quiet about references.
	listeners.unique(r)
	backends.unique(r)
	directories.unique(r)
}

// endpoints are the addresses that popgate is to listen on.
func (c *Config) endpoints() (all []endpoint) {
	for i, l := range c.Listeners {
		all = append(all, endpoint{fmt.Sprintf("listeners[%d].address", i), l.Address})
	}
	all = append(all, endpoint{"metrics.address", c.Metrics.Address}, endpoint{"weakforced.serve.address", c.Weakforced.Serve.Address})
	return append(all, c.challenges()...)
}

// checkDirectories warns of those that nobody asks.
func (c *Config) checkDirectories() {
	for i, d := range c.Directories {
		asked := slices.ContainsFunc(c.Routes, func(rt route.Config) bool { return slices.Contains(rt.Directory, d.Name) })
		if !asked && d.Name != "" {
			c.Warnings = append(c.Warnings, fmt.Sprintf("directories[%d], %s, is asked by no route: write directory: %s in one", i, d.Name, d.Name))
		}
	}
}

// challenges are the addresses on which ACME issuers look for popgate.
func (c *Config) challenges() []endpoint {
	if !c.ACME() || c.TLS.ACME.DNS.Enabled() { // with DNS-01 nobody comes
		return nil
	}
	return []endpoint{
		{"tls.acme.http_address", c.TLS.ACME.HTTPAddress},
		{"tls.acme.tls_alpn_address", c.TLS.ACME.TLSALPNAddress},
	}
}

// ACME tells whether certificates are obtained from issuers.
func (c *Config) ACME() bool {
	return len(c.TLS.ACME.Domains) > 0 || len(c.TLS.ACME.OnDemand.Names) > 0
}

// checkTLS reports what the section tls wants of the listeners and routes, and does not find there.
func (c *Config) checkTLS(r *report) {
	ends := false // whether TLS ends here at all
	for _, l := range c.Listeners {
		ends = ends || l.TLS != proxy.TLSOffloaded
		if i := slices.Index(c.TLS.ClientCA.Listeners, l.Name); i >= 0 && l.TLS == proxy.TLSOffloaded {
			r.follow(fmt.Sprintf("tls.client_ca.listeners[%d]", i),
				fmt.Sprintf("is %s, where TLS ends before popgate, which sees no certificate of a client", show(l.Name)), "remove it")
		}
	}
	if c.ACME() && !ends {
		c.Warnings = append(c.Warnings, "tls.acme obtains certificates, and nobody is shown them: TLS ends before popgate on all listeners")
	}
	if c.TLS.ACME.Agree && !c.ACME() {
		c.Warnings = append(c.Warnings, "tls.acme.agree is true, and there are no names to obtain certificates for: list them under tls.acme.domains")
	}
	if s := c.TLS.ACME.Storage; s.Shared() && !c.ACME() && s.Encryption == storage.EncryptionNone {
		c.Warnings = append(c.Warnings, "tls.acme.storage is of no use: nothing is obtained, and session ticket keys are shared only where encryption_key_files "+
			"encrypt them")
	}
	named := slices.ContainsFunc(c.Routes, func(rt route.Config) bool { return len(rt.Domains)+len(rt.Directory) > 0 })
	if len(c.TLS.ACME.OnDemand.Names) > 0 && !named {
		c.Warnings = append(c.Warnings,
			"tls.acme.on_demand has no domain to work for: it is for domains that a route lists or a directory knows, and no route has any")
	}
}
