package spool

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// KeyState is what the spool knows of a key.
type KeyState struct {
	Floor
	// Known tells that a ledger spoke of the key, or that it is of this process,
	// so that the ledger cannot have held it before.
	Known bool
	// Progress is when more of it was committed than before; zero: never.
	Progress time.Time
}

// Keys returns the state of every key that has a batch in the spool or had one
// since it was opened.
func (s *Spool) Keys() []KeyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]KeyState, len(s.keys))
	for i, k := range s.keys {
		states[i] = KeyState{Floor: k.Floor, Known: k.known, Progress: k.progress}
	}
	return states
}

// KeyState returns the state of one key; ok is false if the spool has none.
func (s *Spool) KeyState(key Key) (state KeyState, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.byKey[key]
	if !ok {
		return KeyState{}, false
	}
	k := s.keys[i]
	return KeyState{Floor: k.Floor, Known: k.known, Progress: k.progress}, true
}

// PendingOf returns the sequences of a key that are pending, as the ranges of a
// floor of 0.
func (s *Spool) PendingOf(key Key) Floor {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := Floor{Key: key}
	i, ok := s.byKey[key]
	if !ok {
		return held
	}
	var runs []run
	for _, seg := range s.segments {
		for j := range seg.groups {
			if g := &seg.groups[j]; !g.done {
				for _, r := range g.runs {
					if r.key == i {
						runs = append(runs, r)
					}
				}
			}
		}
	}
	for _, r := range mergeRuns(runs) {
		held.Ranges = append(held.Ranges, Range{First: r.first, Last: r.last})
	}
	return held
}

// Fresh returns the least ID that a group appended by this process can have.
func (s *Spool) Fresh() ID { return s.fresh }

// Pending is a pending group.
type Pending struct {
	ID ID
	// Size is what reading the group takes in memory.
	Size int
	// Known tells that the floors of all its keys are known; until then it may
	// well be committed.
	Known bool
}

// Next returns the first pending group at or after from.
func (s *Spool) Next(from ID) (Pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.segments, from.Segment, func(seg *segment, n uint64) int {
		return cmp.Compare(seg.number, n)
	})
	for ; i < len(s.segments); i++ {
		seg := s.segments[i]
		at := 0
		if seg.number == from.Segment {
			at = int(from.Index)
		}
		for ; at < len(seg.groups); at++ {
			if g := &seg.groups[at]; !g.done {
				return Pending{ID: ID{Segment: seg.number, Index: uint32(at)}, Size: int(g.size), Known: s.known(g)}, true
			}
		}
	}
	return Pending{}, false
}

func (s *Spool) known(g *group) bool {
	for _, r := range g.runs {
		if !s.keys[r.key].known {
			return false
		}
	}
	return true
}

// Lagging tells whether a pending group is more likely still on its way than
// lost: since the instant given the ledger committed more of each of the
// group's keys that it does not hold yet, and nothing behind the group.
func (s *Spool) Lagging(id ID, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.find(id)
	if g == nil || g.done {
		return false
	}
	for _, r := range g.runs {
		k := s.keys[r.key]
		if k.Covers(r.first, r.last) {
			continue
		}
		if !k.progress.After(since) || k.Highest() >= r.last {
			return false
		}
	}
	return true
}

// find returns a group of a segment that is indexed, or nil.
func (s *Spool) find(id ID) *group {
	i, ok := slices.BinarySearchFunc(s.segments, id.Segment, func(seg *segment, n uint64) int {
		return cmp.Compare(seg.number, n)
	})
	if !ok || int(id.Index) >= len(s.segments[i].groups) {
		return nil
	}
	return &s.segments[i].groups[id.Index]
}

// Read appends the pending batches of a group to batches. Their Data points
// into buf, which is grown as needed and returned. A group that is committed or
// gone has none. A group that the disk gives back damaged is lost: it is
// reported, counts as done from then on, and has none either.
func (s *Spool) Read(id ID, buf []byte, batches []Batch) (trace string, _ []byte, _ []Batch, err error) {
	s.mu.Lock()
	g := s.find(id)
	if s.closed || g == nil || g.done {
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return "", buf, batches, ErrClosed
		}
		return "", buf, batches, nil
	}
	offset, size := g.offset, int(g.size)
	s.mu.Unlock()

	s.read.Lock()
	defer s.read.Unlock()
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if err := s.readAt(id.Segment, buf, offset); err != nil {
		if !s.isPending(id) {
			// Committed, and deleted, since we looked.
			return "", buf, batches, nil
		}
		return "", buf, batches, fmt.Errorf("read spool: %w", err)
	}
	payload, ok := frame(buf)
	p := &s.read.parsed
	if !ok || p.parse(payload) != nil {
		s.lose(id)
		return "", buf, batches, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p.batches {
		b := &p.batches[i]
		if !s.keys[s.key(b.Key)].Covers(b.Sequence, b.Sequence) {
			batches = append(batches, *b)
		}
	}
	return string(p.trace), buf, batches, nil
}

func (s *Spool) isPending(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.find(id)
	return g != nil && !g.done
}

func (s *Spool) readAt(number uint64, buf []byte, offset int64) error {
	if s.read.file == nil || s.read.segment != number {
		f, err := os.Open(filepath.Join(s.dir, segmentName(number)))
		if err != nil {
			return err
		}
		if s.read.file != nil {
			_ = s.read.file.Close() // opened for reading only: nothing can be lost
		}
		s.read.segment, s.read.file = number, f
	}
	_, err := s.read.file.ReadAt(buf, offset)
	return err
}

func (s *Spool) lose(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.find(id)
	if g == nil || g.done {
		return
	}
	g.done = true
	s.pending -= g.cost()
	s.lost += int64(g.size)
	s.log.Error("spool is damaged: batches are lost; what is whole around them is kept",
		"segment", segmentName(id.Segment), "offset", g.offset, "bytes", g.size)
	s.tell()
}

// Stats are figures of a spool.
type Stats struct {
	// Bytes is the size of all segments, PendingBytes that of pending groups
	// (each counted as 1 KiB at least).
	Bytes, PendingBytes int64
	// Oldest is when the oldest pending group was appended; zero if none is.
	Oldest time.Time
	// LostBytes is what damage has cost.
	LostBytes int64
}

// Stats returns the spool's figures.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{PendingBytes: s.pending, LostBytes: s.lost}
	for _, seg := range s.segments {
		st.Bytes += seg.size
		for i := range seg.groups {
			if g := &seg.groups[i]; !g.done && st.Oldest.IsZero() {
				st.Oldest = time.UnixMilli(g.timeMS)
			}
		}
	}
	return st
}

// KeyCount returns how many keys [Spool.Keys] has.
func (s *Spool) KeyCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys)
}
