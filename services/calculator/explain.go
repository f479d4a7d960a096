package calculator

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// term is the energy of one account in one slot, of one booking, and what prices
// it.
type term struct {
	Account
	slot   slot.Slot
	booked int64
	energy unit.Sum
	rates  *rates
	factor *factor // nil: no data
	grams  account.Inner
}

// priced reports whether the term has a factor and a PUE.
func (t *term) priced() bool { return t.factor != nil && t.rates.pue != nil }

// termPlace is where a page of terms begins: behind a term.
type termPlace struct {
	Start    int64     `json:"s"`
	End      int64     `json:"e"`
	NowMS    int64     `json:"n"`
	Slot     slot.Slot `json:"t"`
	Account  Account   `json:"a"`
	BookedAt int64     `json:"b"`
}

func (t *term) compare(account *Account, booked int64) int {
	return cmp.Or(compareAccounts(&t.Account, account), cmp.Compare(t.booked, booked))
}

// explain lists the terms of a plan of one signal: up to size behind a place, by
// slot, then account, and the place where the next page begins; nil: there is none.
func (q *queries) explain(
	ctx context.Context, ask question, after *termPlace, size int, add func(*term),
) (*termPlace, error) {
	nowMS := q.now().UnixMilli()
	var at slot.Slot
	if after != nil {
		ask.start, ask.end, nowMS, at = &after.Start, &after.End, after.NowMS, after.Slot
	}
	p, err := q.resolve(ctx, ask, nowMS, at)
	if err != nil {
		return nil, err
	}
	p.chunk = slotsPerDay
	var (
		next *termPlace
		told int
		of   []term // the slot's
	)
	tell := func() error {
		slices.SortFunc(of, func(a, b term) int { return a.compare(&b.Account, b.booked) })
		for i := range of {
			t := &of[i]
			if after != nil && t.slot == after.Slot && t.compare(&after.Account, after.BookedAt) <= 0 {
				continue
			}
			if told == size {
				return errEnough
			}
			told++
			add(t)
			next = &termPlace{
				Start: p.asked.start, End: p.asked.end, NowMS: nowMS, Slot: t.slot, Account: t.Account, BookedAt: t.booked,
			}
		}
		of = of[:0]
		return nil
	}
	err = q.walk(ctx, p, func(e *entry) error {
		if len(of) > 0 && of[0].slot != e.Slot {
			if err := tell(); err != nil {
				return err
			}
		}
		// The rows of an account come together: those of other nodes, or of
		// another partition.
		var t *term
		for i := len(of) - 1; i >= 0 && of[i].Account == e.Account; i-- {
			if of[i].booked == e.Booked {
				t = &of[i]
				break
			}
		}
		if t == nil {
			r, err := p.ratesOf(ctx, e.Site)
			if err != nil {
				return err
			}
			of = append(of, term{
				Account: e.Account, slot: e.Slot, booked: e.Booked, rates: r, factor: r.signals[0].find(e.Slot),
			})
			t = &of[len(of)-1]
		}
		t.energy.Add(e.Energy)
		if t.priced() {
			t.grams.Add(e.Energy, *t.rates.pue, t.factor.Value)
		}
		return nil
	})
	if err == nil {
		err = tell()
	}
	if errors.Is(err, errEnough) {
		return next, nil
	}
	return nil, err
}
