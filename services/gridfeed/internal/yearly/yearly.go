// Package yearly holds one average carbon intensity a country: the last resort
// of every chain.
//
// The numbers are Ember's, for the latest year that it has for a country, by the
// life-cycle method; ATTRIBUTION.md beside this file gives source, licence and what
// was changed. One number stands for every year, because its only use is to answer
// where nothing better is known, and a hole between two years would serve nobody.
// That is why its quality is static, and why it is a product of its own, which no
// chain confuses with an observation.
package yearly

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/wattfold/wattfold/carbon/unit"
)

// Source and Product name the table in chains and provenance.
const (
	Source  = "ember"
	Product = "yearly"
)

// Attribution is what an answer priced by the table owes its source.
const Attribution = "Ember, yearly electricity data, by way of CO2.js (The Green Web Foundation); CC BY-SA 4.0; " +
	"life-cycle average of the latest year, standing for all years; countries only"

//go:embed ember.csv
var table []byte

// Country is a row of the table.
type Country struct {
	Zone  string       // ISO 3166-1 alpha-2, which is also the zone's name
	ISO3  string       // ISO 3166-1 alpha-3
	Name  string       // for people
	Year  int          // the year that the value speaks of
	Value unit.Decimal // gCO2e/kWh
}

// Countries returns the table in the order of its zones.
func Countries() ([]Country, error) {
	return parse(table)
}

func parse(data []byte) ([]Country, error) {
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("yearly table: %w", err)
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != "zone,iso3,name,year,g_per_kwh" {
		return nil, fmt.Errorf("yearly table: line 1: the header is not zone,iso3,name,year,g_per_kwh")
	}
	countries := make([]Country, 0, len(rows)-1)
	for i, row := range rows[1:] {
		value, err := unit.ParseDecimal(row[4])
		if err != nil {
			return nil, fmt.Errorf("yearly table: line %d: g_per_kwh: %w", i+2, err)
		}
		year, err := strconv.Atoi(row[3])
		if err != nil {
			return nil, fmt.Errorf("yearly table: line %d: year: %w", i+2, err)
		}
		if i > 0 && row[0] <= countries[i-1].Zone {
			return nil, fmt.Errorf("yearly table: line %d: zone %s is out of order or there twice", i+2, row[0])
		}
		countries = append(countries, Country{Zone: row[0], ISO3: row[1], Name: row[2], Year: year, Value: value})
	}
	return countries, nil
}

// CountryOf returns the country whose value stands in for a zone that is a part of
// it: US of US-CAL-CISO. It reports false for a zone that is no part.
func CountryOf(zone string) (country string, ok bool) {
	country, _, ok = strings.Cut(zone, "-")
	return country, ok && country != ""
}
