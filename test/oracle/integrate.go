package oracle

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
)

// SlotMS is the length of a slot.
const SlotMS = 300_000

// HalfMicrojoulesPerKWh is how much energy a kilowatt-hour is.
const HalfMicrojoulesPerKWh = 7_200_000_000_000

// Kind says what a reading means.
type Kind int

// The kinds of readings, named as on the command line.
const (
	InstantPower Kind = iota + 1
	AveragePower
	CumulativeEnergy
)

// Law says how the readings of a series become energy.
type Law struct {
	Kind Kind
	// MaxGapMS is the longest time that a gauge is bridged over.
	MaxGapMS int64
	// ClipStartMS and ClipEndMS bound what counts, half-open; nil: no bound.
	ClipStartMS, ClipEndMS *int64
	// RangeUJ is where a counter starts again from 0; 0: it does not wrap.
	RangeUJ int64
	// MaxPowerMW is the most that the meter can draw; 0: not declared.
	MaxPowerMW int64
}

// Slot is what one series, or a sum of them, has in one slot.
type Slot struct {
	// Energy in half-µJ.
	Energy *big.Int
	// ObservedMS is time between readings that count, interpolated included.
	ObservedMS int64
	// InterpolatedMS is time that a counter carried its energy across.
	InterpolatedMS int64
	// MissingMS is time in gaps.
	MissingMS int64
}

// Account is energy and coverage by slot; the key is the slot's start in ms.
type Account map[int64]*Slot

// at returns the slot that holds the instant, made if need be.
func (a Account) at(ms int64) *Slot {
	start := SlotStart(ms)
	s := a[start]
	if s == nil {
		s = &Slot{Energy: new(big.Int)}
		a[start] = s
	}
	return s
}

// Add adds another account.
func (a Account) Add(b Account) {
	for start, s := range b {
		t := a.at(start)
		t.Energy.Add(t.Energy, s.Energy)
		t.ObservedMS += s.ObservedMS
		t.InterpolatedMS += s.InterpolatedMS
		t.MissingMS += s.MissingMS
	}
}

// Slots returns the starts of the slots in ascending order.
func (a Account) Slots() []int64 { return slices.Sorted(maps.Keys(a)) }

// Energy returns the sum over the slots in [fromMS, toMS), in half-µJ.
func (a Account) Energy(fromMS, toMS int64) *big.Int {
	sum := new(big.Int)
	for start, s := range a {
		if start >= fromMS && start < toMS {
			sum.Add(sum, s.Energy)
		}
	}
	return sum
}

// Total returns the sum over all slots.
func (a Account) Total() Slot {
	t := Slot{Energy: new(big.Int)}
	for _, s := range a {
		t.Energy.Add(t.Energy, s.Energy)
		t.ObservedMS += s.ObservedMS
		t.InterpolatedMS += s.InterpolatedMS
		t.MissingMS += s.MissingMS
	}
	return t
}

// SlotStart returns the start of the slot that holds the instant.
func SlotStart(ms int64) int64 {
	rest := ms % SlotMS
	if rest < 0 {
		rest += SlotMS
	}
	return ms - rest
}

// Microjoules prints half-µJ as the API does: -?[0-9]+(\.5)?
func Microjoules(halves *big.Int) string {
	whole, half := new(big.Int).QuoRem(new(big.Int).Abs(halves), big.NewInt(2), new(big.Int))
	text := whole.String()
	if half.Sign() != 0 {
		text += ".5"
	}
	if halves.Sign() < 0 {
		text = "-" + text
	}
	return text
}

// KWh converts half-µJ.
func KWh(halves *big.Int) *big.Rat {
	return new(big.Rat).SetFrac(halves, big.NewInt(HalfMicrojoulesPerKWh))
}

// Counts are readings that count for nothing, by reason.
type Counts struct {
	Duplicate, OutOfOrder, Negative, Reset, Wrap, Ambiguous int
}

// Integrate folds the readings of a series, in the order in which they were
// taken.
func Integrate(samples []Sample, law Law) (Account, Counts) {
	account := Account{}
	var counts Counts
	var last *Sample
	for i := range samples {
		s := &samples[i]
		switch {
		case s.Value < 0:
			counts.Negative++
			continue
		case last != nil && s.TimeMS == last.TimeMS:
			counts.Duplicate++
			continue
		case last != nil && s.TimeMS < last.TimeMS:
			counts.OutOfOrder++
			continue
		}
		if last != nil {
			account.segment(*last, *s, law, &counts)
		}
		last = s
	}
	return account, counts
}

// segment adds what lies between two readings.
func (a Account) segment(from, to Sample, law Law, counts *Counts) {
	dt := to.TimeMS - from.TimeMS
	late := dt > law.MaxGapMS
	delta := to.Value - from.Value
	if law.Kind == CumulativeEnergy {
		delta = counterDelta(delta, dt, law, late, counts)
		if delta < 0 {
			a.parts(from.TimeMS, to.TimeMS, law, nil, func(s *Slot, ms int64) { s.MissingMS += ms })
			return
		}
	} else if late {
		a.parts(from.TimeMS, to.TimeMS, law, nil, func(s *Slot, ms int64) { s.MissingMS += ms })
		return
	}
	a.parts(from.TimeMS, to.TimeMS, law, func(t int64) *big.Int {
		return integral(from, to, delta, law.Kind, t)
	}, func(s *Slot, ms int64) {
		s.ObservedMS += ms
		if law.Kind == CumulativeEnergy && late {
			s.InterpolatedMS += ms
		}
	})
}

// counterDelta returns the µJ that a counter advanced by, and -1 if it cannot be
// known: it may have wrapped unseen, or was reset.
func counterDelta(delta, dt int64, law Law, late bool, counts *Counts) int64 {
	most := new(big.Int).Mul(big.NewInt(dt), big.NewInt(law.MaxPowerMW))
	declared := law.MaxPowerMW > 0
	if law.RangeUJ > 0 {
		unseen := declared && most.Cmp(big.NewInt(law.RangeUJ)) >= 0
		if unseen || !declared && late {
			counts.Ambiguous++
			return -1
		}
	}
	if delta >= 0 {
		return delta
	}
	wrapped := delta + law.RangeUJ
	possible := !declared || big.NewInt(wrapped).Cmp(most) <= 0
	if law.RangeUJ > 0 && wrapped >= 0 && possible {
		counts.Wrap++
		return wrapped
	}
	counts.Reset++
	return -1
}

// integral returns the floor of the exact energy from the segment's start to t,
// in half-µJ.
func integral(from, to Sample, delta int64, kind Kind, t int64) *big.Int {
	dt := big.NewInt(to.TimeMS - from.TimeMS)
	tau := big.NewInt(t - from.TimeMS)
	v0, v1 := big.NewInt(from.Value), big.NewInt(to.Value)
	two := big.NewInt(2)
	num := new(big.Int)
	switch kind {
	case InstantPower:
		// 2∫(v0 + (v1-v0)·x/Δt)dx = (2·v0·Δt·τ + (v1-v0)·τ²) / Δt
		num.Mul(two, v0).Mul(num, dt).Mul(num, tau)
		slope := new(big.Int).Sub(v1, v0)
		num.Add(num, slope.Mul(slope, tau).Mul(slope, tau))
	case AveragePower:
		num.Mul(two, v1).Mul(num, tau).Mul(num, dt)
	case CumulativeEnergy:
		num.Mul(two, big.NewInt(delta)).Mul(num, tau)
	default:
		panic(fmt.Sprintf("oracle: unknown kind %d", kind))
	}
	return num.Div(num, dt) // Euclidean; dt > 0, so it is the floor
}

// parts cuts [t0, t1) at slot boundaries and at the edges of the window, adds
// the energy of every part that lies in the window, and tells its length.
func (a Account) parts(t0, t1 int64, law Law, upTo func(t int64) *big.Int, tell func(*Slot, int64)) {
	cuts := []int64{}
	for b := SlotStart(t0) + SlotMS; b < t1; b += SlotMS {
		cuts = append(cuts, b)
	}
	for _, edge := range []*int64{law.ClipStartMS, law.ClipEndMS} {
		if edge != nil && *edge > t0 && *edge < t1 {
			cuts = append(cuts, *edge)
		}
	}
	cuts = append(cuts, t1)
	slices.Sort(cuts)
	start, before := t0, new(big.Int)
	for _, end := range slices.Compact(cuts) {
		var energy *big.Int
		if upTo != nil {
			sum := upTo(end)
			energy = new(big.Int).Sub(sum, before)
			before = sum
		}
		inside := (law.ClipStartMS == nil || start >= *law.ClipStartMS) &&
			(law.ClipEndMS == nil || end <= *law.ClipEndMS)
		if inside {
			s := a.at(start)
			if energy != nil {
				s.Energy.Add(s.Energy, energy)
			}
			tell(s, end-start)
		}
		start = end
	}
}
