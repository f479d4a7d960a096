package ingest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
)

// fleet are batches of 60 ticks of nodes with 9 gauges and 4 counters.
func fleet(b *testing.B, nodes, rounds int) []ingest.Message {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var messages []ingest.Message
	for round := range rounds {
		for n := range nodes {
			x := samplewire.Batch{Producer: [16]byte{byte(n)}, Epoch: uint64(n), Sequence: uint64(round) + 1, Site: "s", Node: fmt.Sprint("n", n)}
			x.Producer[1] = byte(n >> 8)
			start := int64(1_715_960_000_000) + int64(round)*60_000
			for i := range int64(60) {
				x.Ticks = append(x.Ticks, start+i*1000)
			}
			for i := range 13 {
				s := samplewire.Series{HasPrevious: round > 0, PreviousMS: start - 1000, Descriptor: samplewire.Descriptor{
					Device: fmt.Sprint("gpu/", i), Component: "gpu", Run: "run-1", Project: "project", Kind: 1, Provenance: 1, PeriodMS: 1000,
				}}
				value := int64(0)
				if i >= 9 {
					s.Descriptor.Kind, s.Descriptor.Device, s.Descriptor.Component = 3, fmt.Sprint("cpu-package/", i), "cpu"
					value = int64(round) * 60 * 400_000_000
				}
				for range 60 {
					if i < 9 {
						value = 400_000 + rng.Int64N(300_000)
					} else {
						value += 200_000_000 + rng.Int64N(100_000_000)
					}
					s.Values = append(s.Values, value)
				}
				s.PreviousValue = s.Values[0]
				x.Series = append(x.Series, s)
			}
			messages = append(messages, encode(b, &x))
		}
	}
	return messages
}

// BenchmarkIngest is decoding, newness, integrating and accumulating.
func BenchmarkIngest(b *testing.B) {
	messages := fleet(b, 100, 100)
	store, err := sqlitestore.Open(b.Context(), b.TempDir(), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	samples := 0
	b.ReportAllocs()
	for b.Loop() {
		samples += ingest.Accumulate(b, store, messages)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
}

// BenchmarkCommit is all of it with SQLite, in transactions of 2000 batches.
func BenchmarkCommit(b *testing.B) {
	const rounds = 30
	messages := fleet(b, 500, rounds)
	samples := int64(0)
	for b.Loop() {
		b.StopTimer()
		store, err := sqlitestore.Open(b.Context(), b.TempDir(), time.Now)
		if err != nil {
			b.Fatal(err)
		}
		feed := ingest.Feed{Store: store, Every: 2000}
		b.StartTimer()
		if err := feed.Read(b.Context(), messages); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		samples += feed.Samples
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(samples)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
