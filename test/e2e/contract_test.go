package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wattfold/wattfold/test/harness"
)

// small imports ten seconds of 1 kW on one node into site s, as run r.
func small(t *testing.T, up *harness.Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "small.csv")
	var b strings.Builder
	b.WriteString("at,kw\n")
	for i := range 11 {
		fmt.Fprintf(&b, "%d,1.0\n", 1_650_000_000+i)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	up.Must("import", "samples", "--csv", path, "--site", "s", "--project", "p", "--run", "r", "--component", "gpu",
		"--kind", "AVERAGE_POWER", "--node", "n1", "--time-column", "at", "--time-format", "unix", "--value-column", "kw", "--unit", "kW")
}

// The exit codes and the JSON that others script against.
func TestCommandLineContract(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.10")
	small(t, up)

	t.Run("exit codes", func(t *testing.T) {
		up := up.In(t)
		nobody := harness.Client(t, harness.FreeAddr(t))
		for _, c := range []struct {
			result harness.Result
			want   int
		}{
			{up.CLI("statement", "--site", "s"), 0},
			{up.CLI("sites"), 0},
			{up.CLI("zones"), 0},
			{harness.Exec(t, "version"), 0},
			{up.CLI("sites", "create", "s", "--zone", "FR", "--pue", "1.10"), 0}, // the same words again
			{up.CLI("sites", "create", "s", "--zone", "DE", "--pue", "1.10"), 1}, // other words
			{up.CLI("sites", "create", "a b", "--zone", "FR", "--pue", "1.10"), 1},
			{up.CLI("sites", "create", "x", "--zone", "FR", "--pue", "0.9"), 1},
			{nobody.CLI("statement", "--site", "s"), 1},
			{up.CLI("statement", "--sight", "s"), 2},
			{up.CLI("statement", "--pricing", "cheap"), 2},
			{up.CLI("statement", "--from", "2022-01-01"), 2},
			{up.CLI("statement", "-o", "xml"), 2},
			{up.CLI("nonsense"), 2},
			{up.CLI("intensity"), 2},
			{up.CLI("import", "samples"), 2},
			{up.CLI("statement", "--run", "no-such-run"), 4},
			{up.CLI("intensity", "QQ-NOWHERE"), 4},
		} {
			if c.result.Code != c.want {
				t.Errorf("want exit %d: %v", c.want, c.result)
			}
			if c.want != 0 && c.result.Stderr == "" {
				t.Errorf("fails without a word: %v", c.result)
			}
		}
	})

	t.Run("statement", func(t *testing.T) {
		out := up.In(t).Must("statement", "--run", "r", "-o", "json")
		doc := decode(t, out)
		for _, path := range []string{
			"energy.itMicrojoules", "energy.itKwh", "energy.facilityKwh", "emissions.0.signal", "emissions.0.grams",
			"emissions.0.meanGramsPerKwh", "emissions.0.unpricedKwh", "emissions.0.quality.0.quality", "coverage.observedMs",
			"interval.startTime", "interval.effective.startTime", "provenance.0.source",
		} {
			if at(doc, path) == nil {
				t.Errorf("there is no %s in\n%s", path, out)
			}
		}
		text, _ := at(doc, "energy.itMicrojoules").(string)
		if !regexp.MustCompile(`^-?[0-9]+(\.5)?$`).MatchString(text) || text != "10000000000" {
			t.Errorf("energy.itMicrojoules is %q, want 10000000000", text)
		}
	})

	t.Run("intensity", func(t *testing.T) {
		up := up.In(t)
		path := filepath.Join(t.TempDir(), "fr.csv")
		if err := os.WriteFile(path, []byte("hour,value\n2022-04-15T05:00:00Z,0.0565\n2022-04-15T06:00:00Z,0.06\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := time.Now().Truncate(time.Second)
		up.Must("import", "intensity", "--zone", "FR", "--signal", "CARBON_AVERAGE_LIFECYCLE", "--csv", path, "--time-column", "hour",
			"--time-format", "rfc3339", "--value-column", "value", "--unit", "t/MWh", "--quality", "ESTIMATED",
			"--known-at", "2022-04-16T00:00:00Z", "--source", "hand")
		out := up.Must("intensity", "FR", "--signal", "CARBON_AVERAGE_LIFECYCLE", "--at", "2022-04-15T05:59:59.999Z", "-o", "json")
		doc := decode(t, out)
		for path, want := range map[string]any{
			"value": 56.5, "decimal": "56.5", "unit": "g/kWh", "source": "hand", "quality": "QUALITY_ESTIMATED",
			"product": "observed", "knownAt": "2022-04-16T00:00:00Z", "validUntil": "2022-04-15T06:00:00Z",
		} {
			if got := at(doc, path); got != want {
				t.Errorf("%s is %v, want %v, in\n%s", path, got, want, out)
			}
		}
		recorded, err := time.Parse(time.RFC3339, fmt.Sprint(at(doc, "recordedAt")))
		if err != nil || recorded.Before(before) || recorded.After(time.Now().Add(2*time.Second)) {
			t.Errorf("recordedAt is %v (%v), not just now", recorded, err)
		}
		known := func(at string) string {
			return intensityValue(t, up, "FR", "--at", "2022-04-15T05:30:00Z", "--as-known-at", at)
		}
		if got := known("2022-04-16T00:00:00Z"); got != "56.5" {
			t.Errorf("as known at the moment it was known it is %s, want 56.5", got)
		}
		if got := known("2022-04-15T23:59:59Z"); got == "56.5" {
			t.Error("as known a second earlier it is the same value")
		}
	})

	t.Run("the statement is priced by what came later", func(t *testing.T) {
		s := up.In(t).Statement("--run", "r")
		// 10 s of 1 kW at 05:20 of 2022-04-15, PUE 1.10, 56.5 g/kWh.
		if got, want := s.GetEmissions()[0].GetGrams(), 56.5*1.10*10/3600; got < want*(1-1e-12) || got > want*(1+1e-12) {
			t.Errorf("grams are %v, want %v", got, want)
		}
	})
}

// decode reads any JSON.
func decode(t *testing.T, text string) any {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return doc
}

// at follows a path of keys and indexes; nil if it leads nowhere.
func at(doc any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		switch v := doc.(type) {
		case map[string]any:
			doc = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				return nil
			}
			doc = v[i]
		default:
			return nil
		}
	}
	return doc
}
