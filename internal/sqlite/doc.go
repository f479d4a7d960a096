// Package sqlite opens SQLite databases the one way that we use them.
//
// A database has one writer and many readers. [DB.Write] is a handle of exactly
// one connection whose transactions begin IMMEDIATE, so that two writers of one
// process queue in Go and never meet in SQLite; [DB.Read] is a pool that cannot
// write and, in WAL mode, never waits for the writer: each of its transactions
// sees one consistent commit. A commit that returned is on the disk
// (synchronous = FULL).
//
// The schema is a list of files NNNN_name.sql, embedded by the owner, applied in
// order, each in a transaction of its own with the line that records it. An
// applied file may never change, and a database made by a newer program is
// refused rather than guessed at.
//
// [Lock] keeps a second process out of a data directory.
package sqlite
