package sqlitestore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/wattfold/wattfold/internal/sqlite"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

//go:embed migrations/*.sql
var migrations embed.FS

// fileName is the database's name in its directory.
const fileName = "ledger.db"

// Store is a ledger in a file. Make one with [Open].
type Store struct {
	db  *sqlite.DB
	now func() time.Time

	// mu is held by a writer from the moment that it is given its second to the
	// end of its transaction.
	mu sync.Mutex
	// held is the second promised by Hold.
	held  int64
	names names
}

var _ ledger.Store = (*Store)(nil)

// Open opens the ledger in a directory that exists, or makes it there. It does not
// lock the directory: that is up to who owns it. now is the ledger's clock.
func Open(ctx context.Context, dir string, now func() time.Time) (*Store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, fileName), files)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &Store{db: db, now: now, names: newNames()}, nil
}

// Close implements [ledger.Store].
func (s *Store) Close() error { return s.db.Close() }

// Hold implements [ledger.Store].
func (s *Store) Hold(_ context.Context, second int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = max(s.held, min(second, s.now().Unix()))
	return nil
}

// write runs fn in a transaction. If it fails, what fn added to the names is
// forgotten.
func (s *Store) write(ctx context.Context, fn func(tx *sql.Tx) error) (err error) {
	defer func() {
		if err != nil {
			s.names = newNames()
		}
	}()
	tx, err := s.db.Write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// read runs fn in a transaction that sees one commit.
func (s *Store) read(ctx context.Context, what string, fn func(tx *sql.Tx) error) error {
	tx, err := s.db.Read.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("ledger: %s: begin: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	if err := fn(tx); err != nil {
		return fmt.Errorf("ledger: %s: %w", what, err)
	}
	return nil
}

// each calls visit for every row of a query.
func each(ctx context.Context, tx *sql.Tx, query string, args []any, visit func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := visit(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Incarnation implements [ledger.Store].
func (s *Store) Incarnation(ctx context.Context) (string, error) {
	var name string
	err := s.db.Read.QueryRowContext(ctx, `SELECT incarnation FROM ledger`).Scan(&name)
	if err != nil {
		return "", fmt.Errorf("ledger: incarnation: %w", err)
	}
	return name, nil
}

// Acquire implements [ledger.Store].
func (s *Store) Acquire(ctx context.Context, owner, stream string, partitions []int) ([]ledger.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	positions := make([]ledger.Position, len(partitions))
	err := s.write(ctx, func(tx *sql.Tx) error {
		for i, id := range partitions {
			p := &positions[i]
			p.Partition = id
			var sequence int64
			err := tx.QueryRowContext(ctx, `INSERT INTO partition (id, fence, owner, stream, sequence)
				VALUES (?, 1, ?, ?, 0)
				ON CONFLICT (id) DO UPDATE SET fence = fence + 1, owner = excluded.owner
				RETURNING fence, stream, sequence`, id, owner, stream).Scan(&p.Fence, &p.Stream, &sequence)
			if err != nil {
				return fmt.Errorf("partition %d: %w", id, err)
			}
			p.Sequence = uint64(sequence)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: acquire: %w", err)
	}
	return positions, nil
}

// Meters implements [ledger.Store].
func (s *Store) Meters(ctx context.Context, site, node string) ([]ledger.MeterSpan, error) {
	var spans []ledger.MeterSpan
	err := s.read(ctx, "meters", func(tx *sql.Tx) error {
		return each(ctx, tx, `SELECT m.producer, m.spans FROM site s
			JOIN node n ON n.site = s.id JOIN meter m ON m.node = n.id
			WHERE s.name = ? AND n.name = ? ORDER BY m.producer`, []any{site, node},
			func(rows *sql.Rows) error {
				var producer, encoded []byte
				if err := rows.Scan(&producer, &encoded); err != nil {
					return err
				}
				var err error
				spans, err = appendSpans(spans, [16]byte(producer), encoded)
				return err
			})
	})
	return spans, err
}

// Producers implements [ledger.Store].
func (s *Store) Producers(ctx context.Context, site string, keys []ledger.ProducerKey) ([]ledger.Producer, error) {
	var found []ledger.Producer
	err := s.read(ctx, "producers", func(tx *sql.Tx) error {
		for _, key := range keys {
			query, args := producerQuery+` WHERE s.name = ? AND p.producer = ?`, []any{site, key.Producer[:]}
			if key.Epoch != 0 {
				query, args = query+` AND p.epoch = ?`, append(args, int64(key.Epoch))
			}
			if err := each(ctx, tx, query+` ORDER BY p.epoch`, args, func(rows *sql.Rows) error {
				row, err := scanProducer(rows)
				found = append(found, row.Producer)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

// errCorrupt is wrapped by errors about blobs that this package did not write.
var errCorrupt = errors.New("the ledger's file is damaged: restore a back-up; producers resend what came after it")
