// Gotest runs go test with the arguments it is given, prints what go test
// itself prints without -v, and adds what go test keeps quiet about: the tests
// that were skipped and why, and how many ran. With CI=true in the environment a
// skipped test is a failure, because there everything a test needs is installed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Getenv("CI") == "true"))
}

func run(args []string, stdout io.Writer, strict bool) int {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		return 2
	}
	sum := newSummary(stdout)
	readErr := sum.read(events)
	err = cmd.Wait()
	status := sum.close(strict)
	if readErr != nil {
		fmt.Fprintln(os.Stderr, "gotest: read go test's events:", readErr)
		return 2
	}
	if err != nil {
		return 1
	}
	return status
}

// An event is one line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

// A test is named by its package and name; the name is "" for the package.
type test struct{ pkg, name string }

// A summary follows the events of one go test run.
type summary struct {
	w       io.Writer
	output  map[test][]string
	lines   []string // go test's own line for each package
	skipped []string

	passed, failed int
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[test][]string{}}
}

// read takes events until r ends. A line that is no event is printed as it is.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				s.take(e)
			} else {
				fmt.Fprintf(s.w, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.w, e.Output)
	case "output":
		s.takeOutput(t, e.Output)
	case "pass":
		if e.Test != "" {
			s.passed++
		}
		delete(s.output, t)
	case "skip":
		if e.Test != "" {
			s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(s.output[t])))
		}
		delete(s.output, t)
	case "fail":
		if e.Test != "" {
			s.failed++
		}
		s.flush(t)
	}
}

// takeOutput keeps a test's output until it is known whether it failed, and
// prints go test's own line for a package at once.
func (s *summary) takeOutput(t test, text string) {
	if t.name != "" || !isPackageLine(text) {
		s.output[t] = append(s.output[t], text)
		return
	}
	fmt.Fprint(s.w, text)
	s.lines = append(s.lines, text)
}

func isPackageLine(text string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t"} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

func (s *summary) flush(t test) {
	for _, line := range s.output[t] {
		fmt.Fprint(s.w, line)
	}
	delete(s.output, t)
}

// reason is what a skipped test said last before its "--- SKIP" line.
func reason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		line := strings.TrimSpace(output[i])
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

// close prints what is left to say and gives the exit status. Tests that were
// still running when their package died have kept their output until now.
func (s *summary) close(strict bool) int {
	for _, line := range s.skipped {
		fmt.Fprintln(s.w, "SKIP", line)
	}
	for t := range s.output {
		if t.name != "" {
			fmt.Fprintf(s.w, "UNFINISHED %s %s\n", t.pkg, t.name)
			s.flush(t)
			s.failed++
		}
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
	switch {
	case s.failed > 0:
		return 1
	case strict && len(s.skipped) > 0:
		fmt.Fprintln(s.w, "a skipped test is a failure where CI=true")
		return 1
	case s.passed == 0:
		fmt.Fprintln(s.w, "no test ran")
		return 1
	}
	return 0
}
