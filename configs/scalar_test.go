package configs

import (
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestScalar(t *testing.T) {
	file := func(tag, text string) scalar { return scalar{tag: tag, text: text} }
	env := func(text string) scalar { return scalar{text: text, loose: true} }
	for _, e := range []struct {
		s    scalar
		want any // what comes of it; the type alone, at zero, where refused is not empty
		not  string
	}{
		{file(tagText, "a b"), "a b", ""},
		{file(tagTime, "2026-01-01"), "2026-01-01", ""},
		{file(tagText, ""), "", ""},
		{file(tagInt, "7"), "", "the number"},
		{file(tagReal, "1.2"), "", "the number"},
		{file(tagBool, "true"), "", "the truth value"},
		{env("007"), "007", ""},
		{env("a\x00"), "", "control character"},
		{file(tagText, "a\u0085"), "", "control character"},

		{file(tagBool, "true"), true, ""},
		{file(tagBool, "False"), false, ""},
		{file(tagText, "true"), false, "is \"true\""},
		{file(tagText, "on"), false, "is \"on\""},
		{env("TRUE"), true, ""},
		{env("1"), true, ""},
		{env("yes"), false, "is \"yes\""},

		{file(tagInt, "1_000"), 1000, ""},
		{file(tagInt, "0x1f"), 31, ""},
		{file(tagInt, "-3"), -3, ""},
		{file(tagReal, "1e3"), 0, "not whole"},
		{file(tagReal, ".inf"), 0, "no whole number"},
		{file(tagText, "5"), 0, "no whole number"},
		{file(tagInt, "128"), int8(0), "too large"},
		{file(tagInt, "-128"), int8(math.MinInt8), ""},
		{env("010"), 10, ""},
		{env("0x1f"), 0, "is \"0x1f\""},
		{env(" 5"), 0, "no whole number"},
		{env("9223372036854775808"), 0, "too large"},

		{file(tagText, "1h30m"), 90 * time.Minute, ""},
		{file(tagText, ""), time.Duration(0), ""},
		{file(tagInt, "0"), time.Duration(0), ""},
		{file(tagInt, "10"), time.Duration(0), "without a unit"},
		{file(tagReal, "1.5"), time.Duration(0), "without a unit"},
		{env("10"), time.Duration(0), "without a unit"},
		{env("10s"), 10 * time.Second, ""},
		{file(tagText, "10 s"), time.Duration(0), "no duration"},
		{file(tagText, "1d"), time.Duration(0), "no duration"},

		{file(tagText, "192.0.2.7/24"), netip.MustParsePrefix("192.0.2.0/24"), ""},
		{file(tagText, "192.0.2.7"), netip.MustParsePrefix("192.0.2.7/32"), ""},
		{file(tagText, "2001:db8::1/32"), netip.MustParsePrefix("2001:db8::/32"), ""},
		{file(tagText, "::ffff:192.0.2.7"), netip.MustParsePrefix("192.0.2.7/32"), ""},
		{file(tagText, "::ffff:192.0.2.7/120"), netip.MustParsePrefix("192.0.2.0/24"), ""},
		{file(tagText, "::/0"), netip.MustParsePrefix("::/0"), ""},
		{file(tagText, "fe80::1%eth0"), netip.Prefix{}, "no network"},
		{file(tagText, "192.0.2.0/33"), netip.Prefix{}, "no network"},
		{file(tagText, "example.org"), netip.Prefix{}, "no network"},
		{file(tagText, ""), netip.Prefix{}, "no network"},
		{file(tagReal, "10.0"), netip.Prefix{}, "no network"},

		{file(tagText, "192.0.2.1:995"), netip.MustParseAddrPort("192.0.2.1:995"), ""},
		{file(tagText, "nowhere"), netip.AddrPort{}, "not an ip:port"},
	} {
		to := reflect.New(reflect.TypeOf(e.want)).Elem()
		problem, hint := e.s.set(to)
		if !reflect.DeepEqual(to.Interface(), e.want) || (problem == "") != (e.not == "") || !strings.Contains(problem, e.not) {
			t.Errorf("%+v: got %v, %q, want %v, %q", e.s, to, problem, e.want, e.not)
		}
		if problem == "" && hint != "" {
			t.Errorf("%+v: the hint %q without a problem", e.s, hint)
		}
	}
}

// halfway takes what it reads even when it then refuses it.
type halfway string

func (h *halfway) UnmarshalText(text []byte) error {
	*h = halfway(text)
	_, err := time.ParseDuration(string(text))
	return err
}

func TestRefusedTextLeavesTheDefault(t *testing.T) {
	h := halfway("1s")
	if problem, _ := (scalar{text: "soon", tag: tagText}).set(reflect.ValueOf(&h).Elem()); problem == "" || h != "1s" {
		t.Errorf("got %q and the value %q, want a problem and 1s", problem, h)
	}
}

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"": `""`, "a": `"a"`, "a\nb": `"a\nb"`, strings.Repeat("é", 60): `"` + strings.Repeat("é", 30) + `"...`,
		strings.Repeat("a", 59) + "é": `"` + strings.Repeat("a", 59) + `"...`,
	} {
		if got := show(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"": `""`, "a": "a", "a\nb": `"a\nb"`, "é": "é", `a"b`: `"a\"b"`} {
		if got := clip(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestOverlap(t *testing.T) {
	for _, e := range []struct {
		a, b string
		want bool
	}{
		{":995", ":995", true},
		{":995", ":110", false},
		{":995", "192.0.2.1:995", true},
		{"0.0.0.0:995", "[::1]:995", true}, // Go opens 0.0.0.0 for IPv6 too
		{"[::]:995", "127.0.0.1:995", true},
		{"127.0.0.1:995", "127.0.0.2:995", false},
		{"127.0.0.1:995", "[::1]:995", false},
		{"[::ffff:127.0.0.1]:995", "127.0.0.1:995", true},
		{"[2001:db8::1]:995", "[2001:DB8:0::1]:995", true},
		{":0", ":0", false}, // each gets a port of its own
		{"", "", false},     // off
		{"995", "995", false},
	} {
		if got := overlap(e.a, e.b); got != e.want {
			t.Errorf("%q and %q: got %v", e.a, e.b, got)
		}
		if got := overlap(e.b, e.a); got != e.want {
			t.Errorf("%q and %q: got %v", e.b, e.a, got)
		}
	}
}
