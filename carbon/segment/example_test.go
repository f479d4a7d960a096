package segment_test

import (
	"fmt"

	"github.com/wattfold/wattfold/carbon/segment"
)

func ExampleFold() {
	spec := segment.Spec{Kind: segment.InstantPower, PeriodMS: 1_000}
	prev := segment.Reading{TimeMS: 299_000, Value: 400_000} // 400 W
	var out segment.Result
	segment.Fold(&spec, &prev, []int64{300_501, 301_501}, []int64{430_001, 430_001}, &out)
	for _, p := range out.Parts {
		fmt.Println(int64(p.Slot), p.Energy, p.ObservedMS, "ms")
	}
	fmt.Println(out.Sum(), out.Last.TimeMS)
	// Output:
	// 0 409993670.5 µJ 1000 ms
	// 1 642923080 µJ 1501 ms
	// 1052916750.5 µJ 301501
}
