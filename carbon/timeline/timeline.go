package timeline

import (
	"math"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// Quality labels a value. It is a label, never a rank. The numbers are those of
// wattfold.grid.v1.Quality.
type Quality uint8

const (
	// QualityUnspecified is the quality of a value that has none, such as a PUE.
	QualityUnspecified Quality = 0
	// Measured comes from the meters of the grid.
	Measured Quality = 1
	// Estimated was estimated by the publisher.
	Estimated Quality = 2
	// Forecast was said before the time it speaks of.
	Forecast Quality = 3
	// Filled was filled from other hours.
	Filled Quality = 4
	// Static is one number for a long time, such as a yearly mean.
	Static Quality = 5
)

var qualityNames = [...]string{"UNSPECIFIED", "MEASURED", "ESTIMATED", "FORECAST", "FILLED", "STATIC"}

// String returns the name of the quality as in the API, without its prefix.
func (q Quality) String() string {
	if int(q) < len(qualityNames) {
		return qualityNames[q]
	}
	return "UNKNOWN"
}

// Method says how a value came to a slot. The numbers are those of
// wattfold.grid.v1.Method.
type Method uint8

const (
	// MethodUnspecified is not set by Resolve.
	MethodUnspecified Method = 0
	// Direct: an interval of the source covers the slot.
	Direct Method = 1
	// Carried: the source's latest earlier interval, within the maximum age.
	Carried Method = 2
)

var methodNames = [...]string{"UNSPECIFIED", "DIRECT", "CARRIED"}

// String returns the name of the method as in the API, without its prefix.
func (m Method) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return "UNKNOWN"
}

// SinceEver is the KnownMS and RecordedMS of what holds, and was known, always.
const SinceEver int64 = math.MinInt64

// Record is one published value of an interval of slots.
type Record struct {
	// Start and End bound the interval, [Start, End).
	Start, End slot.Slot
	// Value is the value, in the unit of the signal; ignored if Retracted.
	Value unit.Decimal
	// Retracted says that the publisher has withdrawn what it said before.
	Retracted bool
	// Quality is the publisher's label.
	Quality Quality
	// KnownMS is when the value was known to the public, as claimed, and
	// RecordedMS when it was recorded, by the store's own clock.
	KnownMS, RecordedMS int64
	// Revision orders records that overlap: the highest counts. See Revise. Of
	// equal revisions, which Revise never makes, the later in the slice counts.
	Revision int64
}

// Series is what one source has published, in any order.
type Series struct {
	// Source says who, Product which of its publications: observed, a forecast,
	// an import.
	Source, Product string
	// Records are read, never kept or changed. One whose End is not after its
	// Start covers nothing.
	Records []Record
}

// Entry is one place of a chain.
type Entry struct {
	// Source and Product name the series.
	Source, Product string
	// MaxAgeMS is how long before a slot's start its value may have ended; 0: it
	// has to cover the slot.
	MaxAgeMS int64
}

// View says by what knowledge a timeline is read. The zero value is Latest.
type View struct {
	by viewKind
	at int64
}

type viewKind uint8

const (
	byLatest viewKind = iota
	byRecorded
	byKnown
	byKnownThen
)

// Latest admits every record.
func Latest() View { return View{} }

// AsOf admits what was recorded at or before the instant ms.
func AsOf(ms int64) View { return View{by: byRecorded, at: ms} }

// AsKnownAt admits what was known at or before the instant ms.
func AsKnownAt(ms int64) View { return View{by: byKnown, at: ms} }

// AsKnownThen admits, for every slot, what was known when it began.
func AsKnownThen() View { return View{by: byKnownThen} }

// admits returns the first slot for which the view admits the record; ok is
// false if there is none.
func (v View) admits(r *Record) (from slot.Slot, ok bool) {
	switch v.by {
	case byRecorded:
		return math.MinInt64, r.RecordedMS <= v.at
	case byKnown:
		return math.MinInt64, r.KnownMS <= v.at
	case byKnownThen:
		return slot.Ceil(r.KnownMS), true
	default:
		return math.MinInt64, true
	}
}

// Step is a run of slots that one record answers in one way.
type Step struct {
	// Start and End bound the run, [Start, End).
	Start, End slot.Slot
	// Value is the value, in the unit of the signal.
	Value unit.Decimal
	// Source and Product say whose it is.
	Source, Product string
	// Quality is the record's label, or Filled if the value was carried.
	Quality Quality
	// Method says how the value came here.
	Method Method
	// AgeMS is how long before Start a carried value ended; 0 if Direct.
	AgeMS int64
	// Revision, KnownMS and RecordedMS are the record's.
	Revision, KnownMS, RecordedMS int64
}
