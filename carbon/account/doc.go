// Package account multiplies energy by factors and adds up: the statement
//
//	Σ energy(account, slot) · PUE(site, slot) · signal(zone, slot)
//
// An [Inner] is that sum, exactly: every term is an integer times a power of
// ten, and is added in 256 bits per power of ten. It is divided by
// half-microjoules per kWh once, when it is asked for, and then rounded once. So
// the order of the terms, and how they are grouped, cannot change a digit.
//
// A [Folder] builds a whole statement of one signal from its rows: energy, grams,
// what could not be priced, by which factors it was priced, and the time
// observed. Energy without a factor or a PUE is never priced at 0 or at a
// guess: it is unpriced, and says so.
package account
