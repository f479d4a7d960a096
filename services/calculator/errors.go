package calculator

import "errors"

var (
	// ErrFenced says that another calculator owns the partitions now: this one
	// must stop writing.
	ErrFenced = errors.New("another calculator took the partitions over")
	// ErrConflict says that a producer's floor moved under a commit.
	ErrConflict = errors.New("a producer's floor moved under the commit")
)
