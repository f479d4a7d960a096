package csvfile

import (
	"errors"
	"math/big"
	"strings"
	"testing"
)

func TestParseScaled(t *testing.T) {
	for _, c := range []struct {
		text    string
		scale   uint64
		want    int64
		rounded bool
	}{
		{"5572", 1000, 5_572_000, false},
		{"0", 36e11, 0, false},
		{"-0.0", 1, 0, false},
		{"+1.5", 1000, 1500, false},
		{".5", 1000, 500, false},
		{"5.", 1, 5, false},
		{"1e3", 1, 1000, false},
		{"1.25E-3", 1_000_000, 1250, false},
		{"0.0005", 1000, 0, true},
		{"0.0015", 1000, 2, true},
		{"0.0025", 1000, 2, true},
		{"0.00250000000000000000001", 1000, 3, true},
		{"1.00000000000000000000000", 1000, 1000, false},
		{"9223372036854775.807", 1000, 9_223_372_036_854_775_807, false},
		{"-7.25", 1, -7, true},
		{"1e-30", 36e11, 0, true},
		{"1e-999999999", 1, 0, true},
		{"1234567.890123", 36e11, 4_444_444_404_442_800_000, false},
	} {
		got, rounded, err := parseScaled([]byte(c.text), c.scale)
		if err != nil || got != c.want || rounded != c.rounded {
			t.Errorf("parseScaled(%q, %d) = %d, %v, %v, want %d, %v", c.text, c.scale, got, rounded, err, c.want, c.rounded)
		}
	}
}

func TestParseScaledRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "is empty",
		"NaN":                    "NaN",
		"-nan":                   "NaN",
		"Inf":                    "is not a number",
		"12W":                    "is not a number",
		"1.2.3":                  "is not a number",
		"0x10":                   "is not a number",
		"1e":                     "is not a number",
		"e5":                     "is not a number",
		".":                      "is not a number",
		"--1":                    "is not a number",
		"1 2":                    "is not a number",
		"12345678901234567890x":  "is not a number",
		"9223372036854775808":    "out of range",
		"1e19":                   "out of range",
		"1e999999999":            "out of range",
		strings.Repeat("9", 999): "out of range",
	} {
		if _, _, err := parseScaled([]byte(text), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseScaled(%q) = %v, want %q", text, err, want)
		}
	}
}

// FuzzParseScaled holds the parser against exact rationals.
func FuzzParseScaled(f *testing.F) {
	for _, s := range []string{"1", "-2.5", "0.0005", "12345678901234567890.5", "1e-5", "99e17", ".5e1", "00012.50"} {
		f.Add(s, uint64(1000))
		f.Add(s, uint64(36e11))
	}
	f.Fuzz(func(t *testing.T, text string, scale uint64) {
		scale = scale%36e11 + 1
		got, rounded, err := parseScaled([]byte(text), scale)
		if strings.ContainsAny(text, "_/xXpPbBoO") || len(text) > 60 {
			return // spellings that only big.Rat knows
		}
		if i := strings.IndexAny(text, "eE"); i >= 0 && len(text)-i > 4 {
			return // exponents that would take the twin for ever
		}
		exact, ok := new(big.Rat).SetString(text)
		if !ok {
			if err == nil {
				t.Fatalf("%q: got %d, the twin refuses it", text, got)
			}
			return
		}
		exact.Mul(exact, new(big.Rat).SetInt(new(big.Int).SetUint64(scale)))
		want := roundHalfEven(exact)
		if err != nil {
			if errors.Is(err, errOutOfRange) && !want.IsInt64() || errors.Is(err, errOutOfRange) && want.String() == "-9223372036854775808" {
				return
			}
			t.Fatalf("%q × %d: %v, the twin has %v", text, scale, err, want)
		}
		if !want.IsInt64() || want.Int64() != got || rounded == exact.IsInt() {
			t.Fatalf("%q × %d = %d (rounded %v), the twin has %v of %v", text, scale, got, rounded, want, exact)
		}
	})
}

func roundHalfEven(r *big.Rat) *big.Int {
	n := new(big.Int).Set(r.Num())
	negative := n.Sign() < 0
	n.Abs(n)
	q, rest := n.QuoRem(n, r.Denom(), new(big.Int))
	switch c := rest.Lsh(rest, 1).Cmp(r.Denom()); {
	case c > 0, c == 0 && q.Bit(0) == 1:
		q.Add(q, big.NewInt(1))
	}
	if negative {
		q.Neg(q)
	}
	return q
}
