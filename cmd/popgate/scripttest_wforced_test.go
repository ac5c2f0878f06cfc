package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// A wforced answers as weakforced would, in the way that the script says, and writes down what it is asked.
type wforced struct {
	address string
	book    string // a line of JSON for each call, with its command in "command"

	mu     sync.Mutex
	mode   string
	server *http.Server
	ended  chan error
}

// cmdWforced starts a weakforced on $VAR, or has the one that is there behave in another way:
//
//	wforced VAR allow          every login may go on
//	wforced VAR refuse         none may
//	wforced VAR wait:N         each may after N seconds
//	wforced VAR garbage        its answer is none
//	wforced VAR broken         its answer is an error
//	wforced VAR slow           it takes questions and does not answer
//	wforced VAR down           nobody listens
//
// What it is asked stands in wforced.jsonl. Its password is "wforce secret".
func cmdWforced(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: wforced VAR allow|refuse|wait:N|garbage|broken|slow|down")
	}
	s := stageOf(ts)
	if s.wforced == nil {
		port, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		s.wforced = &wforced{address: port.Addr().String(), book: ts.MkAbs("wforced.jsonl")}
		ts.Check(errors.Join(port.Close(), os.WriteFile(s.wforced.book, nil, 0o600)))
		s.servers = append(s.servers, s.wforced.stop)
		ts.Setenv(args[0], s.wforced.address)
	}
	w := s.wforced
	w.mu.Lock()
	w.mode = args[1]
	w.mu.Unlock()
	if args[1] == "down" {
		ts.Check(w.stop())
		return
	}
	ts.Check(w.start())
}

func (w *wforced) start() error {
	if w.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", w.address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: w}
	w.server, w.ended = server, make(chan error, 1)
	go func() { w.ended <- server.Serve(l) }()
	return nil
}

func (w *wforced) stop() error {
	if w.server == nil {
		return nil
	}
	err := w.server.Close()
	if ended := <-w.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	w.server = nil
	return err
}

// ServeHTTP writes the call down and answers.
func (w *wforced) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	command := strings.TrimPrefix(r.URL.Path, "/command/")
	if _, password, _ := r.BasicAuth(); password != "wforce secret" {
		http.Error(rw, "no", http.StatusUnauthorized)
		return
	}
	var call map[string]any
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	call["command"] = command
	w.mu.Lock()
	mode := w.mode
	err := w.note(call)
	w.mu.Unlock()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	w.answer(r.Context(), rw, command, mode)
}

// note appends one call to the book.
func (w *wforced) note(call map[string]any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(call); err != nil {
		return err
	}
	f, err := os.OpenFile(w.book, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(line.Bytes())
	return errors.Join(err, f.Close())
}

func (w *wforced) answer(ctx context.Context, rw http.ResponseWriter, command, mode string) {
	kind, seconds, _ := strings.Cut(mode, ":")
	text := map[string]string{
		"allow": `{"status":0,"msg":"","r_attrs":{}}`, "refuse": `{"status":-1,"msg":"too many","r_attrs":{}}`,
		"wait": fmt.Sprintf(`{"status":%s,"msg":"","r_attrs":{}}`, seconds), "garbage": "<html>hello</html>",
	}[kind]
	switch {
	case kind == "broken":
		http.Error(rw, `{"status":"failure","reason":"out of order"}`, http.StatusInternalServerError)
		return
	case kind == "slow":
		<-ctx.Done()
		return
	case command == "report" && kind != "garbage":
		text = `{"status":"ok"}`
	}
	_, _ = io.WriteString(rw, text)
}
