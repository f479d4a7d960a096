package timeline

import (
	"cmp"
	"slices"
)

// Revise prepares a record to be stored beside the existing ones of its series:
// it returns it with a revision above every one that it overlaps. changed is
// false if the record says nothing new: all of its slots are covered, and the
// newest of each has the same value, quality and retraction, and was known no
// later. Then nothing is to be stored.
//
// Existing records that do not overlap are ignored. RecordedMS is the store's
// to set and is not compared.
func Revise(existing []Record, next Record) (revised Record, changed bool) {
	var candidates []candidate
	next.Revision = 1
	for i := range existing {
		r := &existing[i]
		if r.Start >= r.End || r.End <= next.Start || r.Start >= next.End {
			continue
		}
		next.Revision = max(next.Revision, r.Revision+1)
		candidates = append(candidates, candidate{
			record: r,
			start:  max(r.Start, next.Start),
			end:    min(r.End, next.End),
		})
	}
	if next.Start >= next.End {
		return next, false
	}
	if len(candidates) == 0 {
		return next, true
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Compare(a.record.Revision, b.record.Revision)
	})
	e := edges(candidates)
	if e[0] != next.Start || e[len(e)-1] != next.End {
		return next, true
	}
	for _, rank := range paint(candidates, e) {
		if rank == none || !says(candidates[rank].record, &next) {
			return next, true
		}
	}
	return next, false
}

// says reports whether the record already says what next does.
func says(r, next *Record) bool {
	return r.Retracted == next.Retracted &&
		(r.Retracted || r.Value == next.Value) &&
		r.Quality == next.Quality &&
		r.KnownMS <= next.KnownMS
}
