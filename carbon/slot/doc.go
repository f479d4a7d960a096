// Package slot divides time into the five minutes by which energy is booked
// and factors are resolved.
//
// Slot 0 begins at the Unix epoch; slot s is the half-open interval
// [s·300 s, (s+1)·300 s) of UTC, for negative s too. Every known publisher of
// grid data works in multiples of five minutes, so an energy cut at the edges
// of slots can be priced by any of them without being cut again.
package slot
