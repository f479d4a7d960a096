package ingest

import (
	"context"
	"testing"

	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// Holds and Add show how floors move.
func Holds(p *ledger.Producer, sequence uint64) bool { return holds(p, sequence) }

// Add is add.
func Add(p *ledger.Producer, sequence uint64) bool { return add(p, sequence) }

// PurgeUpTo is purgeUpTo.
var PurgeUpTo = purgeUpTo

// Message is a message of a stream.
type Message struct {
	Subject string
	Data    []byte
}

// feedClockMS stands still, so that a test does not depend on when a second ends.
const feedClockMS = 2_000_000_000_000

// Feed is a stream in memory, read as a round reads one, with commits after a
// number of messages instead of a time.
type Feed struct {
	Store ledger.Store
	// Every is how many messages make a transaction.
	Every int
	// Stop ends a round before the message of that number, counted over all
	// rounds, as a crash would; 0: never.
	Stop int

	Samples, Duplicates, Ignored int64
	Rounds                       int
	read                         int
	poisons                      poisons
}

// Read reads the messages from where the ledger left them off to the end. A
// round that fails is begun again.
func (f *Feed) Read(ctx context.Context, messages []Message) error {
	if f.poisons.batches == nil {
		f.poisons.batches = map[batchID]bool{}
	}
	for attempt := 0; ; attempt++ {
		f.Rounds++
		done, err := f.round(ctx, messages)
		if done || attempt == 100 {
			return err
		}
	}
}

func (f *Feed) round(ctx context.Context, messages []Message) (done bool, err error) {
	all := make([]int, Partitions)
	for i := range all {
		all[i] = i
	}
	fences, err := f.Store.Acquire(ctx, "feed", "feed", all)
	if err != nil {
		return false, err
	}
	acc := newAccumulator(f.Store, f.poisons.batches)
	var spare *pending
	commit := func(upTo int) error {
		p := acc.take(spare)
		for i := range fences {
			fences[i].Sequence = uint64(upTo)
		}
		p.tx.Owner, p.tx.Fences, p.tx.CommitMS = "feed", fences, feedClockMS
		p.sequence = uint64(upTo)
		_, err := f.Store.Commit(ctx, &p.tx)
		if err != nil {
			f.poisons.learn(p, err)
			return err
		}
		f.Samples += p.samples
		f.Duplicates += p.duplicates
		f.Ignored += p.ignored
		if p.replaces {
			acc.forgetNodes()
		}
		spare = p
		return nil
	}
	at := int(fences[0].Sequence)
	for ; at < len(messages); at++ {
		f.read++
		if f.read == f.Stop {
			return false, nil
		}
		if err := acc.message(ctx, messages[at].Subject, messages[at].Data); err != nil {
			return false, err
		}
		if acc.pending.messages >= f.Every || acc.pending.replaces || uint64(at) < f.poisons.carefulTo {
			if err := commit(at + 1); err != nil {
				return false, err
			}
		}
	}
	if acc.pending.messages > 0 {
		if err := commit(at); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Accumulate reads messages without committing them and returns how many samples
// that were.
func Accumulate(t testing.TB, store ledger.Store, messages []Message) int {
	acc := newAccumulator(store, nil)
	samples := int64(0)
	var spare *pending
	for i, m := range messages {
		if err := acc.message(t.Context(), m.Subject, m.Data); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 || i == len(messages)-1 {
			spare = acc.take(spare)
			samples += spare.samples
		}
	}
	return int(samples)
}
