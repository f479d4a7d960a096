package ledger

import (
	"context"

	"github.com/wattfold/wattfold/carbon/slot"
)

// ExtentOf works [Reader.Extent] out from the details.
func ExtentOf(ctx context.Context, r Reader, f Filter) (first, last slot.Slot, ok bool, err error) {
	type time struct{ observed, missing int64 }
	left := map[slot.Slot]time{}
	err = r.Details(ctx, DetailFilter{Filter: f}, func(row DetailRow) error {
		for i := range row.Parts {
			p := &row.Parts[i]
			t := left[p.Slot]
			left[p.Slot] = time{t.observed + p.ObservedMS, t.missing + p.MissingMS}
		}
		return nil
	})
	found := false
	for at, t := range left {
		if t == (time{}) {
			continue
		}
		if !found {
			first, last, found = at, at, true
		}
		first, last = min(first, at), max(last, at)
	}
	if len(left) > 0 && !found {
		last = first - 1
	}
	return first, last, len(left) > 0, err
}
