package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/daemon"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/services/calculator"
	"github.com/wattfold/wattfold/services/collector"
	"github.com/wattfold/wattfold/services/gridfeed"
)

// role is the frame of a command that plays one role: its configuration, log and
// telemetry. Flags overlay the configuration by the paths given.
func (a *app) role(use, short string, flags map[string]flag, run func(context.Context, *process, config) error) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	cmd.Flags().StringVar(&file, "config", "", "YAML file of the configuration (see 'wattfold config')")
	paths := map[string]string{}
	for name, f := range flags {
		cmd.Flags().String(name, "", f.usage)
		paths[name] = f.path
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := load(file, changed(cmd, paths))
		if err != nil {
			return usageError{err}
		}
		return a.inProcess(cmd.Context(), "wattfold-"+cmd.Name(), slog.LevelInfo, func(ctx context.Context, p *process) error {
			return run(ctx, p, loaded.Config)
		})
	}
	return cmd
}

// flag is a flag that overlays one value of the configuration.
type flag struct{ path, usage string }

var (
	dataDirFlag = flag{"data_dir", "where everything is kept (default " + defaultDataDir + ")"}
	natsFlag    = flag{"nats.url", "the NATS server (default nats://127.0.0.1:4222)"}
	grpcFlag    = flag{"grpc", "where the role answers, host:port"}
)

func (a *app) collectorCommand() *cobra.Command {
	var f sampleFlags
	var file, speed string
	var once bool
	cmd := a.role("collector", "Run a collector: replays of its configuration, imports, and with --replay one file more",
		map[string]flag{"data-dir": dataDirFlag, "nats": natsFlag, "grpc": grpcFlag},
		func(ctx context.Context, p *process, cfg config) error {
			if file != "" {
				cfg.Collector.Replays = append(cfg.Collector.Replays, f.replay(file, speed, once))
				if err := under("collector", cfg.Collector.Validate()); err != nil {
					return usageError{err}
				}
			}
			nc, err := p.connect(ctx, cfg.NATS, "collector")
			if err != nil {
				return err
			}
			defer nc.Close()
			svc, err := collector.New(p.log, cfg.Collector, collector.Deps{NATS: nc, Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter})
			if err != nil {
				return err
			}
			if once {
				// The command ends when the ledger has all of it.
				return svc.RunUntilCommitted(ctx)
			}
			srv := p.server()
			svc.Register(srv)
			return daemon.Group(ctx, svc.Run, p.serve(orElse(cfg.GRPC, cfg.Backends.Collector), srv))
		})
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&file, "replay", "", "play this CSV file of samples (columns as for 'import samples')")
	flags.StringVar(&speed, "speed", "1", "how much faster than it was, or max")
	flags.BoolVar(&once, "once", false, "play it once and end when the ledger has all of it (default: again and again)")
	return cmd
}

func (a *app) gridfeedCommand() *cobra.Command {
	return a.role("gridfeed", "Run the gridfeed: timelines of grid signals",
		map[string]flag{"data-dir": dataDirFlag, "nats": natsFlag, "grpc": grpcFlag},
		func(ctx context.Context, p *process, cfg config) error {
			nc, err := p.connect(ctx, cfg.NATS, "gridfeed")
			if err != nil {
				return err
			}
			defer nc.Close()
			svc, err := gridfeed.New(p.log, cfg.Gridfeed, gridfeed.Deps{NATS: nc, Meter: p.telemetry.Meter})
			if err != nil {
				return err
			}
			srv := p.server()
			svc.Register(srv)
			return daemon.Group(ctx, svc.Run, p.serve(orElse(cfg.GRPC, cfg.Backends.Gridfeed), srv))
		})
}

func (a *app) calculatorCommand() *cobra.Command {
	return a.role("calculator", "Run the calculator: samples in, statements out",
		map[string]flag{
			"data-dir": dataDirFlag, "nats": natsFlag, "grpc": grpcFlag,
			"gridfeed": {"backends.gridfeed", "where the gridfeed answers (default 127.0.0.1:9192)"},
		},
		func(ctx context.Context, p *process, cfg config) error {
			nc, err := p.connect(ctx, cfg.NATS, "calculator")
			if err != nil {
				return err
			}
			defer nc.Close()
			grid, err := p.dial(cfg.Backends.Gridfeed, false)
			if err != nil {
				return err
			}
			defer grid.Close()
			svc, err := calculator.New(p.log, cfg.Calculator, calculator.Deps{
				NATS: nc, Grid: gridv1.NewGridServiceClient(grid), Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter,
			})
			if err != nil {
				return err
			}
			srv := p.server()
			svc.Register(srv)
			return daemon.Group(ctx, svc.Run, p.serve(orElse(cfg.GRPC, cfg.Backends.Calculator), srv))
		})
}

func (a *app) gatewayCommand() *cobra.Command {
	return a.role("gateway", "Run the gateway: the one public door",
		map[string]flag{
			"grpc":       {"gateway.grpc", "where to answer native gRPC (default 127.0.0.1:9090)"},
			"http":       {"gateway.http", "where to answer HTTP: metrics and health (default 127.0.0.1:8080)"},
			"collector":  {"backends.collector", "where a collector takes imports in (default 127.0.0.1:9191)"},
			"gridfeed":   {"backends.gridfeed", "where the gridfeed answers (default 127.0.0.1:9192)"},
			"calculator": {"backends.calculator", "where the calculator answers (default 127.0.0.1:9193)"},
		},
		func(ctx context.Context, p *process, cfg config) error {
			conns := map[string]grpc.ClientConnInterface{}
			for target, services := range map[string][]string{
				cfg.Backends.Collector: {telemetryv1.TelemetryService_ServiceDesc.ServiceName},
				cfg.Backends.Gridfeed:  {gridv1.GridService_ServiceDesc.ServiceName},
				cfg.Backends.Calculator: {
					ledgerv1.LedgerService_ServiceDesc.ServiceName, fleetv1.FleetService_ServiceDesc.ServiceName,
				},
			} {
				conn, err := p.dial(target, true)
				if err != nil {
					return err
				}
				defer conn.Close()
				for _, service := range services {
					conns[service] = conn
				}
			}
			door, err := gateway.New(p.log, cfg.Gateway, conns,
				gateway.Deps{Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter, Metrics: p.telemetry.MetricsHandler})
			if err != nil {
				return err
			}
			if err := door.Listen(ctx); err != nil {
				return err
			}
			p.log.InfoContext(ctx, "answering", "grpc", door.GRPCAddr().String())
			return door.Run(ctx)
		})
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
