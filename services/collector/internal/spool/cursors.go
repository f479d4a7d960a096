package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/wattfold/wattfold/services/collector/internal/durable"
)

const cursorsFile = "cursors"

// saveCursors writes the cursors of all sources if the segments to be deleted
// hold the newest cursor of one. Transient ones go with their segment.
func (s *Spool) saveCursors(deletable []*segment) error {
	doomed := make(map[uint64]bool, len(deletable))
	for _, seg := range deletable {
		doomed[seg.number] = true
	}
	needed := false
	for source, c := range s.cursors {
		switch {
		case !doomed[c.at.Segment]:
		case c.transient:
			delete(s.cursors, source)
		default:
			needed = true
		}
	}
	if !needed {
		return nil
	}
	var b []byte
	for _, source := range slices.Sorted(maps.Keys(s.cursors)) {
		c := s.cursors[source]
		if c.transient {
			continue
		}
		b = binary.LittleEndian.AppendUint64(b, c.at.Segment)
		b = binary.LittleEndian.AppendUint32(b, c.at.Index)
		b = appendText(b, source)
		b = appendText(b, string(c.value))
	}
	file := binary.LittleEndian.AppendUint32(slices.Clone(magic[:]), uint32(len(b)))
	file = binary.LittleEndian.AppendUint32(file, checksum(file[4:8], b))
	return durable.WriteFile(s.dir, cursorsFile, append(file, b...))
}

// loadCursors refuses a damaged file: a source that began again from nothing
// would send what the ledger has under another number.
func (s *Spool) loadCursors() error {
	path := filepath.Join(s.dir, cursorsFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	payload, ok := frame(data)
	r := walker{b: payload}
	for ok && r.ok() && len(r.b) > 0 {
		at := r.take(12)
		source, value := r.text(), r.text()
		if r.ok() {
			s.remember(string(source), cursor{
				at:    ID{Segment: binary.LittleEndian.Uint64(at), Index: binary.LittleEndian.Uint32(at[8:])},
				value: slices.Clone(value),
			})
		}
	}
	if !ok || !r.ok() {
		return fmt.Errorf("%s is damaged: restore it, or move the whole directory away to begin every replay anew", path)
	}
	return nil
}
