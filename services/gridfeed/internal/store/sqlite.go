package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// fileName is the database's name in its directory.
const fileName = "gridfeed.db"

// SQLite is a store in a file. Make one with [Open].
type SQLite struct {
	db *sqlite.DB

	// mu is held by a writer from the moment that it is given to the end of its
	// transaction, so that moments are committed in their order.
	mu    sync.Mutex
	clock clock
}

// Open opens the store in a directory that exists, or makes it there. It does not lock
// the directory: that is up to who owns it.
func Open(ctx context.Context, dir string, now func() time.Time) (*SQLite, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("timelines: %w", err)
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, fileName), files)
	if err != nil {
		return nil, fmt.Errorf("timelines: %w", err)
	}
	s := &SQLite{db: db, clock: clock{now: now}}
	if err := db.Read.QueryRowContext(ctx, `SELECT recorded_ms FROM clock`).Scan(&s.clock.last); err != nil {
		return nil, errors.Join(fmt.Errorf("timelines: read the clock: %w", err), db.Close())
	}
	return s, nil
}

// Close implements [Store].
func (s *SQLite) Close() error { return s.db.Close() }

// Hold implements [Store]. It waits for the writer of the moment.
func (s *SQLite) Hold(ms int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock.hold(ms)
}

// write runs fn in a transaction with a moment of its own.
func (s *SQLite) write(ctx context.Context, fn func(tx *sql.Tx, recordedMS int64, first bool) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	first := s.clock.untouched()
	recordedMS := s.clock.next()
	if _, err := tx.ExecContext(ctx, `UPDATE clock SET recorded_ms = ?`, recordedMS); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	if err := fn(tx, recordedMS, first); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Append implements [Store].
func (s *SQLite) Append(ctx context.Context, batches []Batch) (Receipt, error) {
	receipt := Receipt{Changes: make([]Change, len(batches))}
	err := s.write(ctx, func(tx *sql.Tx, recordedMS int64, _ bool) error {
		receipt.RecordedMS = recordedMS
		insert, err := tx.PrepareContext(ctx, `INSERT INTO interval
			(timeline, start_slot, revision, end_slot, value, quality, known_ms, recorded_ms, raw_value, raw_unit)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		defer func() { _ = insert.Close() }()
		for i, batch := range batches {
			if receipt.Changes[i], err = appendBatch(ctx, tx, insert, batch, recordedMS); err != nil {
				return fmt.Errorf("%s %s of %s, %s: %w", batch.Subject, batch.Signal, batch.Source, batch.Product, err)
			}
		}
		return nil
	})
	if err != nil {
		return Receipt{}, fmt.Errorf("append: %w", err)
	}
	return receipt, nil
}

func appendBatch(ctx context.Context, tx *sql.Tx, insert *sql.Stmt, batch Batch, recordedMS int64) (Change, error) {
	t := Timeline{Key: batch.Key}
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id, attribution, revisions, start_slot, end_slot FROM timeline
		WHERE subject = ? AND signal = ? AND source = ? AND product = ?`,
		batch.Subject, batch.Signal, batch.Source, batch.Product).
		Scan(&id, &t.Attribution, &t.Revisions, &t.Start, &t.End)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Change{}, fmt.Errorf("find: %w", err)
	}
	var stored []timeline.Record
	if id != 0 {
		if stored, err = readRecords(ctx, tx, id, int(t.Revisions)); err != nil { //nolint:gosec // they are in memory in a moment
			return Change{}, err
		}
	}
	fresh, places, change := apply(stored, batch, recordedMS)
	if len(stored)+len(fresh) == 0 {
		return change, nil
	}
	if batch.Attribution != "" {
		t.Attribution = batch.Attribution
	}
	t.summarise(fresh)
	if id == 0 {
		made, err := tx.ExecContext(ctx, `INSERT INTO timeline
			(subject, signal, source, product, attribution, first_recorded_ms, revisions, start_slot, end_slot)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.Subject, t.Signal, t.Source, t.Product, t.Attribution, fresh[0].RecordedMS, t.Revisions, t.Start, t.End)
		if err == nil {
			id, err = made.LastInsertId()
		}
		if err != nil {
			return Change{}, fmt.Errorf("make: %w", err)
		}
	} else if _, err := tx.ExecContext(ctx, `UPDATE timeline
		SET attribution = ?, revisions = ?, start_slot = ?, end_slot = ? WHERE id = ?`,
		t.Attribution, t.Revisions, t.Start, t.End, id); err != nil {
		return Change{}, fmt.Errorf("describe: %w", err)
	}
	for i := range fresh {
		r, in := &fresh[i], &batch.Intervals[places[i]]
		var value, rawValue, rawUnit sql.NullString
		if !r.Retracted {
			value = sql.NullString{String: r.Value.String(), Valid: true}
			if in.RawUnit != "" {
				rawValue = sql.NullString{String: in.Raw.String(), Valid: true}
				rawUnit = sql.NullString{String: in.RawUnit, Valid: true}
			}
		}
		if _, err := insert.ExecContext(ctx, id, r.Start, r.Revision, r.End, value, r.Quality, r.KnownMS, r.RecordedMS,
			rawValue, rawUnit); err != nil {
			return Change{}, fmt.Errorf("insert: %w", err)
		}
	}
	return change, nil
}

// querier is a transaction or a pool.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readRecords reads a timeline of about n records in the order of Store.Series.
func readRecords(ctx context.Context, q querier, id int64, n int) ([]timeline.Record, error) {
	rows, err := q.QueryContext(ctx, `SELECT start_slot, end_slot, revision, value, quality, known_ms, recorded_ms
		FROM interval WHERE timeline = ? ORDER BY start_slot, revision`, id)
	if err != nil {
		return nil, fmt.Errorf("read intervals: %w", err)
	}
	defer func() { _ = rows.Close() }()
	records := make([]timeline.Record, 0, n)
	for rows.Next() {
		var (
			r     timeline.Record
			value sql.NullString
		)
		if err := rows.Scan(&r.Start, &r.End, &r.Revision, &value, &r.Quality, &r.KnownMS, &r.RecordedMS); err != nil {
			return nil, fmt.Errorf("read intervals: %w", err)
		}
		if r.Retracted = !value.Valid; value.Valid {
			if r.Value, err = unit.ParseDecimal(value.String); err != nil {
				return nil, fmt.Errorf("read interval from %s: %w", r.Start, err)
			}
		}
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read intervals: %w", err)
	}
	return records, nil
}

// Timelines implements [Store].
func (s *SQLite) Timelines(ctx context.Context) ([]Timeline, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT subject, signal, source, product, attribution, revisions, start_slot, end_slot
		FROM timeline ORDER BY subject, signal, source, product`)
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []Timeline
	for rows.Next() {
		var t Timeline
		if err := rows.Scan(&t.Subject, &t.Signal, &t.Source, &t.Product, &t.Attribution, &t.Revisions, &t.Start, &t.End); err != nil {
			return nil, fmt.Errorf("read timelines: %w", err)
		}
		list = append(list, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	return list, nil
}

// Series implements [Store].
func (s *SQLite) Series(ctx context.Context, subject string, signal Signal) ([]timeline.Series, error) {
	// One transaction, so that all timelines are seen after the same commit.
	tx, err := s.db.Read.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	type found struct {
		id        int64
		revisions int
	}
	rows, err := tx.QueryContext(ctx, `SELECT id, revisions, source, product FROM timeline
		WHERE subject = ? AND signal = ? ORDER BY first_recorded_ms DESC, source, product`, subject, signal)
	if err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var (
		places []found
		series []timeline.Series
	)
	for rows.Next() {
		var (
			f  found
			in timeline.Series
		)
		if err := rows.Scan(&f.id, &f.revisions, &in.Source, &in.Product); err != nil {
			return nil, fmt.Errorf("read series: %w", err)
		}
		places, series = append(places, f), append(series, in)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read series: %w", err)
	}
	for i, f := range places {
		if series[i].Records, err = readRecords(ctx, tx, f.id, f.revisions); err != nil {
			return nil, err
		}
	}
	return series, nil
}

// entryJSON is how an entry of a chain is stored.
type entryJSON struct {
	Source   string `json:"source"`
	Product  string `json:"product"`
	MaxAgeMS int64  `json:"max_age_ms,omitempty"`
}

// DeclareChains implements [Store].
func (s *SQLite) DeclareChains(ctx context.Context, chains []Chain) error {
	recorded, err := s.Chains(ctx)
	if err != nil {
		return err
	}
	changed := changedChains(recorded, chains)
	if len(changed) == 0 {
		return nil
	}
	err = s.write(ctx, func(tx *sql.Tx, recordedMS int64, first bool) error {
		if first {
			recordedMS = timeline.SinceEver
		}
		for _, c := range changed {
			entries := make([]entryJSON, len(c.Entries))
			for i, e := range c.Entries {
				entries[i] = entryJSON(e)
			}
			text, err := json.Marshal(entries)
			if err != nil {
				return fmt.Errorf("write entries: %w", err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO chain (subject, signal, recorded_ms, entries) VALUES (?, ?, ?, ?)`,
				c.Subject, c.Signal, recordedMS, string(text)); err != nil {
				return fmt.Errorf("insert: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("declare chains: %w", err)
	}
	return nil
}

// Chains implements [Store].
func (s *SQLite) Chains(ctx context.Context) ([]Chain, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT subject, signal, recorded_ms, entries FROM chain
		ORDER BY subject, signal, recorded_ms`)
	if err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var chains []Chain
	for rows.Next() {
		var (
			c       Chain
			text    string
			entries []entryJSON
		)
		if err := rows.Scan(&c.Subject, &c.Signal, &c.RecordedMS, &text); err != nil {
			return nil, fmt.Errorf("read chains: %w", err)
		}
		if err := json.Unmarshal([]byte(text), &entries); err != nil {
			return nil, fmt.Errorf("read chain of %s: %w", c.Subject, err)
		}
		for _, e := range entries {
			c.Entries = append(c.Entries, timeline.Entry(e))
		}
		chains = append(chains, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read chains: %w", err)
	}
	return chains, nil
}
