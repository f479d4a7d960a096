package csvfile_test

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/services/gridfeed/internal/csvfile"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func mapping() csvfile.Mapping {
	return csvfile.Mapping{File: "ci.csv", TimeColumn: "t", ValueColumn: "v", Now: now}
}

// known says that column k holds when a row was known, in Unix seconds.
func known(m *csvfile.Mapping) { m.KnownColumn, m.KnownFormat = "k", "unix" }

// print shows a file as a story: one line a row.
func print(f *csvfile.File) string {
	var b strings.Builder
	fmt.Fprintf(&b, "step %s rows %d empty %d repeated %d\n", f.Step, f.Total, f.Empty, f.Repeated)
	for _, r := range f.Rows {
		fmt.Fprintf(&b, "%d %s %s", r.Line, r.Start, r.Value)
		if r.KnownMS != 0 {
			fmt.Fprintf(&b, " known %d", r.KnownMS)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, file, want string
		edit             func(*csvfile.Mapping)
	}{
		{
			name: "plain",
			file: "t,v\n2022-01-01T00:00:00Z,84.73\n2022-01-01T01:00:00Z,90\n",
			want: "step 1h0m0s rows 2 empty 0 repeated 0\n2 2022-01-01T00:00:00Z 84.73\n3 2022-01-01T01:00:00Z 90\n",
		},
		{
			name: "byte order mark, carriage returns, blanks, quotes, other columns, offsets",
			file: "\ufeff\"t\",x, v \r\n2022-01-01 01:00:00+01:00,,\" 84.7300\"\r\n\r\n2022-01-01T00:30:00.000Z,\"a\nb\",0\r\n",
			want: "step 30m0s rows 2 empty 0 repeated 0\n2 2022-01-01T00:00:00Z 84.73\n4 2022-01-01T00:30:00Z 0\n",
		},
		{
			name: "no newline at the end, exponents",
			file: "t,v\n2022-01-01T00:00:00Z,8.473e1\n2022-01-01T00:05:00Z,9E1",
			want: "step 5m0s rows 2 empty 0 repeated 0\n2 2022-01-01T00:00:00Z 84.73\n3 2022-01-01T00:05:00Z 90\n",
		},
		{
			name: "unsorted, repeated, empty, a hole",
			file: "t,v\n2022-01-01T05:00:00Z,5\n2022-01-01T01:00:00Z,1\n2022-01-01T02:00:00Z,\n2022-01-01T01:00:00Z,1.0\n",
			want: "step 1h0m0s rows 4 empty 1 repeated 1\n2 2022-01-01T05:00:00Z 5\n3 2022-01-01T01:00:00Z 1\n",
		},
		{
			name: "rows without a value say how long an interval is",
			file: "t,v\n2022-01-01T00:00:00Z,1\n2022-01-01T00:30:00Z,\n2022-01-01T01:00:00Z,2\n",
			want: "step 30m0s rows 3 empty 1 repeated 0\n2 2022-01-01T00:00:00Z 1\n4 2022-01-01T01:00:00Z 2\n",
		},
		{
			name: "all without a value",
			file: "t,v\n2022-01-01T00:00:00Z,\n2022-01-01T01:00:00Z,\n",
			want: "step 1h0m0s rows 2 empty 2 repeated 0\n",
		},
		{
			name: "unix seconds, given step longer than the rows are apart is not needed",
			file: "t,v\n1640995200,1\n1641002400,2\n",
			edit: func(m *csvfile.Mapping) { m.TimeFormat, m.Step = "unix", time.Hour },
			want: "step 1h0m0s rows 2 empty 0 repeated 0\n2 2022-01-01T00:00:00Z 1\n3 2022-01-01T02:00:00Z 2\n",
		},
		{
			name: "unix milliseconds, one row",
			file: "t,v\n1640995200000,1\n",
			edit: func(m *csvfile.Mapping) { m.TimeFormat, m.Step = "unix_ms", 30*time.Minute },
			want: "step 30m0s rows 1 empty 0 repeated 0\n2 2022-01-01T00:00:00Z 1\n",
		},
		{
			name: "a layout",
			file: "t,v\n01/13/2020 00:00:00,1\n01/13/2020 01:00:00,2\n",
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "01/02/2006 15:04:05" },
			want: "step 1h0m0s rows 2 empty 0 repeated 0\n2 2020-01-13T00:00:00Z 1\n3 2020-01-13T01:00:00Z 2\n",
		},
		{
			name: "by when it was known",
			file: "t,v,k\n2022-01-01T01:00:00Z,1,1641002500.0005\n2022-01-01T00:00:00Z,2,1641002400\n2022-01-01T01:00:00Z,3,1641002600\n" +
				"2022-01-01T01:00:00Z,3,1641002600\n",
			edit: known,
			want: "step 1h0m0s rows 4 empty 0 repeated 1\n3 2022-01-01T00:00:00Z 2 known 1641002400000\n" +
				"2 2022-01-01T01:00:00Z 1 known 1641002500000\n4 2022-01-01T01:00:00Z 3 known 1641002600000\n",
		},
		{
			name: "pounds",
			file: "t,v\n2023-06-08T00:00:00Z,425.01605069\n2023-06-08T00:05:00Z,1\n",
			edit: func(m *csvfile.Mapping) { m.Unit = "lbs/MWh" },
			want: "step 5m0s rows 2 empty 0 repeated 0\n2 2023-06-08T00:00:00Z 192.7840377205172353\n3 2023-06-08T00:05:00Z 0.45359237\n",
		},
		{
			name: "tonnes",
			file: "t,v\n2023-06-08T00:00:00Z,0.42\n2023-06-08T00:05:00Z,1\n",
			edit: func(m *csvfile.Mapping) { m.Unit = "T/mwh" },
			want: "step 5m0s rows 2 empty 0 repeated 0\n2 2023-06-08T00:00:00Z 420\n3 2023-06-08T00:05:00Z 1000\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := mapping()
			if test.edit != nil {
				test.edit(&m)
			}
			file, err := csvfile.Parse(strings.NewReader(test.file), m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, print(file)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "2022-01-01T00:00:00Z,1\n2022-01-01T01:00:00Z,2\n"
	for _, test := range []struct {
		name, file, want string
		edit             func(*csvfile.Mapping)
	}{
		{name: "empty", file: "", want: "ci.csv:1: the file is empty"},
		{name: "header alone", file: "t,v\n", want: "ci.csv:1: no rows after the header"},
		{name: "missing column", file: "time,v\n" + good, want: `ci.csv:1: column "t": no such column; there are "time", "v"`},
		{name: "semicolons", file: "t;v\n2022-01-01T00:00:00Z;1\n", want: "separated by commas"},
		{name: "column twice", file: "t,v,v\n", want: `ci.csv:1: column "v": there are two columns of this name (2 and 3)`},
		{name: "bad number", file: "t,v\n" + good + "2022-01-01T02:00:00Z,1O\n", want: `ci.csv:4: column "v": decimal "1O": unexpected 'O'`},
		{name: "null", file: "t,v\n2022-01-01T02:00:00Z,null\n", want: "leave the field empty where there is no value"},
		{name: "NaN", file: "t,v\n2022-01-01T02:00:00Z,NaN\n", want: "ci.csv:2: column \"v\": decimal \"NaN\": not finite"},
		{name: "infinite", file: "t,v\n2022-01-01T02:00:00Z,-Inf\n", want: "not finite"},
		{name: "negative", file: "t,v\n2022-01-01T02:00:00Z,-0.1\n", want: "ci.csv:2: column \"v\": -0.1 is negative"},
		{name: "no grid emits that", file: "t,v\n2022-01-01T02:00:00Z,1e9\n", want: "is the unit right?"},
		{name: "too many digits", file: "t,v\n2022-01-01T02:00:00Z,0.12345678901234567890123\n", want: "round to 18 digits"},
		{name: "no time", file: "t,v\n,1\n", want: "ci.csv:2: column \"t\": no time"},
		{name: "bad time", file: "t,v\nnoon,1\n", want: `ci.csv:2: column "t": "noon" is not a time such as`},
		{name: "no zone", file: "t,v\n2022-01-01 00:00:00,1\n", want: `give --time-format "2006-01-02 15:04:05" to read it as UTC`},
		{
			name: "not of the layout", file: "t,v\n2022-01-01,1\n", want: `"2022-01-01" is not of the form "02.01.2006"`,
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "02.01.2006" },
		},
		{name: "off the slots", file: "t,v\n2022-01-01T00:01:00Z,1\n", want: "does not lie on a slot of five minutes"},
		{name: "years late", file: "t,v\n2222-01-01T00:00:00Z,1\n", want: "2222-01-01T00:00:00Z is years off"},
		{name: "years early", file: "t,v\n1022-01-01T00:00:00Z,1\n", want: "1022-01-01T00:00:00Z is years off"},
		{
			name: "milliseconds as seconds", file: "t,v\n1640995200000,1\n", want: "years off: unix is seconds",
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "unix" },
		},
		{
			name: "seconds as milliseconds", file: "t,v\n1640995200,1\n", want: "1970-01-19T23:49:55Z is years off",
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "unix_ms" },
		},
		{
			name: "not seconds", file: "t,v\n2022-01-01,1\n", want: "is not a number of seconds",
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "unix" },
		},
		{name: "one row, no step", file: "t,v\n2022-01-01T00:00:00Z,1\n", want: "give --step"},
		{
			name: "step off the slots", file: "t,v\n" + good, want: "not a multiple of five minutes",
			edit: func(m *csvfile.Mapping) { m.Step = 7 * time.Minute },
		},
		{
			name: "overlap", file: "t,v\n" + good, want: "ci.csv:3: column \"t\": 2022-01-01T01:00:00Z is 1h0m0s from 2022-01-01T00:00:00Z in line 2, but an interval lasts 2h0m0s",
			edit: func(m *csvfile.Mapping) { m.Step = 2 * time.Hour },
		},
		{
			name: "resolution changes", want: "split the file where its resolution changes",
			file: "t,v\n" + good + "2022-01-01T02:00:00Z,3\n2022-01-01T03:00:00Z,4\n2022-01-01T03:15:00Z,4\n",
		},
		{name: "two values", file: "t,v\n" + good + "2022-01-01T00:00:00Z,3\n", want: `ci.csv:4: column "v": 3 for 2022-01-01T00:00:00Z, where line 2 has 1: give --known-at-column`},
		{
			name: "two values known at one moment", edit: known,
			file: "t,v,k\n2022-01-01T00:00:00Z,1,1640995200\n2022-01-01T01:00:00Z,1,1640995200\n2022-01-01T00:00:00Z,2,1640995200.0\n",
			want: `ci.csv:4: column "v": 2 for 2022-01-01T00:00:00Z, where line 2 has 1: both are known at the same moment`,
		},
		{name: "not known when", edit: known, file: "t,v,k\n2022-01-01T00:00:00Z,1,\n", want: `ci.csv:2: column "k": no time`},
		{name: "ragged", file: "t,v\n2022-01-01T00:00:00Z,1,2\n", want: "ci.csv:2: 3 fields, but the header has 2"},
		{name: "quote", file: "t,v\n\"2022-01-01T00:00:00Z,1\n", want: "ci.csv:2: byte 25: extraneous or missing \" in quoted-field"},
		{name: "quote over megabytes", file: "t,v\n\"" + strings.Repeat("2022-01-01T00:00:00Z,1\n", 100_000), want: "is a quote not closed?"},
		{
			name: "unit", file: "t,v\n" + good, want: `unknown unit "g/mi": want g/kWh, kg/MWh, lb/MWh, t/MWh`,
			edit: func(m *csvfile.Mapping) { m.Unit = "g/mi" },
		},
		{
			name: "strftime", file: "t,v\n" + good, want: "write the moment 2006-01-02 15:04:05 as the file would",
			edit: func(m *csvfile.Mapping) { m.TimeFormat = "%Y-%m-%d" },
		},
		{
			name: "layout without a year", file: "t,v\n" + good, want: "a layout with a full date",
			edit: func(m *csvfile.Mapping) { m.KnownColumn, m.KnownFormat = "v", "Jan 2 15:04" },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := mapping()
			if test.edit != nil {
				test.edit(&m)
			}
			_, err := csvfile.Parse(strings.NewReader(test.file), m)
			var problems csvfile.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want one with %q", err, test.want)
			}
		})
	}
}

func TestParseCollectsTenProblems(t *testing.T) {
	_, err := csvfile.Parse(strings.NewReader("t,v\n"+strings.Repeat("x,1\n", 100)), mapping())
	var problems csvfile.Problems
	if !errors.As(err, &problems) || len(problems) != 10 || problems[9].Line != 11 {
		t.Errorf("%d problems: %v", len(problems), err)
	}
}

// TestParsePassesReadErrorsOn: a broken stream is not a broken file.
func TestParsePassesReadErrorsOn(t *testing.T) {
	broken := errors.New("connection reset")
	r := io.MultiReader(strings.NewReader("t,v\n2022-01-01T00:00:00Z,1\n"), errReader{broken})
	_, err := csvfile.Parse(r, mapping())
	var problems csvfile.Problems
	if !errors.Is(err, broken) || errors.As(err, &problems) {
		t.Errorf("error %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestConversionAgainstRationals converts coefficients of every length and compares
// with exact arithmetic.
func TestConversionAgainstRationals(t *testing.T) {
	pound := big.NewRat(45359237, 100_000_000)
	for digits := 1; digits <= 17; digits++ {
		text := "0." + strings.Repeat("0", 16) + "9876543219876543219"[:digits]
		text = strings.TrimRight(text, "0")
		file, err := csvfile.Parse(strings.NewReader("t,v\n2022-01-01T00:00:00Z,"+text+"\n"), csvfile.Mapping{
			TimeColumn: "t", ValueColumn: "v", Step: time.Hour, Unit: "lb/MWh", Now: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := unit.ParseDecimal(text)
		if err != nil {
			t.Fatal(err)
		}
		want := new(big.Rat).Mul(raw.Rat(), pound)
		off := new(big.Rat).Sub(file.Rows[0].Value.Rat(), want)
		off.Quo(off.Abs(off), want)
		if digits <= 10 && off.Sign() != 0 || off.Cmp(big.NewRat(1, 1e17)) > 0 {
			t.Errorf("%s lb/MWh is %s g/kWh, off by %s", text, file.Rows[0].Value, off.FloatString(25))
		}
	}
}

// TestParseReal reads whole public series; the counts are those of the data's notes.
func TestParseReal(t *testing.T) {
	grid := filepath.Join(testdata.Shared(t), "grid")
	for _, test := range []struct {
		path        string
		m           csvfile.Mapping
		total, rows int
		step        time.Duration
	}{
		{"carboncast/CISO_direct_emissions.csv", csvfile.Mapping{TimeColumn: "UTC time", TimeFormat: "2006-01-02 15:04:05", ValueColumn: "carbon_intensity"}, 17_544, 17_544, time.Hour},
		{"carboncast/CISO_lifecycle_emissions.csv", csvfile.Mapping{TimeColumn: "UTC time", TimeFormat: "01/02/2006 15:04:05", ValueColumn: "carbon_intensity"}, 17_544, 17_544, time.Hour},
		{"emaps_2022_123zones/ci_lca_hourly_2022.csv", csvfile.Mapping{TimeColumn: "datetime_utc", ValueColumn: "US-CAL-CISO"}, 8760, 8760, time.Hour},
		{"emaps_polled_2021_2022/DE.csv", csvfile.Mapping{TimeColumn: "zone_datetime", ValueColumn: "carbon_intensity_avg", KnownColumn: "timestamp", KnownFormat: "unix", Unit: "gCO2eq/kWh"}, 16_977, 16_977, time.Hour},
		{"emaps_portal/ES_2022_hourly.csv", csvfile.Mapping{TimeColumn: "Datetime (UTC)", TimeFormat: "2006-01-02 15:04:05", ValueColumn: "Carbon Intensity gCO₂eq/kWh (LCA)"}, 8760, 8760, time.Hour},
		{"gb_neso_2023/national_intensity_30min.csv", csvfile.Mapping{TimeColumn: "from", ValueColumn: "actual"}, 17_430, 17_425, 30 * time.Minute},
		{"caiso_moer_5min_2023/watttime_example.csv", csvfile.Mapping{TimeColumn: "oootime", TimeFormat: "2006-01-02 15:04:05", ValueColumn: "Caiso_North", Unit: "lb/MWh"}, 8928, 8928, 5 * time.Minute},
	} {
		t.Run(test.path, func(t *testing.T) {
			f, err := os.Open(filepath.Join(grid, test.path))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			test.m.File, test.m.Now = test.path, now
			file, err := csvfile.Parse(f, test.m)
			if err != nil {
				t.Fatal(err)
			}
			if int(file.Total) != test.total || len(file.Rows) != test.rows || file.Step != test.step {
				t.Errorf("%d rows, %d with a value, step %s; want %d, %d, %s",
					file.Total, len(file.Rows), file.Step, test.total, test.rows, test.step)
			}
		})
	}
}

// FuzzParse holds Parse to its promise: problems with a place, or rows that are
// ordered, on slots, not negative, without contradictions or overlaps.
func FuzzParse(f *testing.F) {
	f.Add("t,v,k\n2022-01-01T00:00:00Z,1,1640995200\n2022-01-01T01:00:00Z,2,1640995200.5\n", "rfc3339", "g/kWh", int64(0), true)
	f.Add("\ufefft,v\r\n1640995200,1e2\r\n1640998800,\r\n", "unix", "lb/MWh", int64(3600), false)
	f.Add("t,v\n01/13/2020 00:00:00,1\n", "01/02/2006 15:04:05", "t/MWh", int64(300), false)
	f.Fuzz(func(t *testing.T, text, format, unitName string, step int64, withKnown bool) {
		m := csvfile.Mapping{
			File: "f", TimeColumn: "t", TimeFormat: format, ValueColumn: "v", Unit: unitName, Now: now,
			Step: time.Duration(step%1e6) * time.Second,
		}
		if withKnown {
			known(&m)
		}
		file, err := csvfile.Parse(strings.NewReader(text), m)
		if err != nil {
			var problems csvfile.Problems
			if !errors.As(err, &problems) || len(problems) == 0 || len(problems) > 10 {
				t.Fatalf("error %v", err)
			}
			return
		}
		if file.Step <= 0 || file.Step%(5*time.Minute) != 0 {
			t.Fatalf("step %s", file.Step)
		}
		length := slot.Slot(file.Step / (5 * time.Minute))
		type moment struct {
			start slot.Slot
			known int64
		}
		seen := map[moment]bool{}
		for i, row := range file.Rows {
			at := moment{row.Start, row.KnownMS}
			if seen[at] || row.Value.Sign() < 0 || row.Line < 2 || i > 0 && row.KnownMS < file.Rows[i-1].KnownMS {
				t.Fatalf("row %+v", row)
			}
			seen[at] = true
		}
		for at := range seen {
			for d := slot.Slot(1); d < min(length, 300); d++ {
				if seen[moment{at.start + d, at.known}] {
					t.Fatalf("%s and %s overlap at a step of %s", at.start, at.start+d, file.Step)
				}
			}
		}
		if uint64(len(file.Rows))+file.Empty+file.Repeated != file.Total {
			t.Fatalf("%d rows with a value + %d empty + %d repeated are not %d", len(file.Rows), file.Empty, file.Repeated, file.Total)
		}
	})
}
