// Package sqlitestore keeps a ledger in one SQLite file.
//
// [Open] returns a [ledger.Store]. One connection writes, each commit is one
// transaction that begins IMMEDIATE and is synced to the disk; readers see one
// commit each and never wait for the writer.
//
// Names are integers in all tables that grow. The writer remembers those of
// sites, nodes, runs and accounts, and leaves those of series with the caller
// ([ledger.Memo]), who has a place for each series anyway; after a failed commit
// it forgets what it remembered, because what it gave out may not exist.
//
// A transaction's parts are summed by account and slot before they are written,
// so that what is written depends on the number of accounts and not of samples.
// Nothing is ever summed by SQL: SQLite's SUM overflows.
package sqlitestore
