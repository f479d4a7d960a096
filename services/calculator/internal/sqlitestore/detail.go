package sqlitestore

import (
	"encoding/binary"
	"fmt"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// The parts of a detail row, series after series:
//
//	varint   id of the series, less that of the series before
//	uvarint  2 · number of parts + 1 if the series said that it ends
//	varint   first tick, ms less the start of the row's first slot
//	uvarint  last tick less the first
//	and for each part, ascending:
//	uvarint  slot, less that of the part before (first: less the row's first slot)
//	uvarint  start, ms less the start of the slot
//	uvarint  end less start
//	varint   energy
//	uvarint  missing ms
//	uvarint  interpolated ms
//	varint   observed ms + missing ms − (end − start), which is 0 but where
//	         segments between others were refused
//
// A negation has the same bytes; its row's sign says it.

func encodeDetail(dst []byte, first slot.Slot, series []ledger.TxSeries) []byte {
	id := int64(0)
	for i := range series {
		s := &series[i]
		dst = binary.AppendVarint(dst, s.Memo.Series-id)
		id = s.Memo.Series
		head := uint64(len(s.Parts)) << 1
		if s.Closed {
			head |= 1
		}
		dst = binary.AppendUvarint(dst, head)
		dst = binary.AppendVarint(dst, s.FirstMS-first.StartMS())
		dst = binary.AppendUvarint(dst, uint64(s.LastMS-s.FirstMS))
		at := first
		for j := range s.Parts {
			p := &s.Parts[j]
			dst = binary.AppendUvarint(dst, uint64(p.Slot-at))
			at = p.Slot
			dst = binary.AppendUvarint(dst, uint64(p.StartMS-p.Slot.StartMS()))
			dst = binary.AppendUvarint(dst, uint64(p.EndMS-p.StartMS))
			dst = binary.AppendVarint(dst, int64(p.Energy))
			dst = binary.AppendUvarint(dst, uint64(p.MissingMS))
			dst = binary.AppendUvarint(dst, uint64(p.InterpolatedMS))
			dst = binary.AppendVarint(dst, p.ObservedMS+p.MissingMS-(p.EndMS-p.StartMS))
		}
	}
	return dst
}

// detailSeries is one series of a detail row.
type detailSeries struct {
	id              int64
	firstMS, lastMS int64
	closed          bool
	parts           []segment.Part
}

// span is the time that the series' segments and ticks cover.
func (s *detailSeries) span() (start, end int64) {
	start, end = s.firstMS, s.lastMS
	for i := range s.parts {
		start, end = min(start, s.parts[i].StartMS), max(end, s.parts[i].EndMS)
	}
	return start, end
}

// decodeDetail calls visit for each series; what it is given is valid until it
// returns.
func decodeDetail(firstSlot int64, encoded []byte, visit func(*detailSeries) error) error {
	var s detailSeries
	r := reader{encoded}
	base := slot.Slot(firstSlot)
	for len(r.rest) > 0 {
		s.id += r.varint()
		head := r.uvarint()
		s.closed = head&1 == 1
		s.firstMS = base.StartMS() + r.varint()
		s.lastMS = s.firstMS + int64(r.uvarint())
		s.parts = s.parts[:0]
		at := base
		for range head >> 1 {
			at += slot.Slot(r.uvarint())
			p := segment.Part{Slot: at, StartMS: at.StartMS() + int64(r.uvarint())}
			p.EndMS = p.StartMS + int64(r.uvarint())
			p.Energy = unit.Energy(r.varint())
			p.MissingMS = int64(r.uvarint())
			p.InterpolatedMS = int64(r.uvarint())
			p.ObservedMS = p.EndMS - p.StartMS - p.MissingMS + r.varint()
			if r.rest == nil {
				break
			}
			s.parts = append(s.parts, p)
		}
		if r.rest == nil {
			return fmt.Errorf("a detail row: %w", errCorrupt)
		}
		if err := visit(&s); err != nil {
			return err
		}
	}
	return nil
}
