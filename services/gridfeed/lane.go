package gridfeed

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
	"github.com/wattfold/wattfold/services/gridfeed/internal/yearly"
)

// allTime is every slot that a timestamp of the API can name the start and the end of:
// the years 1 to 9999, less the last five minutes.
const (
	allTimeStart slot.Slot = -62_135_596_800 / 300
	allTimeEnd   slot.Slot = 253_402_300_500 / 300
)

// observed is the product of what was imported.
const observed = "observed"

// view says by what knowledge a reader asks. The zero view is the latest.
type view struct {
	by viewBy
	at int64 // Unix milliseconds, for asOf and asKnownAt
}

type viewBy uint8

const (
	latest viewBy = iota
	asOf
	asKnownAt
	asKnownThen
)

// timelineView returns the view in the words of package timeline.
func (v view) timelineView() timeline.View {
	switch v.by {
	case asOf:
		return timeline.AsOf(v.at)
	case asKnownAt:
		return timeline.AsKnownAt(v.at)
	case asKnownThen:
		return timeline.AsKnownThen()
	default:
		return timeline.Latest()
	}
}

// lane is one signal of one zone as it was when it was read from the store: its series,
// the chains that ever held, and the answers worked out so far. It never changes but
// for what it remembers; a write to the zone replaces it.
type lane struct {
	zone    string
	signal  store.Signal
	series  []timeline.Series // newest first; each by start, then revision
	country string            // the zone that the yearly series is of, if not this one
	chains  []store.Chain     // by RecordedMS; the first is the default chain, since ever

	recorded []int64         // the distinct moments at which it changed, sorted
	latest   []timeline.Step // the latest view of all time

	used atomic.Int64 // when it was last asked for, in calls

	mu       sync.Mutex
	resolved map[view][]timeline.Step // other views of all time, at most maxResolved
}

// maxResolved bounds the other views that a lane remembers.
const maxResolved = 4

// newLane works out the latest view. overrides are the declared chains of the zone's
// signal by their moments; country is as in lane, its series the last one.
func newLane(zone string, signal store.Signal, series []timeline.Series, country string, overrides []store.Chain) *lane {
	l := &lane{zone: zone, signal: signal, series: series, country: country, resolved: map[view][]timeline.Step{}}
	standard := store.Chain{Subject: zone, Signal: signal, RecordedMS: timeline.SinceEver}
	for i := range series {
		if series[i].Product == observed {
			standard.Entries = append(standard.Entries, timeline.Entry{Source: series[i].Source, Product: observed})
		}
	}
	standard.Entries = append(standard.Entries, timeline.Entry{Source: yearly.Source, Product: yearly.Product})
	l.chains = append(l.chains, standard)
	for _, c := range overrides {
		if len(c.Entries) == 0 { // the default chain again
			c.Entries = standard.Entries
		}
		l.chains = append(l.chains, c)
		l.recorded = append(l.recorded, c.RecordedMS)
	}
	for i := range series {
		for j := range series[i].Records {
			l.recorded = append(l.recorded, series[i].Records[j].RecordedMS)
		}
	}
	slices.Sort(l.recorded)
	l.recorded = slices.Clip(slices.Compact(l.recorded))
	l.latest = timeline.Resolve(l.chain(view{}), series, allTimeStart, allTimeEnd, timeline.Latest())
	return l
}

// size says how much the lane holds, in records and steps.
func (l *lane) size() int {
	n := len(l.latest) + 64
	for i := range l.series {
		n += len(l.series[i].Records)
	}
	return n
}

// chain returns the chain that the view reads by.
func (l *lane) chain(v view) []timeline.Entry {
	for i := len(l.chains) - 1; i > 0; i-- {
		if v.by != asOf || l.chains[i].RecordedMS <= v.at {
			return l.chains[i].Entries
		}
	}
	return l.chains[0].Entries
}

// canonical returns the one view among all that admit the same: as of any moment
// between two changes is as of the earlier one, and after the last it is the latest.
func (l *lane) canonical(v view) view {
	if v.by != asOf {
		return v
	}
	n := sort.Search(len(l.recorded), func(i int) bool { return l.recorded[i] > v.at })
	switch n {
	case len(l.recorded):
		return view{}
	case 0:
		return view{by: asOf, at: timeline.SinceEver}
	default:
		return view{by: asOf, at: l.recorded[n-1]}
	}
}

// steps resolves all of time, once a view.
func (l *lane) steps(v view) []timeline.Step {
	v = l.canonical(v)
	if v.by == latest {
		return l.latest
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if steps, ok := l.resolved[v]; ok {
		return steps
	}
	steps := timeline.Resolve(l.chain(v), l.series, allTimeStart, allTimeEnd, v.timelineView())
	for other := range l.resolved {
		if len(l.resolved) < maxResolved {
			break
		}
		delete(l.resolved, other)
	}
	l.resolved[v] = steps
	return steps
}

// at returns the step that answers a slot, whole. For a view that is asked for the
// first time it resolves the days around alone, and all of time only if the step
// reaches beyond them.
func (l *lane) at(s slot.Slot, v view) (timeline.Step, bool) {
	const day = 24 * 60 / 5
	v = l.canonical(v)
	if v.by == latest {
		return find(l.latest, s)
	}
	l.mu.Lock()
	steps, ok := l.resolved[v]
	l.mu.Unlock()
	if ok {
		return find(steps, s)
	}
	from, to := max(s-day, allTimeStart), min(s+day, allTimeEnd)
	near, ok := find(timeline.Resolve(l.chain(v), l.series, from, to, v.timelineView()), s)
	if !ok || near.Start > from && near.End < to {
		return near, ok
	}
	return find(l.steps(v), s)
}

// find returns the step that holds a slot.
func find(steps []timeline.Step, s slot.Slot) (timeline.Step, bool) {
	i := sort.Search(len(steps), func(i int) bool { return steps[i].End > s })
	if i == len(steps) || steps[i].Start > s {
		return timeline.Step{}, false
	}
	return steps[i], true
}

// between returns the answers for the slots [from, to), the first and the last cut to
// them: up to most steps, and the slot at which to go on, to if that was all. Neighbours
// that differ in nothing but time are one.
func (l *lane) between(from, to slot.Slot, v view, most int) (answers []answer, next slot.Slot) {
	steps := l.steps(v)
	first := sort.Search(len(steps), func(i int) bool { return steps[i].End > from })
	answers = make([]answer, 0, min(most, sort.Search(len(steps)-first, func(i int) bool { return steps[first+i].Start >= to })))
	for _, step := range steps[first:] {
		if step.Start >= to {
			break
		}
		until := step.End
		if step.Start < from {
			if step.Method == timeline.Carried {
				step.AgeMS += int64(from-step.Start) * slot.Millis
			}
			step.Start = from
		}
		step.End = min(step.End, to)
		if n := len(answers); n > 0 && extends(&answers[n-1].Step, &step) {
			answers[n-1].End, answers[n-1].until = step.End, until
			continue
		}
		if len(answers) == most {
			return answers, step.Start
		}
		answers = append(answers, answer{Step: step, until: until})
	}
	return answers, to
}

// answer is a step as it is told.
type answer struct {
	timeline.Step
	until slot.Slot // up to here it holds, beyond the range asked for
}

// extends reports whether b goes on where a ends and says the same.
func extends(a, b *timeline.Step) bool {
	return a.End == b.Start && a.Value == b.Value && a.Quality == b.Quality && a.Method == timeline.Direct &&
		b.Method == timeline.Direct && a.Revision == b.Revision && a.KnownMS == b.KnownMS && a.RecordedMS == b.RecordedMS &&
		a.Source == b.Source && a.Product == b.Product
}

// zoneOf returns the zone whose value a step is.
func (l *lane) zoneOf(step *timeline.Step) string {
	if l.country != "" && step.Source == yearly.Source && step.Product == yearly.Product {
		return l.country
	}
	return l.zone
}

// revision is a stored record and the series that it is of.
type revision struct {
	timeline.Record
	zone, source, product string
}

// position orders revisions: by start, then revision, then series.
type position struct {
	Start    slot.Slot
	Revision int64
	Series   string // the source and the product
}

// revisions returns up to most stored records that touch [from, to), of one source or
// of all (""), from a position on; and the position to go on from, if there are more.
func (l *lane) revisions(source string, from, to slot.Slot, after position, most int) (found []revision, next position, more bool) {
	// What each series has next. The records of a series are sorted as the answer is.
	heads, names := make([]int, len(l.series)), make([]string, len(l.series))
	for i := range l.series {
		names[i] = l.series[i].Source + "\x00" + l.series[i].Product
		records := l.series[i].Records
		heads[i] = sort.Search(len(records), func(j int) bool {
			at := position{records[j].Start, records[j].Revision, names[i]}
			return !at.before(after)
		})
		if source != "" && l.series[i].Source != source {
			heads[i] = len(records)
		}
	}
	for {
		best := -1
		var least position
		for i := range l.series {
			records := l.series[i].Records
			for heads[i] < len(records) && records[heads[i]].End <= from {
				heads[i]++
			}
			if heads[i] == len(records) || records[heads[i]].Start >= to {
				continue
			}
			at := position{records[heads[i]].Start, records[heads[i]].Revision, names[i]}
			if best < 0 || at.before(least) {
				best, least = i, at
			}
		}
		if best < 0 {
			return found, position{}, false
		}
		if len(found) == most {
			return found, least, true
		}
		in := &l.series[best]
		r := revision{Record: in.Records[heads[best]], source: in.Source, product: in.Product}
		r.zone = l.zoneOf(&timeline.Step{Source: in.Source, Product: in.Product})
		found = append(found, r)
		heads[best]++
	}
}

func (p position) before(q position) bool {
	if p.Start != q.Start {
		return p.Start < q.Start
	}
	if p.Revision != q.Revision {
		return p.Revision < q.Revision
	}
	return p.Series < q.Series
}
