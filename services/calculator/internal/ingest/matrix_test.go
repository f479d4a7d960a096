package ingest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
	"github.com/wattfold/wattfold/services/calculator/storetest"
)

var spool = [16]byte{37, 1, 2, 3}

// shuffled moves each message at most within places.
func shuffled(rng *rand.Rand, messages []ingest.Message, within int) []ingest.Message {
	out := slices.Clone(messages)
	for chunk := range slices.Chunk(out, within) {
		rng.Shuffle(len(chunk), func(i, j int) { chunk[i], chunk[j] = chunk[j], chunk[i] })
	}
	return out
}

func twice(messages []ingest.Message) []ingest.Message {
	var out []ingest.Message
	for _, m := range messages {
		out = append(out, m, m)
	}
	return out
}

// TestNothingChangesATotal: how a trace is cut into batches, how many make a
// transaction, where the reader is killed and in which order batches come.
func TestNothingChangesATotal(t *testing.T) {
	traces := []*powerTrace{synthetic()}
	t.Run("mlperf", func(t *testing.T) { traces = append(traces, real(t, 2)) })
	deliveries := []struct {
		name    string
		deliver func(*rand.Rand, []ingest.Message) []ingest.Message
	}{
		{"in order", func(_ *rand.Rand, m []ingest.Message) []ingest.Message { return m }},
		{"shuffled", func(rng *rand.Rand, m []ingest.Message) []ingest.Message { return shuffled(rng, m, 24) }},
		{"twice", func(_ *rand.Rand, m []ingest.Message) []ingest.Message { return twice(m) }},
	}
	for _, tr := range traces {
		for _, ticks := range []int{1, 7, 60, 600} {
			messages := tr.batches(t, spool, ticks)
			// Flushes of 0.2 and 5 s differ in how much comes at once.
			for _, every := range []int{4, 100} {
				for _, restart := range []string{"none", "mid-batch", "mid-commit, not applied", "mid-commit, applied"} {
					for _, d := range deliveries {
						t.Run(fmt.Sprintf("%s/%d ticks/every %d/%s/%s", tr.name, ticks, every, restart, d.name), func(t *testing.T) {
							rng := rand.New(rand.NewPCG(uint64(ticks), uint64(every)))
							delivered := d.deliver(rng, messages)
							memory := memstore.New(time.Now)
							store := &storetest.Faulty{Store: memory}
							feed := ingest.Feed{Store: store, Every: every}
							commits := len(delivered) / feed.Every
							switch restart {
							case "mid-batch":
								feed.Stop = len(delivered)*2/3 + 1
							case "mid-commit, not applied":
								store.Break(storetest.NotApplied, commits/2)
							case "mid-commit, applied":
								store.Break(storetest.Applied, commits/2)
							}
							if err := feed.Read(t.Context(), delivered); err != nil {
								t.Fatal(err)
							}
							if restart != "none" && feed.Rounds != 2 {
								t.Errorf("%d rounds, want 2", feed.Rounds)
							}
							if d.name == "twice" && len(delivered) > 2*every && feed.Duplicates == 0 {
								t.Error("no duplicates")
							}
							tr.check(t, memory)
							tr.checkClean(t, memory, uint64(len(messages)))
						})
					}
				}
			}
		}
	}
}

// checkClean checks that nothing was refused, but for what is odd about the trace
// itself, and that all is below the floor.
func (tr *powerTrace) checkClean(t *testing.T, s ledger.Store, floor uint64) {
	t.Helper()
	if rejected, err := s.Rejected(t.Context(), ""); !cmp.Equal(rejected, tr.odd()) || err != nil {
		t.Errorf("rejected %v, %v", rejected, err)
	}
	known, err := s.Producers(t.Context(), "s", []ledger.ProducerKey{{Producer: spool}})
	if err != nil || len(known) != 1 || known[0].Floor != floor || len(known[0].Ranges) != 0 {
		t.Errorf("producers %+v, %v; want floor %d", known, err, floor)
	}
}

// TestFullyShuffled: batches in any order, resent until the ledger has them all.
func TestFullyShuffled(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	tr := synthetic()
	messages := tr.batches(t, spool, 7)
	store, err := sqlitestore.Open(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	feed := ingest.Feed{Store: store, Every: 50}
	stream := shuffled(rng, messages, len(messages))
	for range len(messages) {
		if err := feed.Read(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		known, err := store.Producers(t.Context(), "s", []ledger.ProducerKey{{Producer: spool}})
		if err != nil || len(known) != 1 {
			t.Fatalf("producers %v, %v", known, err)
		}
		if known[0].Floor == uint64(len(messages)) {
			break
		}
		// The spool sends again whatever is not known to be committed.
		var again []ingest.Message
		for i, m := range messages {
			if !ingest.Holds(&known[0], uint64(i+1)) {
				again = append(again, m)
			}
		}
		stream = append(stream, shuffled(rng, again, len(again))...)
	}
	if feed.Ignored == 0 {
		t.Error("no batch was left to be resent: the test does not test it")
	}
	tr.check(t, store)
	tr.checkClean(t, store, uint64(len(messages)))
}
