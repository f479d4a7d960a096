package unit_test

import (
	"fmt"

	"github.com/wattfold/wattfold/carbon/unit"
)

func ExampleSum() {
	var s unit.Sum
	s.Add(unit.HalfMicrojoulesPerKWh)
	s.Add(1)
	fmt.Println(s.Microjoules(), s.KWh() > 1)
	// Output: 3600000000000.5 true
}

func ExampleParseDecimal() {
	d, err := unit.ParseDecimal("4.125e2")
	fmt.Println(d, d == unit.Decimal{Coef: 4125, Exp: -1}, err)
	_, err = unit.ParseDecimal("n/a")
	fmt.Println(err)
	// Output:
	// 412.5 true <nil>
	// decimal "n/a": unexpected 'n' at byte 1; want a number such as 412.5 or 4.125e2
}
