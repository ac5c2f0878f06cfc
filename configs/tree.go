package configs

import (
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// maxAliased bounds how many values YAML aliases may repeat in all: ten lines of them can stand for billions.
const maxAliased = 100_000

// A builder makes plain maps, lists and scalars of a YAML tree, as far as it has the shape of a struct, and notes where each
// stands. What has another shape, or no place in the struct, is reported and left out.
type builder struct {
	*report
	vars    map[string]string // for ${NAME}
	keys    []key             // to say where a key belongs that was written elsewhere
	aliased int               // values that aliases repeated so far
}

// value returns n as the type t wants it: map[string]any, []any or scalar; nil if it is absent or does not fit.
func (b *builder) value(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind == yaml.AliasNode {
		if !b.repeat(n, path) {
			return nil
		}
		n = n.Alias
	}
	switch {
	case isLeaf(t):
		return b.scalar(n, t, path)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == tagNull:
		return nil // a section whose keys are all commented out
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		return b.mapping(n, t, path)
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		return b.sequence(n, t.Elem(), path)
	case t.Kind() == reflect.Slice && n.Kind == yaml.ScalarNode && t.Implements(oneOrMoreType):
		if v := b.value(n, t.Elem(), path); v != nil {
			return []any{v}
		}
	case t.Kind() == reflect.Slice:
		b.add(path, "is "+kind(n)+", and a list is wanted", "write - before each entry, or put them in [ ]")
	default:
		b.add(path, "is "+kind(n)+", and keys of its own are wanted", "write them below it, indented")
	}
	return nil
}

// repeat counts what an alias stands for. It is false, and reported once, when that has become too much.
func (b *builder) repeat(n *yaml.Node, path string) bool {
	// Counted before it is followed: the count is what keeps following it affordable.
	if b.aliased <= maxAliased {
		b.aliased += size(n.Alias, maxAliased)
		if b.aliased <= maxAliased {
			return true
		}
		b.addAt(origin{line: n.Line, column: n.Column}, path, "the aliases up to here repeat too much", "write the values out")
	}
	b.broken[path] = true
	return false
}

// size counts the nodes below n, up to most, those behind aliases as one each.
func size(n *yaml.Node, most int) int {
	count := 1
	for _, c := range n.Content {
		if count > most {
			break
		}
		count += size(c, most-count)
	}
	return count
}

// A pair is a key and its value, of the mapping itself or merged into it by <<.
type pair struct {
	key, value *yaml.Node
	merged     bool
}

// maxMerged bounds how deep mappings may merge others that merge others; an anchor can merge itself.
const maxMerged = 20

// pairs returns the pairs of a mapping in order, merged ones last.
func (b *builder) pairs(n *yaml.Node, path string, depth int) []pair {
	var own, merged []pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		// What a mapping says itself goes before what it merges, wherever the << stands.
		if key.ShortTag() == "!!merge" {
			merged = append(merged, b.merge(value, path, depth+1)...)
		} else {
			own = append(own, pair{key: key, value: value})
		}
	}
	return append(own, merged...)
}

// merge returns the pairs of what stands behind <<: a mapping, an alias of one, or a list of those.
func (b *builder) merge(n *yaml.Node, path string, depth int) []pair {
	place := origin{line: n.Line, column: n.Column}
	if n.Kind == yaml.AliasNode {
		if !b.repeat(n, path) {
			return nil
		}
		n = n.Alias
	}
	var all []pair
	switch {
	case depth > maxMerged:
		b.addAt(place, path, "<< merges what merges itself, or too much", "write the values out")
		b.aliased = maxAliased + 1 // no more of it, nor of other aliases
	case n.Kind == yaml.MappingNode:
		all = b.pairs(n, path, depth)
	case n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			all = append(all, b.merge(c, path, depth+1)...)
		}
	default:
		b.addAt(place, path, "<< merges "+kind(n), "name an anchor with keys of its own, such as <<: *common")
	}
	for i := range all {
		all[i].merged = true
	}
	return all
}

func (b *builder) mapping(n *yaml.Node, t reflect.Type, path string) any {
	known := fields(t)
	pairs := b.pairs(n, path, 0)
	values := map[string]any{}
	seen := map[string]int{}
	for _, p := range pairs {
		name, at := p.key.Value, join(path, p.key.Value)
		place := origin{line: p.key.Line, column: p.key.Column}
		if line, twice := seen[name]; twice {
			// To be written here and merged from there is what merging is for.
			if !p.merged {
				b.addAt(place, join(path, clip(name)), fmt.Sprintf("is written twice, first in line %d", line), "remove one of them")
			}
			continue
		}
		seen[name] = p.key.Line
		i := slices.IndexFunc(known, func(f field) bool { return f.name == name })
		if i < 0 || p.key.Kind != yaml.ScalarNode {
			b.unknown(place, path, name, missing(known, pairs))
			continue
		}
		// A value is found by itself; a section or list by its key, as it may begin lines below.
		if isLeaf(known[i].Type) {
			place = origin{line: p.value.Line, column: p.value.Column}
		}
		b.at[at] = place
		if v := b.value(p.value, known[i].Type, at); v != nil {
			values[name] = v
		}
	}
	return values
}

// missing returns the names of the known keys that the pairs do not have.
func missing(known []field, pairs []pair) []string {
	var names []string
	for _, f := range known {
		if !slices.ContainsFunc(pairs, func(p pair) bool { return p.key.Value == f.name }) {
			names = append(names, f.name)
		}
	}
	return names
}

// unknown reports a key that has no place here, and which one was meant. Those that are written already were not.
func (b *builder) unknown(place origin, path, name string, unwritten []string) {
	hint := ""
	if n := nearest(name, unwritten); n != "" {
		hint = fmt.Sprintf("did you mean %s?", n)
		// Its absence is explained; "is missing" would only repeat it.
		b.broken[join(path, n)] = true
	} else if i := slices.IndexFunc(b.keys, func(k key) bool { return endsIn(k.path, name) }); i >= 0 {
		hint = fmt.Sprintf("did you mean %s?", b.keys[i].path)
	}
	b.addAt(place, join(path, clip(name)), "there is no such key", hint)
}

func endsIn(path, name string) bool {
	return name != "" && path[len(parent(path)):] == "."+name
}

func (b *builder) sequence(n *yaml.Node, t reflect.Type, path string) any {
	values := make([]any, len(n.Content))
	for i, c := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		b.at[at] = origin{line: c.Line, column: c.Column}
		values[i] = b.value(c, t, at)
		// The place of what does not fit stays, empty, so that the entries behind it keep their numbers.
		if values[i] == nil && !b.broken[at] {
			b.add(at, "is an empty entry", "write something behind the - or remove it")
		}
	}
	return values
}

func (b *builder) scalar(n *yaml.Node, t reflect.Type, path string) any {
	tag := n.ShortTag()
	switch {
	case n.Kind != yaml.ScalarNode:
		b.add(path, fmt.Sprintf("is %s, and %s is wanted", kind(n), wants(t)), "")
		return nil
	case tag == tagNull:
		b.add(path, "has no value", `write one, or remove the key; "" and 0 turn things off`)
		return nil
	case !slices.Contains([]string{tagText, tagInt, tagReal, tagBool, tagTime}, tag):
		b.add(path, fmt.Sprintf("has the tag %s", show(tag)), "remove it")
		return nil
	}
	s := scalar{text: n.Value, tag: tag, path: path}
	if tag == tagText {
		text, expanded, problem := expand(n.Value, b.vars)
		if problem != "" {
			b.add(path, problem, "set it for popgate; $${ stands for the characters ${ themselves")
			return nil
		}
		const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
		// Quotes say that text is meant: "${N}" stays one, ${N} may be a number.
		s.text, s.loose = text, expanded && n.Style&quoted == 0
	}
	return s
}

// kind says in a user's words what was written.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section with keys of its own"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return show(n.Value)
}

// clip keeps an unknown key short enough and plain enough for a message.
func clip(name string) string {
	if q := show(name); q != `"`+name+`"` || name == "" {
		return q
	}
	return name
}
