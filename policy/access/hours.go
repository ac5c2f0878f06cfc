package access

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

var weekdays = map[string]int{"mon": 0, "tue": 1, "wed": 2, "thu": 3, "fri": 4, "sat": 5, "sun": 6}

// hours are the minutes of a week, from Monday 00:00 on, in a time zone.
type hours struct {
	zone *time.Location
	open [(weekMinutes + 63) / 64]uint64
}

// parseHours reads spans such as "mon-fri 07:00-19:00". None is nil: always.
func parseHours(spans []string, zone *time.Location) (*hours, error) {
	if len(spans) == 0 {
		return nil, nil
	}
	h := &hours{zone: zone}
	for _, span := range spans {
		if err := h.add(span); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// contain says whether t is in one of the hours.
func (h *hours) contain(t time.Time) bool {
	t = t.In(h.zone)
	day := (int(t.Weekday()) + 6) % 7 // a week begins on Monday here, and on Sunday there
	m := day*dayMinutes + t.Hour()*60 + t.Minute()
	return h.open[m/64]&(1<<(m%64)) != 0
}

func (h *hours) add(span string) error {
	fields := strings.Fields(strings.ToLower(span))
	bad := fmt.Errorf(`%q is not hours of a week: write them such as "mon-fri 07:00-19:00", "sat 08:00-12:00" or "daily 06:00-24:00"`, clip(span))
	if len(fields) != 2 {
		return bad
	}
	firstDay, days, ok := parseDays(fields[0])
	if !ok {
		return bad
	}
	from, to, ok := strings.Cut(fields[1], "-")
	start, ok1 := parseMinute(from)
	end, ok2 := parseMinute(to)
	if !ok || !ok1 || !ok2 || start == dayMinutes {
		return bad
	}
	if start == end {
		return fmt.Errorf("%q ends when it begins: write 00:00-24:00 for a whole day", clip(span))
	}
	if end < start { // over midnight
		end += dayMinutes
	}
	for day := range days {
		for m := start; m < end; m++ {
			at := ((firstDay+day)*dayMinutes + m) % weekMinutes
			h.open[at/64] |= 1 << (at % 64)
		}
	}
	return nil
}

// parseDays reads "mon", "fri-mon" or "daily".
func parseDays(text string) (first, n int, ok bool) {
	if text == "daily" {
		return 0, 7, true
	}
	from, to, isRange := strings.Cut(text, "-")
	first, ok = weekdays[from]
	if !isRange {
		return first, 1, ok
	}
	last, ok2 := weekdays[to]
	return first, (last-first+7)%7 + 1, ok && ok2
}

// parseMinute reads "07:30" as a minute of the day; "24:00" is its end.
func parseMinute(text string) (int, bool) {
	h, m, ok := strings.Cut(text, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	at := int(hour)*60 + int(minute)
	return at, ok && err1 == nil && err2 == nil && len(h) <= 2 && len(m) == 2 && minute < 60 && at <= dayMinutes
}
