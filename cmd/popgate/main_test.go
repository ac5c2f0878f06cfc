package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestCommandLineFaults has a command line that cannot be carried out say why, and how it is meant where that is the reason.
func TestCommandLineFaults(t *testing.T) {
	const five = "../../configs/examples/five-line.yaml"
	for _, tt := range []struct{ args, want, usage string }{
		{"nosuch", `unknown command "nosuch"`, "usage: popgate COMMAND; more: popgate --help\n"},
		{"route -c " + five, "accepts 1 arg", "usage: popgate route -c FILE USER"},
		{"route alice", `"config" not set`, "usage: popgate route -c FILE USER"},
		{"check --nosuch", "--nosuch", "usage: popgate check -c FILE"},
		{"import sendmail sendmail.cf", `"sendmail"`, "usage: popgate import nginx|perdition|dovecot FILE..."},
		{"certs renew", "accepts 1 arg", "usage: popgate certs renew NAME"},
		{"serve", "give --to HOST:PORT", ""},
		{"route alice --sni a/b -c " + five, `--sni "a/b": write a host name`, ""},
		{"route alice --from here -c " + five, `--from "here": write an IP address`, ""},
		{"compare " + five + " " + five + " /nonexistent", "read the list of users: open /nonexistent", ""},
		{"certs --state-dir /nonexistent", "read the certificates of --state-dir: open /nonexistent", ""},
		{"check -c /nonexistent", "/nonexistent: cannot be read", ""},
	} {
		var stdout, stderr bytes.Buffer
		code, said := run(t.Context(), strings.Fields(tt.args), &stdout, &stderr), &stderr
		if code != 1 || !strings.Contains(said.String(), tt.want) || stdout.Len() > 0 {
			t.Errorf("%s: got %d, %q, %q, want 1 and %q", tt.args, code, &stdout, said, tt.want)
		}
		if tt.usage != "" && !strings.Contains(said.String(), tt.usage) || tt.usage == "" && strings.Contains(said.String(), "usage:") {
			t.Errorf("%s: got %q, want the usage %q", tt.args, said, tt.usage)
		}
	}
}
