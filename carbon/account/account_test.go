package account_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

func dec(t testing.TB, text string) unit.Decimal {
	t.Helper()
	d, err := unit.ParseDecimal(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// term is energy·pue·factor in grams, exactly.
func term(e unit.Energy, pue, factor unit.Decimal) *big.Rat {
	r := new(big.Rat).SetInt64(int64(e))
	r.Mul(r, pue.Rat())
	r.Mul(r, factor.Rat())
	return r.Quo(r, new(big.Rat).SetInt64(7_200_000_000_000))
}

func randomDecimal(rng *rand.Rand) unit.Decimal {
	coef := rng.Int64() >> rng.IntN(63)
	if rng.IntN(5) == 0 {
		coef = -coef
	}
	d, err := unit.NewDecimal(coef, int32(rng.IntN(9)-6))
	if err != nil {
		panic(err)
	}
	return d
}

func TestInnerIsExact(t *testing.T) {
	extremes := []int64{math.MinInt64, math.MaxInt64, -1, 0, 1}
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var whole, left, right account.Inner
		want := new(big.Rat)
		for range rng.IntN(60) {
			e := unit.Energy(rng.Int64() >> rng.IntN(63))
			pue, factor := randomDecimal(rng), randomDecimal(rng)
			if rng.IntN(10) == 0 {
				e = unit.Energy(extremes[rng.IntN(5)])
				pue = unit.Decimal{Coef: extremes[rng.IntN(5)], Exp: 99}
				factor = unit.Decimal{Coef: extremes[rng.IntN(5)], Exp: -99}
			}
			if rng.IntN(4) == 0 {
				e = -e
			}
			whole.Add(e, pue, factor)
			if rng.IntN(2) == 0 {
				left.Add(e, pue, factor)
			} else {
				right.Add(e, pue, factor)
			}
			want.Add(want, term(e, pue, factor))
		}
		left.AddInner(&right)
		for name, sum := range map[string]*account.Inner{"whole": &whole, "in two": &left} {
			if sum.Rat().Cmp(want) != 0 {
				t.Fatalf("seed %d, %s: %s, want %s", seed, name, sum.Rat(), want)
			}
			nearest, _ := want.Float64()
			if got := sum.Grams(); got != nearest {
				t.Fatalf("seed %d, %s: %v g, want %v", seed, name, got, nearest)
			}
			if sum.Sign() != want.Sign() {
				t.Fatalf("seed %d, %s: sign %d, want %d", seed, name, sum.Sign(), want.Sign())
			}
		}
	}
}

func TestInnerAddsItself(t *testing.T) {
	var a account.Inner
	a.Add(unit.HalfMicrojoulesPerKWh, dec(t, "1.1"), dec(t, "400"))
	a.Add(unit.HalfMicrojoulesPerKWh, dec(t, "1.25"), dec(t, "1"))
	a.AddInner(&a)
	if got := a.Grams(); got != 882.5 {
		t.Errorf("%v g", got)
	}
}

func TestGramsDoNotDriftOverMillionsOfTerms(t *testing.T) {
	var a account.Inner
	pue, factor := dec(t, "1.1"), dec(t, "0.1")
	const n = 3_000_000
	for range n {
		a.Add(7, pue, factor)
	}
	want, _ := new(big.Rat).Mul(new(big.Rat).SetInt64(n), term(7, pue, factor)).Float64()
	if got := a.Grams(); got != want {
		t.Errorf("%v g, want %v", got, want)
	}
}

// naive is a statement by the book.
type naive struct {
	energy, modelled, unknown, unpriced big.Int
	facility, priced, grams             big.Rat
	observed, interpolated, missing     int64
}

func TestFolderEqualsTwin(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		type row struct {
			p    account.Posting
			pue  *unit.Decimal
			step *timeline.Step
		}
		want := naive{}
		var rows []row
		for range 1 + rng.IntN(80) {
			r := row{p: account.Posting{
				Energy:   unit.Energy(rng.Int64() >> rng.IntN(40)),
				Modelled: rng.IntN(3) == 0,
			}}
			if rng.IntN(9) == 0 {
				r.p.Energy = -r.p.Energy
			}
			r.p.ObservedMS, r.p.InterpolatedMS, r.p.MissingMS = rng.Int64N(9), rng.Int64N(3), rng.Int64N(9)
			if rng.IntN(5) > 0 {
				d := unit.Decimal{Coef: 101 + 2*rng.Int64N(20), Exp: -2}
				r.pue = &d
			}
			if rng.IntN(5) > 0 {
				r.step = &timeline.Step{
					Value: randomDecimal(rng), Source: string(rune('a' + rng.IntN(2))), Product: "observed",
					Quality: timeline.Quality(1 + rng.IntN(5)), Method: timeline.Method(1 + rng.IntN(2)), RecordedMS: rng.Int64N(100),
				}
			}
			rows = append(rows, r)

			e := big.NewInt(int64(r.p.Energy))
			want.energy.Add(&want.energy, e)
			if r.p.Modelled {
				want.modelled.Add(&want.modelled, e)
			}
			want.observed += r.p.ObservedMS
			want.interpolated += r.p.InterpolatedMS
			want.missing += r.p.MissingMS
			one := unit.Decimal{Coef: 1}
			switch {
			case r.pue == nil:
				want.unknown.Add(&want.unknown, e)
				want.unpriced.Add(&want.unpriced, e)
			case r.step == nil:
				want.facility.Add(&want.facility, term(r.p.Energy, *r.pue, one))
				want.unpriced.Add(&want.unpriced, e)
			default:
				want.facility.Add(&want.facility, term(r.p.Energy, *r.pue, one))
				want.priced.Add(&want.priced, term(r.p.Energy, *r.pue, one))
				want.grams.Add(&want.grams, term(r.p.Energy, *r.pue, r.step.Value))
			}
		}
		var provenance []account.Provenance
		for order := range 2 {
			// In one, or in parts that are added.
			var f, other account.Folder
			for i := range rows {
				into := &f
				if order == 1 && rng.IntN(2) == 0 {
					into = &other
				}
				into.Add(&rows[i].p, rows[i].pue, rows[i].step)
			}
			f.AddFolder(&other)
			sums := []struct {
				name string
				got  unit.Sum
				want *big.Int
			}{
				{"energy", f.Energy(), &want.energy},
				{"modelled", f.Modelled(), &want.modelled},
				{"facility unknown", f.FacilityUnknown(), &want.unknown},
				{"unpriced", f.Unpriced(), &want.unpriced},
				{"priced", f.Priced(), new(big.Int).Sub(&want.energy, &want.unpriced)},
			}
			var shares, sources unit.Sum
			for _, s := range f.Qualities() {
				shares.AddSum(s.Energy)
			}
			for _, p := range f.Provenance() {
				sources.AddSum(p.Energy)
			}
			if shares != f.Priced() || sources != f.Priced() {
				t.Fatalf("seed %d: shares %v and provenance %v do not add up to %v", seed, shares, sources, f.Priced())
			}
			for _, s := range sums {
				if s.got.Big().Cmp(s.want) != 0 {
					t.Fatalf("seed %d: %s %v, want %v", seed, s.name, s.got.Big(), s.want)
				}
			}
			if f.FacilityRat().Cmp(&want.facility) != 0 || f.GramsRat().Cmp(&want.grams) != 0 {
				t.Fatalf("seed %d: facility %v grams %v, want %v %v", seed, f.FacilityRat(), f.GramsRat(), &want.facility, &want.grams)
			}
			if mean, ok := f.MeanGramsPerKWh(); ok != (want.priced.Sign() != 0) {
				t.Fatalf("seed %d: mean %v, %v", seed, mean, ok)
			} else if ok {
				exact, _ := new(big.Rat).Quo(&want.grams, &want.priced).Float64()
				if mean != exact {
					t.Fatalf("seed %d: mean %v, want %v", seed, mean, exact)
				}
			}
			if o, i, m := f.Coverage(); o != want.observed || i != want.interpolated || m != want.missing {
				t.Fatalf("seed %d: coverage %d %d %d", seed, o, i, m)
			}
			if order == 1 && !reflect.DeepEqual(f.Provenance(), provenance) {
				t.Fatalf("seed %d: another order, another provenance", seed)
			}
			provenance = f.Provenance()
			rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		}
	}
}

func TestNoDataIsUnpricedNeverZero(t *testing.T) {
	var f account.Folder
	pue, step := dec(t, "1.5"), &timeline.Step{Value: dec(t, "100"), Source: "a", Quality: timeline.Measured, Method: timeline.Direct, RecordedMS: 8}
	kwh := func(n int64) *account.Posting {
		return &account.Posting{Energy: unit.Energy(n * unit.HalfMicrojoulesPerKWh)}
	}
	if _, ok := f.MeanGramsPerKWh(); ok {
		t.Error("an empty statement has a mean")
	}
	f.Add(kwh(1), &pue, step) // 1.5 kWh of facility energy, 150 g
	f.Add(kwh(2), &pue, nil)  // no factor
	f.Add(kwh(4), nil, step)  // no PUE
	if e, u, n := f.Energy().KWh(), f.Unpriced().KWh(), f.FacilityUnknown().KWh(); e != 7 || u != 6 || n != 4 {
		t.Errorf("energy %v, unpriced %v, facility unknown %v", e, u, n)
	}
	if got := f.FacilityKWh(); got != 4.5 {
		t.Errorf("facility %v", got)
	}
	if got := f.Grams(); got != 150 {
		t.Errorf("%v g", got)
	}
	// The mean is of what is priced: nothing unpriced dilutes it.
	if mean, ok := f.MeanGramsPerKWh(); !ok || mean != 100 {
		t.Errorf("mean %v, %v", mean, ok)
	}
	want := []account.Provenance{{Source: "a", Quality: timeline.Measured, Method: timeline.Direct, Energy: unit.SumOf(unit.HalfMicrojoulesPerKWh), RecordedMS: 8}}
	if got := f.Provenance(); !reflect.DeepEqual(got, want) {
		t.Errorf("provenance %+v", got)
	}
	if f.Rows() != 3 {
		t.Errorf("%d rows", f.Rows())
	}
}

func BenchmarkInner(b *testing.B) {
	pue := unit.Decimal{Coef: 11, Exp: -1}
	var factors [64]unit.Decimal
	for i := range factors {
		factors[i] = unit.Decimal{Coef: 40_001 + 37*int64(i), Exp: -2}
	}
	var a account.Inner
	i := 0
	for b.Loop() {
		a.Add(unit.Energy(123_456_789_012+i), pue, factors[i%64])
		i++
	}
}

func BenchmarkFolder(b *testing.B) {
	pue := unit.Decimal{Coef: 11, Exp: -1}
	steps := make([]timeline.Step, 64)
	for i := range steps {
		steps[i] = timeline.Step{Value: unit.Decimal{Coef: 40_001 + 37*int64(i), Exp: -2}, Source: "meter", Product: "observed", Quality: timeline.Measured, Method: timeline.Direct}
	}
	var f account.Folder
	row := account.Posting{Energy: 123_456_789_012, ObservedMS: 300_000}
	i := 0
	for b.Loop() {
		f.Add(&row, &pue, &steps[i/12%64])
		i++
	}
}
