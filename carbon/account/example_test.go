package account_test

import (
	"fmt"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

func ExampleInner() {
	var sum account.Inner
	pue := unit.Decimal{Coef: 11, Exp: -1}    // 1.1
	night := unit.Decimal{Coef: 525, Exp: -1} // 52.5 g/kWh
	day := unit.Decimal{Coef: 8, Exp: 1}      // 80 g/kWh
	sum.Add(2*unit.HalfMicrojoulesPerKWh, pue, night)
	sum.Add(unit.HalfMicrojoulesPerKWh, pue, day)
	fmt.Println(sum.Rat(), "=", sum.Grams(), "g")
	// Output: 407/2 = 203.5 g
}

func ExampleFolder() {
	pue := unit.Decimal{Coef: 11, Exp: -1}
	step := timeline.Step{Value: unit.Decimal{Coef: 5, Exp: 1}, Source: "meter", Product: "observed"}
	var f account.Folder
	f.Add(&account.Posting{Energy: 2 * unit.HalfMicrojoulesPerKWh}, &pue, &step)
	f.Add(&account.Posting{Energy: unit.HalfMicrojoulesPerKWh}, &pue, nil)
	fmt.Println(f.Energy().KWh(), "kWh,", f.Unpriced().KWh(), "kWh unpriced,", f.Grams(), "g")
	// Output: 3 kWh, 1 kWh unpriced, 110 g
}
