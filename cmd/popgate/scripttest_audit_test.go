package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdAudit waits for a record in audit.jsonl in which every field named has a
// value that fits its pattern (path.Match's); tls.version is a field of tls.
// With ! there must be none now.
func cmdAudit(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] audit FIELD=PATTERN...")
	}
	if neg {
		if found, err := recorded(ts.MkAbs("audit.jsonl"), args); found || err != nil {
			ts.Fatalf("audit record %q: found %v, %v", args, found, err)
		}
		return
	}
	eventually(ts, fmt.Sprintf("audit record %q", args), func() (bool, error) {
		return recorded(ts.MkAbs("audit.jsonl"), args)
	})
}

// recorded looks for one record that fits in a file of records.
func recorded(file string, fields []string) (bool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		var record map[string]any
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber() // numbers are matched as they are written
		if err := dec.Decode(&record); err != nil {
			return false, fmt.Errorf("record %q: %w", line, err)
		}
		if ok, err := fits(record, fields); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func fits(record map[string]any, fields []string) (bool, error) {
	for _, f := range fields {
		name, pattern, ok := strings.Cut(f, "=")
		if !ok {
			return false, fmt.Errorf("%q is not FIELD=PATTERN", f)
		}
		var value any = record
		for step := range strings.SplitSeq(name, ".") {
			inner, _ := value.(map[string]any)
			value = inner[step]
		}
		if value == nil {
			value = ""
		}
		if ok, err := path.Match(pattern, fmt.Sprint(value)); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}
