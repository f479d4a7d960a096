package unit

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// Energy is an amount of energy in half-microjoules.
type Energy int64

// HalfMicrojoulesPerKWh is one kilowatt-hour.
const HalfMicrojoulesPerKWh = 7_200_000_000_000

// Microjoules returns e as a decimal string of microjoules, -?[0-9]+(\.5)?.
func (e Energy) Microjoules() string { return SumOf(e).Microjoules() }

// KWh returns e in kilowatt-hours, rounded once to the nearest float64.
func (e Energy) KWh() float64 { return SumOf(e).KWh() }

// String returns e in microjoules with its unit, such as "12.5 µJ".
func (e Energy) String() string { return e.Microjoules() + " µJ" }

// Sum is a signed 128-bit sum of energies in half-microjoules. The zero value
// is an empty sum. Sums are comparable with ==. They hold 2⁶⁴ of the largest
// energies before they wrap.
type Sum struct {
	hi int64
	lo uint64
}

// SumOf returns the sum of the energies.
func SumOf(energies ...Energy) Sum {
	var s Sum
	for _, e := range energies {
		s.Add(e)
	}
	return s
}

// Add adds e to s.
func (s *Sum) Add(e Energy) {
	lo, carry := bits.Add64(s.lo, uint64(e), 0)
	s.lo = lo
	s.hi += int64(e)>>63 + int64(carry)
}

// AddSum adds o to s.
func (s *Sum) AddSum(o Sum) {
	lo, carry := bits.Add64(s.lo, o.lo, 0)
	s.lo = lo
	s.hi += o.hi + int64(carry)
}

// Neg returns −s.
func (s Sum) Neg() Sum {
	lo, borrow := bits.Sub64(0, s.lo, 0)
	return Sum{hi: -s.hi - int64(borrow), lo: lo}
}

// Sign returns −1, 0 or +1.
func (s Sum) Sign() int {
	switch {
	case s.hi < 0:
		return -1
	case s.hi == 0 && s.lo == 0:
		return 0
	default:
		return 1
	}
}

// Cmp compares s with o: −1 if s < o, 0 if they are equal, +1 if s > o.
func (s Sum) Cmp(o Sum) int {
	switch {
	case s.hi < o.hi, s.hi == o.hi && s.lo < o.lo:
		return -1
	case s == o:
		return 0
	default:
		return 1
	}
}

// Energy returns s as an Energy; ok is false if it does not fit.
func (s Sum) Energy() (e Energy, ok bool) {
	e = Energy(s.lo)
	return e, s.hi == int64(e)>>63
}

// Big returns s in half-microjoules.
func (s Sum) Big() *big.Int {
	b := new(big.Int).SetInt64(s.hi)
	b.Lsh(b, 64)
	return b.Add(b, new(big.Int).SetUint64(s.lo))
}

// Microjoules returns s exactly, as a decimal string of microjoules:
// -?[0-9]+(\.5)?.
func (s Sum) Microjoules() string {
	if e, ok := s.Energy(); ok && e >= 0 {
		text := strconv.FormatInt(int64(e)>>1, 10)
		if e&1 == 1 {
			text += ".5"
		}
		return text
	}
	b := s.Big()
	sign := ""
	if b.Sign() < 0 {
		sign = "-"
		b.Neg(b)
	}
	half := ""
	if b.Bit(0) == 1 {
		half = ".5"
	}
	return sign + b.Rsh(b, 1).String() + half
}

// String returns s in microjoules with its unit.
func (s Sum) String() string { return s.Microjoules() + " µJ" }

// KWh returns s in kilowatt-hours, rounded once to the nearest float64.
func (s Sum) KWh() float64 {
	// Both are exact in a float64, so the quotient is rounded once.
	if e, ok := s.Energy(); ok && e > -1<<53 && e < 1<<53 {
		return float64(e) / HalfMicrojoulesPerKWh
	}
	f, _ := new(big.Rat).SetFrac(s.Big(), big.NewInt(HalfMicrojoulesPerKWh)).Float64()
	return f
}

var (
	errMicrojoulesForm  = errors.New(`want digits, such as "3600000000000" or "-12.5"`)
	errMicrojoulesRange = errors.New("does not fit 128 bits of half-microjoules")
)

// ParseMicrojoules is the inverse of [Sum.Microjoules]. It takes
// -?[0-9]+(\.5)? and nothing else; a fraction other than a half is no energy
// that the ledger can hold.
func ParseMicrojoules(text string) (Sum, error) {
	digits, negative := strings.CutPrefix(text, "-")
	digits, half := strings.CutSuffix(digits, ".5")
	if digits == "" {
		return Sum{}, fmt.Errorf("microjoules %s: %w", quote(text), errMicrojoulesForm)
	}
	var hi, lo uint64 // half-microjoules
	for i := range len(digits) {
		c := digits[i]
		if c < '0' || c > '9' {
			return Sum{}, fmt.Errorf("microjoules %s: %w", quote(text), errMicrojoulesForm)
		}
		if hi > math.MaxUint64/16 {
			return Sum{}, fmt.Errorf("microjoules %s: %w", quote(text), errMicrojoulesRange)
		}
		h, l := bits.Mul64(lo, 10)
		l, carry := bits.Add64(l, 2*uint64(c-'0'), 0)
		hi, lo = hi*10+h+carry, l
	}
	if half {
		lo++ // lo is even here
	}
	if hi > math.MaxInt64 {
		return Sum{}, fmt.Errorf("microjoules %s: %w", quote(text), errMicrojoulesRange)
	}
	s := Sum{hi: int64(hi), lo: lo}
	if negative {
		s = s.Neg()
	}
	return s, nil
}

// quote quotes what was given, cut to a length fit for an error.
func quote(text string) string {
	const limit = 40
	if len(text) > limit {
		return strconv.Quote(text[:limit]) + "…"
	}
	return strconv.Quote(text)
}
