// Package unit gives energy and factors their types.
//
// Energy is counted in half-microjoules, because the trapezoid between two
// readings in milliwatts, milliseconds apart, is (v₀+v₁)·Δt/2 microjoules: in
// halves every segment is an integer, and nothing has to be rounded or carried.
// An [Energy] is an int64 (up to 1,281 MWh); a [Sum] of them has 128 bits and
// leaves the system as an exact decimal string of microjoules.
//
// A factor (g/kWh, PUE, a price) is a [Decimal]: the number exactly as its
// publisher wrote it, comparable with ==.
//
//	var s unit.Sum
//	s.Add(unit.HalfMicrojoulesPerKWh)
//	s.Add(1)
//	s.Microjoules() // "3600000000000.5"
package unit
