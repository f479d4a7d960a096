package e2e_test

import (
	"context"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

// Σ WatchEmissions = statement AS_KNOWN_THEN = Σ energy × intensity summed up
// naively, on an API that was polled every half hour and said most values only
// after their hour had passed, some several times: with the default chain, which
// falls back on the yearly table, and with a declared one that carries a value
// on for three hours and then has none.
func TestWatchedSegmentsAddUpToWhatWasKnownThen(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	polls := filepath.Join(shared, "grid/emaps_polled_2021_2022", polledZone+".csv")
	live, err := oracle.ReadPolls(polls)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("default chain", func(t *testing.T) {
		up := harness.Up(t, t.TempDir())
		importPolls(up, polls)
		last := lastResort(t, gridv1.NewGridServiceClient(harness.Dial(t, up.GRPC)), polledZone)
		covered := watchRuns(t, shared, up, func(slotMS int64) *big.Rat {
			if v := live.KnownThen(slotMS); v != nil {
				return v
			}
			return last.KnownThen(slotMS)
		}, live.KnownThen)
		if covered == 0 {
			t.Error("no slot had a polled value when it began: the runs show nothing")
		}
	})
	t.Run("carried for three hours", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "wattfold.yaml")
		if err := os.WriteFile(config, []byte(`
gridfeed:
  chains:
    - zone: DE
      signal: average-lifecycle
      entries:
        - source: emaps-live
          product: observed
          max_age: 3h
`), 0o600); err != nil {
			t.Fatal(err)
		}
		up := harness.Up(t, t.TempDir(), "--config", config)
		importPolls(up, polls)
		carried := func(slotMS int64) *big.Rat { return live.CarriedThen(slotMS, (3 * time.Hour).Milliseconds()) }
		covered := watchRuns(t, shared, up, func(slotMS int64) *big.Rat {
			if v := live.KnownThen(slotMS); v != nil {
				return v
			}
			return carried(slotMS)
		}, carried)
		if covered == 0 {
			t.Error("no slot was priced by a carried value: the runs show nothing")
		}
	})
}

// polledZone is the zone whose API was polled.
const polledZone = "DE"

func importPolls(up *harness.Server, csv string) {
	up.Must("import", "intensity", "--zone", polledZone, "--signal", "CARBON_AVERAGE_LIFECYCLE", "--csv", csv,
		"--time-column", "zone_datetime", "--value-column", "carbon_intensity_avg", "--step", "1h",
		"--known-at-column", "timestamp", "--known-at-format", "unix", "--source", "emaps-live")
}

// watchRuns imports runs at several instants, judges each, and returns for how
// many of their slots the condition yields a value.
func watchRuns(t *testing.T, shared string, up *harness.Server, known, condition oracle.Lookup) int {
	t.Helper()
	gpt3, llama2 := jobs(t, shared)
	ledger := ledgerv1.NewLedgerServiceClient(harness.Dial(t, up.GRPC))
	slots := 0
	for i, c := range []struct {
		job
		site string
		at   time.Time
	}{
		{gpt3, "berlin-1", time.Date(2021, 10, 9, 13, 7, 11, 123e6, time.UTC)},
		{llama2, "berlin-2", time.Date(2021, 10, 10, 22, 44, 59, 999e6, time.UTC)},
		{llama2, "berlin-3", time.Date(2022, 4, 9, 3, 21, 0, 1e6, time.UTC)},
		{gpt3, "berlin-4", time.Date(2021, 12, 31, 23, 31, 7, 0, time.UTC)},
		{llama2, "berlin-5", time.Date(2022, 1, 25, 16, 41, 0, 0, time.UTC)}, // the last poll for two days is of 13:00
	} {
		t.Run(c.site, func(t *testing.T) {
			up := up.In(t)
			const pue = "1.337"
			p := place{zone: polledZone, pue: pue, startAt: c.at.UnixMilli(), clipped: i%2 == 1}
			want := p.fold(c.job)
			for slot := range want.Total {
				if condition(slot) != nil {
					slots++
				}
			}
			up.CreateSite(c.site, polledZone, pue)
			up.Must(slices.Concat([]string{"import", "samples", "--csv", c.csv, "--site", c.site, "--project", "p", "--run", c.site},
				columns(), p.flags(c.job))...)
			statement := up.Statement("--site", c.site, "--pricing", "as-known-then")
			judged := harness.Want{Account: want.Total, PUE: harness.Rat(t, pue), Factor: known, SilentMS: want.SilentMS}
			harness.Judge(t, "AS_KNOWN_THEN", statement, judged)

			sum := watch(t, ledger, c.site, want.Total.Total().Energy)
			if got, want := oracle.Microjoules(sum.energy), statement.GetEnergy().GetItMicrojoules(); got != want {
				t.Errorf("Σ WatchEmissions is %s µJ, the statement says %s", got, want)
			}
			exact := oracle.Price(want.Total, judged.PUE, known).Grams
			sum.exact.Quo(sum.exact, new(big.Rat).SetInt64(oracle.HalfMicrojoulesPerKWh))
			if sum.exact.Cmp(exact) != 0 {
				t.Errorf("Σ energy·pue·factor of WatchEmissions is %s g, want %s", sum.exact.FloatString(15), exact.FloatString(15))
			}
			if g, _ := sum.grams.Float64(); !oracle.Near(g, exact) {
				t.Errorf("Σ grams of WatchEmissions is %v, want %s", g, exact.FloatString(12))
			}
			// Each series and slot by itself, so that nothing cancels out.
			for node, account := range want.Nodes {
				for _, slot := range account.Slots() {
					got := sum.slots[nodeSlot{node, slot}]
					if got == nil {
						got = new(big.Int)
					}
					if got.Cmp(account[slot].Energy) != 0 {
						t.Errorf("node %s, slot %s: watched %v half-µJ, want %v", node, harness.Stamp(slot), got, account[slot].Energy)
					}
				}
			}
			for slot, decimal := range sum.factors {
				want := known(slot)
				switch {
				case want == nil && decimal == "":
				case want == nil || decimal == "" || harness.Rat(t, decimal).Cmp(want) != 0:
					t.Errorf("slot %s is priced by %q, want %v", harness.Stamp(slot), decimal, want)
				}
			}
		})
	}
	return slots
}

// lastResort reads the timeline that prices what nothing else does: the yearly
// table, as stored.
func lastResort(t *testing.T, grid gridv1.GridServiceClient, zone string) oracle.Timeline {
	t.Helper()
	var timeline oracle.Timeline
	for token := ""; ; {
		answer, err := grid.ListRevisions(t.Context(), &gridv1.ListRevisionsRequest{Zone: zone, PageSize: 10_000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range answer.GetRevisions() {
			v := r.GetIntensity()
			if v.GetQuality() != gridv1.Quality_QUALITY_STATIC {
				continue
			}
			f := oracle.Factor{StartMS: oracle.Always, EndMS: 1 << 62, Value: harness.Rat(t, v.GetDecimal()), KnownMS: oracle.Always}
			if v.GetStartTime() != nil {
				f.StartMS = v.GetStartTime().AsTime().UnixMilli()
			}
			if v.GetEndTime() != nil {
				f.EndMS = v.GetEndTime().AsTime().UnixMilli()
			}
			if v.GetKnownAt() != nil {
				f.KnownMS = v.GetKnownAt().AsTime().UnixMilli()
			}
			timeline = append(timeline, f)
		}
		if token = answer.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(timeline) == 0 {
		t.Fatalf("%s has no yearly value", zone)
	}
	return timeline
}

type nodeSlot struct {
	node string
	slot int64
}

// watched is what the segments of a site add up to.
type watched struct {
	energy *big.Int // half-µJ
	exact  *big.Rat // Σ half-µJ · pue · g/kWh
	grams  *big.Float
	slots  map[nodeSlot]*big.Int
	// factors is the decimal that each slot was priced by; "" if by none.
	factors map[int64]string
}

// watch follows a site from its start until its energy is complete.
func watch(t *testing.T, ledger ledgerv1.LedgerServiceClient, site string, until *big.Int) watched {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := ledger.WatchEmissions(ctx, &ledgerv1.WatchEmissionsRequest{
		Selection: &ledgerv1.Selection{Site: site}, FromStart: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := watched{
		energy: new(big.Int), exact: new(big.Rat), grams: new(big.Float).SetPrec(200),
		slots: map[nodeSlot]*big.Int{}, factors: map[int64]string{},
	}
	for w.energy.Cmp(until) < 0 {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %s of %s µJ: %v", oracle.Microjoules(w.energy), oracle.Microjoules(until), err)
		}
		for _, s := range answer.GetSegments() {
			w.add(t, site, s)
		}
	}
	return w
}

// add checks one segment and adds it.
func (w *watched) add(t *testing.T, site string, s *ledgerv1.Segment) {
	t.Helper()
	start, end := s.GetStartTime().AsTime().UnixMilli(), s.GetEndTime().AsTime().UnixMilli()
	slot := oracle.SlotStart(start)
	if s.GetSite() != site || end <= start || end > slot+oracle.SlotMS {
		t.Errorf("segment of %s from %s to %s is not of one slot", s.GetSite(), harness.Stamp(start), harness.Stamp(end))
	}
	energy := harness.Halves(t, s.GetItMicrojoules())
	w.energy.Add(w.energy, energy)
	key := nodeSlot{s.GetNode(), slot}
	if w.slots[key] == nil {
		w.slots[key] = new(big.Int)
	}
	w.slots[key].Add(w.slots[key], energy)
	decimal := s.GetFactor().GetDecimal()
	if was, ok := w.factors[slot]; ok && was != decimal {
		t.Errorf("slot %s is priced by %q and by %q", harness.Stamp(slot), was, decimal)
	}
	w.factors[slot] = decimal
	if s.GetFactor() == nil {
		if s.Grams != nil {
			t.Errorf("a segment without a factor has %v g", s.GetGrams())
		}
		return
	}
	w.grams.Add(w.grams, big.NewFloat(s.GetGrams()))
	term := new(big.Rat).SetInt(energy)
	term.Mul(term, harness.Rat(t, s.GetPue()))
	w.exact.Add(w.exact, term.Mul(term, harness.Rat(t, decimal)))
}
