package slot_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/wattfold/wattfold/carbon/slot"
)

func TestSlotsAreHalfOpenAndFloored(t *testing.T) {
	for ms, want := range map[int64]slot.Slot{
		0: 0, 1: 0, 299_999: 0, 300_000: 1, -1: -1, -300_000: -1, -300_001: -2,
		math.MaxInt64: math.MaxInt64 / 300_000, math.MinInt64: math.MinInt64/300_000 - 1,
	} {
		if got := slot.Of(ms); got != want {
			t.Errorf("Of(%d) = %d, want %d", ms, int64(got), int64(want))
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		ms := int64(rng.Uint64()) >> rng.IntN(60)
		// big.Int.Div is Euclidean: the floor, for a positive divisor.
		floor := new(big.Int).Div(big.NewInt(ms), big.NewInt(slot.Millis))
		if got := slot.Of(ms); int64(got) != floor.Int64() {
			t.Fatalf("Of(%d) = %d, want %v", ms, int64(got), floor)
		}
		s := slot.Of(ms)
		if s < slot.Min || s > slot.Max {
			continue
		}
		if s.StartMS() > ms || ms >= s.EndMS() || s.EndMS()-s.StartMS() != slot.Millis {
			t.Fatalf("%d is not in [%d, %d)", ms, s.StartMS(), s.EndMS())
		}
		want := s
		if ms != s.StartMS() {
			want++
		}
		if got := slot.Ceil(ms); got != want {
			t.Fatalf("Ceil(%d) = %d, want %d", ms, int64(got), int64(want))
		}
	}
}

func Example() {
	s := slot.Of(1_717_171_999_999)
	fmt.Println(s, slot.Ceil(1_717_171_999_999), s.EndMS()-s.StartMS())
	// Output: 2024-05-31T16:10:00Z 2024-05-31T16:15:00Z 300000
}
