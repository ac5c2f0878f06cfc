package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	const skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    x_test.go:1: curl is missing\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
	const fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"    x_test.go:2: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`
	const hang = `{"Action":"output","Package":"p","Test":"TestD","Output":"=== RUN   TestD\n"}
`
	tests := []struct {
		name, events string
		strict       bool
		status       int
		has, hasNot  string
	}{
		{"pass", pass, true, 0, "ok  \tp\t0.1s\n1 passed, 0 failed, 0 skipped\n", "chatter"},
		{"skip", pass + skip, false, 0, "SKIP p TestB: x_test.go:1: curl is missing\n", "RUN"},
		{"skip in CI", pass + skip, true, 1, "1 passed, 0 failed, 1 skipped\na skipped test", ""},
		{"fail", fail, false, 1, "x_test.go:2: got 1, want 2\nFAIL\tp\t0.1s\n", ""},
		{"died", pass + hang, false, 1, "UNFINISHED p TestD", ""},
		{"nothing", "", false, 1, "no test ran", ""},
		{"no event", "go: no such tool\n" + pass, false, 0, "go: no such tool\n", ""},
		{"build", `{"ImportPath":"p","Action":"build-output","Output":"x.go:1: oops\n"}` + "\n", false, 1, "x.go:1: oops\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			if err := s.read(strings.NewReader(tt.events)); err != nil {
				t.Fatal(err)
			}
			if got := s.close(tt.strict); got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
			if !strings.Contains(out.String(), tt.has) {
				t.Errorf("output %q lacks %q", out.String(), tt.has)
			}
			if tt.hasNot != "" && strings.Contains(out.String(), tt.hasNot) {
				t.Errorf("output %q has %q", out.String(), tt.hasNot)
			}
		})
	}
}
