package dns

import (
	"os/exec"
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	const secret = testSecret256
	for _, tt := range []struct {
		name, file, keyName, algorithm string
		want                           string // "name algorithm", or the error
		fails                          bool
	}{
		{name: "tsig-keygen", file: keyFileText("popgate", "hmac-sha512", secret), want: "popgate. hmac-sha512."},
		{name: "with comments", file: "# a\n// b\n/* c\n */ key popgate. { secret \"" + secret + "\"; algorithm HMAC-SHA256; }", want: "popgate. hmac-sha256."},
		{name: "said again", file: keyFileText("popgate", "hmac-sha256", secret), keyName: "Popgate.", algorithm: "hmac-sha256", want: "popgate. hmac-sha256."},
		{name: "secret alone", file: secret[:20] + "\n" + secret[20:] + "\n", keyName: "popgate", want: "popgate. hmac-sha256."},
		{name: "secret alone, 512", file: secret, keyName: "popgate", algorithm: "hmac-sha512", want: "popgate. hmac-sha512."},
		{name: "no name", file: secret, want: "write key_name", fails: true},
		{name: "another name", file: keyFileText("popgate", "hmac-sha256", secret), keyName: "other", want: "remove key_name", fails: true},
		{name: "another algorithm", file: keyFileText("popgate", "hmac-sha256", secret), algorithm: "hmac-sha512", want: "remove algorithm", fails: true},
		{name: "old algorithm", file: keyFileText("popgate", "hmac-md5", secret), want: "tsig-keygen -a hmac-sha256 popgate", fails: true},
		{name: "bad name", file: keyFileText("a..b", "hmac-sha256", secret), want: "no domain name", fails: true},
		{name: "not base64", file: keyFileText("popgate", "hmac-sha256", secret+"!"), want: "not base64", fails: true},
		{name: "no secret", file: `key popgate { algorithm hmac-sha256; };`, want: "without a secret", fails: true},
		{name: "two keys", file: keyFileText("a", "hmac-sha256", secret) + keyFileText("b", "hmac-sha256", secret), want: "more than one key", fails: true},
		{name: "no end", file: `key popgate { algorithm hmac-sha256; `, want: "lacks the }", fails: true},
		{name: "no semicolon", file: `key popgate { algorithm hmac-sha256 secret "x"; };`, want: "semicolon", fails: true},
		{name: "open quote", file: `key popgate { secret "` + secret, want: "closing quote", fails: true},
		{name: "open comment", file: `key popgate { /* `, want: "end of a comment", fails: true},
		{name: "a zone", file: `zone "example.org" { type primary; };`, want: "does not begin with", fails: true},
		{name: "other words", file: `key popgate { file "x"; };`, want: "something else", fails: true},
	} {
		got, err := parseKey([]byte(tt.file), tt.keyName, tt.algorithm)
		switch {
		case tt.fails && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		case !tt.fails && (err != nil || got.name+" "+got.algorithm != tt.want || got.secret != secret):
			t.Errorf("%s: %+v, %v, want %s", tt.name, got, err, tt.want)
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("%s: error shows the secret", tt.name)
		}
	}
}

// What the real program prints is what we read.
func TestParseKeyOfTsigKeygen(t *testing.T) {
	path, err := exec.LookPath("tsig-keygen")
	if err != nil {
		path = "/usr/sbin/tsig-keygen"
	}
	namedProgram(t) // skips, or fails, where BIND is missing
	for algorithm, wire := range algorithms {
		out, err := exec.Command(path, "-a", algorithm, "popgate").Output()
		if err != nil {
			t.Fatal(err)
		}
		k, err := parseKey(out, "", "")
		if err != nil || k.name != "popgate." || k.algorithm != wire || !strings.Contains(string(out), k.secret) {
			t.Errorf("%s: %s %s, %v", algorithm, k.name, k.algorithm, err)
		}
	}
}
