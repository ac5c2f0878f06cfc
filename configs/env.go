package configs

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const envPrefix = "POPGATE_"

// variables makes a map of an environment as os.Environ gives it.
func variables(env []string) map[string]string {
	vars := make(map[string]string, len(env))
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

// overrides finds the variables that stand for keys, and warns of those that look as if they should.
func overrides(keys []key, vars map[string]string, r *report) (values map[string]scalar, warnings []string) {
	values = map[string]scalar{}
	paths := map[string]string{}
	for _, k := range keys {
		if k.env != "" {
			paths[k.env] = k.path
		}
	}
	for name, value := range vars {
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		path, known := paths[name]
		switch {
		case known && !utf8.ValidString(value):
			r.addAt(origin{name: name}, path, "is not UTF-8 text", "")
		case known:
			// An empty one counts: it turns off what "" turns off, and is a fault where that says nothing.
			values[path] = scalar{text: value, path: path, loose: true}
			r.at[path] = origin{name: name}
		case !madeByKubernetes(name):
			warnings = append(warnings, unknownVariable(name, keys))
		}
	}
	slices.Sort(warnings)
	return values, warnings
}

func unknownVariable(name string, keys []key) string {
	w := name + " stands for no key and is ignored"
	var known []string
	for _, k := range keys {
		if k.env == "" && envName(k.path) == name {
			return "environment: " + w + "; lists and sections are written in the file"
		}
		known = append(known, k.env)
	}
	// All names begin alike, so a name that is altogether different can still be near.
	if n := nearest(name, known); n != "" {
		w += "; did you mean " + n + "?"
	}
	return "environment: " + w
}

// envName is the variable that overrides the key at path.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// madeByKubernetes tells the variables that Kubernetes sets in every pod for a service whose name begins with "popgate".
func madeByKubernetes(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_PORT") ||
		strings.Contains(name, "_SERVICE_PORT") || strings.Contains(name, "_PORT_")
}

// expand replaces ${NAME} by the variable's value and $${ by ${. What it puts in is never looked at again.
// done tells whether a variable was put in.
func expand(s string, vars map[string]string) (expanded string, done bool, problem string) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			return b.String() + s, done, ""
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "$${"):
			b.WriteString("${")
			s = s[len("$${"):]
		case strings.HasPrefix(s, "${"):
			name, rest, ok := strings.Cut(s[len("${"):], "}")
			if !ok || !isVariable(name) {
				return "", false, "${ is not followed by a variable's name and }"
			}
			value, ok := vars[name]
			if !ok {
				return "", false, fmt.Sprintf("the environment variable %s is not set", name)
			}
			if !utf8.ValidString(value) {
				return "", false, fmt.Sprintf("the environment variable %s is not UTF-8 text", name)
			}
			b.WriteString(value)
			s, done = rest, true
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}

func isVariable(name string) bool {
	for i, c := range name {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// escape is the inverse of expand for a text without variables.
func escape(s string) string { return strings.ReplaceAll(s, "${", "$${") }
