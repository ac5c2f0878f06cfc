// Licenses checks that every module built into the packages it is given carries
// a licence that lets popgate be shipped under Apache-2.0, and prints them.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// accepted names modules whose licence is not on the general list, each with
// the reason why popgate may build them in.
var accepted = map[string]string{
	"github.com/go-sql-driver/mysql": "MPL-2.0: used unmodified, file-level copyleft",
	"modernc.org/memory":             "BSD-3-Clause; its LICENSE-LOGO says where a picture comes from, which is not built in",
	"modernc.org/sqlite":             "BSD-3-Clause, and SQLite itself is in the public domain; the MPL-2.0 it speaks of is that of a module it does not build in",
}

// licences are known by sentences that only they hold.
var licences = []struct {
	name string
	text *regexp.Regexp
	free bool // may be built in without a word
}{
	{"Apache-2.0", regexp.MustCompile(`Apache License,? Version 2\.0`), true},
	{"MIT", regexp.MustCompile(`Permission is hereby granted, free of charge, to any person`), true},
	{"BSD", regexp.MustCompile(`Redistribution and use in source and binary forms`), true},
	{"ISC", regexp.MustCompile(`Permission to use, copy, modify, and(/or)? distribute this software for any purpose`), true},
	{"CC0-1.0", regexp.MustCompile(`CC0 1\.0 Universal`), true},
	{"MPL-2.0", regexp.MustCompile(`Mozilla Public License,? [Vv]ersion 2\.0`), false},
	{"GPL", regexp.MustCompile(`GNU( AFFERO| LESSER)? GENERAL PUBLIC LICENSE|under the terms of the GNU|SPDX-License-Identifier: [AL]?GPL`), false},
}

var licenceFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying|unlicense)([.-].*)?$`)

func main() {
	modules, err := built(os.Args[1:])
	if err == nil {
		err = check(modules, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

// A module is one of go list's.
type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *module
}

// built lists the modules that the packages are built from, without our own.
func built(packages []string) ([]module, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, packages...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	seen := map[string]bool{}
	var modules []module
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct{ Module *module }
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		m := pkg.Module
		if m == nil || m.Main || seen[m.Path] {
			continue
		}
		seen[m.Path] = true
		modules = append(modules, *m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// check prints one line a module; its error names all that may not be built in.
func check(modules []module, w io.Writer) error {
	var refused []error
	for _, m := range modules {
		name, err := licence(m)
		if err != nil {
			refused = append(refused, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
			continue
		}
		fmt.Fprintf(w, "%-12s %s %s\n", name, m.Path, m.Version)
	}
	return errors.Join(refused...)
}

// licence reads all the licence files at the top of a module.
func licence(m module) (string, error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	var names, doubts []string
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return "", fmt.Errorf("read licence: %w", err)
		}
		found, doubt := classify(string(text))
		names = append(names, found...)
		if doubt != "" {
			doubts = append(doubts, e.Name()+": "+doubt)
		}
	}
	slices.Sort(names)
	name := strings.Join(slices.Compact(names), "+")
	switch {
	case len(names)+len(doubts) == 0:
		return "", errors.New("no licence file")
	case len(doubts) > 0 && accepted[m.Path] == "":
		return "", errors.New(strings.Join(doubts, "; "))
	}
	return name, nil
}

// classify names the licences in a text; doubt says why it can't be taken.
func classify(text string) (names []string, doubt string) {
	text = strings.Join(strings.Fields(text), " ")
	for _, l := range licences {
		if !l.text.MatchString(text) {
			continue
		}
		names = append(names, l.name)
		if !l.free {
			doubt = l.name + " is not on the list"
		}
	}
	if len(names) == 0 {
		doubt = "unknown licence"
	}
	return names, doubt
}
