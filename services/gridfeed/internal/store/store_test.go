package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, false, func(_ *testing.T, _ string, now func() time.Time) store.Store {
		return store.NewMemory(now)
	})
}

func openSQLite(t *testing.T, dir string, now func() time.Time) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, true, openSQLite)
}

// TestIntervalsAreAppendOnly: the database itself refuses to forget.
func TestIntervalsAreAppendOnly(t *testing.T) {
	dir := t.TempDir()
	s := openSQLite(t, dir, time.Now)
	_, err := s.Append(t.Context(), []store.Batch{{
		Key:       store.Key{Subject: "DE", Signal: store.Marginal, Source: "s", Product: "p"},
		Intervals: []store.Interval{{Start: 1, End: 2}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "gridfeed.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, statement := range []string{`UPDATE interval SET value = '1'`, `DELETE FROM interval`} {
		if _, err := db.ExecContext(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "append only") {
			t.Errorf("%s: error %v", statement, err)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]store.Signal{
		"CARBON_AVERAGE_LIFECYCLE": store.AverageLifecycle, "average-direct": store.AverageDirect, "Marginal": store.Marginal,
	} {
		if got, err := store.ParseSignal(name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := store.ParseSignal("price"); err == nil || !strings.Contains(err.Error(), "want one of CARBON_AVERAGE_LIFECYCLE") {
		t.Errorf("error %v", err)
	}
}
