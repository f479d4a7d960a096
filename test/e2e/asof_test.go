package e2e_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/testdata"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

// Intensities are imported again with other values, twice. The latest statement
// follows; a statement as of an earlier moment is the same message to the last
// digit.
func TestRevisedIntensities(t *testing.T) {
	harness.Long(t)
	shared := testdata.Shared(t)
	const zone = "ES"
	zones := readZones(t, shared)
	gpt3, _ := jobs(t, shared)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("madrid", zone, "1.21")
	p := place{zone: zone, pue: "1.21", startAt: time.Date(2022, 6, 1, 9, 41, 7, 311e6, time.UTC).UnixMilli()}
	want := p.fold(gpt3)
	whole := oracle.Microjoules(want.Total.Total().Energy)

	importZone(up, zonesCSV(shared), zone)
	up.Must(append(append([]string{"import", "samples", "--csv", gpt3.csv, "--site", "madrid", "--project", "p", "--run", "r"},
		columns()...), p.flags(gpt3)...)...)
	hour := harness.Stamp(time.Date(2022, 6, 1, 10, 0, 0, 0, time.UTC).UnixMilli())

	type vintage struct {
		name      string
		at        string
		statement *ledgerv1.Statement
		intensity string
		timeline  oracle.Timeline
	}
	var vintages []vintage
	asOf := func(at string) *ledgerv1.Statement { return up.Statement("--site", "madrid", "--as-of", at) }
	// remember notes what is answered as of now, once the clock has passed the
	// second that the newest commit was booked in.
	remember := func(name string, timeline oracle.Timeline) {
		t.Helper()
		v := vintage{name: name, timeline: timeline}
		harness.Eventually(t, 10*time.Second, "the commit is in the past", func() bool {
			v.at = harness.Stamp(time.Now().UnixMilli())
			r := up.CLI("statement", "--site", "madrid", "--as-of", v.at, "-o", "json")
			return r.Code == 0 && asOf(v.at).GetEnergy().GetItMicrojoules() == whole
		})
		v.statement = asOf(v.at)
		v.intensity = intensityValue(t, up, zone, "--at", hour, "--as-of", v.at)
		harness.Judge(t, name+" as of then", v.statement, harness.Want{
			Account: want.Total, PUE: harness.Rat(t, p.pue), Factor: timeline.Latest, AnyCoverage: true,
		})
		vintages = append(vintages, v)
	}
	remember("first", zones[zone])

	for i, add := range []int64{1725, -333} { // hundredths of a g/kWh
		changed := make(oracle.Timeline, len(zones[zone]))
		for n, f := range zones[zone] {
			f.Value = new(big.Rat).Add(f.Value, big.NewRat(add*int64(n%7), 100))
			changed[n] = f
		}
		path := filepath.Join(t.TempDir(), fmt.Sprintf("changed-%d.csv", i))
		writeTimeline(t, path, changed)
		up.Must("import", "intensity", "--zone", zone, "--csv", path, "--time-column", "hour", "--value-column", "value",
			"--source", "emaps-2022")
		harness.Judge(t, fmt.Sprintf("latest after revision %d", i+1), up.Statement("--site", "madrid"), harness.Want{
			Account: want.Total, PUE: harness.Rat(t, p.pue), Factor: changed.Latest, AnyCoverage: true,
		})
		remember(fmt.Sprintf("revision %d", i+1), changed)
	}

	// Once more, in a new life: what was said as of then does not change.
	up.Stop()
	up = harness.Up(t, up.Dir)
	for _, v := range vintages {
		if got := asOf(v.at); !proto.Equal(got, v.statement) {
			t.Errorf("%s: as of %s it is now\n%v\nwant\n%v", v.name, v.at, got, v.statement)
		}
		if got := intensityValue(t, up, zone, "--at", hour, "--as-of", v.at); got != v.intensity {
			t.Errorf("%s: the intensity as of %s is now %s, want %s", v.name, v.at, got, v.intensity)
		}
	}
	for i := 1; i < len(vintages); i++ {
		if vintages[i].statement.GetEmissions()[0].GetGrams() == vintages[i-1].statement.GetEmissions()[0].GetGrams() {
			t.Errorf("%s has the grams of the vintage before: it shows nothing", vintages[i].name)
		}
	}
}

// intensityValue returns the value that the command line answers, as printed.
func intensityValue(t *testing.T, up *harness.Server, zone string, args ...string) string {
	t.Helper()
	var answer struct {
		Value json.Number `json:"value"`
	}
	out := up.Must(append([]string{"intensity", zone, "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return answer.Value.String()
}

// writeTimeline writes hourly values as hour,value.
func writeTimeline(t *testing.T, path string, timeline oracle.Timeline) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewWriter(f)
	w := csv.NewWriter(buffered)
	rows := [][]string{{"hour", "value"}}
	for _, v := range timeline {
		rows = append(rows, []string{time.UnixMilli(v.StartMS).UTC().Format(time.RFC3339), v.Value.FloatString(2)})
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
