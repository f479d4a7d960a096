package sqlitestore

import (
	"context"
	"database/sql"
	"strings"
)

// bulkRows is how many rows one INSERT takes: 100 make it three times as fast as
// one by one, and more gain nothing.
const bulkRows = 100

// bulk inserts rows, many a statement.
type bulk struct {
	tx      *sql.Tx
	into    string // up to VALUES
	then    string // after the rows
	columns int
	full    *sql.Stmt
	args    []any
}

func newBulk(tx *sql.Tx, into, then string, columns int) *bulk {
	return &bulk{tx: tx, into: into, then: then, columns: columns, args: make([]any, 0, bulkRows*columns)}
}

func (b *bulk) text(rows int) string {
	row := "(?" + strings.Repeat(", ?", b.columns-1) + ")"
	return b.into + " VALUES " + row + strings.Repeat(", "+row, rows-1) + " " + b.then
}

func (b *bulk) add(ctx context.Context, values ...any) error {
	b.args = append(b.args, values...)
	if len(b.args) < bulkRows*b.columns {
		return nil
	}
	if b.full == nil {
		var err error
		if b.full, err = b.tx.PrepareContext(ctx, b.text(bulkRows)); err != nil {
			return err
		}
	}
	_, err := b.full.ExecContext(ctx, b.args...)
	b.args = b.args[:0]
	return err
}

// flush inserts what is left; the transaction closes the statement.
func (b *bulk) flush(ctx context.Context) error {
	if len(b.args) == 0 {
		return nil
	}
	_, err := b.tx.ExecContext(ctx, b.text(len(b.args)/b.columns), b.args...)
	b.args = b.args[:0]
	return err
}
