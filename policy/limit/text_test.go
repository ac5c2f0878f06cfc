package limit_test

import (
	"encoding"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/limit"
)

func TestParseBandwidth(t *testing.T) {
	for text, want := range map[string]limit.Bandwidth{
		"":                         {},
		"0":                        {},
		"0/s":                      {},
		"0MiB/s burst 1MiB":        {},
		"4MiB/s":                   {PerSecond: 4 << 20},
		"500KiB/s":                 {PerSecond: 500 << 10},
		"500/s":                    {PerSecond: 500},
		"512B/s":                   {PerSecond: 512},
		" 1 GiB / s  burst 2GiB ":  {PerSecond: 1 << 30, Burst: 2 << 30},
		"4MiB/s burst 16MiB":       {PerSecond: 4 << 20, Burst: 16 << 20},
		"1048576/s burst 16777216": {PerSecond: 1 << 20, Burst: 16 << 20},
		"1024GiB/s":                {PerSecond: 1 << 40},
	} {
		got, err := limit.ParseBandwidth(text)
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
		if off := want == (limit.Bandwidth{}); got.Off() != off {
			t.Errorf("%q, Off: got %v, want %v", text, got.Off(), off)
		}
	}
	for b, want := range map[limit.Bandwidth]string{
		{}:                                    "0",
		{PerSecond: 4 << 20}:                  "4MiB/s",
		{PerSecond: 1000}:                     "1000B/s",
		{PerSecond: 1 << 30, Burst: 3 << 10}:  "1GiB/s burst 3KiB",
		limit.InheritBandwidth:                "inherit",
		{PerSecond: 1 << 19, Burst: 16 << 20}: "512KiB/s burst 16MiB",
	} {
		if got := b.String(); got != want {
			t.Errorf("%+v: got %q, want %q", b, got, want)
		}
	}
}

// TestTextFaults: each text is refused with a word on what to write, and changes nothing.
func TestTextFaults(t *testing.T) {
	for _, tt := range []struct {
		into       encoding.TextUnmarshaler
		text, want string
	}{
		{new(limit.Rate), "60/m burst", `unknown unit "m burst"`},
		{new(limit.Rate), "60/m burst 0", "such as 60/m burst 200"},
		{new(limit.Rate), "60/m burst -1", "such as 60/m burst 200"},
		{new(limit.Rate), "60/m burst many", "such as 60/m burst 200"},
		{new(limit.Rate), "60/m burst 10 20", "unknown unit"},
		{new(limit.Rate), "1/d burst 101", "not back in 100 days"},
		{new(limit.Rate), "1/d burst 1000000000", "not back in 100 days"},
		{new(limit.Rate), "inherit", "limits.overrides"},
		{new(limit.Bandwidth), "4MiB", "such as 500KiB/s"},
		{new(limit.Bandwidth), "4MiB/m", "such as 500KiB/s"},
		{new(limit.Bandwidth), "4MB/s", "such as 500KiB/s"},
		{new(limit.Bandwidth), "-4MiB/s", "such as 500KiB/s"},
		{new(limit.Bandwidth), "1.5MiB/s", "such as 500KiB/s"},
		{new(limit.Bandwidth), "9999999999GiB/s", "such as 500KiB/s"},
		{new(limit.Bandwidth), "4MiB/s burst 0", "such as 4MiB/s burst 16MiB"},
		{new(limit.Bandwidth), "4MiB/s burst", "such as 500KiB/s"},
		{new(limit.Bandwidth), "1B/s burst 1GiB", "not back in 100 days"},
		{new(limit.Bandwidth), "inherit", "limits.overrides"},
		{new(limit.Count), "many", "0 for no limit"},
		{new(limit.Count), "-1", "0 for no limit"},
		{new(limit.Count), "1.5", "0 for no limit"},
		{new(limit.Count), "1000000001", "0 for no limit"},
		{new(limit.Count), "inherit", "limits.overrides"},
		{new(limit.Delay), "5", "such as 30s"},
		{new(limit.Delay), "-5s", "such as 30s"},
		{new(limit.Delay), "1500ms", "such as 30s"},
		{new(limit.Delay), "25h", "such as 30s"},
		{new(limit.Delay), "inherit", "limits.overrides"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			err := tt.into.UnmarshalText([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%T: got %v, want an error with %q and the text itself", tt.into, err, tt.want)
			}
			if text, err := tt.into.(encoding.TextMarshaler).MarshalText(); err != nil || string(text) != "0" {
				t.Errorf("%T after the error: got %q, %v, want it unchanged", tt.into, text, err)
			}
		})
	}
}

// TestInherit: in overrides, where a value begins as inherited, the word is understood, and is what the value is written as.
func TestInherit(t *testing.T) {
	o := limit.DefaultOverride()
	for _, v := range []interface {
		encoding.TextUnmarshaler
		encoding.TextMarshaler
	}{&o.User.Logins, &o.User.Sessions, &o.User.Download, &o.User.LoginDelay} {
		if text, err := v.MarshalText(); err != nil || string(text) != "inherit" {
			t.Errorf("%T: got %q, %v, want inherit", v, text, err)
		}
		if err := v.UnmarshalText([]byte("inherit")); err != nil {
			t.Errorf("%T: %v", v, err)
		}
		if err := v.UnmarshalText([]byte("")); err != nil {
			t.Errorf("%T, empty: %v", v, err)
		}
		if text, err := v.MarshalText(); err != nil || string(text) != "0" {
			t.Errorf("%T, empty: got %q, %v, want it off", v, text, err)
		}
	}
}

// TestText: whatever can be written is read as the same.
func TestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		per := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "per")
		rate := limit.Rate{Count: rapid.IntRange(1, 1_000_000).Draw(t, "count"), Per: per}
		rate.Burst = rapid.IntRange(0, 90*rate.Count).Draw(t, "burst")
		var gotRate limit.Rate
		again(t, rate, &gotRate)
		bandwidth := limit.Bandwidth{PerSecond: rapid.Int64Range(1, 1<<40).Draw(t, "bytes")}
		bandwidth.Burst = rapid.Int64Range(0, min(bandwidth.PerSecond*1000, 1<<40)).Draw(t, "burst of bytes")
		var gotBandwidth limit.Bandwidth
		again(t, bandwidth, &gotBandwidth)
		count, gotCount := limit.Count(rapid.IntRange(0, 1_000_000_000).Draw(t, "count")), limit.Count(0)
		again(t, count, &gotCount)
		delay, gotDelay := limit.Delay(time.Duration(rapid.IntRange(0, 86400).Draw(t, "delay"))*time.Second), limit.Delay(0)
		again(t, delay, &gotDelay)
		if gotRate != rate || gotBandwidth != bandwidth || gotCount != count || gotDelay != delay {
			t.Fatalf("got %+v, %+v, %v, %v, want %+v, %+v, %v, %v",
				gotRate, gotBandwidth, gotCount, gotDelay, rate, bandwidth, count, delay)
		}
	})
	for d, want := range map[time.Duration]string{0: "0", 30 * time.Second: "30s", 5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Second: "1m30s"} {
		if got := limit.Delay(d).String(); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func again(t *rapid.T, v encoding.TextMarshaler, to encoding.TextUnmarshaler) {
	text, err := v.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := to.UnmarshalText(text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func TestMeter(t *testing.T) {
	var m limit.Meter
	for i, tt := range []struct{ bytes, want int64 }{{1, 0}, {1022, 0}, {1, 1}, {1023, 0}, {2049, 3}, {0, 0}, {1 << 20, 1024}} {
		if got := m.Turns(tt.bytes); got != tt.want {
			t.Errorf("%d: %d bytes more: got %d turns, want %d", i, tt.bytes, got, tt.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "0", "60/m burst 200", "5/s burst", "1/d burst 101", "4MiB/s", "500KiB/s burst 1GiB", "/s", "B/s", "7", "5m", "1h30m", "inherit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, v := range []struct {
			got, again interface {
				encoding.TextUnmarshaler
				encoding.TextMarshaler
			}
		}{
			{new(limit.Rate), new(limit.Rate)}, {new(limit.Bandwidth), new(limit.Bandwidth)},
			{new(limit.Count), new(limit.Count)}, {new(limit.Delay), new(limit.Delay)},
		} {
			if v.got.UnmarshalText([]byte(s)) != nil {
				continue
			}
			text, err := v.got.MarshalText()
			if err != nil {
				t.Fatal(err)
			}
			if err := v.again.UnmarshalText(text); err != nil {
				t.Errorf("%q is written %q, which does not read: %v", s, text, err)
			}
			if written, _ := v.again.MarshalText(); string(written) != string(text) {
				t.Errorf("%q is written %q, which is written %q", s, text, written)
			}
		}
	})
}
