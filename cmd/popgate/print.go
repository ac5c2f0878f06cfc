package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// columns prints rows of cells below each other, once flush is called, which returns the error of all.
func columns(w io.Writer) (row func(cells ...string), flush func() error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	return func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }, t.Flush
}

// printJSON prints a value for programs.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// plain makes what others have said fit for one line of a terminal.
func plain(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
}

// moment is a time to the minute, in UTC; "-" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// networkText is a network as people write it: one IPv4 address is that address.
func networkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
