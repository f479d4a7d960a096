package sqlitestore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

const producerQuery = `SELECT p.id, p.producer, p.epoch, p.floor, p.ranges,
	p.import_id, p.import_content, p.import_last, p.import_replace, p.superseded,
	(SELECT json_group_object(f.reason, f.count) FROM producer_refused f WHERE f.producer = p.id)
	FROM site s JOIN producer p ON p.site = s.id`

type producerRow struct {
	ledger.Producer
	id         int64
	superseded bool
}

type scanner interface{ Scan(dest ...any) error }

func scanProducer(rows scanner) (producerRow, error) {
	var (
		p                      producerRow
		producer, ranges, hash []byte
		epoch, floor           int64
		importID               sql.NullString
		last, replace          sql.NullInt64
		refused                string
	)
	if err := rows.Scan(&p.id, &producer, &epoch, &floor, &ranges, &importID, &hash, &last, &replace, &p.superseded, &refused); err != nil {
		return p, err
	}
	if len(producer) != len(p.Producer.Producer) {
		return p, fmt.Errorf("producer of %d bytes: %w", len(producer), errCorrupt)
	}
	p.Producer.Producer = [16]byte(producer)
	p.Epoch, p.Floor = uint64(epoch), uint64(floor)
	var err error
	if p.Ranges, err = decodeRanges(p.Floor, ranges); err != nil {
		return p, err
	}
	if importID.Valid {
		p.Import = &ledger.ImportInfo{ID: importID.String, Content: hash, Last: uint64(last.Int64), Replace: replace.Int64 != 0}
	}
	if refused != "{}" {
		if err := json.Unmarshal([]byte(refused), &p.Refused); err != nil {
			return p, fmt.Errorf("refused %s: %w", refused, errCorrupt)
		}
	}
	return p, nil
}

func encodeRanges(floor uint64, ranges []ledger.Range) []byte {
	out := []byte{}
	for _, r := range ranges {
		out = binary.AppendUvarint(out, r.First-floor)
		out = binary.AppendUvarint(out, r.Last-r.First)
		floor = r.Last
	}
	return out
}

func decodeRanges(floor uint64, encoded []byte) ([]ledger.Range, error) {
	var ranges []ledger.Range
	for len(encoded) > 0 {
		first, n := binary.Uvarint(encoded)
		if n <= 0 {
			return nil, fmt.Errorf("ranges of a producer: %w", errCorrupt)
		}
		length, m := binary.Uvarint(encoded[n:])
		if m <= 0 {
			return nil, fmt.Errorf("ranges of a producer: %w", errCorrupt)
		}
		encoded = encoded[n+m:]
		r := ledger.Range{First: floor + first, Last: floor + first + length}
		ranges = append(ranges, r)
		floor = r.Last
	}
	return ranges, nil
}

// moveProducer is the compare-and-set of one producer. It returns its row's id.
func (w *writer) moveProducer(ctx context.Context, m *ledger.ProducerMove) (int64, error) {
	site, err := w.site(ctx, m.Site)
	if err != nil {
		return 0, err
	}
	old, next := &m.Old, &m.New
	key := []any{site, next.Producer[:], int64(next.Epoch)}
	var importID, content, last, replace any
	if next.Import != nil {
		importID, content, last, replace = next.Import.ID, next.Import.Content, int64(next.Import.Last), next.Import.Replace
	}
	var id int64
	if old.Floor == 0 && len(old.Ranges) == 0 {
		// Known or not, it must hold nothing.
		if _, err := w.tx.ExecContext(ctx, `INSERT INTO producer
			(site, producer, epoch, floor, ranges, superseded) VALUES (?, ?, ?, 0, x'', 0)
			ON CONFLICT DO NOTHING`, key...); err != nil {
			return 0, err
		}
	}
	err = w.stmt(ctx, `UPDATE producer SET floor = ?, ranges = ?,
		import_id = ?, import_content = ?, import_last = ?, import_replace = ?
		WHERE site = ? AND producer = ? AND epoch = ? AND floor = ? AND ranges = ? RETURNING id`).
		QueryRowContext(ctx, append([]any{
			int64(next.Floor), encodeRanges(next.Floor, next.Ranges), importID, content, last, replace,
		}, append(key, int64(old.Floor), encodeRanges(old.Floor, old.Ranges))...)...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ledger.ErrConflict
	}
	if err != nil {
		return 0, err
	}
	if maps.Equal(old.Refused, next.Refused) {
		return id, nil
	}
	for _, reason := range slices.Sorted(maps.Keys(next.Refused)) {
		if _, err := w.tx.ExecContext(ctx, `INSERT INTO producer_refused (producer, reason, count) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET count = excluded.count`, id, reason, int64(next.Refused[reason])); err != nil {
			return 0, err
		}
	}
	return id, nil
}

// supersede negates what the older epochs of a producer posted, and withdraws
// their windows and spans where nothing else covers them.
func (w *writer) supersede(ctx context.Context, m *ledger.ProducerMove) error {
	var older []int64
	if err := each(ctx, w.tx, `SELECT p.id FROM producer p JOIN site s ON s.id = p.site
		WHERE s.name = ? AND p.producer = ? AND p.epoch < ? AND NOT p.superseded`,
		[]any{m.Site, m.New.Producer[:], int64(m.New.Epoch)}, func(rows *sql.Rows) error {
			var id int64
			err := rows.Scan(&id)
			older = append(older, id)
			return err
		}); err != nil {
		return err
	}
	nodes := map[int64]bool{}
	for _, producer := range older {
		if err := w.negate(ctx, producer, int(m.New.Producer[0]), nodes); err != nil {
			return err
		}
		if _, err := w.tx.ExecContext(ctx, `UPDATE producer SET superseded = 1 WHERE id = ?`, producer); err != nil {
			return err
		}
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		if err := w.withdraw(ctx, node, m.New.Producer); err != nil {
			return fmt.Errorf("node %d: %w", node, err)
		}
	}
	return nil
}

// negate posts the negation of every detail row of a producer's row, and notes
// their nodes.
func (w *writer) negate(ctx context.Context, producer int64, partition int, nodes map[int64]bool) error {
	type row struct {
		node, sequence, first, last int64
		parts                       []byte
	}
	var batch []row
	after := int64(0)
	for {
		batch = batch[:0]
		// The rows are read in portions: an import may have millions.
		if err := each(ctx, w.tx, `SELECT id, node, sequence, first_slot, last_slot, parts FROM detail
			WHERE producer = ? AND import = 1 AND sign = 1 AND id > ? ORDER BY id LIMIT 1000`,
			[]any{producer, after}, func(rows *sql.Rows) error {
				var r row
				err := rows.Scan(&after, &r.node, &r.sequence, &r.first, &r.last, &r.parts)
				batch = append(batch, r)
				return err
			}); err != nil {
			return err
		}
		if len(batch) == 0 {
			return nil
		}
		for i := range batch {
			r := &batch[i]
			nodes[r.node] = true
			if err := w.insertDetail(ctx, detailHead{
				node: r.node, producer: producer, sequence: r.sequence, first: r.first, last: r.last,
				sign: -1, imported: true,
			}, r.parts); err != nil {
				return err
			}
			accounts, err := w.accountsOf(ctx, r.node)
			if err != nil {
				return err
			}
			if err := decodeDetail(r.first, r.parts, func(s *detailSeries) error {
				for j := range s.parts {
					if err := w.post(partition, accounts[s.id], &s.parts[j], -1); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
}

// accountsOf returns the accounts of a node's series.
func (w *writer) accountsOf(ctx context.Context, node int64) (map[int64]int64, error) {
	if w.accountsNode == node && w.accounts != nil {
		return w.accounts, nil
	}
	w.accountsNode, w.accounts = node, map[int64]int64{}
	err := each(ctx, w.tx, `SELECT id, account FROM series WHERE node = ?`, []any{node}, func(rows *sql.Rows) error {
		var series, account int64
		err := rows.Scan(&series, &account)
		w.accounts[series] = account
		return err
	})
	return w.accounts, err
}

// withdraw computes the windows of a node's series, and the producer's spans on
// it, anew from the details that were not replaced.
func (w *writer) withdraw(ctx context.Context, node int64, producer [16]byte) error {
	devices := map[int64]string{}
	if err := each(ctx, w.tx, `SELECT id, device FROM series WHERE node = ?`, []any{node}, func(rows *sql.Rows) error {
		var id int64
		var device string
		err := rows.Scan(&id, &device)
		devices[id] = device
		return err
	}); err != nil {
		return err
	}
	windows := map[int64]*window{}
	var spans []ledger.MeterSpan
	if err := each(ctx, w.tx, `SELECT d.first_slot, d.parts, p.producer FROM detail d JOIN producer p ON p.id = d.producer
		WHERE d.node = ? AND d.sign = 1 AND NOT p.superseded ORDER BY d.first_slot, d.id`, []any{node},
		func(rows *sql.Rows) error {
			var first int64
			var parts, from []byte
			if err := rows.Scan(&first, &parts, &from); err != nil {
				return err
			}
			own := bytes.Equal(from, producer[:])
			return decodeDetail(first, parts, func(s *detailSeries) error {
				win := windows[s.id]
				if win == nil {
					win = &window{first: s.firstMS, last: s.lastMS}
					windows[s.id] = win
				}
				win.extend(s.firstMS, s.lastMS, s.closed)
				if own {
					start, end := s.span()
					spans = append(spans, ledger.MeterSpan{Device: devices[s.id], Producer: producer, FirstMS: start, LastMS: end})
				}
				return nil
			})
		}); err != nil {
		return err
	}
	for id := range devices {
		var err error
		if win := windows[id]; win == nil {
			_, err = w.tx.ExecContext(ctx, `DELETE FROM series_window WHERE series = ?`, id)
		} else {
			_, err = w.tx.ExecContext(ctx, `UPDATE series_window SET first_ms = ?, last_ms = ?, closed_ms = ? WHERE series = ?`,
				win.first, win.last, win.closed, id)
		}
		if err != nil {
			return err
		}
	}
	var others []ledger.MeterSpan
	if err := each(ctx, w.tx, `SELECT producer, spans FROM meter WHERE node = ? AND producer <> ?`, []any{node, producer[:]},
		func(rows *sql.Rows) error {
			var from, encoded []byte
			if err := rows.Scan(&from, &encoded); err != nil {
				return err
			}
			var err error
			others, err = appendSpans(others, [16]byte(from), encoded)
			return err
		}); err != nil {
		return err
	}
	return w.putMeter(ctx, node, producer, ledger.JoinSpans(spans, others))
}
