package calculator

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// statement is energy and emissions of a group over a bucket.
type statement struct {
	asked, effective span
	group            groupKey // of the plan's dimensions
	// folders hold the sums, one a signal of the plan.
	folders     []account.Folder
	peak        unit.Sum
	coverage    coverage
	provenance  []provenance
	provisional bool
	rejected    map[string]uint64
}

// coverage is in series-milliseconds.
type coverage struct{ observed, interpolated, missing, silent int64 }

// ratio returns observed ÷ all; ok is false when that is 0.
func (c coverage) ratio() (float64, bool) {
	all := c.observed + c.missing + c.silent
	return float64(c.observed) / float64(all), all != 0
}

// provenance is a factor that a statement used.
type provenance struct {
	provenanceKey
	energy      unit.Sum
	recordedMS  int64
	attribution string
}

type provenanceKey struct {
	factor, subject, source, product string
	quality                          timeline.Quality
	method                           timeline.Method
}

const (
	// factorPUE is the name of a PUE in provenance.
	factorPUE = "PUE"
	// sourceDeclared is who says a site's PUE: whoever created it.
	sourceDeclared = "declared"
)

// coverageOf tells how much of its time a cell was observed. What lies between the
// ticks of its series and is neither observed nor missing never arrived: silent.
func coverageOf(f *account.Folder, s silence) coverage {
	var c coverage
	c.observed, c.interpolated, c.missing = f.Coverage()
	c.silent = s.silent + max(0, s.covered-c.observed-c.missing)
	return c
}

// merge adds the sites of a cell up.
func (c *cell) merge(signals int) []account.Folder {
	folders := make([]account.Folder, signals)
	for _, t := range c.tallies {
		for i := range t.folders {
			folders[i].AddFolder(&t.folders[i])
		}
	}
	return folders
}

// statement makes the answer of a cell.
func (q *queries) statement(ctx context.Context, p *plan, bucket slots, c *cell) (*statement, error) {
	s := &statement{
		asked: p.asked, effective: bucket.span(), group: c.key,
		folders: c.merge(len(p.signals)), peak: c.peak,
		provisional: bucket.to.StartMS()+provisionalMS > p.nowMS,
	}
	if p.buckets != (bucketing{}) {
		whole := p.buckets.whole(bucket.from, bucket).span()
		s.asked = span{max(s.asked.start, whole.start), min(s.asked.end, whole.end)}
	}
	s.coverage = coverageOf(&s.folders[0], c.silence)
	var err error
	if s.provenance, err = p.provenanceOf(ctx, c); err != nil {
		return nil, err
	}
	// Refusals are counted by site and day, so they say nothing of a part of a
	// site, nor of what was known at an earlier moment.
	if p.wholeSites() && p.by != pricedAsOf {
		s.rejected, err = q.rejectedOf(ctx, p, p.wholeSite(c))
	}
	return s, err
}

// wholeSites reports whether the question is for sites as a whole.
func (p *plan) wholeSites() bool {
	return p.selection == selection{site: p.site} && (len(p.groupBy) == 0 || len(p.groupBy) == 1 && p.groupBy[0] == bySite)
}

// wholeSite returns the site of a cell of whole sites; empty: all of them.
func (p *plan) wholeSite(c *cell) string {
	if p.site == "" && len(p.groupBy) == 1 {
		return c.key[0]
	}
	return p.site
}

// provenanceOf lists the factors that a cell used: signals in the order asked for,
// then PUE.
func (p *plan) provenanceOf(ctx context.Context, c *cell) ([]provenance, error) {
	var all []provenance
	at := map[provenanceKey]int{}
	use := func(key provenanceKey, energy unit.Sum, recordedMS int64) {
		i, ok := at[key]
		if !ok {
			i = len(all)
			at[key] = i
			all = append(all, provenance{provenanceKey: key, recordedMS: timeline.SinceEver})
		}
		all[i].energy.AddSum(energy)
		all[i].recordedMS = max(all[i].recordedMS, recordedMS)
	}
	for i, of := range p.signals {
		from := len(all)
		for _, t := range c.tallies {
			for _, used := range t.folders[i].Provenance() {
				key := provenanceKey{
					factor: of.String(), subject: t.rates.answering(i, used.Source, used.Product),
					source: used.Source, product: used.Product, quality: used.Quality, method: used.Method,
				}
				use(key, used.Energy, used.RecordedMS)
			}
		}
		for j := from; j < len(all); j++ {
			var err error
			if all[j].attribution, err = p.session.attribution(ctx, all[j].subject, of, all[j].source, all[j].product); err != nil {
				return nil, err
			}
		}
	}
	signals := len(all)
	for _, t := range c.tallies {
		f := &t.folders[0]
		if t.rates.pue == nil || f.Rows() == 0 {
			continue
		}
		use(provenanceKey{factor: factorPUE, subject: t.rates.site, source: sourceDeclared, method: timeline.Direct},
			f.Energy(), t.rates.recordedMS)
	}
	order := func(a, b provenance) int {
		return cmp.Or(
			cmp.Compare(a.subject, b.subject),
			cmp.Compare(a.source, b.source),
			cmp.Compare(a.product, b.product),
			cmp.Compare(a.quality, b.quality),
			cmp.Compare(a.method, b.method),
		)
	}
	slices.SortStableFunc(all[:signals], func(a, b provenance) int {
		return cmp.Or(cmp.Compare(p.rank(a.factor), p.rank(b.factor)), order(a, b))
	})
	slices.SortFunc(all[signals:], order)
	return all, nil
}

// rank returns where a signal stands among those asked for.
func (p *plan) rank(factor string) int {
	return slices.IndexFunc(p.signals, func(s signal) bool { return s.String() == factor })
}

// answering returns whose timeline a source's values were read from.
func (r *rates) answering(signal int, source, product string) string {
	steps := r.signals[signal].steps
	i := slices.IndexFunc(steps, func(f factor) bool { return f.Source == source && f.Product == product })
	if i < 0 {
		return r.zone
	}
	return steps[i].zone
}

// whole sums a plan in one statement.
func (q *queries) whole(ctx context.Context, ask question) (*plan, *statement, error) {
	p, err := q.resolve(ctx, ask, q.now().UnixMilli(), 0)
	if err != nil {
		return nil, nil, err
	}
	var s *statement
	f := newFold(p, true, func(bucket slots, cells []*cell) (err error) {
		s, err = q.statement(ctx, p, bucket, cells[0])
		return err
	})
	if err := f.run(ctx, q); err != nil {
		return nil, nil, err
	}
	if s == nil {
		s, err = q.statement(ctx, p, slots{p.from, p.to}, &cell{})
	}
	return p, s, err
}

// place is where a page of statements begins: behind a group of a bucket.
type place struct {
	// Start and End are the range that the first page was asked for or found, NowMS
	// its clock.
	Start int64 `json:"s"`
	End   int64 `json:"e"`
	NowMS int64 `json:"n"`
	// Bucket is the first slot of the bucket, Group the last group told.
	Bucket slot.Slot `json:"b"`
	Group  groupKey  `json:"g"`
}

// page sums a plan by groups and buckets: up to size statements behind a place, by
// time, then group, and the place where the next page begins; nil: there is none.
// more is asked after every statement whether another one still fits.
func (q *queries) page(
	ctx context.Context, ask question, after *place, size int, add func(*plan, *statement) (fits bool),
) (*plan, *place, error) {
	nowMS := q.now().UnixMilli()
	var at slot.Slot
	if after != nil {
		ask.start, ask.end, nowMS, at = &after.Start, &after.End, after.NowMS, after.Bucket
	}
	p, err := q.resolve(ctx, ask, nowMS, at)
	if err != nil {
		return nil, nil, err
	}
	if p.buckets.months {
		p.chunk = 31 * slotsPerDay
	} else if p.buckets.slots > 0 {
		p.chunk = max(slotsPerDay, p.buckets.slots*slot.Slot(size))
	}
	var next *place
	told, full := 0, false
	f := newFold(p, true, func(bucket slots, cells []*cell) error {
		for _, c := range cells {
			if after != nil && bucket.from == after.Bucket && c.key.compare(&after.Group) <= 0 {
				continue
			}
			if full || told == size {
				return errEnough
			}
			s, err := q.statement(ctx, p, bucket, c)
			if err != nil {
				return err
			}
			told++
			full = !add(p, s)
			next = &place{Start: p.asked.start, End: p.asked.end, NowMS: nowMS, Bucket: bucket.from, Group: c.key}
		}
		return nil
	})
	switch err := f.run(ctx, q); {
	case errors.Is(err, errEnough):
		return p, next, nil
	case err != nil:
		return nil, nil, err
	}
	if told == 0 && after == nil && len(p.groupBy) == 0 && p.buckets == (bucketing{}) {
		s, err := q.statement(ctx, p, slots{p.from, p.to}, &cell{})
		if err != nil {
			return nil, nil, err
		}
		add(p, s)
	}
	return p, nil, nil
}

// point is a step of a series.
type point struct {
	startMS  int64
	folder   account.Folder
	coverage coverage
}

// series sums a plan by steps that have data.
func (q *queries) series(ctx context.Context, ask question) (*plan, []point, error) {
	p, err := q.resolve(ctx, ask, q.now().UnixMilli(), 0)
	if err != nil {
		return nil, nil, err
	}
	var points []point
	f := newFold(p, false, func(bucket slots, cells []*cell) error {
		if len(points) == maxGroups {
			return tooLarge("more than %d points: ask for a longer step or a shorter range", maxGroups)
		}
		folders := cells[0].merge(1)
		points = append(points, point{
			startMS: floorTo(bucket.from, p.buckets.slots).StartMS(), folder: folders[0],
			coverage: coverageOf(&folders[0], cells[0].silence),
		})
		return nil
	})
	return p, points, f.run(ctx, q)
}
