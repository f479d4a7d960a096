// Package daemon is the frame of a program: signals, log, telemetry, exit code
// ([Main]), its configuration ([Load], [Service]) and the lives of its parts
// ([Group]).
//
//	func main() { daemon.Service("gridfeed", gridfeed.Default(), run) }
//
//	func run(ctx context.Context, env daemon.Env, cfg gridfeed.Config) error {
//		nc, err := bus.Connect(ctx, cfg.NATS, "gridfeed", env.Log)
//		if err != nil {
//			return err
//		}
//		defer nc.Close()
//		svc, err := gridfeed.New(env.Log, cfg, gridfeed.Deps{NATS: nc})
//		if err != nil {
//			return err
//		}
//		return daemon.Group(ctx, svc.Run)
//	}
//
// Infrastructure ends by defer, services by the group: when it returns, nothing
// of them is left running, and the deferred closes run in the right order.
//
// A configuration is a struct. Its defaults come first, then the file, then the
// environment, then flags. A key that the struct does not have is an error, and
// all mistakes are reported at once, each with where it stands and its dotted
// path:
//
//	wattfold.yaml:7: gateway.htpp: no such key; did you mean http?
//	WATTFOLD_GATEWAY__GRPC: gateway.grpc: …
package daemon
