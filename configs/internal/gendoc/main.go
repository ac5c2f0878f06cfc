// Gendoc writes docs/configuration.md from the doc comments and the defaults of the structs that the configuration is made of.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// run writes the page below the module's root, which is the only argument.
func run(args []string, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: gendoc ROOT")
		return 2
	}
	page, err := generate(args[0])
	if err == nil {
		err = os.WriteFile(filepath.Join(args[0], pagePath), page, 0o644)
	}
	if err != nil {
		fmt.Fprintln(stderr, "gendoc:", err)
		return 1
	}
	return 0
}
