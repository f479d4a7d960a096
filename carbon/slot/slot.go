package slot

import (
	"math"
	"time"
)

// Slot numbers five minutes of UTC: Unix seconds divided by 300, rounded down.
type Slot int64

// Millis is the length of a slot in milliseconds.
const Millis = 300_000

// Min and Max are the outermost slots that lie wholly within the milliseconds
// of an int64; StartMS and EndMS are right from Min to Max.
const (
	Min Slot = math.MinInt64 / Millis
	Max Slot = math.MaxInt64/Millis - 1
)

// Of returns the slot that contains the instant ms, in milliseconds since the
// Unix epoch.
func Of(ms int64) Slot {
	q := ms / Millis
	if ms%Millis < 0 {
		q--
	}
	return Slot(q)
}

// Ceil returns the first slot that starts at or after the instant ms.
func Ceil(ms int64) Slot {
	q := ms / Millis
	if ms%Millis > 0 {
		q++
	}
	return Slot(q)
}

// StartMS returns the first millisecond of the slot.
func (s Slot) StartMS() int64 { return int64(s) * Millis }

// EndMS returns the millisecond after the slot's last one.
func (s Slot) EndMS() int64 { return (int64(s) + 1) * Millis }

// String returns the start of the slot as RFC 3339 in UTC.
func (s Slot) String() string {
	return time.UnixMilli(s.StartMS()).UTC().Format(time.RFC3339)
}
