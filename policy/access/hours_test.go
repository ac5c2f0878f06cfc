package access

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func TestHours(t *testing.T) {
	vienna, err := time.LoadLocation("Europe/Vienna")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseHours([]string{"mon-fri 07:00-19:00", "Sat 22:30-06:00", "sun 24:00-01:00"}, vienna); err == nil {
		t.Fatal("24:00 was taken for a beginning")
	}
	h, err := parseHours([]string{"mon-fri 07:00-19:00", "Sat 22:30-06:00", "sun 23:00-24:00"}, vienna)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"2026-07-06T05:00:00Z": true,  // Monday 07:00 in summer
		"2026-07-06T04:59:59Z": false, //
		"2026-01-05T05:00:00Z": false, // Monday 06:00 in winter
		"2026-01-05T06:00:00Z": true,
		"2026-07-10T16:59:59Z": true, // Friday 18:59:59
		"2026-07-10T17:00:00Z": false,
		"2026-07-11T10:00:00Z": false, // Saturday noon
		"2026-07-11T20:30:00Z": true,  // Saturday 22:30
		"2026-07-12T03:59:00Z": true,  // Sunday 05:59
		"2026-07-12T04:00:00Z": false,
		"2026-07-12T21:59:59Z": true,  // Sunday 23:59:59
		"2026-07-12T22:00:00Z": false, // Monday 00:00
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.contain(when); got != want {
			t.Errorf("%s: got %t, want %t", at, got, want)
		}
	}
	wrap, err := parseHours([]string{"sun 23:00-01:00", "daily 12:00-12:01", "fri-mon 05:00-05:01"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"2026-07-13T00:59:00Z": true, "2026-07-13T01:00:00Z": false, // Monday, after Sunday's midnight
		"2026-07-15T12:00:59Z": true, "2026-07-15T05:00:00Z": false, "2026-07-12T05:00:00Z": true, "2026-07-13T05:00:00Z": true,
	} {
		when, _ := time.Parse(time.RFC3339, at)
		if got := wrap.contain(when); got != want {
			t.Errorf("%s: got %t, want %t", at, got, want)
		}
	}
}

func TestBadHours(t *testing.T) {
	for _, span := range []string{"", "mon", "mon 7-19", "mon 07:00", "mon 07:00-25:00", "mon 07:60-08:00", "foo 07:00-08:00", "mon-foo 07:00-08:00",
		"mon 07:00-07:00", "mon 07:00-24:01", "mon 7:0-8:00", "mon 07:00-08:00 x", "mon 007:00-08:00", "mon -1:00-08:00", "mon 24:00-01:00"} {
		if _, err := parseHours([]string{span}, time.UTC); err == nil {
			t.Errorf("%q was taken", span)
		}
	}
}

func FuzzHours(f *testing.F) {
	f.Add("mon-fri 07:00-19:00", int64(1_780_000_000))
	f.Add("sun 23:00-01:00", int64(0))
	f.Fuzz(func(t *testing.T, span string, unix int64) {
		h, err := parseHours([]string{span}, time.UTC)
		if err != nil {
			return
		}
		h.contain(time.Unix(unix, 0))
		open := 0
		for _, w := range h.open {
			for ; w != 0; w &= w - 1 {
				open++
			}
		}
		if open == 0 || open > weekMinutes {
			t.Errorf("%q opens %d minutes", span, open)
		}
	})
}
