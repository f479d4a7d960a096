// Package calculator folds power into energy and energy into carbon.
//
// It has two halves that meet in the ledger, a [Store]:
//
//	bus ─▶ ingest ─▶ ledger ─▶ queries ─▶ statements
//	        floors ◀──┘  ▲         ▲
//	                     sites     timelines of gridfeed
//
// Ingest reads batches off the bus, integrates them into the energy of each
// account and slot, exact to the half-microjoule, and commits them once an
// interval. A batch that is in the ledger cannot get into it again, whatever the
// bus does; what is committed is told to the spools, which may then forget it.
//
// Queries price what is in the ledger when they are asked: statement = Σ over slots
// energy · PUE · factor. Nothing of that is stored, so a factor that is revised
// changes every statement at once, and a statement as of an earlier moment does
// not change.
//
//	service, err := calculator.New(log, cfg, calculator.Deps{NATS: nc, Grid: grid})
//	service.Register(grpcServer)
//	err = service.Run(ctx) // until ctx ends
package calculator
