package ledger

import (
	"cmp"
	"slices"
)

// JoinSpans returns the spans of one producer joined where they meet or overlap,
// and across silence too, unless a span of others on the same device lies in it.
// They come back by device and time. The argument is reordered.
func JoinSpans(own, others []MeterSpan) []MeterSpan {
	slices.SortFunc(own, func(a, b MeterSpan) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.FirstMS, b.FirstMS))
	})
	var joined []MeterSpan
	for _, s := range own {
		if n := len(joined); n > 0 && joined[n-1].Device == s.Device {
			last := &joined[n-1]
			between := MeterSpan{Device: s.Device, FirstMS: last.LastMS, LastMS: s.FirstMS}
			if s.FirstMS <= last.LastMS || !slices.ContainsFunc(others, between.Overlaps) {
				last.LastMS = max(last.LastMS, s.LastMS)
				continue
			}
		}
		joined = append(joined, s)
	}
	return joined
}

// Overlaps reports whether the spans are of one device and share more than an
// instant.
func (s MeterSpan) Overlaps(o MeterSpan) bool {
	return s.Device == o.Device && s.FirstMS < o.LastMS && o.FirstMS < s.LastMS
}
