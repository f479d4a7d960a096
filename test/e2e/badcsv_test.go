package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/test/harness"
)

// bad is a file that must be refused. Where line is 0 the mistake has no line.
type bad struct {
	name, text string
	flags      []string // instead of the usual ones of the same name
	line       int
	says       string // part of the message, in lower case
}

// refuse imports a bad file and checks that the message leads to the mistake.
func refuse(t *testing.T, up *harness.Server, c bad, command []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bad.csv")
	if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(append(command, "--csv", path), c.flags...)
	r := up.CLI(args...)
	if r.Code != 1 && r.Code != 2 {
		t.Errorf("want exit 1 or 2: %v", r)
	}
	if c.line > 0 && !strings.Contains(r.Stderr, fmt.Sprintf("bad.csv:%d", c.line)) {
		t.Errorf("the message does not name bad.csv:%d: %v", c.line, r)
	}
	if !strings.Contains(strings.ToLower(r.Stderr), c.says) {
		t.Errorf("the message does not say %q: %v", c.says, r)
	}
}

// A file with a mistake anywhere is refused with the place of the mistake, and
// nothing of it is in the ledger.
func TestBadSamplesAreRefusedWhole(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.1")
	const head = "node,time_unix_ms,watts\n"
	good := func(n int) string {
		var b strings.Builder
		b.WriteString(head)
		for i := range n {
			fmt.Fprintf(&b, "n1,%d,100\n", 1_650_000_000_000+int64(i)*1000)
		}
		return b.String()
	}
	tomorrow := time.Now().Add(24 * time.Hour).UnixMilli()
	for _, c := range []bad{
		{name: "wrong column", text: good(3), flags: []string{"--value-column", "power"}, line: 1, says: "power"},
		{name: "bad number", text: good(5000) + "n1,1650009000000,10O\n", line: 5002, says: "10o"},
		{name: "no number", text: good(2) + "n1,1650000009000,\n", line: 4},
		{name: "NaN", text: good(2) + "n1,1650000009000,NaN\n", line: 4, says: "nan"},
		{name: "infinite", text: good(2) + "n1,1650000009000,Inf\n", line: 4, says: "inf"},
		{name: "negative power", text: good(2) + "n1,1650000009000,-0.001\n", line: 4, says: "negative"},
		{name: "time goes back", text: good(3) + "n1,1650000001500,100\n", line: 5},
		{name: "bad time", text: good(1) + "n1,yesterday,100\n", line: 3, says: "yesterday"},
		{name: "seconds read as milliseconds", text: head + "n1,1650000000,100\nn1,1650000001,100\n", line: 2},
		{name: "milliseconds read as seconds", text: good(3), flags: []string{"--time-format", "unix"}, line: 2},
		{name: "tomorrow", text: head + fmt.Sprintf("n1,%d,100\nn1,%d,100\n", tomorrow, tomorrow+1000), line: 2},
		{name: "a row too short", text: good(2) + "n1,1650000009000\n", line: 4},
		{name: "a row too long", text: good(2) + "n1,1650000009000,100,3\n", line: 4},
		{name: "an open quote", text: good(2) + "n1,1650000009000,\"100\n", line: 4},
		{name: "no node", text: good(2) + ",1650000009000,100\n", line: 4, says: "node"},
		{name: "too much for a number", text: good(2) + "n1,1650000009000,1e300\n", line: 4},
		{name: "empty", text: "", line: 1, says: "empty"},
		{name: "only a header", text: head, says: "no "},
		{name: "unknown unit", text: good(3), flags: []string{"--unit", "horsepower"}, says: "horsepower"},
		{name: "unit of energy for power", text: good(3), flags: []string{"--unit", "kWh"}, says: "kwh"},
		{name: "unknown kind", text: good(3), flags: []string{"--kind", "GUESS"}, says: "guess"},
		{name: "unknown component", text: good(3), flags: []string{"--component", "toaster"}, says: "component"},
		{name: "rarer than the gap", text: head + "n1,1650000000000,1\nn1,1650000060000,1\nn1,1650000120000,1\n", says: "--period"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := up.In(t)
			run := "bad-" + strings.ReplaceAll(c.name, " ", "-")
			refuse(t, up, c, append([]string{"import", "samples", "--site", "s", "--project", "p", "--run", run}, columns()...))
			if r := up.CLI("statement", "--run", run, "-o", "json"); r.Code != 4 {
				t.Errorf("want exit 4, no data, for a run that was refused: %v", r)
			}
		})
	}
	s := up.Statement("--site", "s")
	if s.GetEnergy().GetItMicrojoules() != "0" || s.GetCoverage().GetObservedMs() != 0 || s.GetCoverage().Ratio != nil {
		t.Errorf("a site with refused imports alone has energy or coverage: %v", s)
	}
}

func TestBadIntensitiesAreRefusedWhole(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	const head = "hour,value\n"
	good := func(n int) string {
		var b strings.Builder
		b.WriteString(head)
		at := time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range n {
			fmt.Fprintf(&b, "%s,%d.5\n", at.Add(time.Duration(i)*time.Hour).Format(time.RFC3339), 100+i)
		}
		return b.String()
	}
	for i, c := range []bad{
		{name: "wrong column", text: good(3), flags: []string{"--value-column", "intensity"}, line: 1, says: "intensity"},
		{name: "bad number", text: good(300) + "2022-02-01T00:00:00Z,1O0\n", line: 302, says: "1o0"},
		{name: "NaN", text: good(2) + "2022-02-01T00:00:00Z,NaN\n", line: 4, says: "nan"},
		{name: "bad time", text: good(2) + "soon,1\n", line: 4, says: "soon"},
		{name: "off the slots", text: head + "2022-01-01T00:00:01Z,1\n2022-01-01T01:00:01Z,1\n", line: 2},
		{name: "seconds read as milliseconds", text: head + "1650000000,1\n1650003600,1\n", flags: []string{"--time-format", "unix_ms"}, line: 2},
		{name: "two values for an interval", text: good(3) + "2022-01-01T01:00:00Z,77\n", line: 5},
		{name: "a row too short", text: good(2) + "2022-02-01T00:00:00Z\n", line: 4},
		{name: "empty", text: "", line: 1, says: "empty"},
		{name: "only a header", text: head, says: "no "},
		{name: "unknown unit", text: good(3), flags: []string{"--unit", "furlong"}, says: "furlong"},
		{name: "unknown signal", text: good(3), flags: []string{"--signal", "CARBON_HEARSAY"}, says: "hearsay"},
		{name: "unknown quality", text: good(3), flags: []string{"--quality", "GOOD"}, says: "good"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := up.In(t)
			zone := fmt.Sprintf("ZZ-%d", i)
			refuse(t, up, c, []string{
				"import", "intensity", "--zone", zone, "--time-column", "hour", "--value-column", "value", "--step", "1h",
			})
			r := up.CLI("intensity", zone, "--at", "2022-01-01T00:30:00Z", "-o", "json")
			if r.Code != 4 {
				t.Errorf("want exit 4, no data, for a zone that was refused: %v", r)
			}
		})
	}
}

// Rows that repeat the one before are dropped and counted; a file imported again
// changes nothing, under any name.
func TestRepetitionChangesNothing(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.1")
	dir := t.TempDir()
	var text strings.Builder
	text.WriteString("node,time_unix_ms,watts\n")
	for i := range 100 {
		row := fmt.Sprintf("n1,%d,1000\n", 1_650_000_000_000+int64(i)*1000)
		text.WriteString(row)
		if i%10 == 0 {
			text.WriteString(row)
		}
	}
	var answers []string
	for _, name := range []string{"one.csv", "other.csv"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, up.Must(append([]string{
			"import", "samples", "--csv", path, "--site", "s", "--project", "p", "--run", "r", "-o", "json",
		}, columns()...)...))
	}
	if !strings.Contains(strings.Join(strings.Fields(answers[0]), ""), `"duplicateRows":"10"`) {
		t.Errorf("the answer does not count 10 repeated rows:\n%s", answers[0])
	}
	if !strings.Contains(strings.Join(strings.Fields(answers[1]), ""), `"alreadyImported":true`) {
		t.Errorf("the second import does not say that it was imported already:\n%s", answers[1])
	}
	s := up.Statement("--run", "r")
	if got, want := s.GetEnergy().GetItMicrojoules(), "99000000000"; got != want { // 1 kW for 99 s
		t.Errorf("energy is %s µJ, want %s", got, want)
	}
	if got := s.GetCoverage().GetObservedMs(); got != 99_000 {
		t.Errorf("%d ms observed, want 99000", got)
	}

	// Other content under an id that is taken is refused, and with --replace
	// takes the place of the first.
	path := filepath.Join(dir, "half.csv")
	half := strings.ReplaceAll(text.String(), ",1000\n", ",500.001\n")
	for _, c := range []struct {
		text  string
		flags []string
		fails bool
		want  string
	}{
		{text: text.String(), want: "198000000000"},
		{text: half, fails: true, want: "198000000000"},
		{text: half, flags: []string{"--replace"}, want: "148500099000"},
		{text: half, flags: []string{"--replace"}, want: "148500099000"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := up.CLI(append(append([]string{
			"import", "samples", "--csv", path, "--site", "s", "--project", "p2", "--run", "r2", "--import-id", "mine",
			"--device", "chassis/7",
		}, columns()...), c.flags...)...)
		if (r.Code != 0) != c.fails {
			t.Errorf("fails should be %v: %v", c.fails, r)
		}
		if got := up.Statement("--site", "s").GetEnergy().GetItMicrojoules(); got != c.want {
			t.Errorf("after %v energy is %s µJ, want %s", r.Args, got, c.want)
		}
	}
}
