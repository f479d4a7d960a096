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
// An import is checked as a whole before anything of it counts. Then its file,
// its mapping and its epoch are made durable in the directory imports of the
// spool, and only then is it cut into batches; whatever happens, the rest of a
// file that was found right follows the beginning, if need be in the next life of
// the collector. Its batches are numbered by its content, so that to cut it again
// is to make the same ones.
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
