package yearly

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/testdata"
)

func TestTableHoldsKnownValues(t *testing.T) {
	countries, err := Countries()
	if err != nil {
		t.Fatal(err)
	}
	if len(countries) != 208 {
		t.Errorf("%d countries, want 208", len(countries))
	}
	byZone := map[string]Country{}
	for _, c := range countries {
		if len(c.Zone) != 2 || len(c.ISO3) != 3 || c.Name == "" || c.Year < 2020 || c.Value.Float64() <= 0 {
			t.Errorf("implausible row %+v", c)
		}
		byZone[c.Zone] = c
	}
	for zone, want := range map[string]string{
		"DE": "342.06", "FR": "44.18", "GB": "215.79", "US": "383.55", "PL": "614.98", "SE": "35.89",
		"IN": "708.96", "CN": "557.5", "XK": "958.72",
	} {
		if got := byZone[zone].Value.String(); got != want {
			t.Errorf("%s: %s, want %s", zone, got, want)
		}
	}
}

// TestTableAgreesWithItsSource reads the publisher's file and compares every row.
func TestTableAgreesWithItsSource(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(testdata.Shared(t), "map", "ember_average", "average-intensities.json"))
	if err != nil {
		t.Fatal(err)
	}
	var source map[string]struct {
		Code  string      `json:"country_code"`
		Year  int         `json:"year"`
		Value json.Number `json:"emissions_intensity_gco2_per_kwh"`
	}
	if err := json.Unmarshal(raw, &source); err != nil {
		t.Fatal(err)
	}
	countries, err := Countries()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range countries {
		row, ok := source[c.ISO3]
		if !ok {
			t.Errorf("%s is not in the source", c.ISO3)
			continue
		}
		value, err := unit.ParseDecimal(row.Value.String())
		if err != nil {
			t.Fatal(err)
		}
		if value != c.Value || row.Year != c.Year {
			t.Errorf("%s: %s of %d, the source has %s of %d", c.ISO3, c.Value, c.Year, value, row.Year)
		}
		seen[c.ISO3] = true
	}
	for _, row := range source {
		if row.Code != "" && !seen[row.Code] && row.Value.String() != "0" {
			t.Errorf("%s is left out", row.Code)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"header": "zone,iso3,name,g_per_kwh,year\n",
		"value":  "zone,iso3,name,year,g_per_kwh\nDE,DEU,Germany,2024,much\n",
		"year":   "zone,iso3,name,year,g_per_kwh\nDE,DEU,Germany,now,1\n",
		"order":  "zone,iso3,name,year,g_per_kwh\nDE,DEU,Germany,2024,1\nDE,DEU,Germany,2024,1\n",
		"ragged": "zone,iso3,name,year,g_per_kwh\nDE,DEU\n",
		"empty":  "",
	} {
		if _, err := parse([]byte(data)); err == nil || !strings.Contains(err.Error(), "yearly table") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestCountryOf(t *testing.T) {
	for zone, want := range map[string]string{"US-CAL-CISO": "US", "SE-SE1": "SE", "DE": "", "-X": ""} {
		got, ok := CountryOf(zone)
		if ok != (want != "") || ok && got != want {
			t.Errorf("CountryOf(%q) = %q, %v; want %q", zone, got, ok, want)
		}
	}
}
