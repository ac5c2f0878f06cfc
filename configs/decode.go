package configs

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// delimiter parts the steps of a key inside viper. Its own, a dot, may stand in names.
const delimiter = "::"

// decode stores what was written over the defaults that target holds: first the file's tree, then the overrides, by path.
// The entries of lists begin as defaults says. Values that do not fit are reported and leave the default.
func decode(target any, tree map[string]any, overrides map[string]scalar, defaults map[reflect.Type]reflect.Value, r *report) error {
	// A fresh one each time: Viper is not safe for concurrent use, and keeps no place for what must not outlive a reload.
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	if err := v.MergeConfigMap(tree); err != nil {
		return fmt.Errorf("take over the keys of the file: %w", err)
	}
	// Viper could read the variables itself, but only from the process's own environment, and without telling which are wrong.
	for path, s := range overrides {
		v.Set(strings.ReplaceAll(path, ".", delimiter), s)
	}
	err := v.Unmarshal(target, func(c *mapstructure.DecoderConfig) {
		c.TagName = tagName
		// Viper's own settings take "5" for a number and 10 for ten nanoseconds.
		c.WeaklyTypedInput = false
		c.ErrorUnused = true
		c.MatchName = func(key, field string) bool { return key == field }
		c.DecodeHook = hook(defaults, r)
	})
	if err != nil {
		return fmt.Errorf("store the keys of the file: %w", err)
	}
	return nil
}

// hook prepares what mapstructure fills, and stores scalars itself; nil tells mapstructure that nothing is left to do.
func hook(defaults map[reflect.Type]reflect.Value, r *report) func(from, to reflect.Value) (any, error) {
	return func(from, to reflect.Value) (any, error) {
		if s, ok := from.Interface().(scalar); ok {
			if problem, hint := s.set(to); problem != "" {
				r.add(s.path, problem, hint)
			}
			return nil, nil
		}
		switch {
		case from.Kind() == reflect.Slice:
			// A written list replaces the default one, it does not lay its entries over that one's. An empty list
			// is nil, so that a printed configuration loads as equal.
			to.SetZero()
			if from.Len() == 0 {
				return nil, nil
			}
		case from.Kind() == reflect.Map:
			if d, ok := defaults[to.Type()]; ok {
				to.Set(d)
			}
		}
		return from.Interface(), nil
	}
}
