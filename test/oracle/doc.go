// Package oracle says what the ledger ought to hold, by other means.
//
// It reads the same CSV files as wattfold does and computes energy, coverage
// and grams once more: with math/big, one segment at a time, without batches,
// without a ledger and without a line of the carbon module, which it may not
// import. It is written to be read, not to be fast, and tests compare with it
// by ==.
//
// The laws are those of docs/method.md. Between two consecutive readings of a
// series lies a segment, whose energy is an exact integer of half-microjoules:
//
//	INSTANT_POWER      (v0 + v1) · Δt      (mW · ms are µJ; twice the trapezoid)
//	AVERAGE_POWER      2 · v1 · Δt
//	CUMULATIVE_ENERGY  2 · (v1 - v0)       spread evenly over Δt
//
// A segment is cut at the boundaries of five-minute slots and at the edges of
// the run's window. Up to a cut it holds the floor of the exact integral from
// its own start; a part is the difference of two such floors and the last part
// takes the rest. Nothing else rounds. [Integrate] applies them to a [Series].
//
// Factors are exact decimals ([Factor]) and [Price] divides once, at the end:
//
//	grams = Σ energy(slot) · PUE · intensity(slot) / 7.2e12
//
// Times are milliseconds since the Unix epoch throughout, power is in mW,
// counters in µJ, energy in half-µJ.
package oracle
