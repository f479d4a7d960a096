package unit

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// MaxExp bounds the exponent of a Decimal, up and down, so that a short text
// cannot stand for a number of a million digits.
const MaxExp = 99

// Decimal is the number Coef·10^Exp. It is normalised: Coef has no trailing
// zero, and zero is the zero value; so two decimals are equal if and only if
// they are ==. Make one with [ParseDecimal] or [NewDecimal].
type Decimal struct {
	Coef int64
	Exp  int32
}

var (
	errDecimalEmpty    = errors.New("empty; want a number such as 412.5 or 4.125e2")
	errDecimalDigits   = errors.New("no digits; want a number such as 412.5 or 4.125e2")
	errDecimalInfinite = errors.New("not finite; leave the value out where there is none")
	errDecimalExponent = errors.New("the exponent has no digits")
	errDecimalRange    = fmt.Errorf("out of range: at most 10^±%d", MaxExp)
	errDecimalPrecise  = errors.New("more digits than fit a 64-bit coefficient; round to 18 digits")
)

// NewDecimal returns coef·10^exp, normalised. It fails if the exponent lies
// beyond [MaxExp].
func NewDecimal(coef int64, exp int32) (Decimal, error) {
	if coef == 0 {
		return Decimal{}, nil
	}
	e := int64(exp)
	for coef%10 == 0 {
		coef /= 10
		e++
	}
	if e < -MaxExp || e > MaxExp {
		return Decimal{}, fmt.Errorf("decimal %de%d: %w", coef, e, errDecimalRange)
	}
	return Decimal{Coef: coef, Exp: int32(e)}, nil
}

// ParseDecimal reads a decimal number in plain ("-412.5") or exponent form
// ("4.125e2"), exactly. It refuses NaN, infinities, hexadecimal and digit
// separators, and numbers that do not fit a Decimal without rounding.
func ParseDecimal(text string) (Decimal, error) {
	d, err := parseDecimal(text)
	if err != nil {
		return Decimal{}, fmt.Errorf("decimal %s: %w", quote(text), err)
	}
	return d, nil
}

func parseDecimal(text string) (Decimal, error) {
	if text == "" {
		return Decimal{}, errDecimalEmpty
	}
	i := 0
	negative := text[0] == '-'
	if text[0] == '-' || text[0] == '+' {
		i++
	}
	if isInfinite(text[i:]) {
		return Decimal{}, errDecimalInfinite
	}
	var (
		coef   uint64
		zeros  int // zeros seen since the last other digit, not yet in coef
		scale  int64
		digits bool
		point  bool
		excess bool
	)
	for ; i < len(text); i++ {
		c := text[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		digits = true
		if point {
			scale--
		}
		if c == '0' {
			if coef != 0 {
				zeros++
			}
			continue
		}
		for ; zeros >= 0 && !excess; zeros-- {
			digit := uint64(0)
			if zeros == 0 {
				digit = uint64(c - '0')
			}
			// 2⁶³ is let through here, for the smallest int64.
			if coef > (1<<63-digit)/10 {
				excess = true
				break
			}
			coef = coef*10 + digit
		}
		zeros = 0
	}
	if !digits {
		if i < len(text) {
			return Decimal{}, unexpected(text, i)
		}
		return Decimal{}, errDecimalDigits
	}
	exp := scale + int64(zeros)
	if i < len(text) {
		if text[i] != 'e' && text[i] != 'E' {
			return Decimal{}, unexpected(text, i)
		}
		e, err := parseExponent(text, i+1)
		if err != nil {
			return Decimal{}, err
		}
		exp += e
	}
	switch {
	case excess, coef == 1<<63 && !negative:
		return Decimal{}, errDecimalPrecise
	case coef == 0:
		return Decimal{}, nil
	case exp < -MaxExp || exp > MaxExp:
		return Decimal{}, errDecimalRange
	}
	if negative {
		return Decimal{Coef: int64(-coef), Exp: int32(exp)}, nil
	}
	return Decimal{Coef: int64(coef), Exp: int32(exp)}, nil
}

// parseExponent reads the exponent that begins at i and ends the text. It
// saturates, so that a text of any length is refused by its range.
func parseExponent(text string, i int) (int64, error) {
	negative := false
	if i < len(text) && (text[i] == '-' || text[i] == '+') {
		negative = text[i] == '-'
		i++
	}
	if i == len(text) {
		return 0, errDecimalExponent
	}
	e := int64(0)
	for ; i < len(text); i++ {
		c := text[i]
		if c < '0' || c > '9' {
			return 0, unexpected(text, i)
		}
		e = min(e*10+int64(c-'0'), math.MaxInt64/16)
	}
	if negative {
		e = -e
	}
	return e, nil
}

func isInfinite(text string) bool {
	return strings.EqualFold(text, "nan") || strings.EqualFold(text, "inf") || strings.EqualFold(text, "infinity")
}

func unexpected(text string, i int) error {
	r := []rune(text[i:])[0]
	return fmt.Errorf("unexpected %q at byte %d; want a number such as 412.5 or 4.125e2", r, i+1)
}

// IsZero reports whether d is 0.
func (d Decimal) IsZero() bool { return d.Coef == 0 }

// Sign returns −1, 0 or +1.
func (d Decimal) Sign() int {
	switch {
	case d.Coef < 0:
		return -1
	case d.Coef > 0:
		return 1
	default:
		return 0
	}
}

// String returns d exactly, in plain form without an exponent. A Decimal made
// by hand beyond [MaxExp] is printed with one.
func (d Decimal) String() string {
	digits := strconv.FormatInt(d.Coef, 10)
	switch {
	case d.Coef == 0 || d.Exp == 0:
		return digits
	case d.Exp > MaxExp || d.Exp < -MaxExp:
		return digits + "e" + strconv.Itoa(int(d.Exp))
	case d.Exp > 0:
		return digits + strings.Repeat("0", int(d.Exp))
	}
	sign := ""
	if d.Coef < 0 {
		sign, digits = "-", digits[1:]
	}
	places := int(-d.Exp)
	if len(digits) <= places {
		digits = strings.Repeat("0", places-len(digits)+1) + digits
	}
	whole := len(digits) - places
	return sign + digits[:whole] + "." + digits[whole:]
}

// Float64 returns the float64 nearest to d.
func (d Decimal) Float64() float64 {
	// An error is an overflow, and f then the infinity; no exponent within
	// MaxExp leads there.
	f, _ := strconv.ParseFloat(strconv.FormatInt(d.Coef, 10)+"e"+strconv.Itoa(int(d.Exp)), 64)
	return f
}

// Rat returns d exactly.
func (d Decimal) Rat() *big.Rat {
	r := new(big.Rat).SetInt64(d.Coef)
	if d.Coef == 0 || d.Exp == 0 {
		return r
	}
	e := int64(d.Exp)
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(max(e, -e)), nil)
	if e < 0 {
		return r.Quo(r, new(big.Rat).SetInt(power))
	}
	return r.Mul(r, new(big.Rat).SetInt(power))
}
