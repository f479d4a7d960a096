package segment_test

import (
	"math/big"
	"slices"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
)

// The twin states the laws in math/big, one reading and one millisecond edge at
// a time, with no thought for speed. It shares no code with Fold.

type twinPart struct {
	start, end           int64
	energy               *big.Int
	observed, carried, m int64 // m: missing
}

type twinResult struct {
	parts  map[slot.Slot]*twinPart
	counts [segment.NumReasons]uint32
	last   *segment.Reading
}

func num(v int64) *big.Int { return big.NewInt(v) }

func twinFold(spec segment.Spec, prev *segment.Reading, ticks, values []int64) *twinResult {
	res := &twinResult{parts: map[slot.Slot]*twinPart{}}
	if prev != nil {
		if _, ok := twinAccepts(spec, *prev); ok {
			res.last = prev
		}
	}
	for i := range min(len(ticks), len(values)) {
		r := segment.Reading{TimeMS: ticks[i], Value: values[i]}
		if reason, ok := twinAccepts(spec, r); !ok {
			res.counts[reason]++
			continue
		}
		if res.last != nil {
			if r.TimeMS == res.last.TimeMS {
				res.counts[segment.Duplicate]++
				continue
			}
			if r.TimeMS < res.last.TimeMS {
				res.counts[segment.OutOfOrder]++
				continue
			}
			if r.TimeMS-res.last.TimeMS > 400*86_400_000 {
				res.counts[segment.Detached]++
			} else {
				twinSegment(res, spec, *res.last, r)
			}
		}
		res.last = &r
	}
	return res
}

func twinAccepts(spec segment.Spec, r segment.Reading) (segment.Reason, bool) {
	power := spec.Kind == segment.InstantPower || spec.Kind == segment.AveragePower
	if !power && spec.Kind != segment.CumulativeEnergy {
		return segment.OutOfRange, false
	}
	if r.TimeMS > 1<<52 || r.TimeMS < -(1<<52) {
		return segment.OutOfRange, false
	}
	blanks := []int64{0x7ffffffffffffff0}
	if power {
		blanks = append(blanks, 140737488355328)
		for i := range int64(16_000) {
			if r.Value == 140737488355328_000+i {
				return segment.Blank, false
			}
		}
	}
	for _, b := range blanks {
		for i := range int64(16) {
			if r.Value == b+i {
				return segment.Blank, false
			}
		}
	}
	if r.Value < 0 {
		if power {
			return segment.Negative, false
		}
		return segment.NegativeCounter, false
	}
	return 0, true
}

func twinSegment(res *twinResult, spec segment.Spec, r0, r1 segment.Reading) {
	dt := r1.TimeMS - r0.TimeMS
	gap := spec.MaxGapMS
	if gap <= 0 {
		gap = max(30_000, 5*spec.PeriodMS)
	}
	var whole func(x int64) *big.Rat // half-µJ from the start to x, exactly
	known, carried := true, false
	limit := num(15_372_286_728_091) // mW of which a slot still fits an int64
	switch spec.Kind {
	case segment.InstantPower:
		if dt > gap {
			known = false
			break
		}
		whole = func(x int64) *big.Rat {
			// The power at x, by interpolation, and the trapezoid up to it, in halves.
			slope := big.NewRat(r1.Value-r0.Value, dt)
			at := new(big.Rat).Mul(slope, new(big.Rat).SetInt64(x))
			at.Add(at, new(big.Rat).SetInt64(r0.Value))
			at.Add(at, new(big.Rat).SetInt64(r0.Value))
			return at.Mul(at, new(big.Rat).SetInt64(x))
		}
		if num(r0.Value).Cmp(limit) > 0 || num(r1.Value).Cmp(limit) > 0 {
			res.counts[segment.Overflow]++
			known = false
		}
	case segment.AveragePower:
		if dt > gap {
			known = false
			break
		}
		whole = func(x int64) *big.Rat {
			return new(big.Rat).SetInt(new(big.Int).Mul(num(2*r1.Value), num(x)))
		}
		if num(r1.Value).Cmp(limit) > 0 {
			res.counts[segment.Overflow]++
			known = false
		}
	case segment.CumulativeEnergy:
		carried = dt > gap
		dv := new(big.Int).Sub(num(r1.Value), num(r0.Value))
		rng := new(big.Int).SetUint64(spec.Range)
		most := new(big.Int).Mul(new(big.Int).SetUint64(spec.MaxPower), num(dt))
		switch {
		case spec.Range > 0 && spec.MaxPower > 0 && most.Cmp(rng) >= 0,
			spec.Range > 0 && spec.MaxPower == 0 && dt > gap:
			res.counts[segment.Ambiguous]++
			known = false
		case dv.Sign() < 0:
			dv.Add(dv, rng)
			if spec.Range > 0 && dv.Sign() >= 0 && (spec.MaxPower == 0 || dv.Cmp(most) <= 0) {
				res.counts[segment.Wrap]++
			} else {
				res.counts[segment.Reset]++
				known = false
			}
		}
		if known && dv.Cmp(new(big.Int).Mul(limit, num(dt))) > 0 {
			res.counts[segment.Overflow]++
			known = false
		}
		whole = func(x int64) *big.Rat {
			e := new(big.Rat).SetInt(new(big.Int).Mul(dv, num(2)))
			return e.Mul(e, big.NewRat(x, dt))
		}
	}
	floor := func(x int64) *big.Int {
		e := whole(x)
		return new(big.Int).Div(e.Num(), e.Denom()) // Euclidean: the floor, as Denom is positive
	}

	// Every edge within the segment, then every pair of neighbouring edges.
	cuts := []int64{r0.TimeMS, r1.TimeMS}
	for s := slot.Of(r0.TimeMS) + 1; s.StartMS() < r1.TimeMS; s++ {
		cuts = append(cuts, s.StartMS())
	}
	clipped := spec.ClipStart != 0 || spec.ClipEnd != 0
	if clipped {
		for _, edge := range []int64{spec.ClipStart, spec.ClipEnd} {
			if edge > r0.TimeMS && edge < r1.TimeMS {
				cuts = append(cuts, edge)
			}
		}
	}
	slices.Sort(cuts)
	for i := range len(cuts) - 1 {
		a, b := cuts[i], cuts[i+1]
		if a == b || clipped && (a < spec.ClipStart || b > spec.ClipEnd) {
			continue
		}
		p := res.parts[slot.Of(a)]
		if p == nil {
			p = &twinPart{start: a, energy: new(big.Int)}
			res.parts[slot.Of(a)] = p
		}
		p.end = b
		if !known {
			p.m += b - a
			continue
		}
		p.energy.Add(p.energy, floor(b-r0.TimeMS))
		p.energy.Sub(p.energy, floor(a-r0.TimeMS))
		p.observed += b - a
		if carried {
			p.carried += b - a
		}
	}
}
