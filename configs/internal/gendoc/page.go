package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/popgate/popgate/configs"
)

const pagePath = "docs/configuration.md"

//go:embed head.md
var head string

// generate returns the page. The source of the module is below root.
func generate(root string) ([]byte, error) {
	example, err := readExample(root)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, head, example)
	source := newSource(root)
	keys := configs.Keys()
	if err := values(&page, source, keys, ""); err != nil {
		return nil, err
	}
	for _, k := range keys {
		title := k.Path
		switch {
		case k.List() && !hasKeysBelow(keys, k.Path+"[]."):
			continue
		case k.List():
			title += "[]"
		case !k.Section():
			continue
		}
		comment, err := describe(source, k)
		if err != nil {
			return nil, err
		}
		if k.List() {
			comment += "\n\nA list. Each entry has these keys:"
		}
		fmt.Fprintf(&page, "\n## %s\n\n%s\n", title, comment)
		if err := values(&page, source, keys, title+"."); err != nil {
			return nil, err
		}
	}
	return page.Bytes(), nil
}

// values describes the values, not the sections, right below a prefix.
func values(page *bytes.Buffer, source *source, keys []configs.Key, prefix string) error {
	for _, k := range keys {
		name, below := strings.CutPrefix(k.Path, prefix)
		if !below || strings.Contains(name, ".") || k.Section() || k.List() && hasKeysBelow(keys, k.Path+"[].") {
			continue
		}
		comment, err := describe(source, k)
		if err != nil {
			return err
		}
		facts, err := facts(k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.Path, err)
		}
		fmt.Fprintf(page, "\n- **`%s`**: %s<br>\n  *%s*\n", name, strings.ReplaceAll(comment, "\n", "\n  "), facts)
	}
	return nil
}

// facts are type, default and variable of a value, in a sentence each.
func facts(k configs.Key) (string, error) {
	wants := k.Wants()
	all := strings.ToUpper(wants[:1]) + wants[1:] + "."
	if k.Needed {
		all += " Must be written."
	} else {
		text, err := k.Written()
		if err != nil {
			return "", err
		}
		all += " Default: `" + text + "`."
	}
	if k.Env != "" {
		all += " Variable: `" + k.Env + "`."
	}
	return all, nil
}

func hasKeysBelow(keys []configs.Key, prefix string) bool {
	for _, k := range keys {
		if strings.HasPrefix(k.Path, prefix) {
			return true
		}
	}
	return false
}

// describe returns a key's doc comment in a user's words: Go's comments often begin with the field's name, which says nothing here.
func describe(source *source, k configs.Key) (string, error) {
	comment, err := source.comment(k.Struct, k.Field)
	if err != nil {
		return "", err
	}
	m := goName.FindStringSubmatch(comment)
	if m == nil || m[1] != k.Field {
		return comment, nil
	}
	comment = strings.TrimSpace(m[2] + " " + strings.TrimPrefix(comment, m[0]))
	return strings.ToUpper(comment[:1]) + comment[1:], nil
}

// goName matches such a beginning up to where it says something: a verb stays but for "is" and "are". "Name of the user"
// does not begin so.
var goName = regexp.MustCompile(`^([A-Z]\w*) (?:is |are |(bounds|lists|says|tells|names|holds) )`)

func readExample(root string) (string, error) {
	text, err := readFile(filepath.Join(root, "configs/examples/five-line.yaml"))
	return strings.TrimSpace(text), err
}
