package sqlitestore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// Spans of one producer on one node, one after another: the device as uvarint
// length and bytes; first and last as varints, each less that of the span before.
// Devices of a node are read together, so the differences are mostly 0.

func encodeSpans(spans []ledger.MeterSpan) []byte {
	out := make([]byte, 0, 16*len(spans))
	var first, last int64
	for i := range spans {
		s := &spans[i]
		out = binary.AppendUvarint(out, uint64(len(s.Device)))
		out = append(out, s.Device...)
		out = binary.AppendVarint(out, s.FirstMS-first)
		out = binary.AppendVarint(out, s.LastMS-last)
		first, last = s.FirstMS, s.LastMS
	}
	return out
}

func appendSpans(spans []ledger.MeterSpan, producer [16]byte, encoded []byte) ([]ledger.MeterSpan, error) {
	r := reader{encoded}
	var first, last int64
	for len(r.rest) > 0 {
		device := r.text()
		first += r.varint()
		last += r.varint()
		if r.rest == nil {
			return nil, fmt.Errorf("spans of meters: %w", errCorrupt)
		}
		spans = append(spans, ledger.MeterSpan{Device: device, Producer: producer, FirstMS: first, LastMS: last})
	}
	return spans, nil
}

func (w *writer) putMeter(ctx context.Context, node int64, producer [16]byte, spans []ledger.MeterSpan) error {
	if len(spans) == 0 {
		_, err := w.tx.ExecContext(ctx, `DELETE FROM meter WHERE node = ? AND producer = ?`, node, producer[:])
		return err
	}
	_, err := w.stmt(ctx, `INSERT INTO meter (node, producer, spans) VALUES (?, ?, ?)
		ON CONFLICT DO UPDATE SET spans = excluded.spans`).ExecContext(ctx, node, producer[:], encodeSpans(spans))
	return err
}

// reader reads an encoded blob. After an error its rest is nil.
type reader struct{ rest []byte }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.rest = nil
		return ""
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}
