package store

import (
	"slices"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
)

// reviser decides what of a batch is new to its timeline, and gives it revisions.
//
// An interval says nothing new if [timeline.Revise] finds it said by what was known when
// the interval was. Comparing by what was known then, and not by the newest revision, is
// what lets a poll log be read twice: its early rows are not news only because later
// ones corrected them. What is new gets a revision above everything that it overlaps.
type reviser struct {
	records []timeline.Record     // stored, then added
	starts  []slot.Slot           // distinct starts of both, sorted
	at      map[slot.Slot][]int32 // places in records by start
	longest slot.Slot             // no record is longer
	known   []timeline.Record     // scratch of offer
}

// outcome is what a reviser says of an interval.
type outcome uint8

const (
	unchanged outcome = iota
	added
	revised
)

// newReviser takes the timeline's records and the intervals that will be offered.
func newReviser(stored []timeline.Record, coming []Interval) *reviser {
	r := &reviser{
		records: slices.Clip(stored),
		starts:  make([]slot.Slot, 0, len(stored)+len(coming)),
		at:      make(map[slot.Slot][]int32, len(stored)+len(coming)),
	}
	for i := range stored {
		r.starts = append(r.starts, stored[i].Start)
		r.index(i)
	}
	for i := range coming {
		r.starts = append(r.starts, coming[i].Start)
	}
	slices.Sort(r.starts)
	r.starts = slices.Compact(r.starts)
	return r
}

func (r *reviser) index(i int) {
	record := &r.records[i]
	r.at[record.Start] = append(r.at[record.Start], int32(i)) //nolint:gosec // records fit in memory
	r.longest = max(r.longest, record.End-record.Start)
}

// offer returns what next is to the timeline and, unless it is unchanged, adds it and
// gives it its revision.
func (r *reviser) offer(next *timeline.Record) outcome {
	r.known = r.known[:0]
	above := int64(0)
	first, _ := slices.BinarySearch(r.starts, next.Start-r.longest)
	for _, start := range r.starts[first:] {
		if start >= next.End {
			break
		}
		for _, i := range r.at[start] {
			old := &r.records[i]
			if old.End <= next.Start {
				continue
			}
			above = max(above, old.Revision)
			if old.KnownMS <= next.KnownMS {
				r.known = append(r.known, *old)
			}
		}
	}
	if _, changed := timeline.Revise(r.known, *next); !changed {
		return unchanged
	}
	next.Revision = above + 1
	r.records = append(r.records, *next)
	r.index(len(r.records) - 1)
	if above == 0 {
		return added
	}
	return revised
}

// apply offers the intervals of a batch in their order. It returns the records to
// store, with the place of each one's interval, and the change that they make.
func apply(stored []timeline.Record, batch Batch, recordedMS int64) (fresh []timeline.Record, places []int, change Change) {
	r := newReviser(stored, batch.Intervals)
	if batch.SinceEver && len(stored) == 0 {
		recordedMS = timeline.SinceEver
	}
	for i := range batch.Intervals {
		in := &batch.Intervals[i]
		next := timeline.Record{
			Start: in.Start, End: in.End, Value: in.Value, Retracted: in.Retracted, Quality: in.Quality,
			KnownMS: in.KnownMS, RecordedMS: recordedMS,
		}
		if next.KnownMS == WhenRecorded {
			next.KnownMS = recordedMS
		}
		switch r.offer(&next) {
		case unchanged:
			change.Unchanged++
			continue
		case added:
			change.Added++
		case revised:
			change.Revised++
		}
		if len(fresh) == 0 {
			change.Start, change.End = next.Start, next.End
		}
		change.Start, change.End = min(change.Start, next.Start), max(change.End, next.End)
		fresh, places = append(fresh, next), append(places, i)
	}
	return fresh, places, change
}

// byStart orders records as Store.Series does.
func byStart(a, b timeline.Record) int {
	if a.Start != b.Start {
		if a.Start < b.Start {
			return -1
		}
		return 1
	}
	switch {
	case a.Revision < b.Revision:
		return -1
	case a.Revision > b.Revision:
		return 1
	}
	return 0
}
