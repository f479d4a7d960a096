package timeline_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// answer is what the twin says of one slot.
type answer struct {
	record *timeline.Record
	entry  timeline.Entry
	method timeline.Method
	ended  slot.Slot // of a carried interval
}

// admitted states the four views.
func admitted(r *timeline.Record, view string, at int64, s slot.Slot) bool {
	switch view {
	case "as of":
		return r.RecordedMS <= at
	case "as known at":
		return r.KnownMS <= at
	case "as known then":
		return r.KnownMS <= s.StartMS()
	default:
		return true
	}
}

// twinSlot looks at every record of every entry for one slot, and for every
// slot before it that is not too old.
func twinSlot(chain []timeline.Entry, series []timeline.Series, s slot.Slot, view string, at int64) *answer {
	winner := func(e timeline.Entry, p slot.Slot) *timeline.Record {
		var best *timeline.Record
		for i := range series {
			if series[i].Source != e.Source || series[i].Product != e.Product {
				continue
			}
			for j := range series[i].Records {
				r := &series[i].Records[j]
				if r.Start <= p && p < r.End && admitted(r, view, at, s) && (best == nil || r.Revision >= best.Revision) {
					best = r
				}
			}
		}
		if best == nil || best.Retracted {
			return nil
		}
		return best
	}
	for _, e := range chain {
		if r := winner(e, s); r != nil {
			return &answer{record: r, entry: e, method: timeline.Direct}
		}
		if e.MaxAgeMS <= 0 {
			continue
		}
		for p := s - 1; (int64(s)-int64(p)-1)*slot.Millis <= e.MaxAgeMS; p-- {
			if r := winner(e, p); r != nil {
				return &answer{record: r, entry: e, method: timeline.Carried, ended: p + 1}
			}
		}
	}
	return nil
}

// twinResolve joins the answers of neighbouring slots that are the same.
func twinResolve(chain []timeline.Entry, series []timeline.Series, from, to slot.Slot, view string, at int64) []timeline.Step {
	var steps []timeline.Step
	var before *answer
	for s := from; s < to; s++ {
		a := twinSlot(chain, series, s, view, at)
		if a != nil && before != nil && *a == *before {
			steps[len(steps)-1].End = s + 1
			continue
		}
		if before = a; a == nil {
			continue
		}
		step := timeline.Step{
			Start: s, End: s + 1, Value: a.record.Value, Source: a.entry.Source, Product: a.entry.Product,
			Quality: a.record.Quality, Method: a.method,
			Revision: a.record.Revision, KnownMS: a.record.KnownMS, RecordedMS: a.record.RecordedMS,
		}
		if a.method == timeline.Carried {
			step.Quality = timeline.Filled
			step.AgeMS = int64(s-a.ended) * slot.Millis
		}
		steps = append(steps, step)
	}
	return steps
}

var views = []string{"latest", "as of", "as known at", "as known then"}

func viewOf(name string, at int64) timeline.View {
	switch name {
	case "as of":
		return timeline.AsOf(at)
	case "as known at":
		return timeline.AsKnownAt(at)
	case "as known then":
		return timeline.AsKnownThen()
	default:
		return timeline.Latest()
	}
}

func randomRecords(rng *rand.Rand, n int) []timeline.Record {
	var records []timeline.Record
	for range n {
		r := timeline.Record{
			Start:      slot.Slot(rng.IntN(60) - 10),
			Value:      unit.Decimal{Coef: 1 + rng.Int64N(9)},
			Retracted:  rng.IntN(4) == 0,
			Quality:    timeline.Quality(1 + rng.IntN(5)),
			RecordedMS: rng.Int64N(60 * slot.Millis),
		}
		r.End = r.Start + slot.Slot([]int{0, 1, 1, 3, 12, 40}[rng.IntN(6)])
		r.KnownMS = r.RecordedMS - rng.Int64N(5*slot.Millis)
		switch rng.IntN(8) {
		case 0:
			r.KnownMS, r.RecordedMS = timeline.SinceEver, timeline.SinceEver
		case 1:
			r.KnownMS = slot.Of(r.KnownMS).StartMS()
		}
		// By insertion, as a store does; sometimes any revision at all.
		var changed bool
		if r, changed = timeline.Revise(records, r); !changed {
			continue
		}
		if rng.IntN(5) == 0 {
			r.Revision = rng.Int64N(6)
		}
		records = append(records, r)
	}
	return records
}

func TestResolveEqualsTwin(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var series []timeline.Series
		var chain []timeline.Entry
		for i := range 1 + rng.IntN(3) {
			source := string(rune('a' + i))
			series = append(series, timeline.Series{Source: source, Product: "observed", Records: randomRecords(rng, rng.IntN(14))})
			age := []int64{0, 0, 1, slot.Millis, 5*slot.Millis + 1, 300 * slot.Millis}[rng.IntN(6)]
			chain = append(chain, timeline.Entry{Source: source, Product: "observed", MaxAgeMS: age})
		}
		rng.Shuffle(len(chain), func(i, j int) { chain[i], chain[j] = chain[j], chain[i] })
		from := slot.Slot(rng.IntN(40) - 5)
		to := from + slot.Slot(rng.IntN(60))
		at := rng.Int64N(60 * slot.Millis)
		for _, view := range views {
			got := timeline.Resolve(chain, series, from, to, viewOf(view, at))
			want := twinResolve(chain, series, from, to, view, at)
			if !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
				t.Fatalf("seed %d, %s of [%d, %d) at %d, chain %+v:\nseries %+v\n got %+v\nwant %+v",
					seed, view, from, to, at, chain, series, got, want)
			}
		}
	}
}

// Nested retractions and values, known in any order: what hides what.
func TestRetractionsHideWhateverTheOrderTheyWereKnownIn(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var records []timeline.Record
		for _, revision := range rng.Perm(30) {
			width := 1 << rng.IntN(5) // nested, as the nodes of a tree are
			start := slot.Slot(rng.IntN(16/width+1) * width)
			records = append(records, timeline.Record{
				Start: start, End: start + slot.Slot(width), Value: unit.Decimal{Coef: 1},
				Retracted: rng.IntN(4) > 0, KnownMS: rng.Int64N(40 * slot.Millis), Revision: int64(revision),
			})
		}
		series := []timeline.Series{{Source: "a", Records: records}}
		chain := []timeline.Entry{{Source: "a", MaxAgeMS: 50 * slot.Millis}}
		for _, view := range views {
			got := timeline.Resolve(chain, series, 0, 48, viewOf(view, 20*slot.Millis))
			want := twinResolve(chain, series, 0, 48, view, 20*slot.Millis)
			if !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
				t.Fatalf("seed %d, %s of %+v:\n got %+v\nwant %+v", seed, view, records, got, want)
			}
		}
	}
}

// Asking for a part answers as the part of the answer for the whole.
func TestResolveOfAPartIsPartOfTheWhole(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		series := []timeline.Series{{Source: "a", Records: randomRecords(rng, 12)}}
		chain := []timeline.Entry{{Source: "a", MaxAgeMS: 7 * slot.Millis}}
		for _, view := range views {
			v := viewOf(view, 30*slot.Millis)
			for _, whole := range timeline.Resolve(chain, series, 0, 60, v) {
				for s := whole.Start; s < whole.End; s++ {
					one := timeline.Resolve(chain, series, s, s+1, v)
					if len(one) != 1 || one[0].Value != whole.Value || one[0].Revision != whole.Revision || one[0].Method != whole.Method {
						t.Fatalf("seed %d, slot %d: %+v, in the whole %+v", seed, s, one, whole)
					}
				}
			}
		}
	}
}

func hour(h int) slot.Slot { return slot.Slot(12 * h) }

func g(coef int64) unit.Decimal {
	d, err := unit.NewDecimal(coef, 0)
	if err != nil {
		panic(err)
	}
	return d
}

// show prints steps as [start, end) value method, for the stories below.
func show(steps []timeline.Step) string {
	text := ""
	for _, s := range steps {
		text += fmt.Sprintf("[%d,%d) %v %v;", s.Start, s.End, s.Value, s.Method)
	}
	return text
}

func TestChainAsksTheNextSourceOnlyWhereTheFirstHasNothing(t *testing.T) {
	series := []timeline.Series{
		{Source: "meter", Records: []timeline.Record{{Start: hour(1), End: hour(2), Value: g(100), Quality: timeline.Forecast, Revision: 1}}},
		{Source: "year", Records: []timeline.Record{{Start: hour(0), End: hour(9), Value: g(7), Quality: timeline.Measured, Revision: 1}}},
	}
	chain := []timeline.Entry{{Source: "meter", MaxAgeMS: 2 * slot.Millis}, {Source: "year"}}
	want := "[0,12) 7 DIRECT;[12,24) 100 DIRECT;[24,27) 100 CARRIED;[27,36) 7 DIRECT;"
	if got := show(timeline.Resolve(chain, series, 0, hour(3), timeline.Latest())); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRetractionIsNoValue(t *testing.T) {
	series := []timeline.Series{{Source: "a", Records: []timeline.Record{
		{Start: 0, End: 12, Value: g(5), Revision: 1},
		{Start: 4, End: 8, Retracted: true, Revision: 2},
	}}}
	want := "[0,4) 5 DIRECT;[8,12) 5 DIRECT;"
	if got := show(timeline.Resolve([]timeline.Entry{{Source: "a"}}, series, 0, 20, timeline.Latest())); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// What was retracted may be carried over like any hole.
	want = "[0,4) 5 DIRECT;[4,6) 5 CARRIED;[8,12) 5 DIRECT;[12,14) 5 CARRIED;"
	if got := show(timeline.Resolve([]timeline.Entry{{Source: "a", MaxAgeMS: slot.Millis}}, series, 0, 20, timeline.Latest())); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCarriedValueIsFilledAndAges(t *testing.T) {
	series := []timeline.Series{{Source: "a", Records: []timeline.Record{
		{Start: 0, End: 2, Value: g(5), Quality: timeline.Measured, Revision: 1, KnownMS: 3, RecordedMS: 4},
	}}}
	got := timeline.Resolve([]timeline.Entry{{Source: "a", MaxAgeMS: 3 * slot.Millis}}, series, 4, 100, timeline.Latest())
	want := []timeline.Step{{
		Start: 4, End: 6, Value: g(5), Source: "a", Quality: timeline.Filled, Method: timeline.Carried,
		AgeMS: 2 * slot.Millis, Revision: 1, KnownMS: 3, RecordedMS: 4,
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAsOfComesBackToTheLastDigit(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		chain := []timeline.Entry{{Source: "a", MaxAgeMS: 4 * slot.Millis}}
		records := randomRecords(rng, 10)
		const asked = 1_000 * slot.Millis // later than any of them was recorded
		before := timeline.Resolve(chain, []timeline.Series{{Source: "a", Records: records}}, 0, 60, timeline.AsOf(asked))
		for range 10 {
			r := randomRecords(rng, 1)
			if len(r) == 0 || r[0].Start >= r[0].End {
				continue
			}
			next, changed := timeline.Revise(records, r[0])
			if next.RecordedMS = asked + 1 + rng.Int64N(1_000); changed {
				records = append(records, next)
			}
		}
		after := timeline.Resolve(chain, []timeline.Series{{Source: "a", Records: records}}, 0, 60, timeline.AsOf(asked))
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("seed %d: as of then it was %s, now %s", seed, show(before), show(after))
		}
	}
}

func TestAsKnownThenAdmitsWhatWasKnownWhenTheSlotBegan(t *testing.T) {
	series := []timeline.Series{{Source: "poll", Records: []timeline.Record{
		{Start: 0, End: 12, Value: g(50), Revision: 1, KnownMS: timeline.SinceEver},
		{Start: 0, End: 12, Value: g(60), Revision: 2, KnownMS: slot.Slot(4).StartMS()},
		{Start: 0, End: 12, Value: g(70), Revision: 3, KnownMS: slot.Slot(8).StartMS() + 1},
		{Start: 12, End: 24, Value: g(80), Revision: 1, KnownMS: slot.Slot(30).StartMS()},
	}}}
	chain := []timeline.Entry{{Source: "poll", MaxAgeMS: 20 * slot.Millis}}
	// The last hour comes to be known when it is over: until then its slots
	// carry the hour before, and from then on it is what is carried.
	want := "[0,4) 50 DIRECT;[4,9) 60 DIRECT;[9,12) 70 DIRECT;[12,30) 70 CARRIED;[30,45) 80 CARRIED;"
	if got := show(timeline.Resolve(chain, series, 0, 100, timeline.AsKnownThen())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestReviseOrdersOverlapsAndDropsWhatIsNotNew(t *testing.T) {
	stored := []timeline.Record{
		{Start: 0, End: 12, Value: g(1), Quality: timeline.Measured, KnownMS: 10, Revision: 1},
		{Start: 12, End: 24, Value: g(2), Quality: timeline.Measured, KnownMS: 10, Revision: 4},
		{Start: 0, End: 6, Value: g(9), Quality: timeline.Measured, KnownMS: 10, Revision: 2},
	}
	tests := []struct {
		name     string
		next     timeline.Record
		revision int64
		changed  bool
	}{
		{"the same as the newest", timeline.Record{Start: 6, End: 12, Value: g(1), Quality: timeline.Measured, KnownMS: 10}, 2, false},
		{"the same, known later", timeline.Record{Start: 0, End: 6, Value: g(9), Quality: timeline.Measured, KnownMS: 11}, 3, false},
		{"the same, known earlier", timeline.Record{Start: 0, End: 6, Value: g(9), Quality: timeline.Measured, KnownMS: 9}, 3, true},
		{"the same as one that was revised", timeline.Record{Start: 0, End: 12, Value: g(1), Quality: timeline.Measured, KnownMS: 10}, 3, true},
		{"another quality", timeline.Record{Start: 12, End: 24, Value: g(2), Quality: timeline.Forecast, KnownMS: 10}, 5, true},
		{"over two", timeline.Record{Start: 6, End: 24, Value: g(3), KnownMS: 10}, 5, true},
		{"beyond", timeline.Record{Start: 12, End: 25, Value: g(2), Quality: timeline.Measured, KnownMS: 10}, 5, true},
		{"elsewhere", timeline.Record{Start: 100, End: 112, Value: g(2)}, 1, true},
		{"a retraction", timeline.Record{Start: 12, End: 24, Retracted: true, KnownMS: 10}, 5, true},
		{"nothing at all", timeline.Record{Start: 5, End: 5}, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, changed := timeline.Revise(stored, tt.next)
			tt.next.Revision = tt.revision
			if changed != tt.changed || changed && got != tt.next {
				t.Errorf("%+v, %v; want revision %d, %v", got, changed, tt.revision, tt.changed)
			}
		})
	}
}

// A hundred thousand records nested so that each look at all would take hours.
func TestResolveIsNearLinearWhateverTheRevisions(t *testing.T) {
	const n = 100_000
	records := make([]timeline.Record, 0, n)
	for i := range int64(n / 2) {
		records = append(records,
			timeline.Record{Start: slot.Slot(4 * i), End: slot.Slot(4*i + 2), Revision: n + i, Retracted: i%2 == 0, KnownMS: -1},
			timeline.Record{Start: 0, End: 2 * n, Revision: i, Retracted: i%3 == 0, KnownMS: 3 * i * slot.Millis},
		)
	}
	chain := []timeline.Entry{{Source: "a", MaxAgeMS: math.MaxInt64}}
	for _, view := range views {
		steps := timeline.Resolve(chain, []timeline.Series{{Source: "a", Records: records}}, 0, 2*n, viewOf(view, n))
		if len(steps) == 0 {
			t.Errorf("%s: no steps", view)
		}
	}
}

func FuzzResolve(f *testing.F) {
	f.Add(int64(0), int64(40), int64(3*slot.Millis), int64(9), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Add(int64(-9), int64(40), int64(0), int64(900_000), []byte{0, 40, 0, 0, 0, 1, 3, 9, 1, 3, 0, 2})
	f.Add(int64(math.MinInt64), int64(math.MaxInt64), int64(math.MaxInt64), int64(0), []byte{0, 1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, from, to, age, at int64, data []byte) {
		var records []timeline.Record
		for ; len(data) >= 6 && len(records) < 30; data = data[6:] {
			r := timeline.Record{
				Start:     slot.Slot(int8(data[0])),
				Value:     unit.Decimal{Coef: int64(data[2]%7 + 1)},
				Retracted: data[2]&1 == 1,
				KnownMS:   int64(int8(data[3])) * (slot.Millis / 2), RecordedMS: int64(int8(data[4])) * slot.Millis,
				Revision: int64(data[5] % 8),
			}
			r.End = r.Start + slot.Slot(int8(data[1]))
			records = append(records, r)
		}
		series := []timeline.Series{{Source: "a", Records: records}}
		chain := []timeline.Entry{{Source: "a", MaxAgeMS: age}}
		for _, view := range views {
			got := timeline.Resolve(chain, series, slot.Slot(from), slot.Slot(to), viewOf(view, at))
			for i, s := range got {
				if s.Start >= s.End || i > 0 && s.Start < got[i-1].End {
					t.Fatalf("%s: steps out of order: %+v", view, got)
				}
			}
			if from < -400 || to > 400 {
				continue
			}
			want := twinResolve(chain, series, slot.Slot(from), slot.Slot(to), view, at)
			if max(age, 0) <= 600*slot.Millis && !reflect.DeepEqual(got, want) && len(got)+len(want) > 0 {
				t.Fatalf("%s of %+v:\n got %+v\nwant %+v", view, records, got, want)
			}
		}
	})
}

func BenchmarkResolveYear(b *testing.B) {
	// A year of hours: each estimated two hours late, and measured a day later.
	var records []timeline.Record
	for h := range 8760 {
		start := hour(h)
		for revision := range int64(2) {
			known := start.StartMS() + []int64{2, 26}[revision]*3_600_000
			records = append(records, timeline.Record{
				Start: start, End: start + 12, Value: unit.Decimal{Coef: 100 + int64(h*7919)%397},
				Quality: timeline.Measured, KnownMS: known, RecordedMS: known, Revision: 1 + revision,
			})
		}
	}
	series := []timeline.Series{{Source: "meter", Product: "observed", Records: records}}
	chain := []timeline.Entry{{Source: "meter", Product: "observed", MaxAgeMS: 6 * 3_600_000}}
	for _, view := range views {
		b.Run(view, func(b *testing.B) {
			for b.Loop() {
				timeline.Resolve(chain, series, 0, hour(8760), viewOf(view, hour(5000).StartMS()))
			}
		})
	}
}
