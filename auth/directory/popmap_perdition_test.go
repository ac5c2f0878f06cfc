//go:build linux

package directory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/peers"
)

// perditionLib finds a map library of Perdition's, wherever this machine's kind of Debian has it.
func perditionLib(t *testing.T, kind string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/libperditiondb_" + kind + ".so.0")
	if len(found) == 0 {
		t.Fatalf("perdition is there, and its library %s is not", kind)
	}
	return found[0]
}

// publicDir is a folder that a program without rights can read.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "popmap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A fake is where Perdition connects to: a POP3 server on all addresses of the loopback network, on two ports.
type fake struct {
	port, other int
	came        chan string // where it connected to and the USER it gave, "127.0.0.2:110 alice"
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{came: make(chan string, 16)}
	for _, port := range []*int{&f.port, &f.other} {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		*port = l.Addr().(*net.TCPAddr).Port
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				f.serve(c)
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
	}
	return f
}

func (f *fake) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = fmt.Fprintf(c, "+OK ready\r\n")
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "USER":
			f.came <- c.LocalAddr().String() + " " + arg
			_, _ = fmt.Fprintf(c, "+OK\r\n")
		case "CAPA":
			_, _ = fmt.Fprintf(c, "+OK\r\nUSER\r\n.\r\n")
		default:
			_, _ = fmt.Fprintf(c, "+OK\r\n")
			if strings.EqualFold(verb, "QUIT") {
				return
			}
		}
	}
}

// perditionLogin has a Perdition of its own serve one client, as inetd would, and says where it took a user; "" for nowhere.
func perditionLogin(t *testing.T, f *fake, user string, args ...string) (came string, client *auth.Client) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := accepted.(*net.TCPConn).File()
	_ = accepted.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), peers.Program(t, "perdition.pop3", "perdition"), append([]string{
		"--inetd_mode", "--no_lookup", "--config_file", "/dev/null", "--log_facility", "+", "--ssl_mode", "none",
		"--username", "nobody", "--group", "nogroup", "--outgoing_port", fmt.Sprint(f.port),
	}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = socket, socket, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = socket.Close()
	replies := talk(conn, "", "USER "+user, "PASS x")
	_ = conn.Close()
	_ = cmd.Wait()
	client = &auth.Client{
		Addr:  netip.MustParseAddrPort(conn.LocalAddr().String()),
		Local: netip.MustParseAddrPort(conn.RemoteAddr().String()),
	}
	if strings.Contains(replies, "Could not determine server") {
		return "", client
	}
	if strings.Contains(replies, "Could not connect to server") {
		if _, server, ok := strings.Cut(log.String(), `server="`); ok {
			server, _, _ = strings.Cut(server, `"`)
			return server, client
		}
	}
	select {
	case came = <-f.came:
		return came, client
	default:
	}
	t.Fatalf("perdition took %s nowhere and does not say why: %q\n%s", user, replies, &log)
	return "", nil
}

// talk sends lines, each when the one before is answered, and gives the answers.
func talk(conn net.Conn, lines ...string) string {
	var all strings.Builder
	r := bufio.NewReader(conn)
	for _, line := range lines {
		if line != "" {
			_, _ = fmt.Fprintf(conn, "%s\r\n", line)
		}
		reply, err := r.ReadString('\n')
		if all.WriteString(reply); err != nil {
			all.WriteString(err.Error())
			break
		}
	}
	return all.String()
}

// ourLogin is what popgate makes of the same user, in the words of perditionLogin.
func ourLogin(t *testing.T, f *fake, o Opened, user string, client *auth.Client) string {
	t.Helper()
	q := query(t, user)
	q.Client = client
	a, err := o.Lookup(t.Context(), &q)
	if errors.Is(err, auth.ErrUnknownUser) || err == nil && a.Server == "" {
		return ""
	}
	if err != nil {
		t.Fatalf("%s: %v", user, err)
	}
	server := a.Server
	if _, err := netip.ParseAddr(server); err != nil && strings.HasSuffix(server, "127.0.0.10") {
		return net.JoinHostPort(server, fmt.Sprint(f.port)) // Perdition's log, without a user
	}
	if !strings.Contains(server, ":") {
		server = net.JoinHostPort(server, fmt.Sprint(f.port))
	}
	if a.User == "" {
		a.User = user
	}
	return server + " " + a.User
}

// perditionFlags are the options that say to Perdition what c says to popgate.
func perditionFlags(c *PopmapConfig) []string {
	flags := []string{"--query_key", strings.Join(c.QueryKey, ","), "--domain_delimiter", c.DomainDelimiter}
	if c.UsernameFromDatabase {
		flags = append(flags, "--username_from_database")
	}
	for option, states := range map[string][]string{"strip_domain": c.StripDomain, "add_domain": c.AddDomain, "lower_case": c.LowerCase} {
		if len(states) > 0 {
			flags = append(flags, "--"+option, strings.Join(states, ","))
		}
	}
	if c.ExplicitDomain != "" {
		flags = append(flags, "--explicit_domain", c.ExplicitDomain)
	}
	return flags
}

// perditionCases are options, and the users to look up with them.
func perditionCases() []struct {
	change func(c *PopmapConfig)
	users  []string
} {
	all := []string{"all"}
	return []struct {
		change func(c *PopmapConfig)
		users  []string
	}{
		{func(*PopmapConfig) {}, []string{
			"alice", "alice@example.org", "Alice", "bob", "carol", "dave", "erin", "a.b", "axb", "flimsy", "totallyflim",
			"x@y@z.example", "u1@z.example", "port", "name", "v4@in.example", "hash#tag", "dollar", "group@10", "emptymatch", "nobody@nowhere.example",
			"zz@tail.example", "kept-mid-dropped", "quoted", "semi", "zzz",
		}},
		{func(c *PopmapConfig) { c.UsernameFromDatabase = true }, []string{"alice", "bob", "carol", "dave", "u1@z.example", "x@y@z.example", "kept-mid-dropped"}},
		{func(c *PopmapConfig) { c.QueryKey = []string{`\u`, `\D\d`} }, []string{"bob@q.example", "q@q.example", "q@nowhere.example", "q"}},
		{func(c *PopmapConfig) { c.QueryKey = []string{`\d`, `x\\\U`, `\I`} }, []string{"q@q.example", "back", "nn"}},
		{func(c *PopmapConfig) { c.QueryKey = []string{`\i`} }, []string{"anybody"}},
		{func(c *PopmapConfig) { c.StripDomain = all }, []string{"bob@anywhere.example", "x@y@z.example"}},
		{func(c *PopmapConfig) { c.StripDomain = []string{"remote_login"} }, []string{"u1@z.example", "alice@example.org"}},
		{func(c *PopmapConfig) { c.LowerCase = all }, []string{"BOB", "Alice@example.org"}},
		{func(c *PopmapConfig) { c.LowerCase = []string{"servername_lookup"} }, []string{"BOB"}},
		{func(c *PopmapConfig) { c.AddDomain, c.ExplicitDomain = all, "example.org" }, []string{"alice", "alice@example.org", "u1@z.example"}},
		{func(c *PopmapConfig) {
			c.StripDomain, c.AddDomain, c.LowerCase, c.ExplicitDomain = all, []string{"servername_lookup"}, []string{"remote_login"}, "example.org"
		}, []string{"alice@else.example", "ALICE@else.example"}},
		{func(c *PopmapConfig) {
			c.DomainDelimiter, c.UsernameFromDatabase, c.QueryKey = "%", true, []string{`\d`, `\u`, `\U`}
		}, []string{"percent", "who%q.example", "percent%none.example"}},
	}
}

// perditionMap has the lines %d, for the fake's other port.
const perditionMap = `# who lives where
alice:127.0.0.2
alice@example.org:a@127.0.0.3
bob:127.0.0.4:%d

carol:carol@there@127.0.0.5
dave:127.0.0.6:
erin:erin@
u1@z.example:one@127.0.0.7:%[1]d
x@y@z.example:127.0.0.8
@q.example:127.0.0.9
q.example:127.0.0.10
x\back:127.0.0.11
127.0.0.9:127.0.0.12
127.0.0.1:127.0.0.13
percent:127.0.0.14
`

func TestPopmapAsPerditionDoes(t *testing.T) {
	makegdbm := peers.Program(t, "makegdbm", "perdition")
	comparePerdition(t, "popmap", "gdbm", perditionMap, func(t *testing.T, path string) string {
		cmd := exec.CommandContext(t.Context(), makegdbm, path+".gdbm.db")
		text, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = text.Close() }()
		// makegdbm has no comments: it says something about such a line, and passes over it.
		cmd.Stdin = text
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("makegdbm: %v: %s", err, out)
		}
		return path + ".gdbm.db"
	})
}

// perditionRE has what Perdition's own reader does that its manual does not say.
const perditionRE = `# comment
^alice$: 127.0.0.2	# and one behind
^alice@example\.org$: a@127.0.0.3
^bob$ 127.0.0.4:%d
  ^carol$: carol@there@127.0.0.5
^dave$: 127.0.0.6:
"^foo bar$": 127.0.0.7
^a'\.'b: 127.0.0.8
^a.b: 127.0.0.9
flim: 127.0.0.10
'hash#tag': 127.0.0.11
^(.*)@(.*)@z.example: $1_$2@127.0.0.12
^u([0-9])@z.example$: $1$0$9$2@127.0.0.13:%[1]d
^dollar$: a$x@127.0.0.14
^group@(1)(0): 127.0.0.$1$2
-mid-: @127.0.0.15
^port$: 127.0.0.16:%[1]d
^na\
me$: 127.0.0.17
^emptymatch$: 127.0.0.18
^q.example$: 127.0.0.19
^@q.example$: 127.0.0.20
^127.0.0.9$: 127.0.0.21
^127.0.0.1$: 127.0.0.22
^percent: 127.0.0.23
^x[\\]back$: 127.0.0.24
^"quo"ted$: 127.0.0.2'5'
^semi{,1}$: 127.0.0.26
zzz*$: 127.0.0.27
@tail: who@127.0.0.28
y*$: 127.0.0.29
.*: 127.0.0.99
`

func TestPopmapREAsPerditionDoes(t *testing.T) {
	comparePerdition(t, "popmap_re", "posix_regex", perditionRE, func(_ *testing.T, path string) string { return path })
}

// comparePerdition has users looked up by both, with all options; make makes of the text what Perdition reads.
func comparePerdition(t *testing.T, kind, lib, text string, compile func(t *testing.T, path string) string) {
	t.Helper()
	peers.Program(t, "perdition.pop3", "perdition")
	var all sync.WaitGroup
	defer all.Wait()
	turn := make(chan struct{}, 16) // Perdition waits 3 seconds before it says no
	for _, tt := range perditionCases() {
		for _, user := range tt.users {
			all.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				t.Run(user, func(t *testing.T) {
					f := newFake(t)
					c := Config{Type: kind, Popmap: defaultPopmap(), PopmapRE: defaultPopmap()}
					section := &c.Popmap
					if kind == "popmap_re" {
						section = &c.PopmapRE
					}
					section.Path = publicDir(t) + "/map"
					tt.change(section)
					section.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
					writeFile(t, section.Path, strings.ReplaceAll(fmt.Sprintf(text, f.other), "@", section.DomainDelimiter))
					o := openFile(t, c)
					flags := append(perditionFlags(section), "--map_library", perditionLib(t, lib), "--map_library_opt", compile(t, section.Path))
					want, client := perditionLogin(t, f, user, flags...)
					if got := ourLogin(t, f, o, user, client); got != want {
						t.Errorf("%s with %q:\n  got %q\n want %q, as Perdition", user, flags, got, want)
					}
				})
			})
		}
	}
}
