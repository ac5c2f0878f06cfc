package convert

import (
	"errors"
	"fmt"
	"strings"
)

// An option is one line of perdition.conf.
type option struct {
	place
	name, value string
}

func (o option) String() string { return strings.TrimSpace(o.name + " " + o.value) }

// perditionShort are the short names of options (perdition(8)).
var perditionShort = map[string]string{
	"A": "add_domain", "a": "authenticate_in", "B": "no_bind_banner", "b": "bind_address", "C": "connection_logging",
	"c": "client_server_specification", "D": "domain_delimiter", "d": "debug", "F": "log_facility", "g": "group",
	"i": "inetd_mode", "L": "connection_limit", "l": "listen_port", "M": "map_library", "m": "map_library_opt",
	"n": "no_lookup", "O": "ok_line", "o": "server_resp_line", "P": "protocol", "p": "outgoing_port",
	"s": "outgoing_server", "S": "strip_domain", "t": "timeout", "u": "username", "U": "username_from_database", "q": "quiet",
}

// perditionOptions takes a file apart, by the rules at its own head: "#" begins a comment, a backslash at the end of a line
// joins it with the next, quotes protect what is in them.
func perditionOptions(file, data string) ([]option, error) {
	var all []option
	lines := strings.Split(data, "\n")
	for i := 0; i < len(lines); i++ {
		at := place{file, i + 1}
		line := strings.TrimSuffix(lines[i], "\r")
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) { // comments too: the sample file has such
			i++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSuffix(lines[i], "\r")
		}
		name, value, err := perditionLine(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if name != "" {
			all = append(all, option{at, strings.TrimLeft(name, "-"), value})
		}
	}
	return all, nil
}

// perditionLine takes one line apart; the name is empty where there is nothing on it.
func perditionLine(line string) (name, value string, err error) {
	var b strings.Builder
	quote := byte(0)
	named := false
	end := func() {
		if !named && b.Len() > 0 {
			name, named = b.String(), true
			b.Reset()
		}
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == c && c != 0:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '\'' || c == '"':
			quote = c
		case c == '\\' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
		case c == '#':
			i = len(line)
		case (c == ' ' || c == '\t') && !named:
			end()
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", "", errors.New("a quote has no end")
	}
	end()
	return name, strings.TrimSpace(b.String()), nil
}
