package main

import (
	"strings"
	"testing"

	"github.com/popgate/popgate/proxy/backend"
)

// Servers that are not alike are named where only some of them want a line; keys to pin are of all.
func TestDoctorChanges(t *testing.T) {
	exam := func(server string, changes ...backend.Change) *backend.Exam {
		return &backend.Exam{Backend: "old", Server: server, Facts: backend.Facts{Greeting: backend.GreetingFacts{Text: "+OK"}}, Changes: changes}
	}
	tls := backend.Change{Key: "tls", Value: "starttls", Reason: "it must be"}
	pin := func(key string) backend.Change {
		return backend.Change{Key: "tls_pin_sha256", Value: "[" + key + "]", Reason: "nobody vouches"}
	}
	for _, tt := range []struct {
		name  string
		exams []*backend.Exam
		want  string
	}{
		{"alike", []*backend.Exam{exam("a:110", tls, pin("11")), exam("b:110", tls, pin("22")), exam("c:110", tls, pin("11"))}, `
  Lines to write for this backend:

  backends:
    - name: old
      # it must be
      tls: starttls
      # nobody vouches
      tls_pin_sha256: [11, 22]
`},
		{"not alike", []*backend.Exam{exam("a:110", tls), exam("b:995", backend.Change{Key: "tls", Value: "implicit", Reason: "it is"}), exam("c:110")}, `
  Lines to write for this backend:

  backends:
    - name: old
      # a:110: it must be
      tls: starttls
      # b:995: it is
      # or, for these servers in a backend of their own: tls: implicit
`},
		{"nothing", []*backend.Exam{exam("a:110")}, "\n  Nothing to change for backend old in the config file.\n"},
		{"nobody", []*backend.Exam{{Backend: "old"}}, "\n  Nothing can be said about what to write for backend old.\n"},
	} {
		var b strings.Builder
		if err := changesText(&b, tt.exams); err != nil {
			t.Fatal(err)
		}
		if b.String() != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, b.String(), tt.want)
		}
	}
}
