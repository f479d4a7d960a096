package calculator

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// yearOfRuns is a project of 1,000 runs over 10 sites in a year: each runs for
// eight hours at one site, with three components, on four nodes; hourly
// intensities of ten zones, half of which were revised.
func yearOfRuns(b *testing.B) *world {
	w := newWorld(b, stores["sqlite"])
	w.grid.page = 50_000
	rng := rand.New(rand.NewPCG(1, 1))
	const year = 365 * slotsPerDay
	for i := range 10 {
		zone := fmt.Sprintf("Z%d", i)
		w.site(fmt.Sprintf("site-%d", i), zone, "1.1")
		w.grid.mu.Lock()
		lane := &gridRecords{chain: []timeline.Entry{{Source: "import", Product: "observed"}}}
		lane.series = []timeline.Series{{Source: "import", Product: "observed"}}
		for at := base; at < base+year; at += 12 {
			for revision := range 1 + rng.Int64N(2) {
				lane.series[0].Records = append(lane.series[0].Records, timeline.Record{
					Start: at, End: at + 12, Value: unit.Decimal{Coef: 2*rng.Int64N(50_000) + 1, Exp: -2}, Quality: timeline.Measured,
					Revision: 1 + revision, KnownMS: at.StartMS() - 1000, RecordedMS: at.EndMS() + revision,
				})
			}
		}
		w.grid.lanes[gridLane{zone, carbonAverageLifecycle}] = lane
		w.grid.mu.Unlock()
	}
	tx := &ledger.Tx{Owner: "me", Fences: w.positions}
	for i := range 1000 {
		site, run := fmt.Sprintf("site-%d", i%10), &ledger.Run{Name: fmt.Sprintf("run-%03d", i), Project: "llm"}
		from := base + slot.Slot(rng.IntN(year-96))
		for n := range 4 {
			node := fmt.Sprintf("node-%d-%d", i%50, n)
			key := ledger.ProducerKey{Producer: [16]byte{1, byte(i % 10), byte(i % 50), byte(n)}, Epoch: uint64(i + 1)}
			batch := ledger.TxBatch{Site: site, Node: node, ProducerKey: key, Sequence: 1}
			for _, component := range []string{"gpu", "cpu", "other"} {
				s := ledger.TxSeries{
					Series:  &ledger.Series{Device: component + "/0", Component: component, Run: run, PeriodMS: 1000},
					FirstMS: from.StartMS(), LastMS: (from + 96).StartMS(), Closed: true,
				}
				for at := from; at < from+96; at++ {
					s.Parts = append(s.Parts, segment.Part{
						Slot: at, StartMS: at.StartMS(), EndMS: at.EndMS(),
						Energy: unit.Energy(rng.Int64N(1 << 40)), ObservedMS: slot.Millis,
					})
				}
				batch.Series = append(batch.Series, s)
			}
			tx.Batches = append(tx.Batches, batch)
			tx.Producers = append(tx.Producers, ledger.ProducerMove{
				Site: site, Old: ledger.Producer{ProducerKey: key}, New: ledger.Producer{ProducerKey: key, Floor: 1},
			})
		}
		if i%50 == 49 {
			tx.CommitMS = w.clock.Load()
			if _, err := w.store.Commit(b.Context(), tx); err != nil {
				b.Fatal(err)
			}
			tx = &ledger.Tx{Owner: "me", Fences: w.positions}
		}
	}
	w.clock.Store((base + year + 100).StartMS())
	return w
}

// BenchmarkYear is the bar of a year's statement of a project: 288,000 postings.
func BenchmarkYear(b *testing.B) {
	w := yearOfRuns(b)
	asOf := timestamp(w.clock.Load() - 1)
	rows := 0
	if err := w.store.Postings(b.Context(), Filter{Project: "llm"}, func(PostingRow) error { rows++; return nil }); err != nil {
		b.Fatal(err)
	}
	for name, pricing := range map[string]*ledgerv1.Pricing{
		"latest":        nil,
		"as of":         {By: &ledgerv1.Pricing_AsOf{AsOf: asOf}},
		"as known then": {By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}},
	} {
		b.Run(name, func(b *testing.B) {
			req := &ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Project: "llm"}, Pricing: pricing}
			w.statement(req) // warm
			b.ReportMetric(float64(rows), "rows")
			for b.Loop() {
				w.statement(req)
			}
		})
	}
	b.Run("by run", func(b *testing.B) {
		req := &ledgerv1.QueryStatementsRequest{
			Selection: &ledgerv1.Selection{Project: "llm"}, GroupBy: []ledgerv1.Dimension{ledgerv1.Dimension_DIMENSION_RUN},
		}
		for b.Loop() {
			if _, err := w.ledger.QueryStatements(b.Context(), req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rows alone", func(b *testing.B) {
		for b.Loop() {
			if err := w.store.Postings(b.Context(), Filter{Project: "llm"}, func(PostingRow) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rows from memory", func(b *testing.B) {
		held := heldRows{Store: w.store}
		if err := w.store.Postings(b.Context(), Filter{Project: "llm"}, func(row PostingRow) error {
			held.rows = append(held.rows, row)
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		benchmarkBooks(b, w, held)
	})
	b.Run("without rows", func(b *testing.B) { benchmarkBooks(b, w, heldRows{Store: w.store}) })
}

// benchmarkBooks asks other books for the year.
func benchmarkBooks(b *testing.B, w *world, from books) {
	q := *w.q
	q.books = from
	server := &ledgerServer{q: &q}
	req := &ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Project: "llm"}}
	for b.Loop() {
		if _, err := server.GetStatement(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// heldRows are books whose rows cost nothing to read.
type heldRows struct {
	Store
	rows []PostingRow
}

func (h heldRows) Postings(_ context.Context, _ Filter, yield func(PostingRow) error) error {
	for _, row := range h.rows {
		if err := yield(row); err != nil {
			return err
		}
	}
	return nil
}
