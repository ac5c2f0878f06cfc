package pop3mem

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
)

func TestStuff(t *testing.T) {
	for text, want := range map[string]string{
		"":               ".\r\n",
		"\n":             "\r\n.\r\n",
		"a":              "a\r\n.\r\n",
		"a\r\nb\n":       "a\r\nb\r\n.\r\n",
		".":              "..\r\n.\r\n",
		".\r\n..\n.a\n":  "..\r\n...\r\n..a\r\n.\r\n",
		"a.\r\nb":        "a.\r\nb\r\n.\r\n",
		"a\rb\r\r\n\xff": "a\rb\r\r\n\xff\r\n.\r\n",
	} {
		wire, size := stuff([]byte(text))
		if string(wire) != want {
			t.Errorf("stuff(%q) = %q, want %q", text, wire, want)
		}
		if got, _ := unstuff(wire); len(got) != size {
			t.Errorf("stuff(%q) counts %d octets, want %d", text, size, len(got))
		}
	}
}

// unstuff is the client's side, and says whether the end was found where the octets end.
func unstuff(wire []byte) ([]byte, bool) {
	var text []byte
	for len(wire) > 0 {
		line, rest, _ := bytes.Cut(wire, []byte("\r\n"))
		if string(line) == "." {
			return text, len(rest) == 0
		}
		text = append(append(text, bytes.TrimPrefix(line, []byte{'.'})...), '\r', '\n')
		wire = rest
	}
	return text, false
}

func TestTop(t *testing.T) {
	for text, want := range map[string][3]string{ // no, one and many lines of body
		"A: b\n\n1\n.2\n3\n": {"A: b\r\n\r\n", "A: b\r\n\r\n1\r\n", "A: b\r\n\r\n1\r\n..2\r\n3\r\n"},
		"A: b\n":             {"A: b\r\n", "A: b\r\n", "A: b\r\n"},
		"\nbody\n":           {"\r\n", "\r\nbody\r\n", "\r\nbody\r\n"},
		"A: b\n\n":           {"A: b\r\n\r\n", "A: b\r\n\r\n", "A: b\r\n\r\n"},
		"A: b\n\n\n\nx\n":    {"A: b\r\n\r\n", "A: b\r\n\r\n\r\n", "A: b\r\n\r\n\r\n\r\nx\r\n"},
		"":                   {"", "", ""},
	} {
		var d maildrop
		d.add([]byte(text))
		for i, n := range []int{0, 1, 1 << 30} {
			if got := d.messages[0].top(n); string(got) != want[i] {
				t.Errorf("top of %q with %d lines: %q, want %q", text, n, got, want[i])
			}
		}
	}
}

func FuzzStuff(f *testing.F) {
	f.Add([]byte("A: b\r\n\r\n.\n..x\r\r\n"), 2)
	f.Add([]byte(".\r.\n\n\n."), 0)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		wire, size := stuff(text)
		got, whole := unstuff(wire)
		if !whole || len(got) != size {
			t.Fatalf("%q: a client takes %d octets of %d, to the end %v", wire, len(got), size, whole)
		}
		normal := bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		if len(text) > 0 && text[len(text)-1] != '\n' {
			if text[len(text)-1] == '\r' {
				normal = normal[:len(normal)-1] // an end of the text is the end of a line
			}
			normal = append(normal, '\r', '\n')
		}
		if !bytes.Equal(got, normal) {
			t.Fatalf("%q was read as %q", normal, got)
		}
		m := &message{wire: wire}
		if top := m.top(n); !bytes.HasPrefix(wire, top) || len(top) > 0 && !bytes.HasSuffix(top, []byte("\r\n")) {
			t.Fatalf("top of %q is %q", wire, top)
		}
	})
}

func TestWelcome(t *testing.T) {
	messages := Welcome("alice@example.org")
	if len(messages) != 3 {
		t.Fatalf("%d messages", len(messages))
	}
	var parsed []*mail.Message
	for i, m := range messages {
		if bytes.Count(m, []byte("\n")) != bytes.Count(m, []byte("\r\n")) || bytes.Contains(m, []byte("{")) {
			t.Errorf("message %d has a bare LF or a placeholder left:\n%s", i, m)
		}
		p, err := mail.ReadMessage(bytes.NewReader(m))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Header.Date(); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
		if to, err := p.Header.AddressList("To"); err != nil || to[0].Address != "alice@example.org" {
			t.Errorf("message %d is to %v, %v", i, to, err)
		}
		parsed = append(parsed, p)
	}
	if subject, err := new(mime.WordDecoder).DecodeHeader(parsed[1].Header.Get("Subject")); err != nil || subject != "Grüße – and dots" {
		t.Errorf("subject %q, %v", subject, err)
	}
	if body, _ := io.ReadAll(parsed[1].Body); !bytes.Contains(body, []byte("\r\n.\r\n..\r\n.hidden\r\n")) || !bytes.Contains(body, []byte("gęślą")) {
		t.Errorf("no dots or no UTF-8 in\n%s", body)
	}
	if to := Welcome("bob")[0]; !bytes.Contains(to, []byte("To: bob@localhost\r\n")) {
		t.Errorf("a user without domain:\n%s", to)
	}
	checkParts(t, parsed[2])
}

// checkParts wants HTML and a picture that can be decoded.
func checkParts(t *testing.T, m *mail.Message) {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	html, err := r.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(html); err != nil || !strings.Contains(string(text), `<html lang="en">`) {
		t.Errorf("HTML: %q, %v", text, err)
	}
	picture, err := r.NextPart()
	if err != nil || picture.FileName() != "pixel.png" {
		t.Fatal(picture, err)
	}
	img, err := png.Decode(base64.NewDecoder(base64.StdEncoding, picture))
	if err != nil || img.Bounds().Dx() != 1 {
		t.Errorf("picture: %v", err)
	}
	if _, err := r.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the picture: %v", err)
	}
}

// Another reader of dots agrees: the standard library's.
func TestWelcomeOnTheWire(t *testing.T) {
	messages := Welcome("alice")
	s := New(Options{})
	s.Add("alice", "se cret", messages...)
	p := dial(t, start(t, s))
	p.play(login + "< +OK\n< +OK 3 messages\n")
	for i, want := range messages {
		if _, err := fmt.Fprintf(p.conn, "RETR %d\r\n", i+1); err != nil {
			t.Fatal(err)
		}
		if line, err := p.r.ReadString('\n'); err != nil || line != fmt.Sprintf("+OK %d octets\r\n", len(want)) {
			t.Fatalf("%q, %v, want %d octets", line, err, len(want))
		}
		got, err := io.ReadAll(textproto.NewReader(p.r).DotReader())
		if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("message %d: %v, got\n%s", i+1, err, got)
		}
	}
}
