package spool

import (
	"cmp"
	"slices"
)

// Range is a closed range of sequences.
type Range struct{ First, Last uint64 }

// Floor is what the ledger holds of a key: everything up to the floor, and the
// ranges above it, ascending and disjoint.
type Floor struct {
	Key    Key
	Floor  uint64
	Ranges []Range
}

// Covers tells whether all of first … last is held.
func (f *Floor) Covers(first, last uint64) bool {
	if last <= f.Floor {
		return true
	}
	first = max(first, f.Floor+1)
	i, _ := slices.BinarySearchFunc(f.Ranges, first, func(r Range, s uint64) int { return cmp.Compare(r.Last, s) })
	return i < len(f.Ranges) && f.Ranges[i].First <= first && last <= f.Ranges[i].Last
}

// Count returns how many sequences are held.
func (f *Floor) Count() uint64 {
	n := f.Floor
	for _, r := range f.Ranges {
		n += r.Last - r.First + 1
	}
	return n
}

// Highest returns the highest sequence held.
func (f *Floor) Highest() uint64 {
	if n := len(f.Ranges); n > 0 {
		return f.Ranges[n-1].Last
	}
	return f.Floor
}

// run is a run of sequences of one key of the spool's table.
type run struct {
	key         int
	first, last uint64
}

// addRun extends the runs by a sequence; runs are few because a source numbers
// without gaps.
func addRun(runs []run, key int, sequence uint64) []run {
	if n := len(runs); n > 0 && runs[n-1].key == key && runs[n-1].last+1 == sequence {
		runs[n-1].last++
		return runs
	}
	return append(runs, run{key: key, first: sequence, last: sequence})
}

// mergeRuns sorts runs and joins those that touch.
func mergeRuns(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.first, b.first))
	})
	merged := runs[:0]
	for _, r := range runs {
		if n := len(merged); n > 0 && merged[n-1].key == r.key && r.first <= merged[n-1].last+1 {
			merged[n-1].last = max(merged[n-1].last, r.last)
			continue
		}
		merged = append(merged, r)
	}
	return slices.Clip(merged)
}
