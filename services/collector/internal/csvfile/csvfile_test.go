package csvfile

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/internal/testdata"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixMilli()

func power() Mapping {
	return Mapping{
		File: "t.csv", Site: "s", Component: "chassis", Kind: segment.InstantPower,
		NodeColumn: "node", TimeColumn: "ms", TimeFormat: UnixMS, ValueColumn: "watts", Unit: "W",
	}
}

func scan(m Mapping, text string) (*Summary, error) {
	return Scan(context.Background(), strings.NewReader(text), &m, Options{NowMS: now})
}

func rows(t *testing.T, m Mapping, text string) []Row {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), &m)
	if err != nil {
		t.Fatal(err)
	}
	var all []Row
	for {
		var row Row
		switch err := r.Next(&row); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		}
		all = append(all, row)
	}
}

func TestRows(t *testing.T) {
	m := power()
	got := rows(t, m, "\ufeffnode, ms ,watts,rest\r\n\"a,1\",1700000000000.5,5.0005,x\r\n\nb,1700000000001,\"7\",\"two\nlines\"\nb,1700000000002,8,")
	want := []Row{
		{Node: "a,1", TimeMS: 1_700_000_000_000, Value: 5000, Rounded: true, Line: 2},
		{Node: "b", TimeMS: 1_700_000_000_001, Value: 7000, Line: 5},
		{Node: "b", TimeMS: 1_700_000_000_002, Value: 8000, Line: 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTimeFormats(t *testing.T) {
	for _, c := range []struct {
		format, text string
		ms           int64
		rounded      bool
	}{
		{RFC3339, "2024-05-17T15:38:27.185Z", 1715960307185, false},
		{RFC3339, "2024-05-17T17:38:27.1855+02:00", 1715960307186, true},
		{RFC3339, "2024-05-17T15:38:27.1865Z", 1715960307186, true},
		{Unix, "1715960307.185", 1715960307185, false},
		{UnixMS, "1715960307185", 1715960307185, false},
		{"2006-01-02 15:04:05", "2024-05-17 15:38:27", 1715960307000, false},
	} {
		m := power()
		m.TimeFormat = c.format
		got := rows(t, m, "node,ms,watts\na,"+c.text+",1\n")
		if got[0].TimeMS != c.ms || got[0].Rounded != c.rounded {
			t.Errorf("%s %s = %d, %v, want %d, %v", c.format, c.text, got[0].TimeMS, got[0].Rounded, c.ms, c.rounded)
		}
	}
}

func TestUnits(t *testing.T) {
	for unit, want := range map[string]int64{"W": 2500, "kW": 2_500_000, "MW": 2_500_000_000, "mW": 2} {
		m := power()
		m.Unit = unit
		if got := rows(t, m, "node,ms,watts\na,1,2.5\n")[0].Value; got != want {
			t.Errorf("2.5 %s = %d mW, want %d", unit, got, want)
		}
	}
	for unit, want := range map[string]int64{"J": 2_500_000, "kJ": 2_500_000_000, "mJ": 2500, "uJ": 2, "Wh": 9_000_000_000, "kWh": 9_000_000_000_000} {
		m := power()
		m.Kind, m.Unit = segment.CumulativeEnergy, unit
		if got := rows(t, m, "node,ms,watts\na,1,2.5\n")[0].Value; got != want {
			t.Errorf("2.5 %s = %d µJ, want %d", unit, got, want)
		}
	}
}

func TestScanFindsMistakes(t *testing.T) {
	with := func(change func(*Mapping)) Mapping {
		m := power()
		change(&m)
		return m
	}
	for _, c := range []struct {
		name    string
		mapping Mapping
		text    string
		want    string
	}{
		{"empty", power(), "", "t.csv:1: the file is empty"},
		{"header alone", power(), "node,ms,watts\n", "t.csv: the file has a header and no row"},
		{"wrong column", power(), "node,ms,power\n", `t.csv:1: there is no column "watts": the columns are node, ms, power`},
		{"other separator", power(), "node;ms;watts\n", "separated by commas"},
		{"two columns", power(), "node,ms,watts,ms\n", `two columns "ms"`},
		{"bad number", power(), "node,ms,watts\na,1700000000000,5\na,1700000001000,five\n", `t.csv:3: column watts: "five" is not a number`},
		{"nan", power(), "node,ms,watts\na,1700000000000,NaN\n", "t.csv:2: column watts: is not a number (NaN)"},
		{"no value", power(), "node,ms,watts\na,1700000000000,\n", "t.csv:2: column watts: is empty"},
		{"negative", power(), "node,ms,watts\na,1700000000000,-3\n", `t.csv:2: column watts: "-3" is negative`},
		{"unsorted", power(), "node,ms,watts\na,1700000001000,5\nb,1700000000000,5\na,1700000000000,5\n", "t.csv:4: column ms: 2023-11-14T22:13:20.000Z is before the row of node a before it"},
		{"short row", power(), "node,ms,watts\na,1700000000000\n", "t.csv:2: has 2 columns, the header has 3"},
		{"long row", power(), "node,ms,watts\na,1700000000000,1,234\n", "t.csv:2: has 4 columns, the header has 3"},
		{"no node", power(), "node,ms,watts\n,1700000000000,1\n", "t.csv:2: column node: is empty"},
		{"years before", power(), "node,ms,watts\na,1700000000,1\n", "before the year 2000; seconds are of the format unix"},
		{"years ahead", with(func(m *Mapping) { m.TimeFormat = Unix }), "node,ms,watts\na,1700000000000,1\n", "milliseconds are of the format unix_ms"},
		{"ahead", power(), "node,ms,watts\na,1795522200001,1\n", "more than 10 minutes ahead of now"},
		{"started ahead", with(func(m *Mapping) { at := now; m.StartAtMS = &at }), "node,ms,watts\na,0,1\na,600001,1\n", "t.csv:3: column ms: started at"},
		{"run in seconds", with(func(m *Mapping) { at := int64(1_700_000_001); m.RunStartMS = &at }), "node,ms,watts\na,1700000000000,1\n", "run_start 1970-01-20T16:13:20.001Z is before the year 2000"},
		{"run behind", with(func(m *Mapping) { at := int64(1_700_000_001_000); m.RunStartMS = &at }), "node,ms,watts\na,1700000000000,1\n", "run_start 2023-11-14T22:13:21.000Z is after the last row"},
		{"run before", with(func(m *Mapping) { at := int64(1_700_000_001); m.RunStopMS = &at }), "node,ms,watts\na,1700000000000,1\n", "run_stop 1970-01-20T16:13:20.001Z is before the first row"},
		{"open quote", power(), "node,ms,watts\n\"a,1700000000000,1\n", `t.csv:2: a quote (") is not closed`},
		{"quote inside", power(), "node,ms,watts\na\"b,1700000000000,\"1\"\"\n", `has a quote (") inside`},
		{"sparse", power(), "node,ms,watts\na,1700000000000,1\na,1700000060000,1\na,1700000120000,1\n", "the median step between two rows of a node is 1m0s, but power is not bridged over more than 30s: declare the rows' period with --period, or how far to bridge with --max-gap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := scan(c.mapping, c.text)
			var problems Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestScanTellsManyMistakesAtOnce(t *testing.T) {
	_, err := scan(power(), "node,ms,watts\n"+strings.Repeat("a,1700000000000,x\n", 30))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != maxProblems {
		t.Errorf("got %d problems of %v, want %d", len(problems), err, maxProblems)
	}
}

func TestSparseFileIsRightOnceDeclared(t *testing.T) {
	text := "node,ms,watts\na,1700000000000,1\na,1700000060000,1\na,1700000120000,1\n"
	m := power()
	m.PeriodMS = 60_000
	if _, err := scan(m, text); err != nil {
		t.Error(err)
	}
	m = power()
	m.Kind, m.Unit = segment.CumulativeEnergy, "J"
	if _, err := scan(m, text); err != nil {
		t.Errorf("a counter bridges any gap: %v", err)
	}
}

func TestScanSummary(t *testing.T) {
	sum, err := scan(power(), "node,ms,watts\nb,1700000002000,10\na,1700000000000,5\na,1700000000000,5\na,1700000000000,6\na,1700000002000,7.5\nb,1700000004000,20.0004\n")
	if err != nil {
		t.Fatal(err)
	}
	want := &Summary{
		Rows: 6, Samples: 4, Duplicates: 2, Rounded: 1,
		Nodes: []Node{
			{Name: "b", FirstMS: 1700000002000, LastMS: 1700000004000, Readings: 2, Scale: 4},
			{Name: "a", FirstMS: 1700000000000, LastMS: 1700000002000, Readings: 2, Scale: 2},
		},
		EarliestMS: 1700000000000, LatestMS: 1700000004000, MedianStepMS: 2000, Size: sum.Size, Content: sum.Content,
	}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
}

func TestValidateMapping(t *testing.T) {
	for _, c := range []struct {
		change func(*Mapping)
		path   string
		want   string
	}{
		{func(m *Mapping) { m.Site = "" }, "site", "is empty"},
		{func(m *Mapping) { m.Run = "a\nb" }, "run", "control character"},
		{func(m *Mapping) { m.Component = "fan" }, "component", "gpu, cpu"},
		{func(m *Mapping) { m.Kind = 0 }, "kind", "is not set"},
		{func(m *Mapping) { m.Unit = "kWh" }, "unit", "kWh is a unit of energy, but INSTANT_POWER reads power in W, kW, MW or mW; a counter of energy is CUMULATIVE_ENERGY"},
		{func(m *Mapping) { m.Kind = segment.CumulativeEnergy }, "unit", "W is a unit of power, but CUMULATIVE_ENERGY reads energy in J, kJ, mJ, uJ, Wh or kWh"},
		{func(m *Mapping) { m.Unit = "hp" }, "unit", `"hp" is no unit of INSTANT_POWER: use W, kW, MW or mW`},
		{func(m *Mapping) { m.Node = "x" }, "node_column", "either"},
		{func(m *Mapping) { m.TimeFormat = "epoch" }, "time_format", "neither"},
		{func(m *Mapping) { a, b := int64(5), int64(5); m.RunStartMS, m.RunStopMS = &a, &b }, "run_stop", "not after"},
		{func(m *Mapping) { m.CounterRange = "5" }, "counter_range", "only a counter"},
		{func(m *Mapping) { m.Kind, m.Unit, m.CounterRange = segment.CumulativeEnergy, "J", "x" }, "counter_range", "not a number"},
		{func(m *Mapping) { m.MaxPowerWatts = -1 }, "max_power_watts", "not between"},
	} {
		m := power()
		c.change(&m)
		vs := m.Validate()
		if len(vs) != 1 || vs[0].Path != c.path || !strings.Contains(vs[0].Message, c.want) {
			t.Errorf("got %v, want %s: %s", vs, c.path, c.want)
		}
	}
	m := power()
	if vs := m.Validate(); len(vs) > 0 {
		t.Errorf("a right mapping: %v", vs)
	}
}

func TestDescriptor(t *testing.T) {
	m := power()
	start, stop := int64(1000), int64(2000)
	m.Kind, m.Unit, m.CounterRange, m.MaxPowerWatts = segment.CumulativeEnergy, "J", "262143.328850", 700
	m.RunStartMS, m.RunStopMS, m.Run, m.Project, m.PeriodMS = &start, &stop, "r", "p", 100
	d := m.Descriptor(50)
	if d.Device != "chassis/0" || d.Range != 262143328850 || d.MaxPower != 700_000 ||
		!d.HasClipStart || d.ClipStartMS != 1050 || !d.HasClipEnd || d.ClipEndMS != 2050 ||
		d.Kind != 3 || d.Provenance != 1 || d.PeriodMS != 100 || d.Run != "r" || d.Project != "p" {
		t.Errorf("got %+v", d)
	}
}

func TestReaderSeeks(t *testing.T) {
	m := power()
	text := "node,ms,watts,note\na,1,1,\n\"b,c\",2,2,\"x\ny\"\n\na,3,3,\n"
	want := rows(t, m, text)
	r, err := NewReader(strings.NewReader(text), &m)
	if err != nil {
		t.Fatal(err)
	}
	var row Row
	for i := range want {
		at := r.Position()
		other, err := NewReader(strings.NewReader(text), &m)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Seek(at); err != nil {
			t.Fatal(err)
		}
		var again Row
		if err := errors.Join(r.Next(&row), other.Next(&again)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i], again); diff != "" || row != again {
			t.Errorf("row %d after a seek: %s", i, diff)
		}
	}
}

func TestRealTraces(t *testing.T) {
	dir := filepath.Join(testdata.Shared(t), "power", "mlperf_train_v4.0_smc_h100")
	f, err := os.Open(filepath.Join(dir, "gpt3_64node_ac_5848_2.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := power()
	m.TimeColumn = "time_unix_ms"
	sum, err := Scan(context.Background(), f, &m, Options{NowMS: now})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Rows != 108_916 || sum.Samples != 108_916 || len(sum.Nodes) != 64 || !sum.InOrder || sum.EarliestMS != 1715960307185 {
		t.Errorf("gpt3: rows %d samples %d nodes %d in order %v from %d", sum.Rows, sum.Samples, len(sum.Nodes), sum.InOrder, sum.EarliestMS)
	}
	for _, n := range sum.Nodes {
		if n.Scale != 3 {
			t.Errorf("gpt3: node %s of whole watts has scale %d, want 3", n.Name, n.Scale)
		}
	}
}

// FuzzReader holds the splitting of rows against encoding/csv.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"a,1,2\n", "\"a\"\"b\",1,2\r\n", "\"x\ny\",3,4", "a\"b,1,2\n", "\n\n,,\n", "\"a\"b,1,1\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m := power()
		text = "node,ms,watts\n" + text
		if strings.ContainsAny(text, "\r") || len(text) > maxLine/2 {
			return // encoding/csv folds \r\n inside quotes, and we do not
		}
		r := &Reader{m: &m, src: strings.NewReader(text)}
		fresh, err := NewReader(strings.NewReader(text), &m)
		if err != nil {
			t.Fatal(err)
		}
		*r = *fresh
		twin := csv.NewReader(bytes.NewReader([]byte(text)))
		twin.FieldsPerRecord = -1
		if _, err := twin.Read(); err != nil {
			t.Fatal(err)
		}
		for {
			want, wantErr := twin.Read()
			err := r.record()
			for err == nil && len(r.fields) == 1 && len(r.fields[0]) == 0 && wantErr == nil && (len(want) != 1 || want[0] != "") {
				err = r.record() // an empty line is no record of theirs
			}
			for err == nil && errors.Is(wantErr, io.EOF) && len(r.fields) == 1 && len(r.fields[0]) == 0 {
				err = r.record()
			}
			if wantErr != nil || err != nil {
				if (wantErr == nil) != (err == nil) && !strings.Contains(text, `"`) {
					t.Fatalf("%q: %v, the twin %v", text, err, wantErr)
				}
				return
			}
			got := make([]string, len(r.fields))
			for i, f := range r.fields {
				got[i] = string(f)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%q: %s", text, diff)
			}
		}
	})
}
