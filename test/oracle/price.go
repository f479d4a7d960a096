package oracle

import (
	"math/big"
)

// Lookup returns the factor of the slot that starts at an instant, or nil.
type Lookup func(slotMS int64) *big.Rat

// Priced is an account against factors.
type Priced struct {
	// Grams of the priced energy, exactly.
	Grams *big.Rat
	// PricedHalves and UnpricedHalves are IT energy with and without a factor.
	PricedHalves, UnpricedHalves *big.Int
}

// MeanGramsPerKWh returns the energy-weighted mean of the factors, or nil if
// nothing is priced.
func (p Priced) MeanGramsPerKWh(pue *big.Rat) *big.Rat {
	if p.PricedHalves.Sign() == 0 {
		return nil
	}
	kwh := KWh(p.PricedHalves)
	return kwh.Quo(p.Grams, kwh.Mul(kwh, pue))
}

// Price folds an account into grams: Σ energy · pue · factor / 7.2e12.
func Price(a Account, pue *big.Rat, factor Lookup) Priced {
	p := Priced{Grams: new(big.Rat), PricedHalves: new(big.Int), UnpricedHalves: new(big.Int)}
	for _, start := range a.Slots() {
		energy := a[start].Energy
		f := factor(start)
		if f == nil {
			p.UnpricedHalves.Add(p.UnpricedHalves, energy)
			continue
		}
		p.PricedHalves.Add(p.PricedHalves, energy)
		term := new(big.Rat).SetInt(energy)
		p.Grams.Add(p.Grams, term.Mul(term, f))
	}
	p.Grams.Mul(p.Grams, pue)
	p.Grams.Quo(p.Grams, new(big.Rat).SetInt64(HalfMicrojoulesPerKWh))
	return p
}

// Near says whether got is want to a relative error of 1e-12.
func Near(got float64, want *big.Rat) bool {
	g := new(big.Rat)
	if g.SetFloat64(got) == nil {
		return false
	}
	diff := g.Sub(g, want)
	bound := new(big.Rat).Mul(new(big.Rat).Abs(want), big.NewRat(1, 1_000_000_000_000))
	return diff.Abs(diff).Cmp(bound) <= 0
}
