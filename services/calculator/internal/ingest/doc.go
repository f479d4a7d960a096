// Package ingest reads batches off the bus, integrates them and commits them to
// the ledger.
//
// What a batch posts depends on the batch alone, so reading is a loop without
// memory that matters: decode, ask whether the batch is new, integrate, add to
// the transaction that is accumulating. Once an interval, or earlier when much
// has come, the transaction is handed to the ledger while the next one
// accumulates. An error, whatever it is, ends the round: both transactions are
// dropped, floors and position are read again from the ledger, and the stream is
// read again from there. The position only says where to look; whether a batch
// counts is decided by its producer's floor, in the transaction that posts it.
// So a stream that was deleted, rolled back or replayed costs time and no energy.
//
// What is remembered between batches is a cache of the ledger: the floors of
// producers, which series a descriptor means, and which producer reads which
// meter. Every round starts with none of it.
//
//	Reader        one stream: Run
//	ServeFloors   answers spools that ask what they may forget
package ingest
