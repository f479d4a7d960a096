package oracle_test

import (
	"encoding/csv"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/oracle"
)

// The linear rows of golden_integration.csv were computed elsewhere, by exact
// rational arithmetic without slots: cutting at slots may not show in a digit
// that they print.
func TestReproducesTheGoldenRows(t *testing.T) {
	shared := testdata.Shared(t)
	zones, err := oracle.ReadZones(filepath.Join(shared, "grid/emaps_2022_123zones/ci_lca_hourly_2022.csv"), "datetime_utc")
	if err != nil {
		t.Fatal(err)
	}
	gpt3, err := oracle.ReadGPT3(shared)
	if err != nil {
		t.Fatal(err)
	}
	if got := gpt3.Count(); got != oracle.GPT3Samples {
		t.Fatalf("gpt3 has %d samples, want %d", got, oracle.GPT3Samples)
	}
	llama, llamaStart, llamaStop, err := oracle.ReadLlama2(shared, oracle.Llama2Gaps)
	if err != nil {
		t.Fatal(err)
	}
	traces := map[string]struct {
		trace       oracle.Trace
		start, stop int64
	}{
		"gpt3_64node_ac_5848_2":  {gpt3, oracle.GPT3StartMS, oracle.GPT3StopMS},
		"llama2_1node_ac_5027_1": {llama, llamaStart, llamaStop},
	}
	f, err := os.Open(filepath.Join(shared, "golden_integration.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, row := range rows[1:] {
		if row[3] != "linear" {
			continue
		}
		checked++
		name, zone, at, kwh, grams, hours := row[0], row[1], row[2], row[5], row[6], row[7]
		t.Run(name+"/"+zone+"/"+at, func(t *testing.T) {
			c := traces[name]
			begin, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Fatal(err)
			}
			shift := begin.UnixMilli() - c.start
			start, stop := c.start+shift, c.stop+shift
			ledger := c.trace.Shifted(shift).Fold(oracle.Law{
				Kind: oracle.InstantPower, MaxGapMS: 30_000, ClipStartMS: &start, ClipEndMS: &stop,
			})
			if got := oracle.KWh(ledger.Total.Total().Energy).FloatString(9); got != kwh {
				t.Errorf("energy is %s kWh, want %s", got, kwh)
			}
			priced := oracle.Price(ledger.Total, big.NewRat(1, 1), zones[zone].Latest)
			if got := priced.Grams.FloatString(6); got != grams {
				t.Errorf("emissions are %s g, want %s", got, grams)
			}
			for hour := range strings.FieldsSeq(hours) {
				label, want, _ := strings.Cut(hour, ":")
				from, err := time.Parse("2006-01-02T15Z", label)
				if err != nil {
					t.Fatal(err)
				}
				got := oracle.KWh(ledger.Total.Energy(from.UnixMilli(), from.Add(time.Hour).UnixMilli())).FloatString(9)
				if got != want {
					t.Errorf("%s has %s kWh, want %s", label, got, want)
				}
			}
			if missing := ledger.Total.Total().MissingMS; missing != 0 {
				t.Errorf("%d ms are missing: gaps of up to 20 s are bridged", missing)
			}
		})
	}
	if checked != 8 {
		t.Errorf("checked %d golden rows, want 8", checked)
	}
}

// By hand, small enough to follow with a pencil.
func TestLawsByHand(t *testing.T) {
	edge := func(ms int64) *int64 { return &ms }
	const s0 = int64(1_700_000_100_000) // the start of a slot
	for _, c := range []struct {
		name    string
		samples []oracle.Sample
		law     oracle.Law
		want    map[int64]string // slot offset to half-µJ
		missing int64
		counts  oracle.Counts
	}{
		{
			name:    "one trapezoid",
			samples: []oracle.Sample{{s0, 1}, {s0 + 1, 2}},
			law:     oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000},
			want:    map[int64]string{0: "3"},
		},
		{
			// 2∫ up to the cut is 2·1·2 + 1·2²/3 = 5.33; all is (1+2)·3 = 9.
			name:    "the cut takes the floor and the last part the rest",
			samples: []oracle.Sample{{s0 - 2, 1}, {s0 + 1, 2}},
			law:     oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000},
			want:    map[int64]string{-1: "5", 0: "4"},
		},
		{
			name:    "a mean counts for the time before it",
			samples: []oracle.Sample{{s0 - 2, 100}, {s0 + 1, 7}},
			law:     oracle.Law{Kind: oracle.AveragePower, MaxGapMS: 30_000},
			want:    map[int64]string{-1: "28", 0: "14"},
		},
		{
			name:    "a counter is spread evenly",
			samples: []oracle.Sample{{s0 - 2, 100}, {s0 + 1, 107}},
			law:     oracle.Law{Kind: oracle.CumulativeEnergy, MaxGapMS: 30_000},
			want:    map[int64]string{-1: "9", 0: "5"},
		},
		{
			name:    "a gauge is not bridged beyond its gap",
			samples: []oracle.Sample{{s0, 1000}, {s0 + 30_001, 1000}, {s0 + 30_002, 1000}},
			law:     oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000},
			want:    map[int64]string{0: "2000"},
			missing: 30_001,
		},
		{
			name:    "of equal times the first counts",
			samples: []oracle.Sample{{s0, 2}, {s0 + 1, 2}, {s0 + 1, 900}, {s0 + 2, 2}},
			law:     oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000},
			want:    map[int64]string{0: "8"},
			counts:  oracle.Counts{Duplicate: 1},
		},
		{
			// 2∫ from 1 to 3 of a ramp 0..4 over 4 ms: 3² - 1² = 8.
			name:    "the window clips by interpolation",
			samples: []oracle.Sample{{s0, 0}, {s0 + 4, 4}},
			law: oracle.Law{
				Kind: oracle.InstantPower, MaxGapMS: 30_000, ClipStartMS: edge(s0 + 1), ClipEndMS: edge(s0 + 3),
			},
			want: map[int64]string{0: "8"},
		},
		{
			name:    "a counter wraps only within its power",
			samples: []oracle.Sample{{s0, 90}, {s0 + 10, 5}, {s0 + 20, 4}},
			law:     oracle.Law{Kind: oracle.CumulativeEnergy, MaxGapMS: 30_000, RangeUJ: 100, MaxPowerMW: 2},
			want:    map[int64]string{0: "30"},
			missing: 10,
			counts:  oracle.Counts{Wrap: 1, Reset: 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			account, counts := oracle.Integrate(c.samples, c.law)
			if counts != c.counts {
				t.Errorf("counts are %+v, want %+v", counts, c.counts)
			}
			if got := account.Total().MissingMS; got != c.missing {
				t.Errorf("missing is %d ms, want %d", got, c.missing)
			}
			for offset, want := range c.want {
				start := s0 + offset*oracle.SlotMS
				if got := account.Energy(start, start+1).String(); got != want {
					t.Errorf("slot %+d has %s half-µJ, want %s", offset, got, want)
				}
			}
		})
	}
}

func TestMicrojoules(t *testing.T) {
	for halves, want := range map[int64]string{0: "0", 1: "0.5", 2: "1", 7: "3.5", -1: "-0.5", -4: "-2"} {
		if got := oracle.Microjoules(big.NewInt(halves)); got != want {
			t.Errorf("%d half-µJ are %q, want %q", halves, got, want)
		}
	}
}
