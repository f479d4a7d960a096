package faults_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

// kills is how often the whole process is killed during one replay, and
// unacknowledged how many of the kills have to catch batches that the ledger had
// not confirmed.
const (
	kills          = 10
	unacknowledged = 5
)

// Names of the metrics that tell of resending.
const (
	resent     = "wattfold_collector_resent_batches_total"
	duplicates = "wattfold_calculator_duplicate_batches_total"
)

// A replay of 64 nodes is killed ten times with everything around it, and ends
// with the total of one that nothing happened to.
func TestTenKillsOfTheWholeProcess(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	gpt3, err := oracle.ReadGPT3(shared)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2022, 4, 8, 13, 40, 0, 163e6, time.UTC)
	want := gpt3.Shifted(start.UnixMilli() - gpt3.EarliestMS()).Fold(oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000})
	total := want.Total.Total()

	config := filepath.Join(t.TempDir(), "wattfold.yaml")
	// 3,413 s at this speed are 28 s, so that every kill comes before the end.
	// A flush comes five times as often as a commit, so that a kill finds batches
	// that the ledger does not have.
	yaml := replayConfig(oracle.GPT3Path(shared), "s", harness.Stamp(start.UnixMilli()), "120") + "      flush_interval: 200ms\n"
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	const seed = 10
	rng := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // drawn again alike, on purpose
	up := harness.Up(t, t.TempDir(), "--config", config)
	lives := map[string]int{}             // with more than 0 of a metric
	sums := map[string]float64{}          // over all lives
	count := func(m map[string]float64) { // reads a life's counters
		for _, name := range []string{resent, duplicates} {
			sums[name] += m[name]
			if m[name] > 0 {
				lives[name]++
			}
		}
	}
	for k := range kills {
		after := time.NewTimer(300*time.Millisecond + time.Duration(rng.Int64N(1_700))*time.Millisecond) // the moment of the fault
		<-after.C
		count(up.Metrics())
		up.Kill()
		up = up.Again(t)
		if got := energyOf(t, up, "s"); got.Cmp(total.Energy) >= 0 {
			t.Fatalf("kill %d came after the end of the replay: it shows nothing", k+1)
		}
	}
	harness.Eventually(t, 2*time.Minute, "the replay is in the ledger", func() bool {
		return energyOf(t, up, "s").Cmp(total.Energy) >= 0
	})
	count(up.Metrics())
	judge := func(when string) {
		t.Helper()
		s := up.Statement("--site", "s")
		if harness.JudgeEnergy(t, when, s, total.Energy) {
			harness.JudgeCoverage(t, when, s, total, 0)
		}
		for reason, n := range s.GetRejected() {
			if n != 0 {
				t.Errorf("%s: %d rejected as %s", when, n, reason)
			}
		}
		for _, s := range up.Statements("--site", "s", "--group-by", "node") {
			harness.JudgeEnergy(t, when+", node "+s.GetGroup()["node"], s, want.Nodes[s.GetGroup()["node"]].Total().Energy)
		}
	}
	judge("after ten kills")
	t.Logf("resent %v batches in %d lives, dropped %v duplicates in %d lives",
		sums[resent], lives[resent], sums[duplicates], lives[duplicates])
	if lives[resent] < unacknowledged {
		t.Errorf("only %d lives began with batches to resend, want %d", lives[resent], unacknowledged)
	}
	if sums[resent] == 0 || sums[duplicates] == 0 {
		t.Errorf("resent %v, duplicates dropped %v: both should be above 0", sums[resent], sums[duplicates])
	}

	// A life after the end neither replays nor resends anything that counts.
	up.Stop()
	up = up.Again(t)
	judge("in a life after the end")
}

// energyOf returns the energy of a site in half-µJ, 0 if it has none.
func energyOf(t *testing.T, up *harness.Server, site string) *big.Int {
	t.Helper()
	r := up.CLI("statement", "--site", site, "-o", "json")
	switch r.Code {
	case 0:
		return harness.Halves(t, harness.ParseStatement(t, r.Stdout).GetEnergy().GetItMicrojoules())
	case 4:
		return new(big.Int)
	}
	t.Fatal(r)
	return nil
}

// replayConfig configures an `up` that replays a trace once.
func replayConfig(file, site, startAt, speed string) string {
	return "collector:\n  replays:\n" + replayEntry(file, site, startAt, speed)
}

// replayEntry is one replay of a configuration.
func replayEntry(file, site, startAt, speed string) string {
	entry := fmt.Sprintf(`    - file: %q
      site: %s
      project: faults
      run: replayed-%s
      component: chassis
      kind: INSTANT_POWER
      node_column: node
      time_column: time_unix_ms
      time_format: unix_ms
      value_column: watts
      unit: W
      speed: %q
`, file, site, site, speed)
	if startAt != "" {
		entry += fmt.Sprintf("      start_at: %q\n", startAt)
	}
	return entry
}
