package calculator

import (
	"context"
	"math/bits"
	"slices"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// groupKey holds the values of the dimensions that are grouped by, in their order.
type groupKey [5]string

func keyOf(by []dimension, e *entry) groupKey {
	var key groupKey
	for i, d := range by {
		switch d {
		case bySite:
			key[i] = e.Site
		case byRun:
			key[i] = e.Run
		case byProject:
			key[i] = e.Project
		case byComponent:
			key[i] = e.Component
		case byNode:
			key[i] = e.Node
		}
	}
	return key
}

func (k *groupKey) compare(o *groupKey) int { return slices.Compare(k[:], o[:]) }

// cell is a group in a bucket.
type cell struct {
	key     groupKey
	tallies []*tally
	peak    unit.Sum // the most energy of a slot
	peaked  bool
	silence silence
}

// tally is the part of a cell that is of one site: one folder a signal.
type tally struct {
	rates   *rates
	folders []account.Folder
}

// fold sums the rows of a plan by group and bucket as they come, slot by slot.
//
// Rows of one group, site and slot are priced alike, so their energies are added
// first and multiplied once: of a row that is one of many in its slot, a few
// nanoseconds are left.
type fold struct {
	plan *plan
	// emit is given the cells of a bucket, by key, once they are complete.
	emit func(bucket slots, cells []*cell) error
	// silentToo says that groups and buckets are wanted of which there is nothing
	// but the silence of their series.
	silentToo bool

	sweep    *sweep
	bucket   slots // empty before the first
	done     slot.Slot
	slot     slot.Slot
	last     *known
	accounts map[accountName]*known
	groups   map[groupKey]*group
	cells    []*cell
	pending  []*pending // that have something of the slot
	touched  []*group   // that have something of the slot
}

type accountName struct {
	Account
	node string
}

// known is an account met before.
type known struct {
	name    accountName
	pending *pending
	// next is the account that came after it in the slot before: most often it
	// does again.
	next *known
}

// group is one that was met, with its cell in the bucket.
type group struct {
	key     groupKey
	cell    *cell
	slot    unit.Sum
	touched bool
	pending []*pending
}

// pending sums what is priced alike.
type pending struct {
	group  *group
	rates  *rates
	sum    account.Posting
	filled bool
}

func newFold(p *plan, silentToo bool, emit func(slots, []*cell) error) *fold {
	return &fold{
		plan: p, emit: emit, silentToo: silentToo, sweep: newSweep(p), done: p.filter.From,
		accounts: map[accountName]*known{}, groups: map[groupKey]*group{},
	}
}

// run folds all rows of the plan.
func (f *fold) run(ctx context.Context, q *queries) error {
	err := q.walk(ctx, f.plan, func(e *entry) error { return f.add(ctx, e) })
	if err != nil {
		return err
	}
	return f.advance(ctx, f.plan.to)
}

func (f *fold) add(ctx context.Context, e *entry) error {
	if e.Slot != f.slot || f.bucket == (slots{}) {
		f.settle()
		if e.Slot >= f.bucket.to {
			if err := f.advance(ctx, e.Slot); err != nil {
				return err
			}
			f.bucket = f.plan.buckets.of(e.Slot, slots{f.plan.from, f.plan.to})
		}
		f.slot = e.Slot
	}
	k, err := f.account(ctx, e)
	if err != nil {
		return err
	}
	p := k.pending
	if overflows(p.sum.Energy, e.Energy) {
		f.price(p)
	}
	if !p.filled {
		p.filled = true
		f.pending = append(f.pending, p)
	}
	p.sum.Energy += e.Energy
	p.sum.ObservedMS += e.ObservedMS
	p.sum.InterpolatedMS += e.InterpolatedMS
	p.sum.MissingMS += e.MissingMS
	return f.open(p.group)
}

// open gives a group its cell of the bucket.
func (f *fold) open(g *group) error {
	if g.cell != nil {
		return nil
	}
	if len(f.cells) == maxGroups {
		return tooLarge("more than %d groups at once: select less, or group by less", maxGroups)
	}
	g.cell = &cell{key: g.key}
	f.cells = append(f.cells, g.cell)
	return nil
}

// account finds the account of a row.
func (f *fold) account(ctx context.Context, e *entry) (*known, error) {
	if f.last != nil {
		if k := f.last.next; k != nil && k.name.Account == e.Account && k.name.node == e.Node {
			f.last = k
			return k, nil
		}
		if f.last.name.Account == e.Account && f.last.name.node == e.Node {
			return f.last, nil
		}
	}
	name := accountName{e.Account, e.Node}
	k := f.accounts[name]
	if k == nil {
		r, err := f.plan.ratesOf(ctx, e.Site)
		if err != nil {
			return nil, err
		}
		k = &known{name: name, pending: f.pendingOf(keyOf(f.plan.groupBy, e), r, e.Modelled)}
		f.accounts[name] = k
	}
	if f.last != nil {
		f.last.next = k
	}
	f.last = k
	return k, nil
}

// pendingOf finds where the energy of a group, site and provenance is summed.
func (f *fold) pendingOf(key groupKey, r *rates, modelled bool) *pending {
	g := f.group(&key)
	for _, p := range g.pending {
		if p.rates == r && p.sum.Modelled == modelled {
			return p
		}
	}
	p := &pending{group: g, rates: r, sum: account.Posting{Modelled: modelled}}
	g.pending = append(g.pending, p)
	return p
}

func (f *fold) group(key *groupKey) *group {
	g := f.groups[*key]
	if g == nil {
		g = &group{key: *key}
		f.groups[*key] = g
	}
	return g
}

// settle prices the slot.
func (f *fold) settle() {
	for _, p := range f.pending {
		f.price(p)
		p.filled = false
	}
	f.pending = f.pending[:0]
	for _, g := range f.touched {
		if !g.cell.peaked || g.cell.peak.Cmp(g.slot) < 0 {
			g.cell.peak, g.cell.peaked = g.slot, true
		}
		g.slot, g.touched = unit.Sum{}, false
	}
	f.touched = f.touched[:0]
}

// price moves what is pending into the group's cell.
func (f *fold) price(p *pending) {
	g := p.group
	if !g.touched {
		g.touched = true
		f.touched = append(f.touched, g)
	}
	g.slot.Add(p.sum.Energy)
	t := g.cell.tally(p.rates)
	for i := range t.folders {
		var step *timeline.Step
		if found := p.rates.signals[i].find(f.slot); found != nil {
			step = &found.Step
		}
		t.folders[i].Add(&p.sum, p.rates.pue, step)
	}
	p.sum = account.Posting{Modelled: p.sum.Modelled}
}

func (c *cell) tally(r *rates) *tally {
	for _, t := range c.tallies {
		if t.rates == r {
			return t
		}
	}
	t := &tally{rates: r, folders: make([]account.Folder, len(r.signals))}
	c.tallies = append(c.tallies, t)
	return t
}

// empty reports whether all that was posted to a cell has been taken back.
func (c *cell) empty() bool {
	observed, missing := int64(0), int64(0)
	for _, t := range c.tallies {
		o, _, m := t.folders[0].Coverage()
		observed, missing = observed+o, missing+m
	}
	return observed == 0 && missing == 0 && c.silence == (silence{})
}

// advance completes the buckets before the one that holds a slot.
func (f *fold) advance(ctx context.Context, to slot.Slot) error {
	f.settle()
	if f.bucket != (slots{}) {
		if err := f.complete(f.bucket); err != nil {
			return err
		}
		f.done = f.bucket.to
		f.bucket = slots{}
	}
	if !f.silentToo {
		return nil
	}
	within := slots{f.plan.from, f.plan.to}
	until := to
	if to < f.plan.to {
		until = f.plan.buckets.of(to, within).from
	}
	for f.done < until {
		ms, ok := f.sweep.upcoming(f.done.StartMS())
		if !ok || slot.Of(ms) >= until {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		bucket := f.plan.buckets.of(slot.Of(ms), within)
		if err := f.complete(bucket); err != nil {
			return err
		}
		f.done = bucket.to
	}
	return nil
}

// complete emits the cells of a bucket.
func (f *fold) complete(bucket slots) error {
	err := f.sweep.measure(bucket.span(), func(key *groupKey, in silence) error {
		g := f.group(key)
		if g.cell == nil && !f.silentToo {
			return nil
		}
		if err := f.open(g); err != nil {
			return err
		}
		g.cell.silence.covered += in.covered
		g.cell.silence.silent += in.silent
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(f.cells, func(a, b *cell) int { return a.key.compare(&b.key) })
	for _, c := range f.cells {
		f.groups[c.key].cell = nil
	}
	cells := slices.DeleteFunc(f.cells, (*cell).empty)
	f.cells = nil
	if len(f.accounts) > maxGroups || len(f.groups) > maxGroups { // a year of short runs
		f.last = nil
		clear(f.accounts)
		clear(f.groups)
	}
	if len(cells) == 0 {
		return nil
	}
	return f.emit(bucket, cells)
}

// overflows reports whether a+b does not fit.
func overflows(a, b unit.Energy) bool {
	sum, _ := bits.Add64(uint64(a), uint64(b), 0)
	return (a >= 0) == (b >= 0) && (int64(sum) >= 0) != (a >= 0)
}
