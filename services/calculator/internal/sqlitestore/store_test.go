package sqlitestore_test

import (
	"testing"
	"time"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
	"github.com/wattfold/wattfold/services/calculator/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, true, func(t *testing.T, dir string, now func() time.Time) ledger.Store {
		s, err := sqlitestore.Open(t.Context(), dir, now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
