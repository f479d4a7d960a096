package harness

import (
	"math/big"
	"testing"
	"time"

	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/test/oracle"
)

// Want is what a statement has to say, by the oracle.
type Want struct {
	Account oracle.Account
	PUE     *big.Rat
	Factor  oracle.Lookup
	// SilentMS is time without any reading.
	SilentMS int64
	// AnyCoverage leaves the coverage unjudged, as statements by node do of
	// silence.
	AnyCoverage bool
}

// Judge compares a statement with what it has to say: energy and coverage by
// ==, everything in grams and kWh to 1e-12.
func Judge(t testing.TB, what string, got *ledgerv1.Statement, want Want) {
	t.Helper()
	total := want.Account.Total()
	if !JudgeEnergy(t, what, got, total.Energy) {
		return
	}
	priced := oracle.Price(want.Account, want.PUE, want.Factor)
	near(t, what+": energy.itKwh", got.GetEnergy().GetItKwh(), oracle.KWh(total.Energy))
	facility := oracle.KWh(total.Energy)
	near(t, what+": energy.facilityKwh", got.GetEnergy().GetFacilityKwh(), facility.Mul(facility, want.PUE))
	if n := len(got.GetEmissions()); n != 1 {
		t.Errorf("%s: %d signals in emissions, want 1", what, n)
		return
	}
	e := got.GetEmissions()[0]
	near(t, what+": grams", e.GetGrams(), priced.Grams)
	near(t, what+": unpricedKwh", e.GetUnpricedKwh(), oracle.KWh(priced.UnpricedHalves))
	if mean := priced.MeanGramsPerKWh(want.PUE); mean != nil {
		near(t, what+": meanGramsPerKwh", e.GetMeanGramsPerKwh(), mean)
	} else if e.MeanGramsPerKwh != nil {
		t.Errorf("%s: meanGramsPerKwh is %v although nothing is priced", what, e.GetMeanGramsPerKwh())
	}
	if !want.AnyCoverage {
		JudgeCoverage(t, what, got, total, want.SilentMS)
	}
}

// JudgeEnergy compares the energy of a statement by == and says whether it is
// equal.
func JudgeEnergy(t testing.TB, what string, got *ledgerv1.Statement, halves *big.Int) bool {
	t.Helper()
	g, w := got.GetEnergy().GetItMicrojoules(), oracle.Microjoules(halves)
	if g != w {
		t.Errorf("%s: energy is %s µJ, want %s", what, g, w)
	}
	return g == w
}

// JudgeCoverage compares the coverage of a statement by ==.
func JudgeCoverage(t testing.TB, what string, got *ledgerv1.Statement, total oracle.Slot, silentMS int64) {
	t.Helper()
	c := got.GetCoverage()
	for _, x := range []struct {
		name      string
		got, want int64
	}{
		{"observedMs", c.GetObservedMs(), total.ObservedMS},
		{"interpolatedMs", c.GetInterpolatedMs(), total.InterpolatedMS},
		{"missingMs", c.GetMissingMs(), total.MissingMS},
		{"silentMs", c.GetSilentMs(), silentMS},
	} {
		if x.got != x.want {
			t.Errorf("%s: coverage.%s is %d, want %d", what, x.name, x.got, x.want)
		}
	}
}

// near compares to 1e-12.
func near(t testing.TB, what string, got float64, want *big.Rat) {
	t.Helper()
	if !oracle.Near(got, want) {
		w, _ := want.Float64()
		t.Errorf("%s is %v, want %v (to 1e-12)", what, got, w)
	}
}

// Halves reads a decimal string of microjoules.
func Halves(t testing.TB, microjoules string) *big.Int {
	t.Helper()
	r, ok := new(big.Rat).SetString(microjoules)
	if !ok {
		t.Fatalf("%q is no number of microjoules", microjoules)
	}
	r.Mul(r, big.NewRat(2, 1))
	if !r.IsInt() {
		t.Fatalf("%q µJ is no whole number of halves", microjoules)
	}
	return new(big.Int).Set(r.Num())
}

// Rat reads a decimal number.
func Rat(t testing.TB, decimal string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(decimal)
	if !ok {
		t.Fatalf("%q is no decimal number", decimal)
	}
	return r
}

// Stamp writes an instant as the command line takes it.
func Stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00") }
