package directory

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"
)

// Config is one element of `directories:`: a source outside this file that knows where users live.
type Config struct {
	// What routes, logs and metrics call this directory.
	Name string `yaml:"name"`
	// What kind of source it is: the name of the one section below that describes it.
	Type string `yaml:"type"`
	// The servers that this directory may send users to, when it names servers and not backends: addresses, networks
	// ("10.0.0.0/8"), host names, or "*.example.org" for every host below a domain; each with a port behind it where just
	// that port is meant ("10.0.0.0/8:110", "[2001:db8::/32]:110"). None means that it cannot name servers.
	AllowedServers []string `yaml:"allowed_servers"`
	// Check passwords here, against the hash that the directory gives, before any backend is asked. Where it gives none,
	// the backend checks the password as ever.
	Verify bool `yaml:"verify"`
	// How long one lookup may take, the wait for its turn included.
	Timeout time.Duration `yaml:"timeout"`
	// How many lookups may be under way at once. Others wait for their turn, within `timeout`.
	Lookups int `yaml:"lookups"`
	// The memory for answers. Sources that have everything in memory by themselves are asked directly, without it.
	Cache CacheConfig `yaml:"cache"`
	// Describes a directory of type `file`: a list of users and domains in popgate's own form.
	File FileConfig `yaml:"file"`
	// Describes a directory of type `popmap`: Perdition's list of users.
	Popmap PopmapConfig `yaml:"popmap"`
	// Describes a directory of type `popmap_re`: Perdition's list of regular expressions.
	PopmapRE PopmapConfig `yaml:"popmap_re"`
	// Describes a directory of type `passwd_file`: a passwd-file of Dovecot's.
	PasswdFile PasswdFileConfig `yaml:"passwd_file"`
	// Describes a directory of type `sql`: a query to a database.
	SQL SQLConfig `yaml:"sql"`
	// Describes a directory of type `ldap`: a search on LDAP servers.
	LDAP LDAPConfig `yaml:"ldap"`
	// Describes a directory of type `redis`: keys in Redis.
	Redis RedisConfig `yaml:"redis"`
	// Describes a directory of type `http`: a service such as those for nginx's `auth_http`.
	HTTP HTTPConfig `yaml:"http"`
	// Describes a directory of type `dns`: SRV records of the users' domains.
	DNS DNSConfig `yaml:"dns"`
}

// CacheConfig is the section `cache` of a directory.
type CacheConfig struct {
	// How many users are remembered. 0 remembers none, so that nobody can log in while the source is down. Names that it does
	// not know are remembered apart, a tenth as many, so that made-up ones push nobody out.
	Size int `yaml:"size"`
	// How long an answer is taken for true. 0 asks the source at each login, and remembers the last answer for when it is
	// down. A password that a backend refuses has the user's answer fetched anew, at most once in 10 seconds.
	TTL time.Duration `yaml:"ttl"`
	// How long the source is not asked again for a user whom it does not know. 0 asks at each login.
	NegativeTTL time.Duration `yaml:"negative_ttl"`
	// How long the last answer is used when its time is over and the source cannot answer. 0 never uses it.
	StaleFor time.Duration `yaml:"stale_for"`
	// Remember answers that depend on the password too, such as those of an auth_http service, for a user and password
	// together. A password that was changed or an account that was closed goes on working for as long as the answer is
	// remembered.
	Secrets bool `yaml:"secrets"`
}

// DefaultConfig is what a directory has where its section says nothing.
func DefaultConfig() Config {
	return Config{
		Timeout: 5 * time.Second,
		Lookups: 256,
		Cache: CacheConfig{
			Size:        100_000,
			TTL:         5 * time.Minute,
			NegativeTTL: 30 * time.Second,
			StaleFor:    24 * time.Hour,
		},
		Popmap:     defaultPopmap(),
		PopmapRE:   defaultPopmap(),
		PasswdFile: defaultPasswdFile(),
		SQL:        defaultSQL(),
		LDAP:       defaultLDAP(),
		Redis:      defaultRedis(),
		HTTP:       defaultHTTP(),
		DNS:        defaultDNS(),
	}
}

// A validator is a section that knows what is impossible in it.
type validator interface {
	validate(fault func(key, problem string))
}

// A kind is one type of source. Its section has the key of the same name.
type kind struct {
	name    string
	section func(c *Config) validator
	initial any // the section as it is where nothing is written
	open    func(c *Config, log *slog.Logger) (Opened, error)
}

// of describes a kind by its section and its constructor.
func of[C validator](name string, section func(*Config) C, open func(name string, c C, log *slog.Logger) (Opened, error)) kind {
	initial := DefaultConfig()
	return kind{
		name:    name,
		section: func(c *Config) validator { return section(c) },
		initial: section(&initial),
		open:    func(c *Config, log *slog.Logger) (Opened, error) { return open(c.Name, section(c), log) },
	}
}

// kinds are all the types there are: a new source has one line here.
func kinds() []kind {
	return []kind{
		of("file", func(c *Config) FileConfig { return c.File }, newFile),
		of("popmap", func(c *Config) PopmapConfig { return c.Popmap }, newPopmap),
		of("popmap_re", func(c *Config) PopmapConfig { return c.PopmapRE }, newPopmapRE),
		of("passwd_file", func(c *Config) PasswdFileConfig { return c.PasswdFile }, newPasswdFile),
		of("redis", func(c *Config) RedisConfig { return c.Redis }, newRedis),
		of("http", func(c *Config) HTTPConfig { return c.HTTP }, newHTTP),
		of("dns", func(c *Config) DNSConfig { return c.DNS }, newDNS),
		of("sql", func(c *Config) SQLConfig { return c.SQL }, newSQL),
		of("ldap", func(c *Config) LDAPConfig { return c.LDAP }, newLDAP),
	}
}

// of returns the section of the kind; nil for the zero kind.
func (k kind) of(c *Config) any {
	if k.section == nil {
		return nil
	}
	return k.section(c)
}

// kind finds the type of the directory.
func (c *Config) kind() (kind, bool) {
	for _, k := range kinds() {
		if k.name == c.Type {
			return k, true
		}
	}
	return kind{}, false
}

// Hints say what works and may surprise.
func (c Config) Hints() []string {
	var all []string
	k, _ := c.kind()
	if h, ok := k.of(&c).(interface{ hints() []string }); ok {
		all = h.hints()
	}
	if c.Cache.Secrets {
		all = append(all, fmt.Sprintf("a password that was changed there goes on working for up to cache.ttl, %s, and for %s more while it is down", c.Cache.TTL, c.Cache.StaleFor))
	}
	for i := range all {
		all[i] = "directory " + c.Name + ": " + all[i]
	}
	return all
}

// Validate reports each fault of the directory by its key. It looks at no file and asks nobody.
func (c Config) Validate(fault func(key, problem string)) {
	if c.Name == "" {
		fault("name", "is missing; routes refer to a directory by its name")
	}
	c.validateType(fault)
	for i, s := range c.AllowedServers {
		if _, err := parseAllowed(s); err != nil {
			fault(fmt.Sprintf("allowed_servers[%d]", i), err.Error())
		}
	}
	if c.Timeout <= 0 {
		fault("timeout", "must be more than 0: a source that hangs would hold logins forever; write a duration such as 5s")
	}
	if c.Lookups < 1 || c.Lookups > maxLookups {
		fault("lookups", fmt.Sprintf("is %d; write a number from 1 to %d", c.Lookups, maxLookups))
	}
	c.Cache.validate(func(key, problem string) { fault("cache."+key, problem) })
}

// validateType reports what is wrong with the type and with the sections of all types.
func (c *Config) validateType(fault func(key, problem string)) {
	var names []string
	known := false
	for _, k := range kinds() {
		names = append(names, k.name)
		section := k.section(c)
		if k.name == c.Type {
			known = true
			section.validate(func(key, problem string) { fault(k.name+"."+key, problem) })
		} else if !reflect.DeepEqual(section, k.initial) {
			fault(k.name, fmt.Sprintf("is for a directory of type %s, and this one's type is %q", k.name, c.Type))
		}
	}
	switch {
	case c.Type == "":
		fault("type", "is missing; write one of "+strings.Join(names, ", "))
	case !known:
		fault("type", fmt.Sprintf("is %q; write one of %s", c.Type, strings.Join(names, ", ")))
	}
}

// The bounds of what a directory may take.
const (
	maxLookups = 100_000
	maxCached  = 50_000_000
	maxKept    = 10 * 366 * 24 * time.Hour // sums of which are times, too
)

func (c CacheConfig) validate(fault func(key, problem string)) {
	if c.Size < 0 || c.Size > maxCached {
		fault("size", fmt.Sprintf("is %d; write a number from 0 to %d", c.Size, maxCached))
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"ttl", c.TTL}, {"negative_ttl", c.NegativeTTL}, {"stale_for", c.StaleFor}} {
		if d.value < 0 {
			fault(d.key, "is negative; write a duration such as 5m, or 0 to turn it off")
		}
		if d.value > maxKept {
			fault(d.key, fmt.Sprintf("is %s, and longer than ten years nothing is kept", d.value))
		}
	}
}
