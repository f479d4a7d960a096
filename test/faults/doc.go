// Package faults kills, cuts, shuffles and repeats, and then compares the ledger
// with the oracle by ==. Every fault is drawn from a seed that the test's name
// says.
package faults
