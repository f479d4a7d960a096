package unit_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/wattfold/wattfold/carbon/unit"
)

func TestSumIsExactBeyondInt64(t *testing.T) {
	extremes := []unit.Energy{math.MaxInt64, math.MinInt64, -1, 0, 1, unit.HalfMicrojoulesPerKWh}
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var sum, other unit.Sum
		want := new(big.Int)
		for range rng.IntN(200) {
			e := unit.Energy(rng.Uint64())
			if rng.IntN(3) == 0 {
				e = extremes[rng.IntN(len(extremes))]
			}
			if rng.IntN(2) == 0 {
				sum.Add(e)
			} else {
				other.Add(e)
			}
			want.Add(want, big.NewInt(int64(e)))
		}
		both := sum
		both.AddSum(other)
		if both.Big().Cmp(want) != 0 {
			t.Fatalf("seed %d: %v, want %v", seed, both.Big(), want)
		}
		if both.Sign() != want.Sign() || both.Neg().Sign() != -want.Sign() {
			t.Fatalf("seed %d: sign %d of %v", seed, both.Sign(), want)
		}
		if both.Neg().Big().Cmp(new(big.Int).Neg(want)) != 0 || both.Neg().Neg() != both {
			t.Fatalf("seed %d: −(%v) is %v", seed, want, both.Neg().Big())
		}
		if both.Cmp(sum) != want.Cmp(sum.Big()) || both.Cmp(both) != 0 {
			t.Fatalf("seed %d: compare %v with %v", seed, both, sum)
		}
		if e, ok := both.Energy(); ok != want.IsInt64() || ok && int64(e) != want.Int64() {
			t.Fatalf("seed %d: energy %d, %v of %v", seed, e, ok, want)
		}
		kwh, _ := new(big.Rat).SetFrac(want, big.NewInt(unit.HalfMicrojoulesPerKWh)).Float64()
		if both.KWh() != kwh {
			t.Fatalf("seed %d: %v kWh, want %v", seed, both.KWh(), kwh)
		}
		back, err := unit.ParseMicrojoules(both.Microjoules())
		if err != nil || back != both {
			t.Fatalf("seed %d: %s came back as %v, %v", seed, both.Microjoules(), back, err)
		}
	}
}

func TestMicrojoulesAreWrittenExactly(t *testing.T) {
	form := regexp.MustCompile(`^-?[0-9]+(\.5)?$`)
	for e, want := range map[unit.Energy]string{
		0: "0", 1: "0.5", -1: "-0.5", 2: "1", -2: "-1", -3: "-1.5", 25: "12.5",
		math.MaxInt64: "4611686018427387903.5", math.MinInt64: "-4611686018427387904",
		unit.HalfMicrojoulesPerKWh: "3600000000000",
	} {
		if got := e.Microjoules(); got != want || !form.MatchString(got) {
			t.Errorf("%d: %q, want %q", int64(e), got, want)
		}
		if got := e.String(); got != want+" µJ" {
			t.Errorf("%d: %q", int64(e), got)
		}
	}
	if got := unit.Energy(unit.HalfMicrojoulesPerKWh / 2).KWh(); got != 0.5 {
		t.Errorf("%v kWh", got)
	}
}

func TestParseMicrojoulesRefusesWhatIsNoEnergy(t *testing.T) {
	for _, text := range []string{
		"", "-", ".5", "-.5", "1.0", "1.25", "1.", "+1", " 1", "1e3", "0x1", "1_000", "--1", "1.5.5", "½", "NaN",
		"170141183460469231731687303715884105728", strings.Repeat("9", 100),
	} {
		if s, err := unit.ParseMicrojoules(text); err == nil {
			t.Errorf("%q is %v", text, s)
		} else if !strings.HasPrefix(err.Error(), "microjoules ") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// The largest: 2¹²⁷ − 1 half-µJ.
	largest := "85070591730234615865843651857942052863.5"
	if s, err := unit.ParseMicrojoules(largest); err != nil || s.Microjoules() != largest {
		t.Errorf("%s: %v, %v", largest, s, err)
	}
}

func TestParseDecimal(t *testing.T) {
	for text, want := range map[string]unit.Decimal{
		"0": {}, "-0.000": {}, "0e99999999999999999999": {}, "1": {Coef: 1}, "+1": {Coef: 1}, "-1.50": {Coef: -15, Exp: -1},
		"412.5": {Coef: 4125, Exp: -1}, "4.2e2": {Coef: 42, Exp: 1}, "4.2E+2": {Coef: 42, Exp: 1}, "420": {Coef: 42, Exp: 1},
		"4200e-1": {Coef: 42, Exp: 1}, ".5": {Coef: 5, Exp: -1}, "5.": {Coef: 5}, "007": {Coef: 7},
		"0.0001": {Coef: 1, Exp: -4}, "100200300": {Coef: 1002003, Exp: 2}, "1e99": {Coef: 1, Exp: 99}, "1e-99": {Coef: 1, Exp: -99},
		"1" + strings.Repeat("0", 50):      {Coef: 1, Exp: 50},
		"1." + strings.Repeat("0", 500):    {Coef: 1},
		"9223372036854775807":              {Coef: math.MaxInt64},
		"-9223372036854775808":             {Coef: math.MinInt64},
		"92233720368547758.07000000000000": {Coef: math.MaxInt64, Exp: -2},
	} {
		if got, err := unit.ParseDecimal(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                     `decimal "": empty; want a number such as 412.5 or 4.125e2`,
		"-":                    `decimal "-": no digits; want a number such as 412.5 or 4.125e2`,
		".":                    `decimal ".": no digits; want a number such as 412.5 or 4.125e2`,
		"NaN":                  `decimal "NaN": not finite; leave the value out where there is none`,
		"-inf":                 `decimal "-inf": not finite; leave the value out where there is none`,
		"+Infinity":            `decimal "+Infinity": not finite; leave the value out where there is none`,
		"n/a":                  `decimal "n/a": unexpected 'n' at byte 1; want a number such as 412.5 or 4.125e2`,
		"1,5":                  `decimal "1,5": unexpected ',' at byte 2; want a number such as 412.5 or 4.125e2`,
		"1.5.2":                `decimal "1.5.2": unexpected '.' at byte 4; want a number such as 412.5 or 4.125e2`,
		" 1":                   `decimal " 1": unexpected ' ' at byte 1; want a number such as 412.5 or 4.125e2`,
		"0x10":                 `decimal "0x10": unexpected 'x' at byte 2; want a number such as 412.5 or 4.125e2`,
		"1_0":                  `decimal "1_0": unexpected '_' at byte 2; want a number such as 412.5 or 4.125e2`,
		"1e":                   `decimal "1e": the exponent has no digits`,
		"1e+":                  `decimal "1e+": the exponent has no digits`,
		"1e5x":                 `decimal "1e5x": unexpected 'x' at byte 4; want a number such as 412.5 or 4.125e2`,
		"1e100":                `decimal "1e100": out of range: at most 10^±99`,
		"1e-999999999999999":   `decimal "1e-999999999999999": out of range: at most 10^±99`,
		"9223372036854775808":  `decimal "9223372036854775808": more digits than fit a 64-bit coefficient; round to 18 digits`,
		"-9223372036854775809": `decimal "-9223372036854775809": more digits than fit a 64-bit coefficient; round to 18 digits`,
	} {
		_, err := unit.ParseDecimal(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestDecimalIsWrittenPlainly(t *testing.T) {
	for d, want := range map[unit.Decimal]string{
		{}: "0", {Coef: 42, Exp: 1}: "420", {Coef: -15, Exp: -1}: "-1.5", {Coef: 5, Exp: -1}: "0.5", {Coef: -1, Exp: -4}: "-0.0001",
		{Coef: math.MinInt64, Exp: -19}: "-0.9223372036854775808", {Coef: 1, Exp: 20}: "100000000000000000000",
	} {
		if got := d.String(); got != want {
			t.Errorf("%+v: %q, want %q", d, got, want)
		}
		if back, err := unit.ParseDecimal(d.String()); err != nil || back != d {
			t.Errorf("%+v came back as %+v, %v", d, back, err)
		}
		nearest, _ := d.Rat().Float64()
		if got := d.Float64(); got != nearest {
			t.Errorf("%+v: %v, want %v", d, got, nearest)
		}
		if d.Sign() != d.Rat().Sign() || d.IsZero() != (d.Sign() == 0) {
			t.Errorf("%+v: sign %d", d, d.Sign())
		}
	}
	if d, err := unit.NewDecimal(4200, -1); err != nil || d != (unit.Decimal{Coef: 42, Exp: 1}) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := unit.NewDecimal(0, 5000); err != nil || d != (unit.Decimal{}) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := unit.NewDecimal(1000, 98); err == nil {
		t.Errorf("%+v", d)
	}
	if got := (unit.Decimal{Coef: 3, Exp: 4000}).String(); got != "3e4000" {
		t.Errorf("%s", got)
	}
}

func FuzzParseDecimal(f *testing.F) {
	for _, seed := range []string{"412.5", "-4.2e2", "0", "NaN", "1e-99", "9223372036854775808", "1.", ".5e1", "00100.00100", "1e", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := unit.ParseDecimal(text)
		if err != nil {
			return
		}
		if again, err := unit.NewDecimal(d.Coef, d.Exp); err != nil || again != d {
			t.Fatalf("%q: %+v is not normalised", text, d)
		}
		if back, err := unit.ParseDecimal(d.String()); err != nil || back != d {
			t.Fatalf("%q: %+v came back as %+v, %v", text, d, back, err)
		}
		// big.Rat reads the same texts, where its exponents are sane.
		if want, ok := new(big.Rat).SetString(strings.TrimSuffix(text, ".")); ok && !d.IsZero() && want.Cmp(d.Rat()) != 0 {
			t.Fatalf("%q: %s, want %s", text, d, want)
		}
	})
}

func FuzzParseMicrojoules(f *testing.F) {
	for _, seed := range []string{"0", "-0.5", "3600000000000", "12.5", "1.25", "85070591730234615865843651857942052863.5", "x"} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^-?[0-9]+(\.5)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := unit.ParseMicrojoules(text)
		if err != nil {
			if form.MatchString(text) && len(text) < 38 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !form.MatchString(text) {
			t.Fatalf("%q is %v", text, s)
		}
		want, _ := new(big.Rat).SetString(text)
		if want.Mul(want, big.NewRat(2, 1)); !want.IsInt() || want.Num().Cmp(s.Big()) != 0 {
			t.Fatalf("%q is %v", text, s)
		}
		if back, err := unit.ParseMicrojoules(s.Microjoules()); err != nil || back != s {
			t.Fatalf("%q: %v came back as %v, %v", text, s, back, err)
		}
	})
}
