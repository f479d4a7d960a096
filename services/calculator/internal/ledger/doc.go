// Package ledger is the contract between the calculator and what keeps its books.
//
// A [Store] is a sum over a set of batches. One writer hands it transactions
// ([Tx]): batches that it has not seen, already integrated into the energy of each
// series and slot, and how the floors of their producers move. All of a
// transaction is applied or nothing, and a batch whose number is below its
// producer's floor, or in one of the ranges above it, can never be applied again:
// the floors are moved by compare-and-set in the same transaction.
//
// What is kept is energy in three grains:
//
//   - postings: energy by [Account], slot and second of booking, for statements;
//   - details: what each batch posted, series by series, for nodes and watchers;
//   - windows: over which time each series was read, for coverage.
//
// Σ postings = Σ details always, to the last half-microjoule.
package ledger
