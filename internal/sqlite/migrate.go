package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"time"
)

var (
	// ErrNewer says that a newer program made the database.
	ErrNewer = errors.New("made by a newer version of this program")
	// ErrChanged says that an applied migration is not what this program has
	// under its number.
	ErrChanged = errors.New("an applied migration differs from this program's")
)

type migration struct {
	version int
	name    string
	sum     string
	text    string
}

var migrationName = regexp.MustCompile(`^([0-9]{4})_([a-z0-9_]+)\.sql$`)

// readMigrations returns the migrations in order. They are numbered 1, 2, 3 …
// without holes, so that a lost file is seen.
func readMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	list := make([]migration, 0, len(names))
	for i, name := range names { // Glob sorts
		m := migrationName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("migration %s: the name is not NNNN_name.sql", name)
		}
		version, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		if version != i+1 {
			return nil, fmt.Errorf("migration %s: expected number %04d here", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		sum := sha256.Sum256(text)
		list = append(list, migration{version: version, name: m[2], sum: hex.EncodeToString(sum[:]), text: string(text)})
	}
	return list, nil
}

const migrationTable = `CREATE TABLE IF NOT EXISTS schema_migration (
	version    INTEGER PRIMARY KEY,
	name       TEXT NOT NULL,
	sha256     TEXT NOT NULL,
	applied_at TEXT NOT NULL
) STRICT`

func migrate(ctx context.Context, db *sql.DB, list []migration) error {
	if _, err := db.ExecContext(ctx, migrationTable); err != nil {
		return err
	}
	applied, err := checkApplied(ctx, db, list)
	if err != nil {
		return err
	}
	for _, m := range list[applied:] {
		if err := apply(ctx, db, m); err != nil {
			return fmt.Errorf("migration %04d_%s: %w", m.version, m.name, err)
		}
	}
	return nil
}

// checkApplied returns how many migrations are applied, having compared each.
func checkApplied(ctx context.Context, db *sql.DB, list []migration) (int, error) {
	rows, err := db.QueryContext(ctx, `SELECT version, name, sha256 FROM schema_migration ORDER BY version`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	applied := 0
	for rows.Next() {
		var have migration
		if err := rows.Scan(&have.version, &have.name, &have.sum); err != nil {
			return 0, err
		}
		if have.version > len(list) {
			return 0, fmt.Errorf("schema %04d_%s: %w, which knows up to %04d: use that version or another data directory",
				have.version, have.name, ErrNewer, len(list))
		}
		if applied++; have.version != applied {
			return 0, fmt.Errorf("schema %04d is missing before %04d: %w", applied, have.version, ErrChanged)
		}
		if want := list[applied-1]; have.name != want.name || have.sum != want.sum {
			return 0, fmt.Errorf("schema %04d_%s: %w (%04d_%s): another build made this database",
				have.version, have.name, ErrChanged, want.version, want.name)
		}
	}
	return applied, rows.Err()
}

func apply(ctx context.Context, db *sql.DB, m migration) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit there is nothing to roll back
	if _, err := tx.ExecContext(ctx, m.text); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_migration (version, name, sha256, applied_at) VALUES (?, ?, ?, ?)`,
		m.version, m.name, m.sum, time.Now().UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	return tx.Commit()
}
