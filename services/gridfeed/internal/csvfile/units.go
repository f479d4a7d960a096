package csvfile

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/wattfold/wattfold/carbon/unit"
)

// conversion turns a unit into g/kWh: value · factor.
type conversion struct {
	name   string
	factor unit.Decimal
}

// conversions are the units that a file may have, each with its other names. A pound
// is 0.45359237 kg by definition, so every one of them is exact.
var conversions = []struct {
	conversion
	aliases []string
}{
	{conversion{"g/kWh", unit.Decimal{Coef: 1}}, []string{"gCO2eq/kWh", "gCO2e/kWh", "gCO2/kWh"}},
	{conversion{"kg/MWh", unit.Decimal{Coef: 1}}, []string{"kgCO2eq/MWh", "kgCO2e/MWh", "kgCO2/MWh"}},
	{conversion{"lb/MWh", unit.Decimal{Coef: 45359237, Exp: -8}}, []string{"lbs/MWh", "lbsCO2/MWh", "lbCO2/MWh"}},
	{conversion{"t/MWh", unit.Decimal{Coef: 1, Exp: 3}}, []string{"tCO2eq/MWh", "tCO2e/MWh", "tCO2/MWh"}},
}

const unitList = "g/kWh, kg/MWh, lb/MWh, t/MWh"

func conversionOf(name string) (conversion, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return conversions[0].conversion, nil
	}
	for _, c := range conversions {
		if strings.EqualFold(name, c.name) {
			return c.conversion, nil
		}
		for _, alias := range c.aliases {
			if strings.EqualFold(name, alias) {
				return c.conversion, nil
			}
		}
	}
	return conversion{}, fmt.Errorf("unknown unit %q: want %s", name, unitList)
}

// apply converts exactly. A product of more digits than a decimal holds is rounded
// half to even to those that it does: better than one part in 10^17.
func (c conversion) apply(v unit.Decimal) (unit.Decimal, error) {
	if c.factor.Coef == 1 {
		return unit.NewDecimal(v.Coef, v.Exp+c.factor.Exp)
	}
	coef := new(big.Int).Mul(big.NewInt(v.Coef), big.NewInt(c.factor.Coef))
	exp := v.Exp + c.factor.Exp
	// A remainder of the digits already cut decides a tie, so all are cut at once.
	cut := 0
	limit := new(big.Int).Abs(coef)
	ten := big.NewInt(10)
	for !limit.IsInt64() {
		limit.Quo(limit, ten)
		cut++
	}
	if cut > 0 {
		divisor := new(big.Int).Exp(ten, big.NewInt(int64(cut)), nil)
		quotient, remainder := new(big.Int).QuoRem(coef, divisor, new(big.Int))
		twice := new(big.Int).Lsh(remainder.Abs(remainder), 1)
		if d := twice.Cmp(divisor); d > 0 || d == 0 && quotient.Bit(0) == 1 {
			quotient.Add(quotient, big.NewInt(int64(coef.Sign())))
		}
		coef, exp = quotient, exp+int32(cut) //nolint:gosec // at most 20 digits are cut
	}
	if !coef.IsInt64() { // rounding went one past the largest
		return unit.Decimal{}, fmt.Errorf("%s has too many digits to convert: round it to 17", v)
	}
	return unit.NewDecimal(coef.Int64(), exp)
}
