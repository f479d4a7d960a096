package faults_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

// The whole path as four processes and a NATS server of its own: every one of
// the five is ended once while a replay runs, and the totals are the oracle's.
func TestFourProcesses(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	gpt3, err := oracle.ReadGPT3(shared)
	if err != nil {
		t.Fatal(err)
	}
	zones, err := oracle.ReadZones(filepath.Join(shared, "grid/emaps_2022_123zones/ci_lca_hourly_2022.csv"), "datetime_utc")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2022, 3, 27, 0, 50, 0, 163e6, time.UTC).UnixMilli()
	want := gpt3.Shifted(start - gpt3.EarliestMS()).Fold(oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000})
	config := filepath.Join(t.TempDir(), "wattfold.yaml")
	if err := os.WriteFile(config, []byte(replayConfig(oracle.GPT3Path(shared), "replayed", harness.Stamp(start), "250")), 0o600); err != nil {
		t.Fatal(err)
	}
	four := harness.Four(t, t.TempDir(), "--config", config)
	four.Must("import", "intensity", "--zone", "DE", "--csv", filepath.Join(shared, "grid/emaps_2022_123zones/ci_lca_hourly_2022.csv"),
		"--time-column", "datetime_utc", "--value-column", "DE", "--source", "emaps-2022")
	for _, site := range []string{"replayed", "imported"} {
		four.CreateSite(site, "DE", "1.08")
	}

	rng := rand.New(rand.NewPCG(4, 5)) //nolint:gosec // drawn again alike, on purpose
	victims := []string{"calculator", "collector", "gridfeed", "gateway", "nats"}
	for _, victim := range victims {
		after := time.NewTimer(200*time.Millisecond + time.Duration(rng.Int64N(800))*time.Millisecond) // the moment of the fault
		<-after.C
		if victim == "nats" {
			four.RestartBus()
		} else {
			four.KillRole(victim)
		}
	}
	four.Must(slices.Concat([]string{"import", "samples", "--csv", oracle.GPT3Path(shared), "--site", "imported", "--project", "p", "--run", "r"},
		[]string{
			"--component", "chassis", "--kind", "INSTANT_POWER", "--node-column", "node", "--time-column", "time_unix_ms",
			"--time-format", "unix_ms", "--value-column", "watts", "--unit", "W", "--start-at", harness.Stamp(start),
		})...)
	harness.Eventually(t, 2*time.Minute, "the replay is in the ledger", func() bool {
		return energyOf(t, four.Server, "replayed").Cmp(want.Total.Total().Energy) >= 0
	})
	for _, site := range []string{"replayed", "imported"} {
		judged := harness.Want{Account: want.Total, PUE: harness.Rat(t, "1.08"), Factor: zones["DE"].Latest}
		harness.Judge(t, site, four.Statement("--site", site), judged)
		for _, s := range four.Statements("--site", site, "--group-by", "node") {
			node := s.GetGroup()["node"]
			judged.Account, judged.AnyCoverage = want.Nodes[node], true
			harness.Judge(t, site+", node "+node, s, judged)
		}
	}
	for role, metric := range map[string]string{
		"collector": "wattfold_collector_published_batches_total", "calculator": "wattfold_calculator_committed_batches_total",
	} {
		if got := four.MetricsOf(role)[metric]; got == 0 {
			t.Errorf("%s is 0 in the %s's own /metrics", metric, role)
		}
	}
	four.Stop()
}
