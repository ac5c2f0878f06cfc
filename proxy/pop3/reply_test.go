package pop3

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseReply(t *testing.T) {
	tests := []struct {
		line string
		want Reply
	}{
		{"+OK", Reply{OK: true}},
		{"+OK ", Reply{OK: true}},
		{"+ok ready", Reply{OK: true, Text: "ready"}},
		{"+Ok\tready\t", Reply{OK: true, Text: "ready"}},
		{"+OK2 messages", Reply{OK: true, Text: "2 messages"}},
		{"+OK Dovecot ready.", Reply{OK: true, Text: "Dovecot ready."}},
		{"+OK [XCLIENT] ready", Reply{OK: true, Code: "XCLIENT", Text: "ready"}},
		{"+OK POP3 <1.2@example.org>", Reply{OK: true, Text: "POP3 <1.2@example.org>"}},
		{"-ERR", Reply{}},
		{"-err no", Reply{Text: "no"}},
		{"-ERR [AUTH] Authentication failed.", Reply{Code: CodeAuth, Text: "Authentication failed."}},
		{"-ERR  [in-use]  locked", Reply{Code: CodeInUse, Text: "locked"}},
		{"-ERR[SYS/TEMP]later", Reply{Code: CodeSysTemp, Text: "later"}},
		{"-ERR [SYS/PERM]", Reply{Code: CodeSysPerm}},
		{"-ERR [LOGIN-DELAY] wait", Reply{Code: CodeLoginDelay, Text: "wait"}},
		{"-ERR [] x", Reply{Text: "x"}},
		{"-ERR [AUTH not closed", Reply{Text: "[AUTH not closed"}},
		{"-ERR no [AUTH] here", Reply{Text: "no [AUTH] here"}},
		{"-ERR: locked", Reply{Text: ": locked"}},
		{"-ERR\x00 \x1b[31mred\x7f\u0085\r", Reply{Text: "[31mred"}},
		{"-ERR pass\xe9", Reply{Text: "pass\ufffd"}},
	}
	for _, tt := range tests {
		if got, err := ParseReply([]byte(tt.line)); got != tt.want || err != nil {
			t.Errorf("ParseReply(%q) = %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
	}
	for _, line := range []string{"", "+", "+ ", "+O", "-ER", "OK", " +OK", "+OKAY", "-ERROR", "-ERRx", "220 mail ESMTP", "* OK IMAP", "SSH-2.0", "\x16\x03\x01"} {
		if got, err := ParseReply([]byte(line)); !errors.Is(err, ErrNotReply) || got != (Reply{}) {
			t.Errorf("ParseReply(%q) = %+v, %v, want ErrNotReply", line, got, err)
		}
	}
}

func TestAppendReplies(t *testing.T) {
	got := AppendOK(nil, "")
	got = AppendOK(got, "ready")
	got = AppendErr(got, "", "")
	got = AppendErr(got, "", "use STLS first")
	got = AppendErr(got, CodeAuth, "no")
	got = AppendErr(got, CodeInUse, "")
	want := "+OK\r\n+OK ready\r\n-ERR\r\n-ERR use STLS first\r\n-ERR [AUTH] no\r\n-ERR [IN-USE]\r\n"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"+OK [XCLIENT] ready", "-ERR [AUTH", "-err[in-use]\xff\x00", "+OKx", "-ERR [[a]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseReply(line)
		if err != nil {
			if r != (Reply{}) || !errors.Is(err, ErrNotReply) {
				t.Fatalf("%+v with %v", r, err)
			}
			return
		}
		s := string(r.Code) + r.Text
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Fatalf("%q passes %q", line, s)
		}
		// What is made of a reply means the same, where its code is one that can be written.
		if strings.ContainsAny(string(r.Code), "[ ") || r.Code == "" && strings.HasPrefix(r.Text, "[") {
			return
		}
		out := AppendErr(nil, r.Code, r.Text)
		if r.OK {
			out = appendReply(nil, "+OK", r.Code, r.Text)
		}
		again, err := ParseReply(out[:len(out)-2])
		if again != r || err != nil {
			t.Fatalf("%q is %+v, written as %q is %+v, %v", line, r, out, again, err)
		}
	})
}

func TestParseCapability(t *testing.T) {
	for line, want := range map[string]string{
		"TOP":                   "TOP",
		"sasl  plain\tlogin ":   "SASL plain login",
		" Login-Delay 300 USER": "LOGIN-DELAY 300 USER",
		"":                      "",
		" \t\x00":               "",
		".":                     "",
		".TOP":                  "",
		"UI\x1bDL":              "UIDL",
	} {
		if got := ParseCapability([]byte(line)); got != want {
			t.Errorf("ParseCapability(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	c := Capabilities{"TOP", "SASL PLAIN LOGIN", "LOGIN-DELAY 300"}
	if args, ok := c.Args("SASL"); !ok || !slices.Equal(args, []string{"PLAIN", "LOGIN"}) {
		t.Errorf("Args(SASL) = %q, %v", args, ok)
	}
	if args, ok := c.Args("TOP"); !ok || len(args) != 0 {
		t.Errorf("Args(TOP) = %q, %v", args, ok)
	}
	if !c.Has("LOGIN-DELAY") || c.Has("LOGIN") || c.Has("UIDL") || Capabilities(nil).Has("TOP") || (Capabilities{""}).Has("") {
		t.Error("Has is wrong")
	}
	want := "+OK Capability list follows\r\nTOP\r\nSASL PLAIN LOGIN\r\nLOGIN-DELAY 300\r\n.\r\n"
	if got := string(c.AppendTo(nil)); got != want {
		t.Errorf("AppendTo = %q, want %q", got, want)
	}
}

func TestCommon(t *testing.T) {
	dovecot := Capabilities{"UIDL", "TOP", "SASL PLAIN", "EXPIRE NEVER", "TOP"}
	old := Capabilities{"TOP", "UIDL", "EXPIRE 30"}
	tests := []struct {
		sets []Capabilities
		want Capabilities
	}{
		{nil, nil},
		{[]Capabilities{old}, Capabilities{"EXPIRE 30", "TOP", "UIDL"}},
		{[]Capabilities{dovecot, old}, Capabilities{"TOP", "UIDL"}},
		{[]Capabilities{old, dovecot, {"UIDL"}}, Capabilities{"UIDL"}},
		{[]Capabilities{dovecot, {}}, nil},
	}
	for _, tt := range tests {
		if got := Common(tt.sets...); !slices.Equal(got, tt.want) {
			t.Errorf("Common(%q) = %q, want %q", tt.sets, got, tt.want)
		}
	}
	if dovecot[0] != "UIDL" || old[0] != "TOP" {
		t.Error("Common sorts what it was given")
	}
}
