package sasl

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const none = "(no initial response)"

func TestExchange(t *testing.T) {
	tests := []struct {
		name, mechanism string
		responses       []string // the first is the initial response
		challenges      []string
		user, secret    string
		err             error // of the last response
	}{
		{"PLAIN at once", "PLAIN", []string{b64("\x00alice\x00secret")}, nil, "alice", "secret", nil},
		{"PLAIN in two steps", "plain", []string{none, b64("\x00alice\x00secret")}, []string{""}, "alice", "secret", nil},
		{"PLAIN, same authzid", "PLAIN", []string{b64("alice\x00alice\x00 s p ")}, nil, "alice", " s p ", nil},
		{"PLAIN, RFC 4616's example", "PLAIN", []string{"AHRpbQB0YW5zdGFhZnRhbnN0YWFm"}, nil, "tim", "tanstaaftanstaaf", nil},
		{"PLAIN, UTF-8 and Latin-1", "PLAIN", []string{b64("\x00jörg\x00p\xe9")}, nil, "jörg", "p\xe9", nil},
		{"PLAIN, a blank and no initial response", "PLAIN", []string{"", b64("\x00alice\x00secret")}, []string{""}, "alice", "secret", nil},
		{"LOGIN in two steps", "LOGIN", []string{none, b64("alice"), b64("secret")}, []string{promptUser, promptSecret}, "alice", "secret", nil},
		{"LOGIN with initial response", "Login", []string{b64("alice"), b64("*")}, []string{promptSecret}, "alice", "*", nil},

		{"PLAIN cancelled", "PLAIN", []string{none, "*"}, []string{""}, "", "", ErrCancelled},
		{"LOGIN cancelled at the name", "LOGIN", []string{none, "*"}, []string{promptUser}, "", "", ErrCancelled},
		{"LOGIN cancelled at the password", "LOGIN", []string{b64("alice"), "*"}, []string{promptSecret}, "", "", ErrCancelled},
		{"no initial response is a cancel", "PLAIN", []string{"*"}, nil, "", "", ErrMalformed},
		{"PLAIN, another authzid", "PLAIN", []string{b64("root\x00alice\x00secret")}, nil, "", "", ErrAuthzid},
		{"PLAIN, authzid in another case", "PLAIN", []string{b64("Alice\x00alice\x00secret")}, nil, "", "", ErrAuthzid},
		{"PLAIN, empty initial response", "PLAIN", []string{"="}, nil, "", "", ErrMalformed},
		{"PLAIN, empty line", "PLAIN", []string{none, ""}, []string{""}, "", "", ErrMalformed},
		{"PLAIN, = as a line", "PLAIN", []string{none, "="}, []string{""}, "", "", ErrMalformed},
		{"LOGIN, empty initial response", "LOGIN", []string{"="}, nil, "", "", ErrMalformed},
		{"LOGIN, no name", "LOGIN", []string{none, ""}, []string{promptUser}, "", "", ErrMalformed},
		{"LOGIN, no password", "LOGIN", []string{none, b64("alice"), ""}, []string{promptUser, promptSecret}, "", "", ErrMalformed},
		{"PLAIN, one field", "PLAIN", []string{b64("alice")}, nil, "", "", ErrMalformed},
		{"PLAIN, two fields", "PLAIN", []string{b64("alice\x00secret")}, nil, "", "", ErrMalformed},
		{"PLAIN, four fields", "PLAIN", []string{b64("\x00alice\x00secret\x00")}, nil, "", "", ErrMalformed},
		{"PLAIN, no user", "PLAIN", []string{b64("\x00\x00secret")}, nil, "", "", ErrMalformed},
		{"PLAIN, no password", "PLAIN", []string{b64("\x00alice\x00")}, nil, "", "", ErrMalformed},
		{"CR in the user", "PLAIN", []string{b64("\x00alice\r\nDELE 1\x00secret")}, nil, "", "", ErrMalformed},
		{"LF in the password", "PLAIN", []string{b64("\x00alice\x00secret\nDELE 1")}, nil, "", "", ErrMalformed},
		{"tab in the password", "PLAIN", []string{b64("\x00alice\x00se\tcret")}, nil, "", "", ErrMalformed},
		{"DEL in the authzid", "PLAIN", []string{b64("a\x7f\x00a\x7f\x00secret")}, nil, "", "", ErrMalformed},
		{"ESC in both ids", "PLAIN", []string{b64("\x1b\x00alice\x00secret")}, nil, "", "", ErrMalformed},
		{"NUL in LOGIN's name", "LOGIN", []string{b64("ali\x00ce")}, nil, "", "", ErrMalformed},
		{"CR in LOGIN's password", "LOGIN", []string{b64("alice"), b64("secret\r")}, []string{promptSecret}, "", "", ErrMalformed},
		{"not base64", "PLAIN", []string{"AGFsaWNlAHNl!3JldA=="}, nil, "", "", ErrMalformed},
		{"base64 without padding", "PLAIN", []string{"AHRpbQB0YW5z"[:11]}, nil, "", "", ErrMalformed},
		{"base64 with bits left", "LOGIN", []string{"YR=="}, nil, "", "", ErrMalformed},
		{"base64 for URLs", "LOGIN", []string{"-_8="}, nil, "", "", ErrMalformed},
		{"CR in base64", "LOGIN", []string{"YWxp\rY2U="}, nil, "", "", ErrMalformed},
		{"blank in base64", "LOGIN", []string{"YWxp Y2U="}, nil, "", "", ErrMalformed},
		{"more behind the padding", "LOGIN", []string{"YQ==YQ=="}, nil, "", "", ErrMalformed},
	}
	for _, tt := range tests {
		x, err := Start([]byte(tt.mechanism))
		if err != nil {
			t.Fatal(err)
		}
		var challenges []string
		done := false
		for i, response := range tt.responses {
			var arg []byte
			if response != none {
				arg = []byte(response)
			}
			var challenge string
			challenge, done, err = x.Next(arg)
			clear(arg) // the line's buffer is used for the next one
			if last := i == len(tt.responses)-1; !last && (done || err != nil) || last && !errors.Is(err, tt.err) {
				t.Fatalf("%s: response %d: %v, %v, want %v at the end", tt.name, i, done, err, tt.err)
			}
			if !done && err == nil {
				challenges = append(challenges, challenge)
			}
		}
		if done != (tt.err == nil) || !slices.Equal(challenges, tt.challenges) {
			t.Errorf("%s: done %v, challenges %q, want %q", tt.name, done, challenges, tt.challenges)
		}
		if string(x.User()) != tt.user || string(x.Secret()) != tt.secret {
			t.Errorf("%s: %q with %q, want %q with %q", tt.name, x.User(), x.Secret(), tt.user, tt.secret)
		}
		if _, _, err := x.Next([]byte(b64("\x00bob\x00x"))); err == nil {
			t.Errorf("%s: takes a response after its end", tt.name)
		}
	}
}

func TestStart(t *testing.T) {
	for _, m := range Mechanisms() {
		x, err := Start([]byte(strings.ToLower(string(m))))
		if err != nil || x.Mechanism() != m {
			t.Errorf("Start(%s) = %v, %v", m, x, err)
		}
	}
	for _, m := range []string{"", "CRAM-MD5", "PLAIN2", "PLAI", "USER", "XOAUTH2"} {
		if _, err := Start([]byte(m)); !errors.Is(err, ErrMechanism) {
			t.Errorf("Start(%q): %v", m, err)
		}
	}
}

func TestPrompts(t *testing.T) {
	if promptUser != b64("Username:") || promptSecret != b64("Password:") {
		t.Error("the prompts of LOGIN are not base64 of theirs")
	}
}

// Where it is allowed, the identity is passed over: the user is the one whose password it is. It is no way around the
// rule for control bytes.
func TestAnyAuthzid(t *testing.T) {
	for message, want := range map[string]error{
		"root\x00alice\x00secret":      nil,
		"root\r\nx\x00alice\x00secret": ErrMalformed,
	} {
		x, _ := Start([]byte("PLAIN"))
		x.AnyAuthzid = true
		_, done, err := x.Next([]byte(b64(message)))
		if done != (want == nil) || !errors.Is(err, want) || done && string(x.User()) != "alice" {
			t.Errorf("%q: %v, %v, user %q, want %v", message, done, err, x.User(), want)
		}
	}
}

// A name half given is nobody's yet.
func TestNothingBeforeDone(t *testing.T) {
	x, _ := Start([]byte("LOGIN"))
	if _, _, err := x.Next([]byte(b64("alice"))); err != nil || x.User() != nil || x.Secret() != nil {
		t.Errorf("before the password: %q, %q, %v", x.User(), x.Secret(), err)
	}
}

// All memory that was decoded into is overwritten, by Wipe and by an error in the middle.
func TestWipe(t *testing.T) {
	ends := map[string]func(*Exchange){
		"wiped":     func(x *Exchange) { _, _, _ = x.Next([]byte(b64("secret"))); x.Wipe(); x.Wipe() },
		"cancelled": func(x *Exchange) { _, _, _ = x.Next([]byte("*")) },
		"malformed": func(x *Exchange) { _, _, _ = x.Next([]byte(b64("secret") + "!")) },
		"control":   func(x *Exchange) { _, _, _ = x.Next([]byte(b64("secret\n"))) },
	}
	for name, end := range ends {
		x, _ := Start([]byte("LOGIN"))
		if _, _, err := x.Next([]byte(b64("alice"))); err != nil {
			t.Fatal(err)
		}
		held := slices.Grow(x.held, 4)
		x.held = held
		end(x)
		for _, b := range held[:cap(held)] {
			if len(bytes.Trim(b, "\x00")) != 0 {
				t.Errorf("%s: %q is left", name, b)
			}
		}
		if x.User() != nil || x.Secret() != nil {
			t.Errorf("%s: still has %q, %q", name, x.User(), x.Secret())
		}
	}
}

func FuzzExchange(f *testing.F) {
	f.Add("PLAIN", []byte(b64("\x00alice\x00secret")), []byte(nil), []byte(nil))
	f.Add("LOGIN", []byte(nil), []byte(b64("alice")), []byte(b64("secret")))
	f.Add("LOGIN", []byte("="), []byte("*"), []byte("YR=="))
	f.Add("PLAIN", []byte(b64("a\x00b\x00c\r\n")), []byte("\r"), []byte("="))
	f.Fuzz(func(t *testing.T, mechanism string, a, b, c []byte) {
		x, err := Start([]byte(mechanism))
		if err != nil {
			return
		}
		defer x.Wipe()
		for _, response := range [][]byte{a, b, c} {
			before := bytes.Clone(response)
			challenge, done, err := x.Next(response)
			if !bytes.Equal(before, response) {
				t.Fatalf("changed the line %q to %q", before, response)
			}
			if err != nil {
				if done || challenge != "" || x.User() != nil || x.Secret() != nil {
					t.Fatalf("after %v: %v %q %q %q", err, done, challenge, x.User(), x.Secret())
				}
				return
			}
			if !done {
				continue
			}
			control := func(r rune) bool { return r < ' ' || r == 0x7f }
			for _, field := range [][]byte{x.User(), x.Secret()} {
				if len(field) == 0 || bytes.ContainsFunc(field, control) {
					t.Fatalf("gave %q", field)
				}
			}
			if x.Mechanism() != auth.Plain {
				return
			}
			// One spelling only: what came in is the base64 of what came out.
			short := "\x00" + string(x.User()) + "\x00" + string(x.Secret())
			if s := string(response); s != b64(short) && s != b64(string(x.User())+short) {
				t.Fatalf("%q was read as %q", response, short)
			}
			return
		}
	})
}

func BenchmarkPlain(b *testing.B) {
	response := []byte(b64("\x00alice@example.org\x00correct horse battery"))
	b.ReportAllocs()
	for b.Loop() {
		x, err := Start([]byte("PLAIN"))
		if err != nil {
			b.Fatal(err)
		}
		if _, done, err := x.Next(response); !done || err != nil {
			b.Fatal(done, err)
		}
		x.Wipe()
	}
}
