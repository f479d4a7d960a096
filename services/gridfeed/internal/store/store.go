package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// WhenRecorded is the KnownMS of an interval whose publisher did not say when it was
// known: it becomes the moment of recording.
const WhenRecorded int64 = 0

// Store is append-only memory of timelines. All methods may be called at once.
type Store interface {
	// Append adds the intervals of each batch in their order, in one transaction, and
	// says what became of them. On an error the caller does not know whether the call
	// was applied; it was applied wholly or not at all, and may be repeated.
	Append(ctx context.Context, batches []Batch) (Receipt, error)

	// Timelines lists what there is, by subject, signal, source and product.
	Timelines(ctx context.Context) ([]Timeline, error)

	// Series returns every record of a subject's signal: one series a timeline, that
	// of the newest first record first, its records by start, then revision. What it
	// returns belongs to the caller.
	Series(ctx context.Context, subject string, signal Signal) ([]timeline.Series, error)

	// DeclareChains makes the given chains the only ones declared and keeps when each
	// change was made. What is declared before anything else was recorded holds since
	// ever; what is no longer declared falls back to the default chain from now on.
	DeclareChains(ctx context.Context, chains []Chain) error

	// Chains returns every chain that was ever declared, by subject, signal and the
	// moment of recording.
	Chains(ctx context.Context) ([]Chain, error)

	// Hold promises that whatever is recorded after it returns is recorded later than
	// the moment ms or than now, whichever comes first. So an answer as of that moment
	// is final.
	Hold(ms int64)

	// Close releases what the store holds. No other method may be running.
	Close() error
}

// Key names a timeline.
type Key struct {
	Subject string // a zone
	Signal  Signal
	Source  string // who says so
	Product string // which of the things that the source says: observed, yearly …
}

func (k Key) compare(other Key) int {
	return cmp.Or(
		cmp.Compare(k.Subject, other.Subject), cmp.Compare(k.Signal, other.Signal),
		cmp.Compare(k.Source, other.Source), cmp.Compare(k.Product, other.Product),
	)
}

// Timeline describes a timeline without its records.
type Timeline struct {
	Key
	Attribution string    // licence and who is to be named; empty if unknown
	Revisions   uint64    // records stored
	Start, End  slot.Slot // from the first to the last value; equal: none
}

// Batch is what one call adds to one timeline.
type Batch struct {
	Key
	Attribution string // empty: leave what is there
	// SinceEver records the first intervals of an empty timeline as known and recorded
	// since ever: for tables that come with the program and speak of all times.
	SinceEver bool
	Intervals []Interval
}

// Interval is one published value of [Start, End).
type Interval struct {
	Start, End slot.Slot
	Value      unit.Decimal // in the unit of the signal; zero when retracted
	Retracted  bool
	Quality    timeline.Quality
	KnownMS    int64        // Unix milliseconds, or WhenRecorded
	Raw        unit.Decimal // the publisher's number, in RawUnit
	RawUnit    string       // empty: Value is what the publisher said
}

// Receipt says what became of a call of Append.
type Receipt struct {
	RecordedMS int64    // the moment of the call, Unix milliseconds
	Changes    []Change // one a batch
}

// Change says what became of a batch.
type Change struct {
	Added      uint64    // intervals where there was none
	Revised    uint64    // intervals over others that said something else
	Unchanged  uint64    // intervals that said what was known
	Start, End slot.Slot // from the first to the last slot that was added or revised
}

// Chain is an order of sources that an operator declared for a subject's signal.
type Chain struct {
	Subject    string
	Signal     Signal
	RecordedMS int64            // assigned by the store; timeline.SinceEver at first
	Entries    []timeline.Entry // none: the default chain
}

// newest returns, of chains in the order of Store.Chains, the last of every subject's
// signal.
func newest(chains []Chain) []Chain {
	var last []Chain
	for i, c := range chains {
		if i+1 < len(chains) && chains[i+1].Subject == c.Subject && chains[i+1].Signal == c.Signal {
			continue
		}
		last = append(last, c)
	}
	return last
}

// changedChains returns the declarations that differ from what is recorded, the
// withdrawal of those that are no longer declared included.
func changedChains(recorded, declared []Chain) []Chain {
	current := newest(recorded)
	find := func(in []Chain, c Chain) []timeline.Entry {
		for _, other := range in {
			if other.Subject == c.Subject && other.Signal == c.Signal {
				return other.Entries
			}
		}
		return nil
	}
	var changed []Chain
	for _, c := range declared {
		if !slices.Equal(find(current, c), c.Entries) {
			changed = append(changed, Chain{Subject: c.Subject, Signal: c.Signal, Entries: c.Entries})
		}
	}
	for _, c := range current {
		if len(c.Entries) > 0 && find(declared, c) == nil {
			changed = append(changed, Chain{Subject: c.Subject, Signal: c.Signal})
		}
	}
	return changed
}
