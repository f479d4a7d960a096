package segment_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// compare fails unless a result is what the twin says, to the last digit.
func compare(t *testing.T, got *segment.Result, want *twinResult) {
	t.Helper()
	if len(got.Parts) != len(want.parts) {
		t.Fatalf("%d parts, want %d", len(got.Parts), len(want.parts))
	}
	for i, p := range got.Parts {
		if i > 0 && p.Slot <= got.Parts[i-1].Slot {
			t.Fatalf("part %d of slot %d follows slot %d", i, p.Slot, got.Parts[i-1].Slot)
		}
		w := want.parts[p.Slot]
		if w == nil {
			t.Fatalf("part of slot %d, want none", p.Slot)
		}
		if w.energy.Cmp(big.NewInt(int64(p.Energy))) != 0 {
			t.Fatalf("slot %d: energy %d, want %d", p.Slot, p.Energy, w.energy)
		}
		if p.ObservedMS != w.observed || p.InterpolatedMS != w.carried || p.MissingMS != w.m {
			t.Fatalf("slot %d: observed %d interpolated %d missing %d, want %d %d %d",
				p.Slot, p.ObservedMS, p.InterpolatedMS, p.MissingMS, w.observed, w.carried, w.m)
		}
		if p.StartMS != w.start || p.EndMS != w.end {
			t.Fatalf("slot %d: [%d, %d), want [%d, %d)", p.Slot, p.StartMS, p.EndMS, w.start, w.end)
		}
	}
	if got.Counts != want.counts {
		t.Fatalf("counts %v, want %v", got.Counts, want.counts)
	}
	switch {
	case got.HasLast != (want.last != nil):
		t.Fatalf("has last %v, want %v", got.HasLast, want.last)
	case got.HasLast && got.Last != *want.last:
		t.Fatalf("last %v, want %v", got.Last, *want.last)
	}
}

// sequence makes a series with everything in it that meters do: odd milliwatts
// at odd milliseconds, gaps, repeats, steps back, sentinels, wraps and resets.
func sequence(rng *rand.Rand, n int) (segment.Spec, []int64, []int64) {
	spec := segment.Spec{
		Kind:      segment.Kind(1 + rng.IntN(3)),
		ClipStart: segment.NoClipStart,
		ClipEnd:   segment.NoClipEnd,
	}
	step := []int64{7, 100, 1000, 1999, 15_000, 299_999}[rng.IntN(6)]
	switch rng.IntN(3) {
	case 0:
		spec.PeriodMS = step
	case 1:
		spec.MaxGapMS = 1 + rng.Int64N(4*step)
	}
	scale := []int64{3, 1001, 750_001, 400_000_000_007, segment.PowerLimit}[rng.IntN(5)]
	if rng.IntN(3) > 0 {
		spec.MaxPower = uint64(scale)
	}
	if rng.IntN(3) > 0 {
		spec.Range = uint64(1+rng.Int64N(50)) * uint64(min(scale, 1<<40)) * uint64(step) / 4
	}
	t := rng.Int64N(1 << 41)
	if rng.IntN(4) == 0 {
		t = -t
	}
	start := t
	counter := rng.Int64N(1 << 40)
	var ticks, values []int64
	for range n {
		dt := 1 + rng.Int64N(2*step)
		switch rng.IntN(40) {
		case 0:
			dt = 0
		case 1:
			dt = -rng.Int64N(3 * step)
		case 2:
			dt = rng.Int64N(40 * step)
		case 3:
			dt = slot.Of(t).EndMS() - t // exactly on an edge
		}
		t += dt
		v := rng.Int64N(scale + 1)
		if spec.Kind == segment.CumulativeEnergy {
			counter += min(v, 1<<40) * max(dt, 0) / 2
			if counter < 0 {
				counter = 0
			}
			if spec.Range > 0 && spec.Range <= math.MaxInt64 {
				counter %= int64(spec.Range)
			}
			if rng.IntN(60) == 0 {
				counter = rng.Int64N(5)
			}
			v = counter
		}
		switch rng.IntN(60) {
		case 0:
			v = -1 - rng.Int64N(5)
		case 1:
			v = 0x7ffffffffffffff0 + rng.Int64N(4)
		case 2:
			v = (1<<47 + rng.Int64N(4)) * 1000
		case 3:
			v = segment.PowerLimit + rng.Int64N(3) - 1
		}
		ticks, values = append(ticks, t), append(values, v)
		if dt < 0 {
			t -= dt
		}
	}
	if rng.IntN(3) == 0 {
		span := max(t-start, 1)
		spec.ClipStart = start + rng.Int64N(span)
		if rng.IntN(2) == 0 {
			spec.ClipEnd = spec.ClipStart + rng.Int64N(span)
		}
	}
	return spec, ticks, values
}

func TestFoldEqualsTwin(t *testing.T) {
	var out segment.Result // used again, as a calculator does
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		spec, ticks, values := sequence(rng, 1+rng.IntN(80))
		var prev *segment.Reading
		if rng.IntN(2) == 0 {
			prev = &segment.Reading{TimeMS: ticks[0], Value: values[0]}
			ticks, values = ticks[1:], values[1:]
		}
		segment.Fold(&spec, prev, ticks, values, &out)
		compare(t, &out, twinFold(spec, prev, ticks, values))
		if t.Failed() {
			t.Fatalf("seed %d, spec %+v", seed, spec)
		}
	}
}

// merge adds a result's parts to those of earlier batches.
func merge(into map[slot.Slot]segment.Part, r *segment.Result) {
	for _, p := range r.Parts {
		m := into[p.Slot]
		m.Energy += p.Energy
		m.ObservedMS += p.ObservedMS
		m.InterpolatedMS += p.InterpolatedMS
		m.MissingMS += p.MissingMS
		into[p.Slot] = m
	}
}

func TestBatchingNeverChangesATotal(t *testing.T) {
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		spec, ticks, values := sequence(rng, 120)
		var whole segment.Result
		segment.Fold(&spec, nil, ticks, values, &whole)
		want := map[slot.Slot]segment.Part{}
		merge(want, &whole)
		for _, size := range []int{1, 7, 60, 0} {
			got, counts, readings := map[slot.Slot]segment.Part{}, [segment.NumReasons]uint32{}, 0
			var prev *segment.Reading
			for at := 0; at < len(ticks); {
				n := size
				if n == 0 {
					n = 1 + rng.IntN(30)
				}
				end := min(at+n, len(ticks))
				var out segment.Result
				segment.Fold(&spec, prev, ticks[at:end], values[at:end], &out)
				merge(got, &out)
				for r, c := range out.Counts {
					counts[r] += c
				}
				readings += out.Readings
				if prev = nil; out.HasLast {
					prev = &out.Last
				}
				at = end
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || counts != whole.Counts || readings != whole.Readings {
				t.Fatalf("seed %d, batches of %d:\n got %v %v\nwant %v %v", seed, size, got, counts, want, whole.Counts)
			}
		}
	}
}

func TestOrderOfBatchesNeverChangesATotal(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		spec, ticks, values := sequence(rng, 200)
		type batch struct {
			prev          *segment.Reading
			ticks, values []int64
		}
		var batches []batch
		var out segment.Result
		var prev *segment.Reading
		for at := 0; at < len(ticks); at += 10 {
			b := batch{prev, ticks[at:min(at+10, len(ticks))], values[at:min(at+10, len(ticks))]}
			batches = append(batches, b)
			segment.Fold(&spec, b.prev, b.ticks, b.values, &out)
			if prev = nil; out.HasLast {
				last := out.Last
				prev = &last
			}
		}
		var want map[slot.Slot]segment.Part
		for range 4 {
			got := map[slot.Slot]segment.Part{}
			for _, b := range batches {
				segment.Fold(&spec, b.prev, b.ticks, b.values, &out)
				merge(got, &out)
			}
			if want == nil {
				want = got
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d: another order, another total", seed)
			}
			rng.Shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
		}
	}
}

func TestCuttingNeverChangesATotal(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 4))
		kind := segment.Kind(1 + rng.IntN(3))
		dt := 1 + rng.Int64N(3*slot.Millis)
		r0 := segment.Reading{TimeMS: rng.Int64N(1 << 41), Value: rng.Int64N(1 << 40)}
		r1 := segment.Reading{TimeMS: r0.TimeMS + dt, Value: rng.Int64N(1 << 40)}
		whole := new(big.Int)
		switch kind {
		case segment.InstantPower:
			whole.Mul(num(r0.Value+r1.Value), num(dt))
		case segment.AveragePower:
			whole.Mul(num(2*r1.Value), num(dt))
		case segment.CumulativeEnergy:
			r1.Value += r0.Value
			whole = num(2 * (r1.Value - r0.Value))
		}
		spec := segment.Spec{Kind: kind, MaxGapMS: dt}
		var out segment.Result
		segment.Fold(&spec, &r0, []int64{r1.TimeMS}, []int64{r1.Value}, &out)
		if out.Sum().Big().Cmp(whole) != 0 {
			t.Fatalf("seed %d: parts sum to %v, the segment is %v", seed, out.Sum().Big(), whole)
		}

		// Cut as collectors cut at the edges of workloads: consecutive clip
		// windows share the segment without remainder.
		edges := []int64{segment.NoClipStart}
		for x := r0.TimeMS; x < r1.TimeMS; x += 1 + rng.Int64N(dt) {
			edges = append(edges, x)
		}
		edges = append(edges, segment.NoClipEnd)
		sum, observed := unit.Sum{}, int64(0)
		for i := range len(edges) - 1 {
			clipped := spec
			clipped.ClipStart, clipped.ClipEnd = edges[i], edges[i+1]
			segment.Fold(&clipped, &r0, []int64{r1.TimeMS}, []int64{r1.Value}, &out)
			sum.AddSum(out.Sum())
			for _, p := range out.Parts {
				observed += p.ObservedMS
			}
		}
		if sum.Big().Cmp(whole) != 0 || observed != dt {
			t.Fatalf("seed %d: clips sum to %v over %d ms, the segment is %v over %d ms", seed, sum.Big(), observed, whole, dt)
		}
	}
}

func TestCutsFloorFromTheSegmentsOwnStart(t *testing.T) {
	edge := slot.Slot(10).StartMS()
	tests := []struct {
		name   string
		kind   segment.Kind
		v0, v1 int64
		before int64 // ms before the edge; the segment has 3 ms
		want   [2]unit.Energy
	}{
		// 2·1·1 + (2−1)·1/3 = 2⅓ → 2, whole (1+2)·3 = 9.
		{"rising", segment.InstantPower, 1, 2, 1, [2]unit.Energy{2, 7}},
		// 2·2·1 − 1/3 = 3⅔ → 3: a floor, not a truncated slope.
		{"falling", segment.InstantPower, 2, 1, 1, [2]unit.Energy{3, 6}},
		{"average", segment.AveragePower, 99, 5, 2, [2]unit.Energy{20, 10}},
		// 2·5·2/3 = 6⅔ → 6.
		{"counter", segment.CumulativeEnergy, 100, 105, 2, [2]unit.Energy{6, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := segment.Spec{Kind: tt.kind}
			prev := segment.Reading{TimeMS: edge - tt.before, Value: tt.v0}
			var out segment.Result
			segment.Fold(&spec, &prev, []int64{prev.TimeMS + 3}, []int64{tt.v1}, &out)
			if len(out.Parts) != 2 || out.Parts[0].Energy != tt.want[0] || out.Parts[1].Energy != tt.want[1] {
				t.Fatalf("parts %+v, want energies %v", out.Parts, tt.want)
			}
		})
	}
}

// foldPair folds two readings dt apart.
func foldPair(spec segment.Spec, dt, v0, v1 int64) *segment.Result {
	var out segment.Result
	segment.Fold(&spec, nil, []int64{1_000, 1_000 + dt}, []int64{v0, v1}, &out)
	return &out
}

// times sums what a result knows.
func times(r *segment.Result) (energy unit.Energy, observed, interpolated, missing int64) {
	for _, p := range r.Parts {
		energy += p.Energy
		observed += p.ObservedMS
		interpolated += p.InterpolatedMS
		missing += p.MissingMS
	}
	return
}

func TestGaugeIsNotBridgedOverAGap(t *testing.T) {
	for _, kind := range []segment.Kind{segment.InstantPower, segment.AveragePower} {
		spec := segment.Spec{Kind: kind, PeriodMS: 10_000}
		if e, o, i, m := times(foldPair(spec, 50_000, 3, 3)); e != 300_000 || o != 50_000 || i != 0 || m != 0 {
			t.Errorf("%v: five periods: %d %d %d %d", kind, e, o, i, m)
		}
		if e, o, i, m := times(foldPair(spec, 700_001, 3, 3)); e != 0 || o != 0 || i != 0 || m != 700_001 {
			t.Errorf("%v: a gap: %d %d %d %d", kind, e, o, i, m)
		}
		if n := len(foldPair(spec, 700_001, 3, 3).Parts); n != 3 {
			t.Errorf("%v: the gap is in %d slots, want 3", kind, n)
		}
	}
	for _, tt := range []struct{ period, maxGap, want int64 }{
		{0, 0, 30_000}, {1_000, 0, 30_000}, {10_000, 0, 50_000}, {10_000, 11_000, 11_000}, {math.MaxInt64, 0, math.MaxInt64 / 5 * 5},
	} {
		if got := (segment.Spec{PeriodMS: tt.period, MaxGapMS: tt.maxGap}).Gap(); got != tt.want {
			t.Errorf("gap of period %d, max %d: %d, want %d", tt.period, tt.maxGap, got, tt.want)
		}
	}
}

func TestCounterAcrossGapsWrapsAndResets(t *testing.T) {
	const kwh = 3_600_000_000_000
	tests := []struct {
		name            string
		rangeUJ, maxMW  uint64
		dt, v0, v1      int64
		energy          unit.Energy
		observed, inter int64
		missing         int64
		reason          segment.Reason
	}{
		{"rises", 0, 0, 1_000, 5, 12, 14, 1_000, 0, 0, segment.NumReasons},
		{"carries over a gap without a range", 0, 0, 90_000, 5, 12, 14, 90_000, 90_000, 0, segment.NumReasons},
		{"carries while it cannot have wrapped", 1_000_000, 11, 90_000, 5, 12, 14, 90_000, 90_000, 0, segment.NumReasons},
		{"may have wrapped once", 990_000, 11, 90_000, 5, 12, 0, 0, 0, 90_000, segment.Ambiguous},
		{"may have wrapped, without a maximum power", 1 << 62, 0, 30_001, 5, 12, 0, 0, 0, 30_001, segment.Ambiguous},
		{"within the gap without a maximum power", 1 << 62, 0, 30_000, 5, 12, 14, 30_000, 0, 0, segment.NumReasons},
		{"wraps", 1_000_000, 50, 1_000, 990_000, 2, 20_004, 1_000, 0, 0, segment.Wrap},
		{"wraps without a maximum power", 1_000_000, 0, 1_000, 990_000, 2, 20_004, 1_000, 0, 0, segment.Wrap},
		{"falls too far for a wrap", 1_000_000, 50, 1_000, 900_000, 2, 0, 0, 0, 1_000, segment.Reset},
		{"falls without a range", 0, 50, 1_000, 900_000, 2, 0, 0, 0, 1_000, segment.Reset},
		{"falls by more than its range", 10, 0, 1_000, 900_000, 2, 0, 0, 0, 1_000, segment.Reset},
		{"wraps across the largest range", math.MaxUint64, math.MaxUint64 - 1, 1, math.MaxInt64 - 16, 0, 0, 0, 0, 1, segment.Overflow},
		{"overflows", 0, 0, 1_000, 0, 4_300 * kwh, 0, 0, 0, 1_000, segment.Overflow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := segment.Spec{Kind: segment.CumulativeEnergy, PeriodMS: 1_000, Range: tt.rangeUJ, MaxPower: tt.maxMW}
			out := foldPair(spec, tt.dt, tt.v0, tt.v1)
			e, o, i, m := times(out)
			if e != tt.energy || o != tt.observed || i != tt.inter || m != tt.missing {
				t.Errorf("energy %d observed %d interpolated %d missing %d, want %d %d %d %d",
					e, o, i, m, tt.energy, tt.observed, tt.inter, tt.missing)
			}
			for r := range segment.NumReasons {
				want := uint32(0)
				if r == tt.reason || tt.reason == segment.Overflow && r == segment.Wrap && tt.rangeUJ > 0 {
					want = 1
				}
				if out.Counts[r] != want {
					t.Errorf("%v counted %d times, want %d", r, out.Counts[r], want)
				}
			}
		})
	}
}

func TestSentinelsAreSkippedAndCounted(t *testing.T) {
	blank := int64(0x7ffffffffffffff0)
	tests := []struct {
		kind   segment.Kind
		value  int64
		reason segment.Reason
	}{
		{segment.InstantPower, -1, segment.Negative},
		{segment.AveragePower, math.MinInt64, segment.Negative},
		{segment.CumulativeEnergy, -1, segment.NegativeCounter},
		{segment.InstantPower, blank, segment.Blank},
		{segment.AveragePower, blank + 3, segment.Blank},
		{segment.CumulativeEnergy, blank + 15, segment.Blank},
		{segment.InstantPower, 1 << 47, segment.Blank},
		{segment.InstantPower, (1<<47 + 1) * 1000, segment.Blank},
		{segment.Kind(9), 5, segment.OutOfRange},
	}
	for _, tt := range tests {
		spec := segment.Spec{Kind: tt.kind}
		if reason, ok := spec.Accepts(segment.Reading{Value: tt.value}); ok || reason != tt.reason {
			t.Errorf("%v %d: %v, %v; want %v", tt.kind, tt.value, reason, ok, tt.reason)
		}
		var out segment.Result
		segment.Fold(&spec, nil, []int64{0, 1_000, 2_000}, []int64{7, tt.value, 7}, &out)
		if tt.kind.Valid() {
			// The segment runs from the reading before to the one behind.
			if len(out.Parts) != 1 || out.Parts[0].ObservedMS != 2_000 || out.Readings != 2 || out.Counts[tt.reason] != 1 {
				t.Errorf("%v %d: %+v", tt.kind, tt.value, out)
			}
		} else if len(out.Parts) != 0 || out.Counts[tt.reason] != 3 {
			t.Errorf("%v %d: %+v", tt.kind, tt.value, out)
		}
	}
	// 39 kWh on a counter are no blank.
	if _, ok := (segment.Spec{Kind: segment.CumulativeEnergy}).Accepts(segment.Reading{Value: 1 << 47}); !ok {
		t.Error("a counter at 2⁴⁷ µJ is refused")
	}
}

func TestOfEqualTimesTheFirstCounts(t *testing.T) {
	spec := segment.Spec{Kind: segment.InstantPower}
	var out segment.Result
	segment.Fold(&spec, nil, []int64{0, 1_000, 1_000, 500, 2_000}, []int64{10, 20, 99, 99, 30}, &out)
	if out.Parts[0].Energy != 30_000+50_000 || out.Counts[segment.Duplicate] != 1 || out.Counts[segment.OutOfOrder] != 1 || out.Readings != 3 {
		t.Fatalf("%+v", out)
	}
	// The same across a batch's edge.
	prev := segment.Reading{TimeMS: 1_000, Value: 20}
	segment.Fold(&spec, &prev, []int64{1_000, 2_000}, []int64{99, 30}, &out)
	if out.Parts[0].Energy != 50_000 || out.Counts[segment.Duplicate] != 1 || out.FirstMS != 2_000 {
		t.Fatalf("%+v", out)
	}
}

func TestClipDropsWhatLiesOutside(t *testing.T) {
	spec := segment.Spec{Kind: segment.InstantPower, ClipStart: 500, ClipEnd: 1_500}
	var out segment.Result
	segment.Fold(&spec, nil, []int64{0, 1_000, 2_000, 3_000}, []int64{10, 20, 30, 40}, &out)
	// The whole is 30,000 + 50,000; up to 500 ms it is 12,500, behind 1,500 ms 27,500.
	if len(out.Parts) != 1 || out.Parts[0].Energy != 80_000-12_500-27_500 || out.Parts[0].StartMS != 500 || out.Parts[0].EndMS != 1_500 {
		t.Fatalf("%+v", out.Parts)
	}
	if out.Readings != 4 || out.Last.TimeMS != 3_000 {
		t.Fatalf("%+v", out)
	}
}

func TestLongGapDetaches(t *testing.T) {
	spec := segment.Spec{Kind: segment.CumulativeEnergy}
	if out := foldPair(spec, segment.MaxSegmentMS, 0, 1_000_000); out.Sum() != unit.SumOf(2_000_000) || out.Counts[segment.Detached] != 0 {
		t.Errorf("400 days: %v", out.Sum())
	}
	if out := foldPair(spec, segment.MaxSegmentMS+1, 0, 1_000_000); len(out.Parts) != 0 || out.Counts[segment.Detached] != 1 || out.Readings != 2 {
		t.Errorf("more than 400 days: %d parts", len(out.Parts))
	}
}

// A slot of the highest power that Fold lets through fits, however it is cut.
func TestSlotOfPowerLimitFits(t *testing.T) {
	spec := segment.Spec{Kind: segment.InstantPower}
	var ticks, values []int64
	for i := range int64(slot.Millis/977 + 2) {
		ticks, values = append(ticks, i*977-13), append(values, segment.PowerLimit)
	}
	var out segment.Result
	segment.Fold(&spec, nil, ticks, values, &out)
	for _, p := range out.Parts {
		if p.Slot == 0 && p.Energy != 2*segment.PowerLimit*slot.Millis {
			t.Fatalf("energy %d", p.Energy)
		}
	}
	if out.Counts[segment.Overflow] != 0 {
		t.Fatal("counted as overflow")
	}
}

func TestSumFourHundredMegawattsForAYear(t *testing.T) {
	const megawatts400 = 400_000_000_000 // mW
	spec := segment.Spec{Kind: segment.InstantPower, PeriodMS: 60_000}
	var total unit.Sum
	var out segment.Result
	start := int64(1_704_067_200_000 + 137) // off the slots
	prev := &segment.Reading{TimeMS: start, Value: megawatts400}
	ticks, values := make([]int64, 60), make([]int64, 60)
	for hour := range int64(366 * 24) {
		for i := range ticks {
			ticks[i] = start + (hour*60+int64(i)+1)*60_000
			values[i] = megawatts400
		}
		segment.Fold(&spec, prev, ticks, values, &out)
		total.AddSum(out.Sum())
		last := out.Last
		prev = &last
	}
	// 400 MW · 8,784 h = 3.5136 TWh: 2,743 times what an int64 of half-µJ holds.
	if got, want := total.Microjoules(), "12648960000000000000000"; got != want {
		t.Fatalf("%s µJ, want %s", got, want)
	}
	if got := total.KWh(); got != 3_513_600_000 {
		t.Fatalf("%v kWh", got)
	}
}

// LLaMA's models took 2,638 MWh of facility energy (Touvron et al. 2023, table
// 15): here on 2,048 counters that count in odd steps.
func TestSumLlamaTwoThousandSixHundredThirtyEightMegawattHours(t *testing.T) {
	const devices, steps = 2048, 5 * 30 * 24 // hourly for five months
	want := new(big.Int).Mul(num(2_638_000), num(3_600_000_000_000))
	each, rest := new(big.Int).QuoRem(want, num(devices*steps), new(big.Int))
	rng := rand.New(rand.NewPCG(15, 15))
	var total unit.Sum
	var out segment.Result
	spec := segment.Spec{Kind: segment.CumulativeEnergy, PeriodMS: 3_600_000}
	ticks, values := make([]int64, steps), make([]int64, steps)
	for d := range devices {
		first := rng.Int64N(1 << 40)
		start := 1_670_000_000_000 + rng.Int64N(3_600_000)
		for i := range ticks {
			ticks[i] = start + int64(i+1)*3_600_000
			values[i] = first + int64(i+1)*each.Int64()
		}
		if d == 0 {
			values[steps-1] += rest.Int64()
		}
		segment.Fold(&spec, &segment.Reading{TimeMS: start, Value: first}, ticks, values, &out)
		total.AddSum(out.Sum())
	}
	if got := total.Microjoules(); got != want.String() {
		t.Fatalf("%s µJ, want %s", got, want)
	}
	if got := total.KWh(); got != 2_638_000 {
		t.Fatalf("%v kWh", got)
	}
}

func TestFoldAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	spec, ticks, values := sequence(rng, 200)
	prev := segment.Reading{TimeMS: ticks[0] - 1, Value: 1}
	var out segment.Result
	segment.Fold(&spec, &prev, ticks, values, &out)
	if n := testing.AllocsPerRun(20, func() { segment.Fold(&spec, &prev, ticks, values, &out) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range segment.NumReasons {
		if r.String() == "" || r.String() == "unknown" || seen[r.String()] {
			t.Errorf("reason %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
	for r, want := range map[segment.Reason]bool{
		segment.Duplicate: false, segment.OutOfOrder: true, segment.Negative: true, segment.NegativeCounter: true,
		segment.Blank: true, segment.OutOfRange: true, segment.Ambiguous: false, segment.Reset: false, segment.Wrap: false,
		segment.Overflow: false, segment.Detached: false,
	} {
		if r.Rejected() != want {
			t.Errorf("%v: rejected %v, want %v", r, r.Rejected(), want)
		}
	}
	if segment.NumReasons.String() != "unknown" {
		t.Error("what is no reason has a name")
	}
}

func BenchmarkFold(b *testing.B) {
	for _, kind := range []segment.Kind{segment.InstantPower, segment.AveragePower, segment.CumulativeEnergy} {
		b.Run(kind.String(), func(b *testing.B) {
			const series, ticksPerBatch = 13, 60
			rng := rand.New(rand.NewPCG(1, 1))
			spec := segment.Spec{Kind: kind, PeriodMS: 1_000, Range: 1 << 50, MaxPower: 10_000_000}
			ticks := make([]int64, ticksPerBatch)
			values := make([][]int64, series)
			for i := range ticks {
				ticks[i] = 1_700_000_100_000 + int64(i)*1_000
			}
			for s := range values {
				v := int64(400_000)
				for range ticks {
					v += rng.Int64N(20_001)
					values[s] = append(values[s], v)
				}
			}
			prev := segment.Reading{TimeMS: ticks[0] - 1_000, Value: 400_000}
			var out segment.Result
			for b.Loop() {
				for s := range values {
					segment.Fold(&spec, &prev, ticks, values[s], &out)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(series*ticksPerBatch), "ns/sample")
		})
	}
}

func FuzzFold(f *testing.F) {
	f.Add(uint8(1), int64(1000), int64(0), uint64(0), uint64(0), int64(0), int64(0), true, int64(299_000), int64(5), int64(300_500), int64(8), int64(301_001), int64(2))
	f.Add(uint8(2), int64(0), int64(9), uint64(0), uint64(0), int64(1), int64(299_999), false, int64(-5), int64(5), int64(5), int64(segment.PowerLimit), int64(7), int64(segment.PowerLimit+1))
	f.Add(uint8(3), int64(1), int64(0), uint64(1<<63), uint64(math.MaxUint64), int64(math.MinInt64), int64(math.MaxInt64), true, int64(0), int64(math.MaxInt64-20), int64(1), int64(3), int64(400*86_400_000), int64(1<<40))
	f.Add(uint8(0), int64(math.MaxInt64), int64(math.MinInt64), uint64(7), uint64(3), int64(math.MaxInt64), int64(math.MinInt64), true, int64(math.MinInt64), int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, kind uint8, period, gap int64, rng, power uint64, clipStart, clipEnd int64, hasPrev bool, t0, v0, t1, v1, t2, v2 int64) {
		spec := segment.Spec{
			Kind: segment.Kind(kind), PeriodMS: min(max(period, 0), math.MaxInt64/5), MaxGapMS: gap, Range: rng, MaxPower: power,
			ClipStart: clipStart, ClipEnd: clipEnd,
		}
		ticks, values := []int64{t0, t1, t2}, []int64{v0, v1, v2}
		var prev *segment.Reading
		if hasPrev {
			prev = &segment.Reading{TimeMS: t0, Value: v0}
			ticks, values = ticks[1:], values[1:]
		}
		var out segment.Result
		segment.Fold(&spec, prev, ticks, values, &out)
		compare(t, &out, twinFold(spec, prev, ticks, values))
	})
}
