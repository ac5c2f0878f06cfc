package limit_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/limit"
)

func TestParseRate(t *testing.T) {
	tests := []struct {
		text string
		want limit.Rate
	}{
		{"", limit.Rate{}},
		{"0", limit.Rate{}},
		{"0/m", limit.Rate{}},
		{"60/m", limit.Rate{Count: 60, Per: time.Minute}},
		{"5/s", limit.Rate{Count: 5, Per: time.Second}},
		{"5/d", limit.Rate{Count: 5, Per: 24 * time.Hour}},
		{" 1000 / h ", limit.Rate{Count: 1000, Per: time.Hour}},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			var got limit.Rate
			if err := got.UnmarshalText([]byte(tt.text)); err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if off := tt.want == (limit.Rate{}); got.Off() != off {
				t.Errorf("Off: got %v, want %v", got.Off(), off)
			}
		})
	}
}

func TestParseRateFaults(t *testing.T) {
	tests := []struct{ text, want string }{
		{"60", "such as 60/m"},
		{"60/w", `unknown unit "w"`},
		{"60/", `unknown unit ""`},
		{"/m", "whole number"},
		{"-1/m", "whole number"},
		{"1.5/s", "whole number"},
		{"many/s", "whole number"},
		{"1000000001/s", "whole number"},
		{"99999999999999999999/s", "whole number"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			kept := limit.Rate{Count: 7, Per: time.Hour}
			got := kept
			err := got.UnmarshalText([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: got %v, want one with %q and the text itself", err, tt.want)
			}
			if got != kept {
				t.Errorf("rate after the error: got %v, want it unchanged", got)
			}
		})
	}
}

func TestRateText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := limit.Rate{
			Count: rapid.IntRange(1, 1_000_000_000).Draw(t, "count"),
			Per:   rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per"),
		}
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got, err := limit.ParseRate(string(text))
		if err != nil || got != want {
			t.Fatalf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	})
	if got := (limit.Rate{}).String(); got != "0" {
		t.Errorf("the zero rate: got %q, want 0", got)
	}
	if got := (limit.Rate{Count: 3, Per: 90 * time.Second}).String(); got != "3/1m30s" {
		t.Errorf("a rate without a unit: got %q, want 3/1m30s", got)
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"", "0", "60/m", "5/s", "1000/h", "1/", "/", "x/s", "-1/h", "1e9/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := limit.ParseRate(s)
		if err != nil {
			return
		}
		again, err := limit.ParseRate(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, which reads back as %+v, %v", s, r, again, err)
		}
	})
}
