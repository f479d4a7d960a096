package storetest

import (
	"context"
	"errors"
	"sync"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// ErrBroken is what a [Faulty] store fails with.
var ErrBroken = errors.New("broken on purpose")

// Fault is a way for Commit to fail.
type Fault uint8

// The ways. A Commit that fails clears what was set.
const (
	NoFault    Fault = iota
	NotApplied       // fails, and nothing was stored
	Applied          // fails, yet everything was stored
)

// Faulty passes everything on to a store, except that a Commit fails when it is
// told to: before it is applied, or after.
type Faulty struct {
	ledger.Store

	mu    sync.Mutex
	after int
	fault Fault
}

// Break makes a Commit fail, having let the next few pass.
func (f *Faulty) Break(fault Fault, after int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.after = fault, after
}

// Commit implements [ledger.Store].
func (f *Faulty) Commit(ctx context.Context, tx *ledger.Tx) (ledger.Committed, error) {
	switch f.next() {
	case NotApplied:
		return ledger.Committed{}, ErrBroken
	case Applied:
		if _, err := f.Store.Commit(ctx, tx); err != nil {
			return ledger.Committed{}, err
		}
		return ledger.Committed{}, ErrBroken
	default:
		return f.Store.Commit(ctx, tx)
	}
}

func (f *Faulty) next() Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == NoFault || f.after > 0 {
		f.after--
		return NoFault
	}
	fault := f.fault
	f.fault = NoFault
	return fault
}
