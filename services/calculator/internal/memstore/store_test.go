package memstore_test

import (
	"testing"
	"time"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
	"github.com/wattfold/wattfold/services/calculator/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, false, func(_ *testing.T, _ string, now func() time.Time) ledger.Store {
		return memstore.New(now)
	})
}
