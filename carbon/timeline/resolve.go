package timeline

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/wattfold/wattfold/carbon/slot"
)

// Resolve answers the slots [from, to) by the chain under the view. The steps
// are in the order of time and do not overlap; slots without data are in none.
// A step is as long as one record answers in one way: neighbours of equal value
// but of different intervals of the source stay two.
//
// Its time is proportional to n·log n in the records near the range, for every
// view. Records that neither reach the range nor lie within an entry's maximum
// age before it cost one look each.
func Resolve(chain []Entry, series []Series, from, to slot.Slot, v View) []Step {
	from, to = max(from, slot.Min), min(to, slot.Max)
	var steps []Step
	for _, e := range chain {
		if from >= to {
			break
		}
		answer := resolveEntry(e, series, from, to, v)
		steps = fill(steps, answer, from, to)
		if len(steps) > 0 && covered(steps, from, to) {
			break
		}
	}
	return steps
}

// covered reports whether the steps leave no hole in [from, to).
func covered(steps []Step, from, to slot.Slot) bool {
	for i := range steps {
		if steps[i].Start != from {
			return false
		}
		from = steps[i].End
	}
	return from == to
}

// fill puts what the answer has for the holes of steps into them.
func fill(steps, answer []Step, from, to slot.Slot) []Step {
	if len(steps) == 0 || len(answer) == 0 {
		return append(steps, answer...)
	}
	filled := make([]Step, 0, len(steps)+len(answer))
	a := 0
	hole := func(start, end slot.Slot) {
		if start == end {
			return
		}
		for a < len(answer) && answer[a].End <= start {
			a++
		}
		// The last step that reaches into the hole may reach into the next too.
		for ; a < len(answer) && answer[a].Start < end; a++ {
			s := answer[a]
			if s.Start < start {
				if s.Method == Carried {
					s.AgeMS += (int64(start) - int64(s.Start)) * slot.Millis
				}
				s.Start = start
			}
			s.End = min(s.End, end)
			filled = append(filled, s)
			if answer[a].End > end {
				break
			}
		}
	}
	for i := range steps {
		hole(from, steps[i].Start)
		filled = append(filled, steps[i])
		from = steps[i].End
	}
	hole(from, to)
	return filled
}

// candidate is an admitted record near the range.
type candidate struct {
	record     *Record
	start, end slot.Slot // clamped to the slots that matter
	from       slot.Slot // admitted for slots from here on
}

// resolveEntry answers by one entry alone.
func resolveEntry(e Entry, series []Series, from, to slot.Slot, v View) []Step {
	// Ages are compared in slots: intervals and slots end at their edges.
	age := slot.Slot(max(e.MaxAgeMS, 0) / slot.Millis)
	reach := max(from-age, slot.Min) // neither overflows, by their bounds
	candidates := near(e, series, reach, to, v)
	if len(candidates) == 0 {
		return nil
	}
	// Ranks make revisions unique, so that a rank names a candidate.
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Compare(a.record.Revision, b.record.Revision)
	})
	w := walk{entry: e, age: age, from: from, to: to, candidates: candidates}
	for i := range candidates {
		if candidates[i].from > from {
			return w.changing()
		}
	}
	return w.fixed()
}

// near returns the records of the entry's series that the view admits for some
// slot before to, and that reach over reach.
func near(e Entry, series []Series, reach, to slot.Slot, v View) []candidate {
	var candidates []candidate
	for i := range series {
		if series[i].Source != e.Source || series[i].Product != e.Product {
			continue
		}
		for j := range series[i].Records {
			r := &series[i].Records[j]
			if r.End < reach || r.Start >= to || r.Start >= r.End {
				continue
			}
			from, ok := v.admits(r)
			if !ok || from >= to {
				continue
			}
			candidates = append(candidates, candidate{
				record: r,
				// One slot before reach shows where an interval that ended there ended.
				start: max(r.Start, reach-1),
				end:   min(r.End, to),
				from:  from,
			})
		}
	}
	return candidates
}

// edges returns the distinct edges of the candidates, ascending.
func edges(candidates []candidate) []slot.Slot {
	e := make([]slot.Slot, 0, 2*len(candidates))
	for i := range candidates {
		e = append(e, candidates[i].start, candidates[i].end)
	}
	slices.Sort(e)
	return slices.Compact(e)
}

func index(edges []slot.Slot, s slot.Slot) int {
	i, _ := slices.BinarySearch(edges, s)
	return i
}

// none is the rank of no candidate.
const none int32 = -1

// paint returns for every leaf [edges[i], edges[i+1]) the highest rank among the
// candidates that cover it. From the highest rank down each leaf is painted
// once: next leads past what is painted already.
func paint(candidates []candidate, edges []slot.Slot) []int32 {
	winners := make([]int32, len(edges)-1)
	next := make([]int32, len(edges))
	for i := range winners {
		winners[i] = none
	}
	for i := range next {
		next[i] = int32(i)
	}
	unpainted := func(i int32) int32 {
		for next[i] != i {
			next[i] = next[next[i]]
			i = next[i]
		}
		return i
	}
	for rank := len(candidates) - 1; rank >= 0; rank-- {
		c := &candidates[rank]
		end := int32(index(edges, c.end))
		for i := unpainted(int32(index(edges, c.start))); i < end; i = unpainted(i) {
			winners[i] = int32(rank)
			next[i] = i + 1
		}
	}
	return winners
}

// walk turns winners into steps.
type walk struct {
	entry      Entry
	age        slot.Slot
	from, to   slot.Slot
	candidates []candidate
	steps      []Step
	last       *Record   // of the last step
	ended      slot.Slot // where the interval of the last carried step ended
}

// fixed answers when the same records are admitted for every slot.
func (w *walk) fixed() []Step {
	e := edges(w.candidates)
	winners := paint(w.candidates, e)
	latest, ended := none, slot.Slot(0)
	for i, rank := range winners {
		if rank != none && !w.candidates[rank].record.Retracted {
			w.direct(rank, e[i], e[i+1])
			latest, ended = rank, e[i+1]
			continue
		}
		w.carry(latest, ended, e[i], e[i+1])
	}
	w.carry(latest, ended, e[len(e)-1], w.to)
	return w.steps
}

// changing answers when records come to be known within the range: it goes
// through the slots at which anything can change, admitting on the way.
func (w *walk) changing() []Step {
	e := edges(w.candidates)
	t := newTree(w.candidates, len(e)-1)
	order := make([]int32, len(w.candidates))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Compare(w.candidates[a].from, w.candidates[b].from)
	})
	s, leaf := w.from, 0
	for s < w.to {
		for len(order) > 0 && w.candidates[order[0]].from <= s {
			c := &w.candidates[order[0]]
			t.admit(order[0], index(e, c.start), index(e, c.end))
			order = order[1:]
		}
		for leaf < len(e) && e[leaf] <= s {
			leaf++
		}
		// e[leaf] is the first edge after s.
		until := w.to
		if leaf < len(e) {
			until = min(until, e[leaf])
		}
		if len(order) > 0 {
			until = min(until, w.candidates[order[0]].from)
		}
		if at, rank := t.latest(min(leaf, len(e)-1) - 1); rank != none {
			if e[at+1] > s {
				w.direct(rank, s, until)
			} else {
				w.carry(rank, e[at+1], s, until)
			}
		}
		s = until
	}
	return w.steps
}

// direct adds slots that the candidate covers.
func (w *walk) direct(rank int32, start, end slot.Slot) {
	start, end = max(start, w.from), min(end, w.to)
	if start >= end {
		return
	}
	if s := w.extends(rank, start, Direct); s != nil {
		s.End = end
		return
	}
	w.append(rank, start, end, Direct, 0)
}

// carry adds those slots for which the candidate's interval, which ended at
// ended, is not too old.
func (w *walk) carry(rank int32, ended, start, end slot.Slot) {
	if rank == none || w.entry.MaxAgeMS <= 0 {
		return
	}
	start, end = max(start, w.from), min(end, w.to)
	if ended < slot.Max-w.age { // else it lasts for ever
		end = min(end, ended+w.age+1)
	}
	if start >= end {
		return
	}
	if s := w.extends(rank, start, Carried); s != nil && w.ended == ended {
		s.End = end
		return
	}
	w.ended = ended
	w.append(rank, start, end, Carried, (int64(start)-int64(ended))*slot.Millis)
}

// extends returns the last step if the candidate's slots from start on only
// make it longer.
func (w *walk) extends(rank int32, start slot.Slot, m Method) *Step {
	if len(w.steps) == 0 {
		return nil
	}
	s, r := &w.steps[len(w.steps)-1], w.candidates[rank].record
	if s.End != start || s.Method != m || w.last != r {
		return nil
	}
	return s
}

func (w *walk) append(rank int32, start, end slot.Slot, m Method, age int64) {
	r := w.candidates[rank].record
	q := r.Quality
	if m == Carried {
		q = Filled
	}
	w.last = r
	w.steps = append(w.steps, Step{
		Start: start, End: end,
		Value:  r.Value,
		Source: w.entry.Source, Product: w.entry.Product,
		Quality: q, Method: m, AgeMS: age,
		Revision: r.Revision, KnownMS: r.KnownMS, RecordedMS: r.RecordedMS,
	})
}

// tree knows for a changing set of records which leaves have a value.
//
// It is a segment tree over the leaves. A node's tag is the highest rank that
// was admitted for the whole node; the winner of a leaf is the highest tag on
// the way to it. Of every node it knows, by the tags at and below it,
//
//	value    the highest rank of a winner that is a value; none if no leaf has one
//	hidden   the lowest rank of a retraction that wins, if one wins in every
//	         leaf; none otherwise
//
// which is enough to say whether a higher tag leaves any value standing: a
// retraction leaves those that rank above it; a value gives one to every leaf
// but those of a retraction above it.
type tree struct {
	retracted []bool // by rank
	size      int    // leaves, a power of two
	tag       []int32
	value     []int32
	hidden    []int32
}

func newTree(candidates []candidate, leaves int) *tree {
	t := &tree{retracted: make([]bool, len(candidates)), size: 1}
	for i := range candidates {
		t.retracted[i] = candidates[i].record.Retracted
	}
	for t.size < leaves {
		t.size *= 2
	}
	cells := make([]int32, 3*2*t.size)
	for i := range cells {
		cells[i] = none
	}
	t.tag, t.value, t.hidden = cells[:2*t.size], cells[2*t.size:4*t.size], cells[4*t.size:]
	return t
}

// under returns value and hidden of leaves that have them, under a tag.
func (t *tree) under(tag, value, hidden int32) (int32, int32) {
	switch {
	case tag == none:
		return value, hidden
	case t.retracted[tag]:
		if value > tag {
			return value, none
		}
		return none, max(tag, hidden)
	case hidden > tag:
		return none, hidden
	default:
		return max(value, tag), none
	}
}

// pull computes value and hidden of a node from its tag and its children.
func (t *tree) pull(node int) {
	value, hidden := none, none
	if node < t.size {
		l, r := 2*node, 2*node+1
		value = max(t.value[l], t.value[r])
		// A leaf without any record counts as one that is not hidden.
		hidden = min(t.hidden[l], t.hidden[r])
	}
	t.value[node], t.hidden[node] = t.under(t.tag[node], value, hidden)
}

// admit adds the record of the rank over the leaves [l, r).
func (t *tree) admit(rank int32, l, r int) {
	l, r = l+t.size, r+t.size
	first, last := l, r-1
	for ; l < r; l, r = l/2, r/2 {
		if l&1 == 1 {
			t.put(l, rank)
			l++
		}
		if r&1 == 1 {
			r--
			t.put(r, rank)
		}
	}
	for first, last = first/2, last/2; last > 0; first, last = first/2, last/2 {
		t.pull(first)
		if last != first {
			t.pull(last)
		}
	}
}

func (t *tree) put(node int, rank int32) {
	if rank > t.tag[node] {
		t.tag[node] = rank
		t.pull(node)
	}
}

// latest returns the last leaf up to and with the given one that has a value,
// and the rank of that value; none if there is none.
func (t *tree) latest(leaf int) (int, int32) {
	if leaf < 0 {
		return 0, none
	}
	// above[d] is the highest tag over the node d steps above the leaf.
	var above [64]int32
	depth := bits.Len(uint(t.size)) - 1
	above[depth] = none
	for d := depth - 1; d >= 0; d-- {
		above[d] = max(above[d+1], t.tag[(leaf+t.size)>>(d+1)])
	}
	// The leaves up to this one are, from the right, the leaf itself, and the
	// left sibling of every right node on the way up.
	if _, rank := t.descend(leaf+t.size, above[0]); rank != none {
		return leaf, rank
	}
	for d := range depth {
		if node := (leaf + t.size) >> d; node&1 == 1 {
			if at, rank := t.descend(node-1, above[d]); rank != none {
				return at, rank
			}
		}
	}
	return 0, none
}

// descend returns the last leaf of the node that has a value, given the highest
// tag above the node.
func (t *tree) descend(node int, above int32) (int, int32) {
	rank, _ := t.under(above, t.value[node], t.hidden[node])
	if rank == none {
		return 0, none
	}
	for node < t.size {
		above = max(above, t.tag[node])
		node = 2*node + 1
		if rank, _ = t.under(above, t.value[node], t.hidden[node]); rank == none {
			node-- // so it is on the left
		}
	}
	rank, _ = t.under(above, t.value[node], t.hidden[node])
	return node - t.size, rank
}
