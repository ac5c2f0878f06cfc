package configs

import (
	"reflect"
	"strings"
	"testing"
)

func TestFromFlags(t *testing.T) {
	env := append([]string{"POPGATE_LIMITS_SESSIONS=9"}, home...)
	c, err := FromFlags(Flags{To: []string{"192.0.2.1", "pop.example.org:1110"}, Listen: "127.0.0.1:1995", Domain: "mail.example.org"}, env)
	if err != nil {
		t.Fatal(err)
	}
	c.places = nil
	want := mustLoad(t, `
listeners: [{name: pop3s, address: "127.0.0.1:1995", default_name: mail.example.org}]
backends: [{name: default, servers: [{address: 192.0.2.1}, {address: "pop.example.org:1110"}]}]
limits: {sessions: 9}
`)
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant what the file gives: %+v", c, want)
	}
	c, err = FromFlags(Flags{To: []string{"[::1]:110"}}, home)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; l.Address != ":995" || l.DefaultName != "" || l.DefaultDomain != "" {
		t.Errorf("got %+v, want :995 and no names", l)
	}
}

func TestFromFlagsFaults(t *testing.T) {
	for _, e := range []struct {
		flags Flags
		want  []string // the beginnings
	}{
		{Flags{}, []string{"--to: is empty; a backend needs at least one server"}},
		{Flags{To: []string{"a b"}, Listen: "995", Domain: "a b"}, []string{"--domain: is \"a b\"", "--listen: is \"995\"", "--to: has the host \"a b\""}},
		{Flags{To: []string{"h", "h:110"}}, []string{"--to: is the same server"}},
		{Flags{To: []string{"h"}, Listen: "127.0.0.1:9995"}, []string{`metrics.address: is "127.0.0.1:9995", which overlaps with "127.0.0.1:9995" of --listen`}},
		{Flags{To: []string{"${HOST}"}}, []string{"--to: has the host \"${host}\""}},
	} {
		_, err := FromFlags(e.flags, home)
		faults, _ := err.(Faults)
		if len(faults) != len(e.want) {
			t.Errorf("%+v: got %v, want %q", e.flags, err, e.want)
			continue
		}
		for i, f := range faults {
			if !strings.HasPrefix(f.Error(), e.want[i]) {
				t.Errorf("%+v: got %s, want %s", e.flags, f, e.want[i])
			}
		}
	}
}
