package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const mit = "Permission is hereby granted, free of charge,\n to any person obtaining a copy"

func TestCheck(t *testing.T) {
	tests := []struct {
		name, path string
		files      map[string]string
		want       string // in the output, or in the error where refused
		refused    bool
	}{
		{"mit", "example.org/a", map[string]string{"LICENSE": mit}, "MIT ", false},
		{"british", "example.org/a", map[string]string{"LICENCE.txt": mit}, "MIT ", false},
		{"two", "example.org/a", map[string]string{"LICENSE": mit + "\nApache License\nVersion 2.0"}, "Apache-2.0+MIT", false},
		{"bsd", "example.org/a", map[string]string{"LICENSE.md": "Redistribution and use in source and binary forms"}, "BSD", false},
		{"none", "example.org/a", map[string]string{"README": mit}, "example.org/a v1.0.0: no licence file", true},
		{"unknown", "example.org/a", map[string]string{"LICENSE": "all rights reserved"}, "unknown licence", true},
		{"gpl", "example.org/a", map[string]string{"COPYING": "GNU GENERAL PUBLIC LICENSE\nVersion 3"}, "GPL is not on the list", true},
		{"agpl beside mit", "example.org/a", map[string]string{"LICENSE": mit, "COPYING": "GNU AFFERO GENERAL PUBLIC LICENSE"}, "COPYING: GPL", true},
		{"mpl", "example.org/a", map[string]string{"LICENSE": "Mozilla Public License Version 2.0"}, "MPL-2.0 is not", true},
		{"mpl accepted", "github.com/go-sql-driver/mysql", map[string]string{"LICENSE": "Mozilla Public License Version 2.0"}, "MPL-2.0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			err := check([]module{{Path: tt.path, Version: "v1.0.0", Dir: dir}}, &out)
			got := out.String()
			if err != nil {
				got = err.Error()
			}
			if (err != nil) != tt.refused || !strings.Contains(got, tt.want) {
				t.Errorf("refused %v with %q, want %v with %q", err != nil, got, tt.refused, tt.want)
			}
		})
	}
}
