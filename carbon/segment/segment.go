package segment

import (
	"math"
	"math/bits"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// Kind says what the value of a reading means. The numbers are those of
// wattfold.telemetry.v1.ReadingKind.
type Kind uint8

const (
	// InstantPower is power at the instant of the reading, in mW.
	InstantPower Kind = 1
	// AveragePower is the mean power since the reading before, in mW.
	AveragePower Kind = 2
	// CumulativeEnergy is a counter of energy, in µJ.
	CumulativeEnergy Kind = 3
)

// String returns the name of the kind in snake case.
func (k Kind) String() string {
	switch k {
	case InstantPower:
		return "instant_power"
	case AveragePower:
		return "average_power"
	case CumulativeEnergy:
		return "cumulative_energy"
	default:
		return "unknown"
	}
}

// Valid reports whether k is one of the three kinds.
func (k Kind) Valid() bool { return k >= InstantPower && k <= CumulativeEnergy }

const (
	// NoClipStart is the ClipStart of a series that is not clipped at its start.
	NoClipStart int64 = math.MinInt64
	// NoClipEnd is the ClipEnd of a series that is not clipped at its end.
	NoClipEnd int64 = math.MaxInt64

	// DefaultGapPeriods is the gap of a Spec that declares none, in periods.
	DefaultGapPeriods = 5
	// DefaultGapMS is the least gap of a Spec that declares none.
	DefaultGapMS = 30_000

	// PowerLimit is the highest power in mW, about 15.4 GW, that a segment may
	// imply: a whole slot of it just fits an Energy. It bounds power and not
	// energy so that no way of batching can turn two segments that fit into a
	// slot that does not.
	PowerLimit = math.MaxInt64 / (2 * slot.Millis)

	// MaxSegmentMS is the longest segment, 400 days. Beyond it a reading does
	// not continue a series; it bounds what one reading can make Fold do.
	MaxSegmentMS = 400 * 24 * 3_600_000

	// MaxTimeMS is the last instant of a reading, in the year 144,683. It and
	// MinTimeMS keep the difference of two readings from overflowing.
	MaxTimeMS int64 = 1 << 52
	// MinTimeMS is the first instant of a reading.
	MinTimeMS int64 = -1 << 52
)

// Spec is what the descriptor of a series declares. Nothing in it is ever
// inferred from the readings.
type Spec struct {
	// Kind is what a value means. A series of an unknown kind has every reading
	// rejected.
	Kind Kind
	// PeriodMS is the time between two readings as intended; 0: not declared.
	PeriodMS int64
	// MaxGapMS is the longest segment that is bridged; 0: see Gap.
	MaxGapMS int64
	// Range is the number of µJ modulo which a counter counts; 0: it does not
	// wrap.
	Range uint64
	// MaxPower is the most that the meter can read, in mW; 0: not declared.
	MaxPower uint64
	// ClipStart and ClipEnd bound what belongs to the series, [ClipStart,
	// ClipEnd) in ms: energy and time outside are dropped. Unclipped edges are
	// NoClipStart and NoClipEnd; the zero window [0, 0) clips nothing either.
	ClipStart, ClipEnd int64
}

// Gap returns the longest segment in ms that is bridged: MaxGapMS if declared,
// else five periods, at least 30 s.
func (s Spec) Gap() int64 {
	if s.MaxGapMS > 0 {
		return s.MaxGapMS
	}
	period := min(max(s.PeriodMS, 0), math.MaxInt64/DefaultGapPeriods)
	return max(DefaultGapPeriods*period, DefaultGapMS)
}

// clip returns the window of the series.
func (s Spec) clip() (start, end int64) {
	if s.ClipStart == 0 && s.ClipEnd == 0 {
		return NoClipStart, NoClipEnd
	}
	return s.ClipStart, s.ClipEnd
}

// Reading is one value at one instant.
type Reading struct {
	// TimeMS is the instant, in milliseconds since the Unix epoch.
	TimeMS int64
	// Value is in mW, or in µJ for a counter.
	Value int64
}

// Reason says why a reading or a segment is not what it seems.
type Reason uint8

const (
	// Duplicate is a reading at the instant of the one before; skipped.
	Duplicate Reason = iota
	// OutOfOrder is a reading earlier than the one before; skipped.
	OutOfOrder
	// Negative is a power below 0; skipped.
	Negative
	// NegativeCounter is a counter below 0; skipped.
	NegativeCounter
	// Blank is a value by which a meter says that it has none; skipped.
	Blank
	// OutOfRange is a reading at an instant beyond MinTimeMS or MaxTimeMS, or
	// of an unknown Kind; skipped.
	OutOfRange
	// Ambiguous is a counter's segment in which it may have wrapped unseen; its
	// time is missing.
	Ambiguous
	// Reset is a fall of a counter that is no wrap; its time is missing.
	Reset
	// Wrap is a fall of a counter that is a wrap; its energy counts.
	Wrap
	// Overflow is a segment above PowerLimit; its time is missing.
	Overflow
	// Detached is a reading more than MaxSegmentMS after the one before; it
	// opens the series anew.
	Detached

	// NumReasons is the number of reasons.
	NumReasons
)

var reasonNames = [NumReasons]string{
	Duplicate:       "duplicate",
	OutOfOrder:      "out_of_order",
	Negative:        "negative_power",
	NegativeCounter: "negative_counter",
	Blank:           "blank",
	OutOfRange:      "out_of_range",
	Ambiguous:       "ambiguous_counter",
	Reset:           "counter_reset",
	Wrap:            "counter_wrap",
	Overflow:        "overflow",
	Detached:        "detached",
}

// String returns the name of the reason in snake case, as metrics and
// statements show it.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Rejected reports whether the reason means that a reading counts for nothing.
// A duplicate does not: its instant is already counted.
func (r Reason) Rejected() bool {
	switch r {
	case OutOfOrder, Negative, NegativeCounter, Blank, OutOfRange:
		return true
	default:
		return false
	}
}

// Part is what the segments of one Fold put into one slot.
type Part struct {
	// Slot is where the energy is booked.
	Slot slot.Slot
	// StartMS and EndMS bound the segments' time within the slot.
	StartMS, EndMS int64
	// Energy is the energy of the observed time.
	Energy unit.Energy
	// ObservedMS is the time whose energy is known, InterpolatedMS the part of
	// it that a counter carried across a gap, and MissingMS the time whose
	// energy is not known. Observed and missing make EndMS − StartMS.
	ObservedMS, InterpolatedMS, MissingMS int64
}

// Result is what a Fold found. It belongs to the caller, who hands it to the
// next Fold to have its memory used again.
type Result struct {
	// Parts holds one part a slot, ascending.
	Parts []Part
	// FirstMS and LastMS are the first and the last accepted reading of the
	// batch; 0 if Readings is 0.
	FirstMS, LastMS int64
	// Readings counts the accepted readings of the batch.
	Readings int
	// Last is the reading to hand to the next Fold of the series as its
	// previous one: the last that was accepted, in this batch or before it.
	Last    Reading
	HasLast bool
	// Counts counts by Reason.
	Counts [NumReasons]uint32
}

// Sum returns the energy of all parts.
func (r *Result) Sum() unit.Sum {
	var s unit.Sum
	for i := range r.Parts {
		s.Add(r.Parts[i].Energy)
	}
	return s
}

// Sentinels of NVIDIA's DCGM, by which it says blank, not found, not supported
// or not permitted: sixteen values from the blank of each type on. Its 32-bit
// blank is not among them: as mW it is 2.1 MW, which the meter of a hall may
// well read. Only who reads a 32-bit field can tell, and has to.
const (
	blankCount = 16
	blankInt64 = 0x7fff_ffff_ffff_fff0
	// The blank of its floating-point fields is 2⁴⁷, in watts. It may come as
	// it is or scaled to mW. As a counter 2⁴⁷ µJ are 39 kWh and no blank.
	blankFloat = 1 << 47
)

// check says whether a reading can be one of a series of the kind.
func check(kind Kind, r Reading) (Reason, bool) {
	if !kind.Valid() || r.TimeMS < MinTimeMS || r.TimeMS > MaxTimeMS {
		return OutOfRange, false
	}
	v := r.Value
	switch {
	case v >= blankInt64:
		return Blank, false
	case kind == CumulativeEnergy:
		return NegativeCounter, v >= 0
	case v >= blankFloat && v < blankFloat+blankCount,
		v >= blankFloat*1000 && v < (blankFloat+blankCount)*1000:
		return Blank, false
	default:
		return Negative, v >= 0
	}
}

// Accepts reports whether a reading on its own can be one of the series, and
// if not, for what reason. A source that keeps its own previous reading keeps
// only readings that are accepted.
func (s Spec) Accepts(r Reading) (Reason, bool) { return check(s.Kind, r) }

// mulLess reports whether a·b < c in 128 bits.
func mulLess(a, b, c uint64) bool {
	hi, lo := bits.Mul64(a, b)
	return hi == 0 && lo < c
}
