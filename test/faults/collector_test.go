package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

// How many ticks a batch has, how long a reading waits for the disk and whether
// the collector is killed in the middle of a batch: none of them shows.
func TestCollectorBatchesFlushesAndRestarts(t *testing.T) {
	harness.Long(t)
	gpt3, err := oracle.ReadGPT3(testdata.Shared(t))
	if err != nil {
		t.Fatal(err)
	}
	trace := oracle.Trace{}
	for _, node := range []string{"1", "6", "2", "59", "3", "4", "5", "7"} {
		trace[node] = gpt3[node]
	}
	csv := filepath.Join(t.TempDir(), "trace.csv")
	if err := trace.WriteCSV(csv); err != nil {
		t.Fatal(err)
	}
	want := trace.Fold(oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000}).Total.Total()

	// All of them at once, each into a site of its own.
	var yaml strings.Builder
	yaml.WriteString("collector:\n  replays:\n")
	var sites []string
	for _, ticks := range []int{1, 7, 60, 600} {
		for _, flush := range []string{"200ms", "5s"} {
			site := fmt.Sprintf("ticks-%d-flush-%s", ticks, flush)
			sites = append(sites, site)
			yaml.WriteString(replayEntry(csv, site, "", "200"))
			fmt.Fprintf(&yaml, "      batch_ticks: %d\n      flush_interval: %s\n", ticks, flush)
		}
	}
	config := filepath.Join(t.TempDir(), "wattfold.yaml")
	if err := os.WriteFile(config, []byte(yaml.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, restarts := range []int{0, 2} {
		t.Run(fmt.Sprintf("%d restarts", restarts), func(t *testing.T) {
			up := harness.Up(t, t.TempDir(), "--config", config)
			for range restarts {
				after := time.NewTimer(3777 * time.Millisecond) // 755 s of the trace: within a batch of every size
				<-after.C
				up.Kill()
				up = up.Again(t)
			}
			for _, site := range sites {
				harness.Eventually(t, 2*time.Minute, site+" is in the ledger", func() bool {
					return energyOf(t, up, site).Cmp(want.Energy) >= 0
				})
				s := up.Statement("--site", site)
				if harness.JudgeEnergy(t, site, s, want.Energy) {
					harness.JudgeCoverage(t, site, s, want, 0)
				}
				for reason, n := range s.GetRejected() {
					if n != 0 {
						t.Errorf("%s: %d rejected as %s", site, n, reason)
					}
				}
			}
		})
	}
}
