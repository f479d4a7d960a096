package main

import (
	"bytes"
	"encoding/csv"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/internal/daemon"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

func TestParseTime(t *testing.T) {
	for text, want := range map[string]string{
		"2022-04-08T13:40:00Z":         "2022-04-08T13:40:00Z",
		"2022-04-08T13:40:00.163Z":     "2022-04-08T13:40:00.163Z",
		"2022-04-08T15:40:00+02:00":    "2022-04-08T13:40:00Z",
		"2022-04-08T13:40":             "2022-04-08T13:40:00Z",
		"2022-04-08T13:40:00.00000001": "2022-04-08T13:40:00.00000001Z",
		"2022-04-08":                   "2022-04-08T00:00:00Z",
	} {
		got, err := parseTime("at", text)
		if err != nil || got.AsTime().Format(time.RFC3339Nano) != want {
			t.Errorf("parseTime(%q) = %v, %v, want %s", text, got.AsTime(), err, want)
		}
	}
	for _, text := range []string{"yesterday", "2022-13-01", "1649425200"} {
		if _, err := parseTime("at", text); err == nil || !strings.Contains(err.Error(), "--at") {
			t.Errorf("parseTime(%q) = %v, want an error that names the flag", text, err)
		}
	}
	if got, err := parseTime("at", ""); got != nil || err != nil {
		t.Errorf("parseTime of nothing = %v, %v, want nothing", got, err)
	}
}

func TestParseClockReadsMilliseconds(t *testing.T) {
	got, err := parseClock("run-start", "1715960307022")
	if want := "2024-05-17T15:38:27.022Z"; err != nil || got.AsTime().Format(time.RFC3339Nano) != want {
		t.Errorf("parseClock = %v, %v, want %s", got.AsTime(), err, want)
	}
	if _, err := parseClock("run-start", "17159603.5"); err == nil {
		t.Error("parseClock of a fraction succeeded")
	}
}

func TestWarnRefused(t *testing.T) {
	var out bytes.Buffer
	(&app{err: &out}).warnRefused(&telemetryv1.ImportResult{
		Batches: 64, Refused: map[string]uint64{"posting_overflow": 22, "malformed": 1},
	})
	const want = "warning: 1 of 64 batches do not count, or not as a whole (malformed)\n" +
		"warning: 22 of 64 batches do not count, or not as a whole (posting_overflow: more energy than a ledger can hold: is the unit right?)\n"
	if out.String() != want {
		t.Errorf("warned %q, want %q", out.String(), want)
	}
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "90m": 90 * time.Minute, "1.5d": 36 * time.Hour,
	} {
		if got, err := parseSpan("last", text); err != nil || got != want {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"d", "-7d", "0h", "a week"} {
		if _, err := parseSpan("last", text); err == nil {
			t.Errorf("parseSpan(%q) succeeded", text)
		}
	}
}

func TestParseSignalTakesShortForms(t *testing.T) {
	for _, text := range []string{"average-direct", "CARBON_AVERAGE_DIRECT", "carbon-average-direct", "SIGNAL_CARBON_AVERAGE_DIRECT"} {
		if got, err := parseSignal(text); err != nil || got != gridv1.Signal_SIGNAL_CARBON_AVERAGE_DIRECT {
			t.Errorf("parseSignal(%q) = %v, %v", text, got, err)
		}
	}
	if _, err := parseSignal("green"); err == nil || !strings.Contains(err.Error(), "CARBON_MARGINAL") {
		t.Errorf("parseSignal of an unknown one = %v, want an error that lists what there is", err)
	}
}

// TestUsageExitsWithTwo runs command lines that no server needs to see.
func TestUsageExitsWithTwo(t *testing.T) {
	for _, line := range []string{
		"frobnicate",
		"statement --sight s",
		"statement extra",
		"statement --from 2022-01-01",
		"statement --last 7d --from 2022-01-01 --to 2022-01-02",
		"statement --pricing cheap",
		"statement --pricing latest --as-of now",
		"statement --explain --every 1h",
		"statement --group-by colour",
		"statement -o yaml",
		"intensity",
		"intensity FR --as-of now --as-known-at now",
		"series --site s",
		"sites create",
		"import samples --site s",
		"import samples --site s --component gpu --kind POWER --csv f --node n --time-column t --value-column v --unit W",
		"import samples --site s --component gpu --kind INSTANT_POWER --csv f --time-column t --value-column v --unit W",
		"import intensity --zone FR --csv f --time-column t --value-column v --step 1.5s",
		"import intensity --zone FR --csv f --time-column t --value-column v --known-at now --known-at-column k",
		"up --no-such-flag",
		"up --grpc 0.0.0.0:9090",
		"collector --replay f",
	} {
		var out, errOut bytes.Buffer
		if code := execute(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &errOut); code != daemon.ExitUsage {
			t.Errorf("wattfold %s: exit code %d, want %d\n%s", line, code, daemon.ExitUsage, errOut.String())
		} else if !strings.HasPrefix(errOut.String(), "error: ") {
			t.Errorf("wattfold %s: stderr %q", line, errOut.String())
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	var out, errOut bytes.Buffer
	code := execute(t.Context(), strings.Fields("sites --server 127.0.0.1:1"), strings.NewReader(""), &out, &errOut)
	if code != daemon.ExitError || !strings.Contains(errOut.String(), "wattfold up") {
		t.Errorf("exit code %d, stderr %q, want %d and what to do", code, errOut.String(), daemon.ExitError)
	}
}

func TestVersionAndConfigNeedNoServer(t *testing.T) {
	for line, want := range map[string]string{
		"version":         "wattfold ",
		"version -o json": `"go":`,
		"config":          "127.0.0.1:9090",
		"--help":          "statement",
	} {
		var out, errOut bytes.Buffer
		if code := execute(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &errOut); code != daemon.ExitOK || !strings.Contains(out.String(), want) {
			t.Errorf("wattfold %s: exit code %d, stdout %q, stderr %q", line, code, out.String(), errOut.String())
		}
	}
}

// TestDemoIntensityKeepsWeekdays: the hours of 2021 stand at today's weekdays,
// without a hole, and come again after 52 weeks.
func TestDemoIntensityKeepsWeekdays(t *testing.T) {
	bundled := readCSV(t, bytes.NewReader(demoIntensity))
	from := time.Date(2026, 11, 24, 7, 31, 0, 0, time.UTC)
	moved, err := moveDemoIntensity(demoIntensity, from, from.Add(60*7*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	rows := readCSV(t, moved)
	if got, want := len(rows)-1, 60*7*24+1; got != want {
		t.Fatalf("%d hours, want %d", got, want)
	}
	first := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	byHour := map[string]string{}
	for _, row := range bundled[1:] {
		byHour[row[0]] = row[1]
	}
	for i, row := range rows[1:] {
		at, err := time.Parse(time.RFC3339, row[0])
		if err != nil {
			t.Fatal(err)
		}
		if want := from.Truncate(time.Hour).Add(time.Duration(i) * time.Hour); !at.Equal(want) {
			t.Fatalf("row %d is of %v, want %v", i, at, want)
		}
		source := at
		for !source.Before(first.Add(demoWeeks)) {
			source = source.Add(-demoWeeks)
		}
		if row[1] != byHour[source.Format(time.RFC3339)] {
			t.Fatalf("%s has %s, want that of %s: %s", row[0], row[1], source.Format(time.RFC3339), byHour[source.Format(time.RFC3339)])
		}
	}
}

func readCSV(t *testing.T, in io.Reader) [][]string {
	t.Helper()
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
