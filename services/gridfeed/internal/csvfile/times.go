package csvfile

import (
	"fmt"
	"math/big"
	"strings"
	"time"
)

// timeFormat reads the times of a column.
type timeFormat struct {
	layout string // rfc3339, unix, unix_ms, or a layout of package time
}

func newTimeFormat(format string) (timeFormat, error) {
	switch format {
	case "", "rfc3339":
		return timeFormat{layout: "rfc3339"}, nil
	case "unix", "unix_ms":
		return timeFormat{layout: format}, nil
	}
	// A layout that cannot carry a date loses it on the way out and back.
	probe := time.Date(1996, 11, 27, 22, 0, 0, 0, time.UTC)
	back, err := time.ParseInLocation(format, probe.Format(format), time.UTC)
	if err != nil || back.Year() != probe.Year() || back.YearDay() != probe.YearDay() {
		return timeFormat{}, fmt.Errorf("time format %q is none of rfc3339, unix, unix_ms, nor a layout with a full date: "+
			"write the moment 2006-01-02 15:04:05 as the file would", format)
	}
	return timeFormat{layout: format}, nil
}

// parse returns Unix milliseconds; what is finer is rounded half to even.
func (f timeFormat) parse(text string) (int64, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, fmt.Errorf("no time: every row needs one")
	}
	switch f.layout {
	case "unix":
		return parseUnix(text, 1000)
	case "unix_ms":
		return parseUnix(text, 1)
	case "rfc3339":
		return parseRFC3339(text)
	}
	t, err := time.ParseInLocation(f.layout, text, time.UTC)
	if err != nil {
		return 0, fmt.Errorf("%q is not of the form %q", text, f.layout)
	}
	return roundMS(t), nil
}

// parseRFC3339 also takes a blank between date and time, as the RFC allows and as
// Python prints.
func parseRFC3339(text string) (int64, error) {
	normal := text
	if len(text) > 10 && text[10] == ' ' {
		normal = text[:10] + "T" + text[11:]
	}
	t, err := time.Parse(time.RFC3339Nano, normal)
	if err == nil {
		return roundMS(t), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if _, err := time.Parse(layout, normal); err == nil {
			if len(text) > 10 {
				layout = layout[:10] + text[10:11] + layout[11:]
			}
			return 0, fmt.Errorf("%q says no time zone: give --time-format %q to read it as UTC", text, layout)
		}
	}
	return 0, fmt.Errorf("%q is not a time such as 2022-01-31T13:00:00Z: give --time-format unix, unix_ms or a layout", text)
}

func roundMS(t time.Time) int64 {
	ms, rest := t.UnixMilli(), t.Nanosecond()%int(time.Millisecond)
	if rest > 500_000 || rest == 500_000 && ms%2 != 0 {
		ms++
	}
	return ms
}

// parseUnix reads a decimal number of seconds or milliseconds exactly.
func parseUnix(text string, perUnit int64) (int64, error) {
	const longest = 40
	number, ok := new(big.Rat), false
	if len(text) <= longest && strings.Trim(text, "-.0123456789") == "" {
		number, ok = number.SetString(text)
	}
	if !ok {
		return 0, fmt.Errorf("%q is not a number of seconds or milliseconds since 1970: give --time-format", text)
	}
	number.Mul(number, new(big.Rat).SetInt64(perUnit))
	quotient, remainder := new(big.Int).QuoRem(number.Num(), number.Denom(), new(big.Int))
	twice := new(big.Int).Lsh(remainder.Abs(remainder), 1)
	if d := twice.Cmp(number.Denom()); d > 0 || d == 0 && quotient.Bit(0) == 1 {
		quotient.Add(quotient, big.NewInt(int64(number.Sign())))
	}
	// Beyond this a time has no four-digit year; the caller's bounds are narrower.
	const farthest = 253_402_300_800_000
	if !quotient.IsInt64() || quotient.Int64() > farthest || quotient.Int64() < -farthest {
		return 0, fmt.Errorf("%s is years off: unix is seconds, unix_ms milliseconds", text)
	}
	return quotient.Int64(), nil
}
