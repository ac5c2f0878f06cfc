package pop3

import "testing"

func TestParseCommand(t *testing.T) {
	tests := []struct {
		line string
		verb Verb
		arg  string
	}{
		{"QUIT", QUIT, ""},
		{"quit", QUIT, ""},
		{"qUiT ", QUIT, ""},
		{"TOP 1 0", TOP, "1 0"},
		{"PASS secret", PASS, "secret"},
		{"PASS  a b ", PASS, " a b "},
		{"PASS\ta", PASS, "a"},
		{"USER alice@example.org", USER, "alice@example.org"},
		{"pass", PASS, ""},
		{"UTF8", UTF8, ""},
		{"XTND XMIT", "", "XMIT"},
		{"QUITE", "", ""},
		{"QUI", "", ""},
		{"", "", ""},
		{" QUIT", "", "QUIT"},
		{"USER\x00a", "", ""},
		{"\x00\xff", "", ""},
	}
	for _, tt := range tests {
		if v, arg := ParseCommand([]byte(tt.line)); v != tt.verb || string(arg) != tt.arg {
			t.Errorf("ParseCommand(%q) = %q, %q, want %q, %q", tt.line, v, arg, tt.verb, tt.arg)
		}
	}
	for _, v := range verbs {
		if got, arg := ParseCommand([]byte(v + " x")); got != v || string(arg) != "x" {
			t.Errorf("ParseCommand(%s x) = %q, %q", v, got, arg)
		}
	}
	line := []byte("RETR 17")
	if n := testing.AllocsPerRun(100, func() { ParseCommand(line) }); n != 0 {
		t.Errorf("%v allocations a command", n)
	}
}

func TestForeign(t *testing.T) {
	for line, want := range map[string]string{
		"GET / HTTP/1.1":                        "HTTP",
		"get /":                                 "HTTP",
		"PRI * HTTP/2.0":                        "HTTP",
		"CONNECT mail.example.org:995 HTTP/1.1": "HTTP",
		"EHLO mail.example.org":                 "SMTP",
		"HELO":                                  "SMTP",
		"\x16\x03\x01\x02\x00\x01\x00":          "TLS",
		"\x16\x03\x01":                          "TLS",
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2":    "PROXY protocol",
		"\r\n\r\n\x00\r\nQUIT\n":                "PROXY protocol",
		"a001 CAPABILITY":                       "IMAP",
		"1 LOGIN alice secret":                  "IMAP",
		". starttls":                            "IMAP",
		`a ID ("name" "x")`:                     "IMAP",
		"":                                      "",
		"QUIT":                                  "",
		"GETT":                                  "",
		"XTND GET":                              "",
		"CAPA":                                  "",
		"AUTH LOGIN":                            "",
		"AUTH login":                            "",
		"USER login@example.org":                "",
		"USER capability":                       "",
		"PASS starttls":                         "",
		"APOP id (x":                            "",
		"\x16\x04":                              "",
		"\r\n":                                  "",
	} {
		if got := Foreign([]byte(line)); got != want {
			t.Errorf("Foreign(%q) = %q, want %q", line, got, want)
		}
	}
}
