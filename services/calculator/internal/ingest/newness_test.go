package ingest_test

import (
	"math/rand/v2"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// TestNewness compares floors and ranges with a set.
func TestNewness(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var p ledger.Producer
		held := map[uint64]bool{}
		most := 1 + rng.Uint64N(200)
		for range 300 {
			sequence := 1 + rng.Uint64N(most)
			if ingest.Holds(&p, sequence) != held[sequence] {
				t.Fatalf("seed %d: Holds(%+v, %d) = %v", seed, p, sequence, !held[sequence])
			}
			if held[sequence] {
				continue
			}
			if ingest.Add(&p, sequence) {
				held[sequence] = true
			} else if len(p.Ranges) != ledger.MaxRanges {
				t.Fatalf("seed %d: Add(%+v, %d) refused", seed, p, sequence)
			}
			last := p.Floor
			for _, r := range p.Ranges {
				if r.First <= last+1 || r.Last < r.First {
					t.Fatalf("seed %d: ranges %+v", seed, p)
				}
				last = r.Last
			}
		}
		for sequence := range most + 2 {
			if sequence > 0 && ingest.Holds(&p, sequence) != held[sequence] {
				t.Fatalf("seed %d: Holds(%+v, %d)", seed, p, sequence)
			}
		}
	}
}

func TestPurgeUpTo(t *testing.T) {
	full := jetstream.StreamState{FirstSeq: 101, LastSeq: 1100, Msgs: 1000, Bytes: 1_000_000}
	for _, c := range []struct {
		what      string
		state     jetstream.StreamState
		committed uint64
		keep      int64
		want      uint64
		ok        bool
	}{
		{"all committed", full, 1100, 100_000, 1000, true},
		{"half committed", full, 600, 100_000, 500, true},
		{"less than is kept", full, 190, 100_000, 0, false},
		{"hardly more than is kept", full, 205, 100_000, 0, false},
		{"nothing kept", full, 1100, 0, 1100, true},
		{"nothing committed", full, 100, 0, 0, false},
		{"empty", jetstream.StreamState{FirstSeq: 5, LastSeq: 4}, 4, 0, 0, false},
	} {
		if got, ok := ingest.PurgeUpTo(c.state, c.committed, c.keep); got != c.want || ok != c.ok {
			t.Errorf("%s: %d, %v, want %d, %v", c.what, got, ok, c.want, c.ok)
		}
	}
}
