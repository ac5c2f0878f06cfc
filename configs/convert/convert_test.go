package convert_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/configs/convert"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

// Each configuration comes out as the file beside it says, and popgate takes it.
func TestConvert(t *testing.T) {
	t.Chdir("testdata")
	for _, tt := range []struct {
		name    string
		convert func([]string) ([]byte, error)
		files   []string
	}{
		{"nginx/nginx", convert.Nginx, []string{"nginx/nginx.conf"}},
		{"perdition/perdition", convert.Perdition, []string{"perdition/perdition.conf", "perdition/regex.conf", "perdition/imap.conf"}},
		{"perdition/databases", convert.Perdition, []string{"perdition/mysql.conf", "perdition/ldap.conf"}},
		{"dovecot/dovecot", convert.Dovecot, []string{"dovecot/dovecot.conf"}},
		{"dovecot/new", convert.Dovecot, []string{"dovecot/new.conf"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.convert(tt.files)
			if err != nil {
				t.Fatal(err)
			}
			golden := tt.name + ".yaml"
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s is not what came out:\n%s", golden, got)
			}
			if _, err := configs.Load(golden, nil); err != nil {
				t.Errorf("popgate does not take it:\n%v", err)
			}
		})
	}
}

// The sample files of the programs' own packages are read as they are.
func TestSamplesOfPackages(t *testing.T) {
	for _, tt := range []struct {
		convert func([]string) ([]byte, error)
		file    string
		fails   string // what the error says: nothing of POP3 is in it
	}{
		{convert.Perdition, "/etc/perdition/perdition.conf", ""},
		{convert.Dovecot, "/etc/dovecot/dovecot.conf", ""},
		{convert.Nginx, "/etc/nginx/nginx.conf", "no mail block"},
	} {
		if _, err := os.Stat(tt.file); err != nil {
			if os.Getenv("CI") != "" {
				t.Error(err)
			}
			t.Logf("%s is not here: install the package for this part", tt.file)
			continue
		}
		got, err := tt.convert([]string{tt.file})
		switch {
		case tt.fails == "" && err != nil, tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
			t.Errorf("%s: error %v, want %q", tt.file, err, tt.fails)
		case err == nil:
			load(t, got)
		}
	}
}

// A host to listen on becomes an address, or the reader is asked for it.
func TestListenHosts(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"mail { auth_http a:1; server { protocol pop3; listen localhost:1110; } }", `address: "127.0.0.1:1110"`},
		{"mail { auth_http a:1; server { protocol pop3; listen pop.example.org:1110; } }", "To do:\n#   - listeners: write the address of pop.example.org"},
		{"mail { auth_http a:1; server { protocol pop3; listen [::]:1110; } }", `address: ":1110"`},
	} {
		file := filepath.Join(t.TempDir(), "it.conf")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := convert.Nginx([]string{file}); err != nil || !strings.Contains(string(got), tt.want) {
			t.Errorf("%s: %v\n%s\nwant %q", tt.text, err, got, tt.want)
		}
	}
}

// TestIncludesItselfBesideAnEmptyFile has what is included too deep begin with a file of no lines.
func TestIncludesItselfBesideAnEmptyFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"0.conf": "", "it.conf": "include *.conf;"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := convert.Nginx([]string{filepath.Join(dir, "it.conf")})
	if want := "it.conf:1: files include each other"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// load has popgate read what was converted.
func load(t *testing.T, text []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "popgate.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := configs.Load(file, nil); err != nil {
		t.Errorf("popgate does not take:\n%s\n%v", text, err)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		convert func([]string) ([]byte, error)
		text    string
		want    string
	}{
		{"nginx without mail", convert.Nginx, "http { }", "no mail block"},
		{"nginx without POP3", convert.Nginx, "mail { server { listen 143; } }", "no mail block with a server for POP3"},
		{"nginx, no end", convert.Nginx, "mail {\n server {\n", ":3: the file ends inside a block"},
		{"nginx, no semicolon", convert.Nginx, "mail { server { listen 995 } }", "listen has no end"},
		{"nginx, quote", convert.Nginx, "mail { a 'b; }", "quote has no end"},
		{"nginx, missing include", convert.Nginx, "include nowhere.conf;", ":1: include nowhere.conf: there is no such file"},
		{"nginx, includes itself", convert.Nginx, "include it.conf;", "files"},
		{"perdition for IMAP", convert.Perdition, "protocol IMAP4S\n", "no Perdition for POP3"},
		{"perdition, quote", convert.Perdition, "\n\nok_line \"hello\n", ":3: a quote has no end"},
		{"dovecot without POP3", convert.Dovecot, "protocols = imap\n", "there is no pop3"},
		{"dovecot, no end", convert.Dovecot, "service a {\n", ":1: the block service has no end"},
		{"dovecot, too many ends", convert.Dovecot, "\n}\n", ":2: a } that closes nothing"},
		{"dovecot, no setting", convert.Dovecot, "hello there\n", ":1: \"hello there\""},
		{"dovecot, missing include", convert.Dovecot, "!include nowhere.conf\n", "there is no such file"},
		{"dovecot, includes itself", convert.Dovecot, "!include it.conf\n", "too many files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "it.conf")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := tt.convert([]string{file})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v and\n%s\nwant an error with %q", err, out, tt.want)
			}
		})
	}
	for _, p := range convert.Programs() {
		if _, err := p.Convert([]string{"nowhere/at.all"}); err == nil || !strings.Contains(err.Error(), "nowhere/at.all") {
			t.Errorf("%s: a missing file gives %v", p.Name, err)
		}
	}
}

// Whatever is in a file, it is converted to something popgate can read at least as YAML, or refused, and never by a panic.
func FuzzConvert(f *testing.F) {
	for i, p := range convert.Programs() {
		files, err := filepath.Glob(filepath.Join("testdata", p.Name, "*.conf"))
		if err != nil || len(files) == 0 {
			f.Fatal(err, files)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(i, text)
		}
	}
	f.Fuzz(func(t *testing.T, i int, text []byte) {
		programs := convert.Programs()
		if i < 0 || i >= len(programs) || strings.Contains(string(text), "include") || strings.Contains(string(text), "args") {
			return // these name files
		}
		file := filepath.Join(t.TempDir(), "it.conf")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := programs[i].Convert([]string{file})
		if err != nil {
			return
		}
		if err := os.WriteFile(file, out, 0o600); err != nil {
			t.Fatal(err)
		}
		// What is impossible in it is said by key; what is no YAML would be our fault.
		if _, err := configs.Load(file, nil); err != nil && strings.Contains(err.Error(), "is no YAML") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
}
