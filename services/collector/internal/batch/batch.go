// Package batch gathers the readings of a meter and cuts them into batches that
// open with the reading before their first.
//
// A [Series] knows three things: its last reading, the reading before the open
// batch, and the open batch. [Series.Cut] encodes the open batch and makes the
// last reading the one before the next. So whatever cuts batches, and wherever,
// the batches of a series join without a gap or an overlap.
package batch

import (
	"fmt"
	"math"

	"github.com/wattfold/wattfold/proto/samplewire"
)

// Reading is one value at one instant: ms, and mW or µJ.
type Reading struct {
	TimeMS, Value int64
}

// Identity is what a batch carries besides its readings.
type Identity struct {
	Producer        [16]byte
	Epoch, Sequence uint64
	Site            string
	Import          *samplewire.Import
}

// Series is the one series of one node. Make it with [New].
type Series struct {
	node      string
	wire      samplewire.Series
	divisor   int64
	last      Reading
	hasLast   bool
	before    Reading
	hasBefore bool
	ticks     []int64
	values    []int64
}

// New returns the series of a node. Values must be multiples of 10^scale, which
// is the descriptor's.
func New(node string, d samplewire.Descriptor) *Series {
	s := &Series{node: node, divisor: 1}
	for range d.Scale {
		s.divisor *= 10
	}
	s.wire.Descriptor = d
	return s
}

// Node returns the node's name.
func (s *Series) Node() string { return s.node }

// Resume says which reading was the last before this process.
func (s *Series) Resume(r Reading) {
	s.last, s.hasLast = r, true
	s.before, s.hasBefore = r, true
}

// Last returns the last reading added or resumed from, if there is one.
func (s *Series) Last() (Reading, bool) { return s.last, s.hasLast }

// Open returns how many readings the open batch has.
func (s *Series) Open() int { return len(s.ticks) }

// Fits tells whether a reading at ms can be in the open batch; a silence of over
// 49 days cannot be said within one.
func (s *Series) Fits(ms int64) bool {
	return len(s.ticks) == 0 || ms-s.last.TimeMS <= math.MaxUint32
}

// Add adds a reading to the open batch. It drops one at the instant of the last
// and says so; one before that is an error. The caller cuts first if the
// reading does not fit.
func (s *Series) Add(r Reading) (added bool, err error) {
	if s.hasLast && r.TimeMS <= s.last.TimeMS {
		if r.TimeMS < s.last.TimeMS {
			return false, fmt.Errorf("node %s: a reading at %d ms after one at %d ms: the file changed since it was checked", s.node, r.TimeMS, s.last.TimeMS)
		}
		return false, nil
	}
	if r.Value%s.divisor != 0 {
		return false, fmt.Errorf("node %s: a reading of %d at %d ms: the file changed since it was checked", s.node, r.Value, r.TimeMS)
	}
	s.ticks = append(s.ticks, r.TimeMS)
	s.values = append(s.values, r.Value/s.divisor)
	s.last, s.hasLast = r, true
	return true, nil
}

// Cut appends the wire bytes of the open batch, which must not be empty, to dst
// and opens the next. Closed says that no reading follows.
func (s *Series) Cut(dst []byte, id Identity, closed bool) ([]byte, error) {
	s.wire.HasPrevious = s.hasBefore
	s.wire.PreviousMS, s.wire.PreviousValue = s.before.TimeMS, s.before.Value/s.divisor
	s.wire.Values = s.values
	s.wire.Closed = closed
	b := samplewire.Batch{
		Producer: id.Producer,
		Epoch:    id.Epoch,
		Sequence: id.Sequence,
		Site:     id.Site,
		Node:     s.node,
		Ticks:    s.ticks,
		Series:   []samplewire.Series{s.wire},
		Import:   id.Import,
	}
	dst, err := samplewire.Append(dst, &b)
	if err != nil {
		return dst, fmt.Errorf("encode batch of node %s: %w", s.node, err)
	}
	s.before, s.hasBefore = s.last, true
	s.ticks, s.values = s.ticks[:0], s.values[:0]
	return dst, nil
}
