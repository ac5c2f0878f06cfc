package configs

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hidden stands for the value of a key that is tagged `secret:"true"`.
const hidden = "[hidden]"

// Print writes the configuration as it is in effect, every key with its value, as YAML that Load reads as the same again,
// but for secrets, which are hidden.
func (c *Config) Print(w io.Writer) error {
	n, err := section(reflect.ValueOf(*c))
	if err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return e.Close()
}

// section returns the keys of a struct and their values, in the order of its fields.
func section(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fields(v.Type()) {
		value, err := written(v.FieldByIndex(f.Index))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if f.Tag.Get("secret") == "true" && !v.FieldByIndex(f.Index).IsZero() {
			value = text(hidden)
		}
		n.Content = append(n.Content, text(f.name), value)
	}
	return n, nil
}

// written returns a value as a file would have it.
func written(v reflect.Value) (*yaml.Node, error) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return text(short(x)), nil
	case encoding.TextMarshaler: // before the kinds: a rate is a struct, a size a number
		b, err := x.MarshalText()
		return text(escape(string(b))), err
	}
	switch v.Kind() {
	case reflect.Struct:
		return section(v)
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		// Words fit on one line, entries with keys do not.
		if v.Len() == 0 || isLeaf(v.Type().Elem()) {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			entry, err := written(v.Index(i))
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			n.Content = append(n.Content, entry)
		}
		return n, nil
	case reflect.String:
		return text(escape(v.String())), nil
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tagBool, Value: strconv.FormatBool(v.Bool())}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tagInt, Value: strconv.FormatInt(v.Int(), 10)}, nil
	case reflect.Uint32:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tagInt, Value: strconv.FormatUint(v.Uint(), 10)}, nil
	}
	return nil, fmt.Errorf("no file has a %s", v.Type())
}

// short is what Go writes without the zeros at its end: 10m, not 10m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// text lets yaml choose the quotes: it knows that older readers take yes and no for truth values.
func text(s string) *yaml.Node {
	var n yaml.Node
	_ = n.Encode(s) // a string always encodes
	return &n
}
