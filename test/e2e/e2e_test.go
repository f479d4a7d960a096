package e2e_test

import (
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// zonesCSV is hourly intensity of 2022 for 123 zones.
func zonesCSV(shared string) string {
	return filepath.Join(shared, "grid/emaps_2022_123zones/ci_lca_hourly_2022.csv")
}

// job is a trace as a CSV file, and the window of its run.
type job struct {
	name        string
	csv         string
	trace       oracle.Trace
	start, stop int64 // in the file's own clock
}

// jobs returns the two real runs: 64 nodes with pairs that read one meter, and
// one node with gaps, bursts and a repeated timestamp.
func jobs(t *testing.T, shared string) (gpt3, llama2 job) {
	t.Helper()
	trace, err := oracle.ReadGPT3(shared)
	if err != nil {
		t.Fatal(err)
	}
	gpt3 = job{"gpt3", oracle.GPT3Path(shared), trace, oracle.GPT3StartMS, oracle.GPT3StopMS}
	trace, start, stop, err := oracle.ReadLlama2(shared, oracle.Llama2Gaps)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "llama2.csv")
	if err := trace.WriteCSV(path); err != nil {
		t.Fatal(err)
	}
	return gpt3, job{"llama2", path, trace, start, stop}
}

// columns are the flags that say how the files of jobs are to be read.
func columns() []string {
	return []string{
		"--component", "chassis", "--kind", "INSTANT_POWER", "--node-column", "node",
		"--time-column", "time_unix_ms", "--time-format", "unix_ms", "--value-column", "watts", "--unit", "W",
	}
}

// place is where and when a job is put.
type place struct {
	zone, pue string
	// startAt is where the earliest sample goes.
	startAt int64
	// clipped cuts the job to its run.
	clipped bool
}

// flags says it to the command line.
func (p place) flags(j job) []string {
	flags := []string{"--start-at", harness.Stamp(p.startAt)}
	if p.clipped {
		flags = append(flags, "--run-start", harness.Stamp(j.start), "--run-stop", harness.Stamp(j.stop))
	}
	return flags
}

// fold says what the oracle makes of it.
func (p place) fold(j job) oracle.Ledger {
	shift := p.startAt - j.trace.EarliestMS()
	law := oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000}
	if p.clipped {
		start, stop := j.start+shift, j.stop+shift
		law.ClipStartMS, law.ClipEndMS = &start, &stop
	}
	return j.trace.Shifted(shift).Fold(law)
}

// places draws zones, PUEs and instants of 2022, the same ones in every run.
func places(zones map[string]oracle.Timeline, n int) []place {
	names := make([]string, 0, len(zones))
	for name := range zones {
		names = append(names, name)
	}
	slices.Sort(names)
	rng := rand.New(rand.NewPCG(2022, 123)) //nolint:gosec // drawn again alike, on purpose
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	year := time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	out := make([]place, n)
	for i := range out {
		out[i] = place{
			zone:    names[i],
			pue:     big.NewRat(1000+rng.Int64N(900), 1000).FloatString(3),
			startAt: year + rng.Int64N(8_757*3_600_000),
			clipped: i%2 == 0,
		}
	}
	return out
}

// judgeSite compares a site's statement in total and by node.
func judgeSite(t *testing.T, up *harness.Server, site string, p place, ledger oracle.Ledger, factor oracle.Lookup) {
	t.Helper()
	pue := harness.Rat(t, p.pue)
	harness.Judge(t, site, up.Statement("--site", site), harness.Want{
		Account: ledger.Total, PUE: pue, Factor: factor, SilentMS: ledger.SilentMS,
	})
	nodes := up.Statements("--site", site, "--group-by", "node")
	if len(nodes) != len(ledger.Nodes) {
		t.Errorf("%s: %d nodes, want %d", site, len(nodes), len(ledger.Nodes))
	}
	for _, s := range nodes {
		name := s.GetGroup()["node"]
		account, ok := ledger.Nodes[name]
		if !ok {
			t.Errorf("%s: there is no node %q", site, name)
			continue
		}
		harness.Judge(t, site+"/"+name, s, harness.Want{Account: account, PUE: pue, Factor: factor, AnyCoverage: true})
	}
}

// importZone imports one zone of the hourly table of 2022.
func importZone(up *harness.Server, csv, zone string) {
	up.Must("import", "intensity", "--zone", zone, "--signal", "CARBON_AVERAGE_LIFECYCLE", "--csv", csv,
		"--time-column", "datetime_utc", "--value-column", zone, "--source", "emaps-2022")
}

// rejectedOnly fails if the site holds refused readings for other reasons.
func rejectedOnly(t *testing.T, up *harness.Server, site string, reasons ...string) {
	t.Helper()
	for reason, n := range up.Statement("--site", site).GetRejected() {
		if n != 0 && !slices.Contains(reasons, reason) {
			t.Errorf("%s: %d readings rejected as %s", site, n, reason)
		}
	}
}

func readZones(t *testing.T, shared string) map[string]oracle.Timeline {
	t.Helper()
	zones, err := oracle.ReadZones(zonesCSV(shared), "datetime_utc")
	if err != nil {
		t.Fatal(err)
	}
	return zones
}

// The two real runs come out to the last half-microjoule and to 1e-12 of a
// gram, in total and by node, by import and by replay, for 20 zones and
// instants.
func TestTracesByImportAndByReplay(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	zones := readZones(t, shared)
	gpt3, llama2 := jobs(t, shared)
	up := harness.Up(t, t.TempDir())
	for i, p := range places(zones, 20) {
		importZone(up, zonesCSV(shared), p.zone)
		for _, j := range []job{gpt3, llama2} {
			want := p.fold(j)
			for _, way := range []string{"import", "replay"} {
				site := strings.Join([]string{way, j.name, p.zone}, "-")
				t.Run(site, func(t *testing.T) {
					up := up.In(t)
					up.CreateSite(site, p.zone, p.pue)
					args := slices.Concat([]string{"--site", site, "--project", "mlperf", "--run", j.name + "-" + site},
						columns(), p.flags(j))
					switch way {
					case "import":
						up.Must(append([]string{"import", "samples", "--csv", j.csv}, args...)...)
					case "replay":
						replay(t, up, j.csv, args...)
					}
					judgeSite(t, up, site, p, want, zones[p.zone].Latest)
					rejectedOnly(t, up, site, "duplicate")
				})
			}
		}
		if t.Failed() && i > 2 {
			t.Fatal("the other zones would fail alike")
		}
	}
}

// replay runs a collector of its own over a file once, at full speed, and
// returns when the ledger has all of it.
func replay(t *testing.T, up *harness.Server, csv string, args ...string) {
	t.Helper()
	r := harness.Exec(t, slices.Concat([]string{
		"collector", "--data-dir", t.TempDir(), "--nats", "nats://" + up.NATS, "--replay", csv, "--once", "--speed", "max",
	}, args)...)
	if r.Code != 0 {
		t.Fatal(r)
	}
}

// What golden_integration.csv says of linear integration comes out of the
// command line, to every printed digit.
func TestGoldenRows(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	gpt3, llama2 := jobs(t, shared)
	byName := map[string]job{"gpt3_64node_ac_5848_2": gpt3, "llama2_1node_ac_5027_1": llama2}
	up := harness.Up(t, t.TempDir())
	for _, zone := range []string{"DE", "FR"} {
		importZone(up, zonesCSV(shared), zone)
	}
	text, err := os.ReadFile(filepath.Join(shared, "golden_integration.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		row := strings.Split(strings.TrimSpace(line), ",")
		if row[3] != "linear" {
			continue
		}
		name, zone, at, kwh, grams := row[0], row[1], row[2], row[5], row[6]
		t.Run(name+"/"+zone+"/"+at, func(t *testing.T) {
			up, j := up.In(t), byName[name]
			begin, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			// The table puts run_start at the instant; --start-at puts the first sample.
			first := begin.UnixMilli() + j.trace.EarliestMS() - j.start
			site := strings.Join([]string{j.name, zone, begin.Format("0102")}, "-")
			up.CreateSite(site, zone, "1")
			up.Must(slices.Concat([]string{"import", "samples", "--csv", j.csv, "--site", site, "--project", "golden", "--run", site},
				columns(), place{startAt: first, clipped: true}.flags(j))...)
			s := up.Statement("--run", site)
			if got := new(big.Rat).SetFrac(harness.Halves(t, s.GetEnergy().GetItMicrojoules()),
				big.NewInt(oracle.HalfMicrojoulesPerKWh)).FloatString(9); got != kwh {
				t.Errorf("energy is %s kWh, want %s", got, kwh)
			}
			if got := new(big.Rat).SetFloat64(s.GetEmissions()[0].GetGrams()).FloatString(6); got != grams {
				t.Errorf("emissions are %s g, want %s", got, grams)
			}
			hours := map[string]string{}
			for _, h := range up.Statements("--run", site, "--every", "1h") {
				hour := h.GetInterval().GetStartTime().AsTime().Format("2006-01-02T15Z")
				hours[hour] = new(big.Rat).SetFrac(harness.Halves(t, h.GetEnergy().GetItMicrojoules()),
					big.NewInt(oracle.HalfMicrojoulesPerKWh)).FloatString(9)
			}
			for want := range strings.FieldsSeq(row[7]) {
				hour, kwh, _ := strings.Cut(want, ":")
				if hours[hour] != kwh {
					t.Errorf("%s has %s kWh, want %s", hour, hours[hour], kwh)
				}
			}
		})
	}
}
