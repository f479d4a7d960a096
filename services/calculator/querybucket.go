package calculator

import (
	"time"

	"github.com/wattfold/wattfold/carbon/slot"
)

// bucketing divides time for statements and series, in UTC. The zero value does
// not: there is one bucket.
type bucketing struct {
	slots  slot.Slot
	months bool
}

// slots is a range of slots, half-open.
type slots struct{ from, to slot.Slot }

func (s slots) span() span { return span{s.from.StartMS(), s.to.StartMS()} }

// of returns the bucket that holds a slot, cut to within.
func (b bucketing) of(s slot.Slot, within slots) slots {
	bucket := b.whole(s, within)
	return slots{max(bucket.from, within.from), min(bucket.to, within.to)}
}

func (b bucketing) whole(s slot.Slot, within slots) slots {
	switch {
	case b.months:
		t := time.UnixMilli(s.StartMS()).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		return slots{slot.Of(first.UnixMilli()), slot.Of(first.AddDate(0, 1, 0).UnixMilli())}
	case b.slots > 0:
		from := floorTo(s, b.slots)
		return slots{from, from + b.slots}
	default:
		return within
	}
}

// everies are the buckets that statements can be asked for by.
var everies = map[string]bucketing{
	"":    {},
	"5m":  {slots: 1},
	"1h":  {slots: 12},
	"1d":  {slots: slotsPerDay},
	"1mo": {months: true},
}
