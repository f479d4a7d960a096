package timeline_test

import (
	"fmt"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

func ExampleResolve() {
	series := []timeline.Series{{Source: "meter", Product: "observed", Records: []timeline.Record{
		{Start: 0, End: 12, Value: unit.Decimal{Coef: 52}, Quality: timeline.Estimated, RecordedMS: 1_000, Revision: 1},
		{Start: 0, End: 12, Value: unit.Decimal{Coef: 55}, Quality: timeline.Measured, RecordedMS: 9_000, Revision: 2},
	}}}
	chain := []timeline.Entry{{Source: "meter", Product: "observed", MaxAgeMS: 2 * slot.Millis}}
	for _, view := range []timeline.View{timeline.Latest(), timeline.AsOf(5_000)} {
		for _, s := range timeline.Resolve(chain, series, 6, 100, view) {
			fmt.Println(int64(s.Start), int64(s.End), s.Value, s.Quality, s.Method)
		}
	}
	// Output:
	// 6 12 55 MEASURED DIRECT
	// 12 15 55 FILLED CARRIED
	// 6 12 52 ESTIMATED DIRECT
	// 12 15 52 FILLED CARRIED
}

func ExampleRevise() {
	stored := []timeline.Record{{Start: 0, End: 12, Value: unit.Decimal{Coef: 52}, Revision: 1}}
	next, changed := timeline.Revise(stored, timeline.Record{Start: 0, End: 12, Value: unit.Decimal{Coef: 55}})
	fmt.Println(next.Revision, changed)
	_, changed = timeline.Revise(stored, timeline.Record{Start: 0, End: 12, Value: unit.Decimal{Coef: 52}})
	fmt.Println(changed)
	// Output:
	// 2 true
	// false
}
