package account

import (
	"math/big"
	"math/bits"

	"github.com/wattfold/wattfold/carbon/unit"
)

// Inner is an exact sum of energy·pue·factor. The zero value is 0.
type Inner struct {
	// terms holds one accumulator per power of ten; factors of one signal have
	// a handful.
	terms []term
	// last is the index of the one used last.
	last int
}

// term is a signed 256-bit integer, least significant word first, times 10^exp,
// in half-microjoules times the unit of the factor. A product of three int64
// takes 190 bits, so 2⁶⁵ of the largest fit.
type term struct {
	exp int64
	sum [4]uint64
}

// Add adds e·pue·factor.
func (a *Inner) Add(e unit.Energy, pue, factor unit.Decimal) {
	if e == 0 || pue.Coef == 0 || factor.Coef == 0 {
		return
	}
	// magnitude returns 2⁶³ for the smallest int64, as it should.
	hi, lo := bits.Mul64(magnitude(int64(e)), magnitude(pue.Coef))
	c := magnitude(factor.Coef)
	var p [4]uint64
	p[1], p[0] = bits.Mul64(lo, c)
	h, l := bits.Mul64(hi, c)
	var carry uint64
	p[1], carry = bits.Add64(p[1], l, 0)
	p[2] = h + carry
	t := a.term(int64(pue.Exp) + int64(factor.Exp))
	if (e < 0) != (pue.Coef < 0) != (factor.Coef < 0) {
		t.sub(&p)
	} else {
		t.add(&p)
	}
}

// AddInner adds the sum o.
func (a *Inner) AddInner(o *Inner) {
	for i := range o.terms {
		sum := o.terms[i].sum // o may be a
		a.term(o.terms[i].exp).add(&sum)
	}
}

// Sign returns −1, 0 or +1.
func (a *Inner) Sign() int { return a.big().Sign() }

// Rat returns the sum divided by [unit.HalfMicrojoulesPerKWh], exactly: grams
// for a factor in g/kWh, kWh for a factor of 1.
func (a *Inner) Rat() *big.Rat {
	r := a.big()
	return r.Quo(r, new(big.Rat).SetInt64(unit.HalfMicrojoulesPerKWh))
}

// Grams returns Rat, rounded once to the nearest float64.
func (a *Inner) Grams() float64 {
	f, _ := a.Rat().Float64()
	return f
}

// big returns the sum itself.
func (a *Inner) big() *big.Rat {
	sum := new(big.Rat)
	if len(a.terms) == 0 {
		return sum
	}
	lowest := a.terms[0].exp
	for i := range a.terms {
		lowest = min(lowest, a.terms[i].exp)
	}
	n := new(big.Int)
	for i := range a.terms {
		t := a.terms[i].big()
		n.Add(n, t.Mul(t, power10(a.terms[i].exp-lowest)))
	}
	if lowest < 0 {
		return sum.SetFrac(n, power10(-lowest))
	}
	return sum.SetInt(n.Mul(n, power10(lowest)))
}

func (a *Inner) term(exp int64) *term {
	if a.last < len(a.terms) && a.terms[a.last].exp == exp {
		return &a.terms[a.last]
	}
	for i := range a.terms {
		if a.terms[i].exp == exp {
			a.last = i
			return &a.terms[i]
		}
	}
	a.last = len(a.terms)
	a.terms = append(a.terms, term{exp: exp})
	return &a.terms[a.last]
}

func (t *term) add(p *[4]uint64) {
	var c uint64
	t.sum[0], c = bits.Add64(t.sum[0], p[0], 0)
	t.sum[1], c = bits.Add64(t.sum[1], p[1], c)
	t.sum[2], c = bits.Add64(t.sum[2], p[2], c)
	t.sum[3], _ = bits.Add64(t.sum[3], p[3], c)
}

func (t *term) sub(p *[4]uint64) {
	var b uint64
	t.sum[0], b = bits.Sub64(t.sum[0], p[0], 0)
	t.sum[1], b = bits.Sub64(t.sum[1], p[1], b)
	t.sum[2], b = bits.Sub64(t.sum[2], p[2], b)
	t.sum[3], _ = bits.Sub64(t.sum[3], p[3], b)
}

// big returns the integer of the term, without its power of ten.
func (t *term) big() *big.Int {
	n := big.NewInt(int64(t.sum[3]))
	for i := 2; i >= 0; i-- {
		n.Lsh(n, 64)
		n.Add(n, new(big.Int).SetUint64(t.sum[i]))
	}
	return n
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

func power10(exp int64) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(exp), nil)
}
