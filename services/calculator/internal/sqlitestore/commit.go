package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// writer is one commit.
type writer struct {
	tx     *sql.Tx
	names  *names
	stmts  map[string]*sql.Stmt
	booked int64
	nowMS  int64

	lastDetail int64
	details    *bulk
	// scratch is where details are encoded; the driver keeps what it is given
	// until the statement runs, so each row has its own piece of it.
	scratch []byte

	postings map[postingKey]*amounts
	windows  map[int64]*window
	memos    []memo

	// accounts are those of the series of accountsNode.
	accountsNode int64
	accounts     map[int64]int64
}

type postingKey struct {
	account   int64
	slot      slot.Slot
	partition int
}

type amounts struct {
	energy                          unit.Energy
	observed, interpolated, missing int64
}

// window is how a series' window grows.
type window struct {
	series              *ledger.Series
	first, last, closed int64
}

func (w *window) extend(first, last int64, closed bool) {
	w.first, w.last = min(w.first, first), max(w.last, last)
	if closed {
		w.closed = max(w.closed, last)
	}
}

type memo struct {
	series *ledger.Series
	memo   ledger.Memo
}

// Commit implements [ledger.Store].
func (s *Store) Commit(ctx context.Context, t *ledger.Tx) (ledger.Committed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := writer{
		names:    &s.names,
		nowMS:    t.CommitMS,
		stmts:    map[string]*sql.Stmt{},
		postings: map[postingKey]*amounts{},
		windows:  map[int64]*window{},
	}
	err := s.write(ctx, func(tx *sql.Tx) error {
		w.tx = tx
		w.details = newBulk(tx, `INSERT INTO detail
			(id, node, producer, sequence, first_slot, last_slot, booked, sign, import, parts)`, "", 10)
		return w.commit(ctx, t, s.held)
	})
	if err != nil {
		// What was noted in the series during the commit may not exist.
		for _, m := range w.memos {
			m.series.Memo = ledger.Memo{}
		}
		return ledger.Committed{}, fmt.Errorf("ledger: %w", err)
	}
	return ledger.Committed{Booked: w.booked, LastDetail: w.lastDetail}, nil
}

// stmt returns a statement prepared for this transaction. A statement that cannot
// be prepared says so when it is run.
func (w *writer) stmt(ctx context.Context, query string) statement {
	if s := w.stmts[query]; s != nil {
		return prepared{s}
	}
	s, err := w.tx.PrepareContext(ctx, query)
	if err != nil {
		return unprepared{w.tx, query}
	}
	w.stmts[query] = s
	return prepared{s}
}

func (w *writer) commit(ctx context.Context, t *ledger.Tx, held int64) error {
	if err := w.fence(ctx, t); err != nil {
		return err
	}
	var last int64
	if err := w.tx.QueryRowContext(ctx, `SELECT last_booked, last_detail FROM ledger`).Scan(&last, &w.lastDetail); err != nil {
		return err
	}
	w.booked = max(last, held+1, (t.CommitMS+999)/1000)
	for _, name := range t.Sites {
		if _, err := w.site(ctx, name); err != nil {
			return err
		}
	}
	producers := make(map[producerID]int64, len(t.Producers))
	for i := range t.Producers {
		m := &t.Producers[i]
		id, err := w.moveProducer(ctx, m)
		if err != nil {
			return fmt.Errorf("producer %x epoch %d of site %q: %w", m.New.Producer, m.New.Epoch, m.Site, err)
		}
		producers[producerID{m.Site, m.New.ProducerKey}] = id
	}
	imports := make(map[producerID]bool)
	for i := range t.Producers {
		m := &t.Producers[i]
		imports[producerID{m.Site, m.New.ProducerKey}] = m.New.Import != nil
	}
	for i := range t.Batches {
		b := &t.Batches[i]
		key := producerID{b.Site, b.ProducerKey}
		producer, ok := producers[key]
		if !ok {
			return fmt.Errorf("batch %d of producer %x, whose floor does not move", b.Sequence, b.Producer)
		}
		if err := w.batch(ctx, b, producer, imports[key]); err != nil {
			return err
		}
	}
	if err := w.details.flush(ctx); err != nil {
		return fmt.Errorf("details: %w", err)
	}
	if err := w.putWindows(ctx); err != nil {
		return fmt.Errorf("windows: %w", err)
	}
	for i := range t.Meters {
		m := &t.Meters[i]
		_, n, err := w.node(ctx, m.Site, m.Node)
		if err != nil {
			return err
		}
		if err := w.putMeter(ctx, n.id, m.Producer, m.Spans); err != nil {
			return fmt.Errorf("meters: %w", err)
		}
	}
	for i := range t.Producers {
		if m := &t.Producers[i]; m.Replaces() {
			if err := w.supersede(ctx, m); err != nil {
				return fmt.Errorf("replace %x: %w", m.New.Producer, err)
			}
		}
	}
	if err := w.details.flush(ctx); err != nil {
		return fmt.Errorf("details: %w", err)
	}
	if err := w.putPostings(ctx); err != nil {
		return fmt.Errorf("postings: %w", err)
	}
	if err := w.reject(ctx, t.Rejected); err != nil {
		return fmt.Errorf("rejected: %w", err)
	}
	_, err := w.tx.ExecContext(ctx, `UPDATE ledger SET last_booked = ?, last_detail = ?`, w.booked, w.lastDetail)
	return err
}

type producerID struct {
	site string
	ledger.ProducerKey
}

// fence moves the positions of the partitions, if they are still the writer's.
func (w *writer) fence(ctx context.Context, t *ledger.Tx) error {
	for i := range t.Fences {
		p := &t.Fences[i]
		done, err := w.stmt(ctx, `UPDATE partition SET stream = ?, sequence = ? WHERE id = ? AND fence = ? AND owner = ?`).
			ExecContext(ctx, p.Stream, int64(p.Sequence), p.Partition, p.Fence, t.Owner)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
		n, err := done.RowsAffected()
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
		if n != 1 {
			return fmt.Errorf("partition %d: %w", p.Partition, ledger.ErrFenced)
		}
	}
	return nil
}

// batch adds a batch's detail, and its parts to the postings and windows.
func (w *writer) batch(ctx context.Context, b *ledger.TxBatch, producer int64, imported bool) error {
	if len(b.Series) == 0 {
		return nil
	}
	site, n, err := w.node(ctx, b.Site, b.Node)
	if err != nil {
		return err
	}
	first, last := slotsOf(b.Series)
	for i := range b.Series {
		s := &b.Series[i]
		if s.Memo.Series == 0 {
			m, err := w.series(ctx, site, n.id, s.Series)
			if err != nil {
				return err
			}
			s.Memo = m
			w.memos = append(w.memos, memo{s.Series, m})
		}
		for j := range s.Parts {
			if err := w.post(int(b.Producer[0]), s.Memo.Account, &s.Parts[j], 1); err != nil {
				return err
			}
		}
		win := w.windows[s.Memo.Series]
		if win == nil {
			win = &window{series: s.Series, first: s.FirstMS, last: s.LastMS}
			w.windows[s.Memo.Series] = win
		}
		win.extend(s.FirstMS, s.LastMS, s.Closed)
	}
	if span := int64(last - first); span > n.span {
		if _, err := w.tx.ExecContext(ctx, `UPDATE node SET span = ? WHERE id = ?`, span, n.id); err != nil {
			return err
		}
		n.span = span
	}
	start := len(w.scratch)
	w.scratch = encodeDetail(w.scratch, first, b.Series)
	err = w.insertDetail(ctx, detailHead{
		node: n.id, producer: producer, sequence: int64(b.Sequence), first: int64(first), last: int64(last),
		sign: 1, imported: imported,
	}, w.scratch[start:len(w.scratch):len(w.scratch)])
	if len(w.scratch) > 1<<20 {
		w.scratch = make([]byte, 0, len(w.scratch))
	}
	return err
}

// slotsOf returns the first and last slot that a batch touches.
func slotsOf(series []ledger.TxSeries) (first, last slot.Slot) {
	first, last = slot.Of(series[0].FirstMS), slot.Of(series[0].FirstMS)
	for i := range series {
		s := &series[i]
		first, last = min(first, slot.Of(s.FirstMS)), max(last, slot.Of(s.FirstMS))
		if n := len(s.Parts); n > 0 {
			first, last = min(first, s.Parts[0].Slot), max(last, s.Parts[n-1].Slot)
		}
	}
	return first, last
}

type detailHead struct {
	node, producer, sequence, first, last, sign int64
	imported                                    bool
}

func (w *writer) insertDetail(ctx context.Context, h detailHead, parts []byte) error {
	w.lastDetail++
	return w.details.add(ctx, w.lastDetail, h.node, h.producer, h.sequence, h.first, h.last, w.booked, h.sign, h.imported, parts)
}

// spill is above every partition.
const spill = 256

// post adds a part, times sign, to its posting of this transaction. What is taken
// back always fits: it was booked in several seconds, perhaps, and is taken back in
// one, so that a row may not hold it. It then goes on in a row that no partition
// has; rows of an account and slot are summed when they are read.
func (w *writer) post(partition int, account int64, p *segment.Part, sign int64) error {
	e := unit.Energy(sign) * p.Energy
	for key := (postingKey{account, p.Slot, partition}); ; key.partition += spill {
		a := w.postings[key]
		if a == nil {
			a = new(amounts)
			w.postings[key] = a
		}
		sum := a.energy + e
		if (sum < a.energy) == (e < 0) {
			a.energy = sum
			a.observed += sign * p.ObservedMS
			a.interpolated += sign * p.InterpolatedMS
			a.missing += sign * p.MissingMS
			return nil
		}
		if sign > 0 {
			return fmt.Errorf("slot %v: %w", p.Slot, ledger.ErrOverflow)
		}
	}
}

func (w *writer) putPostings(ctx context.Context) error {
	keys := slices.SortedFunc(maps.Keys(w.postings), func(a, b postingKey) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.slot, b.slot), cmp.Compare(a.partition, b.partition))
	})
	rows := newBulk(w.tx, `INSERT INTO posting
		(account, slot, booked, partition, energy, observed_ms, interpolated_ms, missing_ms)`,
		`ON CONFLICT DO UPDATE SET energy = energy + excluded.energy, observed_ms = observed_ms + excluded.observed_ms,
		interpolated_ms = interpolated_ms + excluded.interpolated_ms, missing_ms = missing_ms + excluded.missing_ms`, 8)
	add := func() error {
		for _, k := range keys {
			a := w.postings[k]
			if err := rows.add(ctx, k.account, int64(k.slot), ledger.BookedOf(k.slot, w.booked), k.partition,
				int64(a.energy), a.observed, a.interpolated, a.missing); err != nil {
				return err
			}
		}
		return rows.flush(ctx)
	}
	err := add()
	if err != nil && strings.Contains(err.Error(), "cannot store REAL value in INTEGER column") {
		return errors.Join(ledger.ErrOverflow, err)
	}
	return err
}

func (w *writer) putWindows(ctx context.Context) error {
	rows := newBulk(w.tx, `INSERT INTO series_window
		(series, first_ms, last_ms, closed_ms, period_ms, clip_start_ms, clip_end_ms, booked)`,
		`ON CONFLICT DO UPDATE SET first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
		closed_ms = max(closed_ms, excluded.closed_ms), period_ms = excluded.period_ms,
		clip_start_ms = excluded.clip_start_ms, clip_end_ms = excluded.clip_end_ms`, 8)
	for _, id := range slices.Sorted(maps.Keys(w.windows)) {
		win := w.windows[id]
		var clipStart, clipEnd int64
		if r := win.series.Run; r != nil {
			clipStart, clipEnd = r.ClipStartMS, r.ClipEndMS
		}
		if err := rows.add(ctx, id, win.first, win.last, win.closed, int64(win.series.PeriodMS), clipStart, clipEnd, w.booked); err != nil {
			return err
		}
	}
	return rows.flush(ctx)
}

func (w *writer) reject(ctx context.Context, rejected map[string]map[string]uint64) error {
	for _, name := range slices.Sorted(maps.Keys(rejected)) {
		site, err := w.site(ctx, name)
		if err != nil {
			return err
		}
		for _, reason := range slices.Sorted(maps.Keys(rejected[name])) {
			if _, err := w.tx.ExecContext(ctx, `INSERT INTO rejected (site, reason, day, count) VALUES (?, ?, ?, ?)
				ON CONFLICT DO UPDATE SET count = count + excluded.count`,
				site, reason, w.booked/86400, int64(rejected[name][reason])); err != nil {
				return err
			}
		}
	}
	return nil
}

// statement is a query that may be prepared.
type statement interface {
	ExecContext(ctx context.Context, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, args ...any) *sql.Row
}

type prepared struct{ *sql.Stmt }

type unprepared struct {
	tx    *sql.Tx
	query string
}

func (u unprepared) ExecContext(ctx context.Context, args ...any) (sql.Result, error) {
	return u.tx.ExecContext(ctx, u.query, args...)
}

func (u unprepared) QueryRowContext(ctx context.Context, args ...any) *sql.Row {
	return u.tx.QueryRowContext(ctx, u.query, args...)
}
