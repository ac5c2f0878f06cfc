package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestOutage has five find out, one after the other, that Redis is gone and that it is back, twice.
func TestOutage(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	var o outage
	parts := []string{"a", "b", "c", "d", "e"}
	for range 2 {
		said.Reset()
		for _, p := range parts {
			o.begin(log, p, errors.New("gone"))
		}
		if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "first=a error=gone") {
			t.Errorf("at the beginning it said %q, want one line", got)
		}
		said.Reset()
		for _, p := range parts {
			o.end(log, p)
		}
		if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=INFO") || !strings.Contains(got, "last=e") {
			t.Errorf("at the end it said %q, want one line", got)
		}
	}
}
