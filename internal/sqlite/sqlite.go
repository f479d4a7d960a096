package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// DB is an open database.
type DB struct {
	// Write is the only connection that writes. Its transactions are immediate.
	Write *sql.DB
	// Read is the pool for queries; a statement that would write fails.
	Read *sql.DB
}

// Open opens or makes the database at path, whose directory must exist, and
// brings its schema up to the newest of migrations: the files NNNN_name.sql in
// the root of the file system.
//
// It returns an error that wraps [ErrNewer] for a database with a migration that
// this program does not know, and [ErrChanged] if one that was applied differs
// from the file.
func Open(ctx context.Context, path string, migrations fs.FS) (*DB, error) {
	list, err := readMigrations(migrations)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	// The writer's cache holds the pages of one commit; readers share the page
	// cache of the system and need little of their own.
	write, err := open(path, "immediate", "cache_size(-16384)")
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	write.SetMaxIdleConns(1)
	db := &DB{Write: write}
	if err := migrate(ctx, write, list); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), db.Close())
	}
	db.Read, err = open(path, "deferred", "cache_size(-4096)", "query_only(1)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", path, err), db.Close())
	}
	readers := max(4, runtime.GOMAXPROCS(0))
	db.Read.SetMaxOpenConns(readers)
	db.Read.SetMaxIdleConns(readers)
	return db, nil
}

func open(path, txlock string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {txlock}}
	// busy_timeout comes first: the other pragmas may have to wait.
	q["_pragma"] = append([]string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)",
	}, pragmas...)
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

// Close closes both handles. The last handle to close folds the write-ahead log
// into the database.
func (db *DB) Close() error {
	var err error
	if db.Read != nil {
		err = db.Read.Close()
	}
	return errors.Join(err, db.Write.Close())
}
