package ledger

import "errors"

var (
	// ErrFenced says that another calculator owns the partitions now: this one
	// must stop writing.
	ErrFenced = errors.New("another calculator took the partitions over")
	// ErrConflict says that a producer's floor moved under a commit.
	ErrConflict = errors.New("a producer's floor moved under the commit")
	// ErrOverflow says that a posting would not fit 64 bits: more than 15.4 GW in
	// one account over a whole slot. Nothing was changed.
	ErrOverflow = errors.New("a posting does not fit 64 bits of half-microjoules")
)
