package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
)

// A Script is Lua that Redis keeps, so that a call sends its name only. Many may run it at once.
//
// The name is what Redis itself answers when it is told the script: it is a SHA-1, which this process must not compute where FIPS 140
// is enforced.
type Script struct {
	client *Client
	text   string
	name   atomic.Pointer[string]
}

// Script makes a Script of c's. Nothing is sent yet.
func (c *Client) Script(text string) *Script { return &Script{client: c, text: text} }

// Run runs the script, which sees keys as KEYS and args as ARGV, and gives its reply as Do does. keys must have one at least, and all of
// one part: it says which server of a Redis Cluster is asked.
func (s *Script) Run(ctx context.Context, keys []string, args ...any) (any, error) {
	name := s.name.Load()
	if name == nil {
		v, err := s.client.Do(ctx, "SCRIPT", "LOAD", s.text)
		if err != nil {
			return nil, err
		}
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("redis: SCRIPT LOAD was answered with %T, want a name", v)
		}
		name = &text
		s.name.Store(name)
	}
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "EVALSHA", *name, len(keys))
	for _, key := range keys {
		command = append(command, key)
	}
	v, err := s.client.Do(ctx, append(command, args...)...)
	if err != nil && isMissing(err) {
		// It was restarted, or is another server of the cluster. Nothing has run; being told the whole script it keeps it again.
		return s.client.Eval(ctx, s.text, keys, args...)
	}
	return v, err
}

// isMissing says that Redis does not know the script that it was to run.
func isMissing(err error) bool { return strings.HasPrefix(err.Error(), "redis: NOSCRIPT") }
