package calculator

import (
	"context"

	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/fault"
)

// createSite stores what is said of a site, once. The same words again change
// nothing; other words are refused, because statements made since rest on the first
// ones.
func (q *queries) createSite(ctx context.Context, s Site) (Site, error) {
	if s.PUE != nil && s.PUE.Rat().Cmp(one.Rat()) < 0 {
		return Site{}, fault.Fields(fault.Fieldf("site.pue",
			"%s is below 1: it is facility energy divided by IT energy, such as 1.10", s.PUE))
	}
	s.CreatedMS, s.Declared = q.now().UnixMilli(), true
	stored, created, err := q.books.CreateSite(ctx, s)
	if err != nil {
		return Site{}, err
	}
	if !created && (stored.Zone != s.Zone || !samePUE(stored.PUE, s.PUE)) {
		return Site{}, fault.WithReason(fault.Newf(fault.Conflict,
			"site %s exists with zone %q and PUE %s: create another one, or say the same of it",
			stored.Name, stored.Zone, textOfPUE(stored.PUE)), reasonSiteDiffers)
	}
	return stored, nil
}

var one = unit.Decimal{Coef: 1}

func samePUE(a, b *unit.Decimal) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func textOfPUE(pue *unit.Decimal) string {
	if pue == nil {
		return "not known"
	}
	return pue.String()
}

// listSites returns up to size sites above a name, and whether there are more.
func (q *queries) listSites(ctx context.Context, after string, size int) ([]Site, bool, error) {
	found, err := q.books.ListSites(ctx, after, size+1)
	if err != nil || len(found) <= size {
		return found, false, err
	}
	return found[:size], true, nil
}
