package csvfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/bits"
)

var (
	errNotANumber = errors.New("is not a number")
	errNaN        = errors.New("is not a number (NaN): remove the row or repair the value")
	errOutOfRange = errors.New("is out of range")
)

// maxExponent bounds what a short text can make the exact path do.
const maxExponent = 400

var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// parseScaled returns text × scale as an integer, rounded half to even, and
// whether it had to be rounded. Text is a decimal with an optional exponent.
func parseScaled(text []byte, scale uint64) (value int64, rounded bool, err error) {
	d, err := parseDecimal(text)
	if err != nil {
		return 0, false, err
	}
	if d.big != nil || d.exp < -19 {
		return d.scaleBig(scale)
	}
	if d.coef == 0 {
		return 0, false, nil
	}
	hi, lo := bits.Mul64(d.coef, scale)
	if d.exp >= 0 {
		if hi != 0 || d.exp > 19 {
			return 0, false, errOutOfRange
		}
		if hi, lo = bits.Mul64(lo, pow10[d.exp]); hi != 0 {
			return 0, false, errOutOfRange
		}
		return signed(lo, d.negative, false)
	}
	by := pow10[-d.exp]
	if hi >= by {
		return 0, false, errOutOfRange
	}
	q, r := bits.Div64(hi, lo, by)
	if r > by-r || r == by-r && q&1 == 1 {
		q++
	}
	return signed(q, d.negative, r != 0)
}

func signed(magnitude uint64, negative, rounded bool) (int64, bool, error) {
	if magnitude > math.MaxInt64 {
		return 0, false, errOutOfRange
	}
	if negative {
		return -int64(magnitude), rounded, nil
	}
	return int64(magnitude), rounded, nil
}

// decimal is ±coef·10^exp, or ±big·10^exp where coef would not fit.
type decimal struct {
	coef     uint64
	big      *big.Int
	exp      int
	negative bool
}

func parseDecimal(text []byte) (decimal, error) {
	var d decimal
	b := text
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		d.negative = b[0] == '-'
		b = b[1:]
	}
	digits, seen, zeros, point := 0, 0, 0, false
	i := 0
	for ; i < len(b); i++ {
		c := b[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen++
		if point {
			d.exp--
		}
		// Zeros are held back until a digit follows, so that 1.000…0 stays short.
		if c == '0' {
			if digits > 0 {
				zeros++
			}
			continue
		}
		digits += zeros + 1
		if digits > 19 {
			return parseBig(text)
		}
		d.coef = d.coef*pow10[zeros+1] + uint64(c-'0')
		zeros = 0
	}
	d.exp += zeros
	if seen == 0 {
		return d, notANumber(text)
	}
	if i < len(b) {
		exp, err := parseExponent(b[i:])
		if err != nil {
			return d, notANumber(text)
		}
		d.exp += exp
	}
	if d.coef == 0 {
		d.exp = 0
	}
	return d, nil
}

func parseExponent(b []byte) (int, error) {
	if len(b) < 2 || b[0] != 'e' && b[0] != 'E' {
		return 0, errOutOfRange
	}
	b = b[1:]
	negative := b[0] == '-'
	if negative || b[0] == '+' {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 9 {
		return 0, errOutOfRange
	}
	exp := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errOutOfRange
		}
		exp = exp*10 + int(c-'0')
	}
	if negative {
		exp = -exp
	}
	return exp, nil
}

// parseBig parses what has over 19 digits.
func parseBig(text []byte) (decimal, error) {
	d := decimal{negative: text[0] == '-'}
	digits := make([]byte, 0, len(text))
	b := bytes.TrimLeft(text, "+-")
	i, point := 0, false
	for ; i < len(b); i++ {
		if b[i] == '.' && !point {
			point = true
			continue
		}
		if b[i] < '0' || b[i] > '9' {
			break
		}
		digits = append(digits, b[i])
		if point {
			d.exp--
		}
	}
	if i < len(b) {
		exp, err := parseExponent(b[i:])
		if err != nil {
			return d, notANumber(text)
		}
		d.exp += exp
	}
	if len(digits) > maxExponent {
		return d, errOutOfRange
	}
	coef, ok := new(big.Int).SetString(string(digits), 10)
	if !ok {
		return d, notANumber(text)
	}
	d.big = coef
	return d, nil
}

func (d *decimal) scaleBig(scale uint64) (int64, bool, error) {
	coef := d.big
	if coef == nil {
		coef = new(big.Int).SetUint64(d.coef)
	}
	n := new(big.Int).Mul(coef, new(big.Int).SetUint64(scale))
	if n.Sign() == 0 {
		return 0, false, nil
	}
	if d.exp > maxExponent {
		return 0, false, errOutOfRange
	}
	// Beyond this the quotient is below a half in any case.
	exp := max(d.exp, -2*maxExponent)
	rounded := false
	if exp >= 0 {
		n.Mul(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(exp)), nil))
	} else {
		by := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-exp)), nil)
		q, r := new(big.Int).QuoRem(n, by, new(big.Int))
		rounded = r.Sign() != 0
		switch half := r.Lsh(r, 1).Cmp(by); {
		case half > 0, half == 0 && q.Bit(0) == 1:
			q.Add(q, big.NewInt(1))
		}
		n = q
	}
	if !n.IsUint64() {
		return 0, false, errOutOfRange
	}
	return signed(n.Uint64(), d.negative, rounded)
}

func notANumber(text []byte) error {
	switch {
	case len(text) == 0:
		return errors.New("is empty: remove the row or repair the value")
	case bytes.EqualFold(bytes.TrimLeft(text, "+-"), []byte("nan")):
		return errNaN
	}
	return fmt.Errorf("%q %w: remove the row or repair the value", clip(text), errNotANumber)
}

// clip keeps messages short whatever the file holds.
func clip(text []byte) []byte {
	if len(text) > 40 {
		return append(append([]byte(nil), text[:40]...), "…"...)
	}
	return text
}
