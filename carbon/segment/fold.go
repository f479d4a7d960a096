package segment

import (
	"math/bits"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// Fold integrates the readings of one series in one batch: values[i] was read
// at ticksMS[i]. prev is the last reading before the batch, nil if there is
// none; then the first reading opens the series and closes no segment. If the
// slices differ in length, the longer one's rest is ignored.
//
// Fold resets out and uses its memory again. It retains none of its arguments.
// It accepts any input whatever without panicking; what is wrong is counted.
//
// Callers that take batches from strangers bound the span of a batch: a gap is
// booked slot by slot, so Parts grows with the time spanned.
func Fold(spec *Spec, prev *Reading, ticksMS, values []int64, out *Result) {
	out.Parts = out.Parts[:0]
	out.FirstMS, out.LastMS, out.Readings = 0, 0, 0
	out.Last, out.HasLast = Reading{}, false
	out.Counts = [NumReasons]uint32{}

	n := min(len(ticksMS), len(values))
	ticksMS, values = ticksMS[:n], values[:n]
	f := newFolder(spec, out)

	// What the batch before could not accept is no previous reading. It was
	// counted there.
	if prev != nil {
		if _, ok := check(spec.Kind, *prev); ok {
			out.Last, out.HasLast = *prev, true
		}
	}
	for i := 0; i < n; {
		if out.HasLast {
			if done := f.run(ticksMS[i:], values[i:]); done > 0 {
				i += done
				continue
			}
		}
		f.step(Reading{ticksMS[i], values[i]})
		i++
	}
}

// folder holds what one Fold derives from its spec.
type folder struct {
	spec *Spec
	out  *Result
	gap  int64
	// plain is the longest segment of a counter that is carried without a
	// second thought: no gap, and no wrap can hide in it.
	plain              int64
	clipStart, clipEnd int64
}

func newFolder(spec *Spec, out *Result) folder {
	f := folder{spec: spec, out: out, gap: spec.Gap()}
	f.plain = f.gap
	if spec.Range > 0 && spec.MaxPower > 0 {
		if safe := (spec.Range - 1) / spec.MaxPower; safe < uint64(f.gap) {
			f.plain = int64(safe)
		}
	}
	f.clipStart, f.clipEnd = spec.clip()
	return f
}

// run takes readings for as long as they continue the last one plainly within
// one slot, and returns how many it took. Nothing can overflow in it: a slot of
// PowerLimit fits an int64.
func (f *folder) run(ticks, values []int64) int {
	out := f.out
	first := out.Last
	s := slot.Of(first.TimeMS)
	end := min(s.EndMS(), f.clipEnd)
	if first.TimeMS < f.clipStart || first.TimeMS >= end {
		return 0
	}
	var n int
	var energy int64
	t0, v0 := first.TimeMS, first.Value
	switch values = values[:len(ticks)]; f.spec.Kind {
	case InstantPower:
		if uint64(v0) > PowerLimit {
			return 0
		}
		for n < len(ticks) {
			t, v := ticks[n], values[n]
			dt := t - t0
			if dt <= 0 || dt > f.gap || t > end || uint64(v) > PowerLimit {
				break
			}
			energy += (v0 + v) * dt
			t0, v0 = t, v
			n++
		}
	case AveragePower:
		for n < len(ticks) {
			t, v := ticks[n], values[n]
			dt := t - t0
			if dt <= 0 || dt > f.gap || t > end || uint64(v) > PowerLimit {
				break
			}
			energy += 2 * v * dt
			t0, v0 = t, v
			n++
		}
	case CumulativeEnergy:
		for n < len(ticks) {
			t, v := ticks[n], values[n]
			dt := t - t0
			if dt <= 0 || dt > f.plain || t > end || v < v0 || v >= blankInt64 || v-v0 > PowerLimit*dt {
				break
			}
			t0, v0 = t, v
			n++
		}
		energy = 2 * (v0 - first.Value)
	}
	if n == 0 {
		return 0
	}
	p := f.part(s, first.TimeMS, t0)
	p.Energy += unit.Energy(energy)
	p.ObservedMS += t0 - first.TimeMS
	if out.Readings == 0 {
		out.FirstMS = ticks[0]
	}
	out.Readings += n
	out.LastMS = t0
	out.Last = Reading{t0, v0}
	return n
}

// step takes one reading, whatever it is.
func (f *folder) step(r Reading) {
	out := f.out
	if reason, ok := check(f.spec.Kind, r); !ok {
		out.Counts[reason]++
		return
	}
	last := out.Last
	if out.HasLast {
		if r.TimeMS == last.TimeMS {
			out.Counts[Duplicate]++
			return
		}
		if r.TimeMS < last.TimeMS {
			out.Counts[OutOfOrder]++
			return
		}
		if r.TimeMS-last.TimeMS > MaxSegmentMS {
			out.Counts[Detached]++
		} else {
			f.book(last, r)
		}
	}
	if out.Readings == 0 {
		out.FirstMS = r.TimeMS
	}
	out.Readings++
	out.LastMS = r.TimeMS
	out.Last, out.HasLast = r, true
}

// book cuts the segment between two readings into parts.
func (f *folder) book(r0, r1 Reading) {
	g, known, interpolated := f.integral(r0, r1)
	start, end := max(r0.TimeMS, f.clipStart), min(r1.TimeMS, f.clipEnd)
	if start >= end {
		return // all of it is clipped
	}
	before := g.until(start - r0.TimeMS)
	for start < end {
		s := slot.Of(start)
		cut := min(s.EndMS(), end)
		p := f.part(s, start, cut)
		if known {
			until := g.until(cut - r0.TimeMS)
			p.Energy += unit.Energy(until - before)
			p.ObservedMS += cut - start
			if interpolated {
				p.InterpolatedMS += cut - start
			}
			before = until
		} else {
			p.MissingMS += cut - start
		}
		start = cut
	}
}

// part returns the part of the slot, extended to [start, end). Segments come in
// the order of time, so it is the last part or a new one.
func (f *folder) part(s slot.Slot, start, end int64) *Part {
	out := f.out
	if n := len(out.Parts); n > 0 && out.Parts[n-1].Slot == s {
		p := &out.Parts[n-1]
		p.EndMS = end
		return p
	}
	out.Parts = append(out.Parts, Part{Slot: s, StartMS: start, EndMS: end})
	return &out.Parts[len(out.Parts)-1]
}

// integral says what is known of the energy between two readings, and counts
// what is odd about them.
func (f *folder) integral(r0, r1 Reading) (g integral, known, interpolated bool) {
	dt := r1.TimeMS - r0.TimeMS
	g = integral{kind: f.spec.Kind, v0: uint64(r0.Value), v1: uint64(r1.Value), dt: uint64(dt)}
	switch f.spec.Kind {
	case InstantPower:
		if dt > f.gap {
			return g, false, false
		}
		known = g.v0 <= PowerLimit && g.v1 <= PowerLimit
	case AveragePower:
		if dt > f.gap {
			return g, false, false
		}
		known = g.v1 <= PowerLimit
	case CumulativeEnergy:
		reason, ok := f.counter(&g, dt)
		if reason != NumReasons {
			f.out.Counts[reason]++
		}
		if !ok {
			return g, false, false
		}
		known = !mulLess(PowerLimit, g.dt, g.v1)
	}
	if !known {
		f.out.Counts[Overflow]++
	}
	return g, known, known && dt > f.gap
}

// counter turns the two values of a counter in g into the energy between them,
// in g.v1. The reason is NumReasons if there is nothing to count.
func (f *folder) counter(g *integral, dt int64) (Reason, bool) {
	s := f.spec
	if s.Range > 0 {
		if s.MaxPower > 0 && !mulLess(g.dt, s.MaxPower, s.Range) || s.MaxPower == 0 && dt > f.gap {
			return Ambiguous, false
		}
	}
	if g.v1 >= g.v0 {
		g.v1 -= g.v0
		return NumReasons, true
	}
	// No range is 0, so nothing that falls passes.
	fall := g.v0 - g.v1
	if fall > s.Range {
		return Reset, false
	}
	g.v1 = s.Range - fall
	if s.MaxPower > 0 && mulLess(s.MaxPower, g.dt, g.v1) {
		return Reset, false
	}
	return Wrap, true
}

// integral is the energy of one segment as a function of time.
type integral struct {
	kind Kind
	// v0 and v1 are the power at both ends; for a counter v1 is the energy
	// between them in µJ.
	v0, v1 uint64
	dt     uint64
}

// until returns E(x): the floor of the integral over the first x of dt ms, in
// half-µJ, modulo 2⁶⁴. The modulus is harmless: only differences are booked, and
// those fit.
//
// All is positive, so that a division truncates to the floor, and fits 128
// bits: values have 44 bits (a counter's 64), dt and x have 36.
func (g *integral) until(x int64) uint64 {
	b := uint64(x)
	switch g.kind {
	case InstantPower:
		// 2·v₀·x + (v₁−v₀)·x²/dt = x·(v₀·(2·dt−x) + v₁·x)/dt
		hi, lo := bits.Mul64(g.v0, 2*g.dt-b)
		h, l := bits.Mul64(g.v1, b)
		lo, carry := bits.Add64(lo, l, 0)
		hi += h + carry
		h, l = bits.Mul64(lo, b)
		return quotient(hi*b+h, l, g.dt)
	case AveragePower:
		return 2 * g.v1 * b
	case CumulativeEnergy:
		hi, lo := bits.Mul64(g.v1, b)
		return quotient(hi<<1|lo>>63, lo<<1, g.dt)
	default:
		return 0
	}
}

// quotient returns the low 64 bits of (hi·2⁶⁴+lo)/d.
func quotient(hi, lo, d uint64) uint64 {
	q, _ := bits.Div64(hi%d, lo, d)
	return q
}
