package ingest

import (
	"maps"
	"slices"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// holds reports whether the sequence is committed.
func holds(p *ledger.Producer, sequence uint64) bool {
	if sequence <= p.Floor {
		return true
	}
	for _, r := range p.Ranges {
		if sequence <= r.Last {
			return sequence >= r.First
		}
	}
	return false
}

// add adds a sequence that is not held. It reports false, and changes nothing, if
// that would take one range more than there may be.
func add(p *ledger.Producer, sequence uint64) bool {
	if sequence == p.Floor+1 {
		p.Floor = sequence
		if len(p.Ranges) > 0 && p.Ranges[0].First == sequence+1 {
			p.Floor = p.Ranges[0].Last
			p.Ranges = slices.Delete(p.Ranges, 0, 1)
		}
		return true
	}
	// The first range that ends at the sequence before, or after that.
	i := 0
	for i < len(p.Ranges) && p.Ranges[i].Last < sequence-1 {
		i++
	}
	if i < len(p.Ranges) && p.Ranges[i].Last == sequence-1 {
		p.Ranges[i].Last = sequence
		if i+1 < len(p.Ranges) && p.Ranges[i+1].First == sequence+1 {
			p.Ranges[i].Last = p.Ranges[i+1].Last
			p.Ranges = slices.Delete(p.Ranges, i+1, i+2)
		}
		return true
	}
	if i < len(p.Ranges) && p.Ranges[i].First == sequence+1 {
		p.Ranges[i].First = sequence
		return true
	}
	if len(p.Ranges) == ledger.MaxRanges {
		return false
	}
	p.Ranges = slices.Insert(p.Ranges, i, ledger.Range{First: sequence, Last: sequence})
	return true
}

// snapshot copies what changes in place.
func snapshot(p *ledger.Producer) ledger.Producer {
	c := *p
	if len(p.Ranges) == 0 {
		c.Ranges = nil
	} else {
		c.Ranges = slices.Clone(p.Ranges)
	}
	c.Refused = maps.Clone(p.Refused)
	return c
}
