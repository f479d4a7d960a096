package calculator

import (
	"cmp"
	"math"
	"slices"
)

// silence is time in which a series should have been read, by what is known of its
// window: the time between its first and last tick, of which the ledger says how
// much is observed and how much missing, and the time without any tick before and
// after.
type silence struct{ covered, silent int64 }

// silentWindow is a series as coverage sees it.
type silentWindow struct {
	key                    groupKey
	before, covered, after span
}

func (w *silentWindow) begin() int64 { return w.before.start }
func (w *silentWindow) end() int64   { return w.after.end }

// newSilentWindow works out where a series is silent. A declared window of its run
// is silent from its start to the first tick and from the last one to its stop; an
// open series from its last tick on, up to two periods or [minSilenceMS] ago.
func newSilentWindow(p *plan, w *SeriesWindow) silentWindow {
	start, end := int64(math.MinInt64), int64(math.MaxInt64)
	if w.ClipStartMS != 0 {
		start = w.ClipStartMS
	}
	if w.ClipEndMS != 0 {
		end = max(start, w.ClipEndMS)
	}
	closed := w.ClosedMS != 0
	first, last := w.FirstMS, w.LastMS
	if p.by == pricedAsOf {
		closed = closed && w.ClosedMS <= p.nowMS
		first, last = min(first, p.nowMS), min(last, p.nowMS)
	}
	first = min(max(first, start), end)
	last = max(first, min(last, end))
	out := silentWindow{before: span{first, first}, covered: span{first, last}, after: span{last, last}}
	latest := p.nowMS - max(2*w.PeriodMS, minSilenceMS)
	if w.ClipStartMS != 0 {
		out.before.start = min(start, first)
	}
	switch {
	case w.ClipEndMS != 0:
		out.after.end = max(last, min(end, latest))
	case !closed:
		out.after.end = max(last, latest)
	}
	return out
}

// sweep walks the windows of a plan by time.
type sweep struct {
	windows []silentWindow // by begin
	next    int
	active  []*silentWindow
}

func newSweep(p *plan) *sweep {
	s := &sweep{windows: make([]silentWindow, len(p.windows))}
	for i := range p.windows {
		w := &p.windows[i]
		s.windows[i] = newSilentWindow(p, w)
		s.windows[i].key = keyOf(p.groupBy, &entry{
			PostingRow: PostingRow{Account: Account{Site: w.Site, Run: w.Run, Project: w.Project, Component: w.Component}},
			Node:       w.Node,
		})
	}
	slices.SortFunc(s.windows, func(a, b silentWindow) int { return cmp.Compare(a.begin(), b.begin()) })
	return s
}

// measure visits the windows that touch a span, with how much of it they cover and
// are silent in. Spans come in the order of time.
func (s *sweep) measure(of span, visit func(key *groupKey, in silence) error) error {
	for s.next < len(s.windows) && s.windows[s.next].begin() < of.end {
		s.active = append(s.active, &s.windows[s.next])
		s.next++
	}
	s.active = slices.DeleteFunc(s.active, func(w *silentWindow) bool { return w.end() <= of.start })
	for _, w := range s.active {
		in := silence{covered: w.covered.overlap(of), silent: w.before.overlap(of) + w.after.overlap(of)}
		if in != (silence{}) {
			if err := visit(&w.key, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// upcoming returns the first instant from ms on that a window holds.
func (s *sweep) upcoming(ms int64) (int64, bool) {
	for _, w := range s.active {
		if w.end() > ms {
			return ms, true
		}
	}
	for i := s.next; i < len(s.windows); i++ {
		if w := &s.windows[i]; w.end() > max(ms, w.begin()) {
			return max(ms, w.begin()), true
		}
	}
	return 0, false
}
