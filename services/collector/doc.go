// Package collector takes samples in, keeps them until the ledger has them, and
// publishes them.
//
// Everything goes one way:
//
//	replay ──┐                 ┌─▶ wattfold.power.pNNN.<site> ─▶ ledger
//	         ├─▶ spool (fsync) ┤                                    │
//	import ──┘                 └◀ floors, by broadcast and asked ◀──┘
//
// The broker is a buffer, not a vault. A batch leaves the spool when the ledger
// says that it has it, and for no other reason: an ack of the broker only starts
// the clock after which the batch is sent again. So nothing is lost by anything
// that happens between the spool's disk and the ledger's commit, and since every
// batch has a name for ever, (producer, epoch, sequence), nothing is counted
// twice however often it is sent.
//
// A [Service] is made by [New] and lives as long as [Service.Run]:
//
//	svc, err := collector.New(log, cfg, collector.Deps{NATS: nc})
//	svc.Register(grpcServer) // telemetry.v1.TelemetryService
//	err = svc.Run(ctx)
//
// A program that only replays files calls [Service.RunUntilCommitted], which
// returns when the ledger holds the last batch.
package collector
