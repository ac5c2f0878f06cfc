package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// mailKinds are the bodies that mail can be made of; n is the number behind the kind.
var mailKinds = map[string]func(n int) []byte{
	"plain": func(n int) []byte { return []byte(strings.Repeat("The quick brown fox.\r\n", max(n, 1))) },
	// What looks like the end of a message, or has dots that must be stuffed and unstuffed.
	"dots": func(int) []byte { return []byte(".\r\n..\r\n...\r\n.hidden\r\n\r\n.\r\n\r\n..end\r\n.\r\n") },
	// Every octet but NUL, CR and LF, in no charset.
	"8bit": func(int) []byte {
		var b []byte
		for c := 1; c < 256; c++ {
			if c != '\r' && c != '\n' {
				b = append(b, byte(c))
			}
		}
		return append(b, "\r\nGr\xfc\xdfe, \xe6\x97\xa5\r\n"...)
	},
	"blank": func(int) []byte { return []byte("\r\n\r\nempty lines at both ends\r\n\r\n\r\n\r\n") },
	"empty": func(int) []byte { return nil },
	"long":  func(n int) []byte { return append(bytes.Repeat([]byte("0123456789"), n), "\r\n.\r\n"...) },
	// n megabytes, as an attachment is sent.
	"big": func(n int) []byte { return attachment(max(n, 1) << 20) },
}

func attachment(size int) []byte {
	rnd := rand.NewChaCha8([32]byte{'m', 'a', 'i', 'l'})
	raw := make([]byte, 57)
	b := make([]byte, 0, size+80)
	for len(b) < size {
		_, _ = rnd.Read(raw) // never fails
		b = base64.StdEncoding.AppendEncode(b, raw)
		b = append(b, "\r\n"...)
	}
	return b
}

// mailDir is where the messages of an account are kept, one a file, as they must arrive.
func mailDir(ts *testscript.TestScript, account string) string {
	return filepath.Join(stageOf(ts).work, "mail", account)
}

func cmdMail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: mail ACCOUNT KIND[:N]...")
	}
	account, dir := args[0], mailDir(ts, args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	made, err := os.ReadDir(dir)
	ts.Check(err)
	number := len(made)
	for _, arg := range args[1:] {
		kind, digits, _ := strings.Cut(arg, ":")
		n := 0
		if digits != "" {
			n, err = strconv.Atoi(digits)
			ts.Check(err)
		}
		copies := 1
		if kind == "many" {
			kind, n, copies = "plain", 1, n
		}
		body := mailKinds[kind]
		if body == nil {
			ts.Fatalf("no kind of mail is called %q", kind)
		}
		for range copies {
			number++
			ts.Check(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.eml", number)), message(account, kind, number, body(n)), 0o600))
		}
	}
}

func message(account, kind string, number int, body []byte) []byte {
	head := fmt.Sprintf("From: sender@example.com\r\nTo: %s\r\nSubject: %s %d\r\n"+
		"Date: Sun, 01 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%05d.%s@example.com>\r\n\r\n", account, kind, number, number, kind)
	return append([]byte(head), body...)
}

// cmdCmpmail compares octet for octet. With -lf the line ends are taken as equal,
// for clients that keep mail in Unix's form.
func cmdCmpmail(ts *testscript.TestScript, neg bool, args []string) {
	lf := len(args) > 0 && args[0] == "-lf"
	if lf {
		args = args[1:]
	}
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cmpmail [-lf] ACCOUNT DIR")
	}
	want, err := readMail(mailDir(ts, args[0]), lf)
	ts.Check(err)
	got, err := readMail(ts.MkAbs(args[1]), lf)
	ts.Check(err)
	if len(want) == 0 {
		ts.Fatalf("no mail was made for %s", args[0])
	}
	for id, text := range want {
		fetched, ok := got[id]
		if !ok {
			ts.Fatalf("%s was not fetched (%d of %d were)", id, len(got), len(want))
		}
		if at := difference(fetched, text); at >= 0 {
			ts.Fatalf("%s differs from octet %d on: got %d octets, %q; want %d, %q",
				id, at, len(fetched), excerpt(fetched, at), len(text), excerpt(text, at))
		}
		delete(got, id)
	}
	for id := range got {
		ts.Fatalf("%s was fetched but never sent", id)
	}
}

var messageID = regexp.MustCompile(`(?m)^Message-ID: (\S+)`)

// readMail reads the messages in the files below dir, by Message-ID.
func readMail(dir string, lf bool) (map[string][]byte, error) {
	mail := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		id := messageID.FindSubmatch(text)
		if id == nil {
			return fmt.Errorf("%s: no Message-ID in %q", path, excerpt(text, 0))
		}
		if mail[string(id[1])] != nil {
			return fmt.Errorf("%s: %s is there twice", path, id[1])
		}
		if lf {
			text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		}
		mail[string(id[1])] = text
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing was fetched: the caller says which messages
	}
	return mail, err
}

// difference is the first place where a and b differ, or -1.
func difference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) == len(b) {
		return -1
	}
	return min(len(a), len(b))
}

func excerpt(text []byte, at int) []byte { return text[min(at, len(text)):min(at+60, len(text))] }
