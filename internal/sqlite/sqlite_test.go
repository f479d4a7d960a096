package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/wattfold/wattfold/internal/sqlite"
)

func files(texts ...string) fs.FS {
	out := fstest.MapFS{}
	for i, text := range texts {
		out["000"+strconv.Itoa(i+1)+"_step.sql"] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

const (
	first  = `CREATE TABLE a (x INTEGER NOT NULL) STRICT; CREATE INDEX a_x ON a (x);`
	second = `ALTER TABLE a ADD COLUMN y TEXT; INSERT INTO a (x, y) VALUES (1, 'one');`
)

func open(t *testing.T, path string, migrations fs.FS) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, migrations)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func count(t *testing.T, db *sqlite.DB) int {
	t.Helper()
	var n int
	if err := db.Read.QueryRowContext(t.Context(), `SELECT count(*) FROM a`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c%20#.db") // a path is not a URL
	for _, migrations := range []fs.FS{files(first), files(first, second), files(first, second)} {
		if err := open(t, path, migrations).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	db := open(t, path, files(first, second))
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows: a migration ran %d times", n, n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	_, err := sqlite.Open(t.Context(), path, files(first))
	if !errors.Is(err, sqlite.ErrNewer) || !strings.Contains(err.Error(), path) {
		t.Errorf("an older program: got %v", err)
	}
	_, err = sqlite.Open(t.Context(), path, files(first, second+" "))
	if !errors.Is(err, sqlite.ErrChanged) {
		t.Errorf("another second step: got %v", err)
	}
}

func TestFailedMigrationLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	_, err := sqlite.Open(t.Context(), path, files(first, `INSERT INTO a (x) VALUES (5); INSERT INTO nowhere VALUES (1);`))
	if err == nil || !strings.Contains(err.Error(), "migration 0002_step: ") {
		t.Fatalf("got %v", err)
	}
	if n := count(t, open(t, path, files(first))); n != 0 {
		t.Errorf("%d rows of a step that failed", n)
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"1_a.sql", "0002_a.sql", "0001-a.sql", "0001_A.sql"} {
		_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), fstest.MapFS{name: {Data: []byte(first)}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestDirectoryMustExist(t *testing.T) {
	_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "no", "a.db"), files(first))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestPragmas(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"), files(first))
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000",
	} {
		var got string
		if err := db.Write.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", pragma, got, err, want)
		}
	}
}

func TestReadersNeitherWriteNorWait(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"), files(first))
	if _, err := db.Read.ExecContext(t.Context(), `INSERT INTO a VALUES (1)`); err == nil {
		t.Error("a reader wrote")
	}
	tx, err := db.Write.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `INSERT INTO a VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("a reader saw %d uncommitted rows", n)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("a reader saw %d rows after the commit", n)
	}
}

// A transaction takes the write lock when it begins, so that two programs (or a
// mistaken second handle) never find out at the first write.
func TestTransactionsBeginImmediate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	a, b := open(t, path, files(first)), open(t, path, files(first))
	if _, err := b.Write.ExecContext(t.Context(), `PRAGMA busy_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	tx, err := a.Write.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if other, err := b.Write.BeginTx(t.Context(), nil); err == nil {
		t.Error("two transactions began to write")
		_ = other.Rollback()
	}
}

func TestLock(t *testing.T) {
	if dir := os.Getenv("SQLITE_TEST_LOCK"); dir != "" {
		holdLock(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLock$", "-test.v")
	cmd.Env = append(os.Environ(), "SQLITE_TEST_LOCK="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "locked") {
	}

	_, err = sqlite.Lock(dir)
	if !errors.Is(err, sqlite.ErrLocked) ||
		!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "pid "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("a directory in use: got %v", err)
	}

	if err := cmd.Process.Kill(); err != nil { // the lock ends with its process, however it ends
		t.Fatal(err)
	}
	_ = cmd.Wait()
	_ = in.Close()
	release, err := sqlite.Lock(dir)
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	if _, err := sqlite.Lock(dir); !errors.Is(err, sqlite.ErrLocked) {
		t.Errorf("twice in one process: got %v", err)
	}
	release()
	release, err = sqlite.Lock(dir)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	release()
}

// holdLock is the other process: it locks dir and waits to be killed.
func holdLock(t *testing.T, dir string) {
	if _, err := sqlite.Lock(dir); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("locked\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "a.db"), files(first)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
