package dns

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
)

// algorithms are those whose keys we take. What RFC 8945 calls SHOULD NOT (MD5, SHA-1) is left out.
var algorithms = map[string]string{
	"hmac-sha256": miekg.HmacSHA256,
	"hmac-sha512": miekg.HmacSHA512,
}

// A tsigKey signs updates. All but its secret may be shown.
type tsigKey struct {
	name      string // fqdn
	algorithm string // as on the wire
	secret    string // base64
}

// parseKey reads a TSIG key in the form of BIND (`key "name" { algorithm hmac-sha256; secret "…"; };`, what tsig-keygen
// prints), or a secret alone in base64, to which name and algorithm must be given. A given name or algorithm must not
// contradict the file. No error shows the secret.
func parseKey(data []byte, name, algorithm string) (tsigKey, error) {
	text := string(data)
	k := tsigKey{secret: strings.Join(strings.Fields(text), "")}
	if strings.Contains(text, "{") {
		var err error
		var inName, inAlgorithm string
		if inName, inAlgorithm, k.secret, err = parseKeyStatement(text); err != nil {
			return tsigKey{}, err
		}
		if name != "" && fqdn(name) != fqdn(inName) {
			return tsigKey{}, fmt.Errorf("the file's key is called %q and not %q: remove key_name", inName, name)
		}
		if algorithm != "" && inAlgorithm != "" && algorithm != inAlgorithm {
			return tsigKey{}, fmt.Errorf("the file's key is for %s and not %s: remove algorithm", inAlgorithm, algorithm)
		}
		name = inName
		if inAlgorithm != "" {
			algorithm = inAlgorithm
		}
	}
	if name == "" {
		return tsigKey{}, errors.New("holds a secret without its name: write key_name, or put the whole output of tsig-keygen into the file")
	}
	if _, ok := miekg.IsDomainName(name); !ok {
		return tsigKey{}, fmt.Errorf("the key's name %q is no domain name", name)
	}
	if algorithm == "" {
		algorithm = "hmac-sha256"
	}
	wire, ok := algorithms[algorithm]
	if !ok {
		return tsigKey{}, fmt.Errorf("the key's algorithm %q is not taken: make a new one with `tsig-keygen -a hmac-sha256 %s`", algorithm, name)
	}
	// Never the error of the decoder: it tells where in the secret it stopped.
	if raw, err := base64.StdEncoding.DecodeString(k.secret); err != nil || len(raw) == 0 {
		return tsigKey{}, errors.New("the key's secret is not base64: put the output of tsig-keygen into the file unchanged")
	}
	k.name, k.algorithm = fqdn(name), wire
	return k, nil
}

// parseKeyStatement reads the one key statement of text; more than one would leave open which is meant.
func parseKeyStatement(text string) (name, algorithm, secret string, err error) {
	words, err := keyWords(text)
	if err != nil {
		return "", "", "", err
	}
	if len(words) < 4 || words[0] != "key" || words[2] != "{" {
		return "", "", "", errors.New(`does not begin with: key "NAME" {`)
	}
	name, words = words[1], words[3:]
	end := slices.Index(words, "}")
	if end < 0 {
		return "", "", "", errors.New("lacks the } at the end of the key")
	}
	if behind := words[end+1:]; len(behind) > 0 && !slices.Equal(behind, []string{";"}) {
		return "", "", "", errors.New("holds more than one key: leave only the one that is meant")
	}
	for setting := range slices.Chunk(words[:end], 3) {
		if len(setting) < 3 || setting[2] != ";" {
			return "", "", "", errors.New("lacks a semicolon after a value of the key")
		}
		switch setting[0] {
		case "algorithm":
			algorithm = strings.ToLower(setting[1])
		case "secret":
			secret = setting[1]
		default:
			return "", "", "", errors.New("holds something else in the key than algorithm and secret")
		}
	}
	if secret == "" {
		return "", "", "", errors.New("holds a key without a secret")
	}
	return name, algorithm, secret, nil
}

// keyWords splits text into words, quoted strings, braces and semicolons, without the comments of named.conf.
func keyWords(text string) ([]string, error) {
	var words []string
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		switch {
		case text == "":
			return words, nil
		case strings.HasPrefix(text, "//") || text[0] == '#':
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			var closed bool
			if _, text, closed = strings.Cut(text[2:], "*/"); !closed {
				return nil, errors.New("lacks the */ at the end of a comment")
			}
		case text[0] == '"':
			word, rest, closed := strings.Cut(text[1:], `"`)
			if !closed {
				return nil, errors.New("lacks a closing quote")
			}
			words, text = append(words, word), rest
		case strings.ContainsRune("{};", rune(text[0])):
			words, text = append(words, text[:1]), text[1:]
		default:
			end := strings.IndexAny(text, " \t\r\n{};\"")
			if end < 0 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
		}
	}
}
