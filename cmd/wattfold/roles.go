package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/wattfold/wattfold/cmd/internal/calculatord"
	"github.com/wattfold/wattfold/cmd/internal/collectord"
	"github.com/wattfold/wattfold/cmd/internal/gatewayd"
	"github.com/wattfold/wattfold/cmd/internal/gridfeedd"
	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/internal/daemon"
)

// role is the frame of a command that plays one role: its configuration, log and
// telemetry. Flags overlay the configuration by the paths given.
func (a *app) role(use, short string, flags map[string]flag, run func(context.Context, daemon.Env, config) error) *cobra.Command {
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
			return err
		}
		return a.inProcess(cmd.Context(), "wattfold-"+cmd.Name(), slog.LevelInfo, func(ctx context.Context, env daemon.Env) error {
			return run(ctx, env, loaded.Config)
		})
	}
	return cmd
}

// flag is a flag that overlays one value of the configuration.
type flag struct{ path, usage string }

var (
	dataDirFlag = flag{"data_dir", "where everything is kept (default " + defaultDataDir + ")"}
	natsFlag    = flag{"nats.url", "the NATS server (default " + role.NATS + ")"}
	httpFlag    = flag{"roles.http", "where to answer /metrics and /livez (default: no such port)"}
)

func (a *app) collectorCommand() *cobra.Command {
	var f sampleFlags
	var file, speed string
	var once bool
	cmd := a.role("collector", "Run a collector: replays of its configuration, imports, and with --replay one file more",
		map[string]flag{
			"data-dir": dataDirFlag, "nats": natsFlag, "http": httpFlag,
			"grpc": {"roles.collector", "where to take imports in (default " + role.CollectorGRPC + ")"},
		},
		func(ctx context.Context, env daemon.Env, cfg config) error {
			if file != "" {
				cfg.Collector.Replays = append(cfg.Collector.Replays, f.replay(file, speed, once))
				if err := role.Under("collector", cfg.Collector.Validate()); err != nil {
					return daemon.Usage(err)
				}
			}
			return collectord.Run(ctx, env, collectord.Config{
				NATS: cfg.NATS.URL, Doors: role.Doors{GRPC: cfg.Roles.Collector, HTTP: cfg.Roles.HTTP, Insecure: cfg.Roles.Insecure}, Once: once, Collector: cfg.Collector,
			})
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
		map[string]flag{
			"data-dir": dataDirFlag, "nats": natsFlag, "http": httpFlag,
			"grpc": {"roles.gridfeed", "where to answer (default " + role.GridfeedGRPC + ")"},
		},
		func(ctx context.Context, env daemon.Env, cfg config) error {
			return gridfeedd.Run(ctx, env, gridfeedd.Config{NATS: cfg.NATS.URL, Doors: role.Doors{GRPC: cfg.Roles.Gridfeed, HTTP: cfg.Roles.HTTP, Insecure: cfg.Roles.Insecure}, Gridfeed: cfg.Gridfeed})
		})
}

func (a *app) calculatorCommand() *cobra.Command {
	return a.role("calculator", "Run the calculator: samples in, statements out",
		map[string]flag{
			"data-dir": dataDirFlag, "nats": natsFlag, "http": httpFlag,
			"grpc":     {"roles.calculator", "where to answer (default " + role.CalculatorGRPC + ")"},
			"gridfeed": {"roles.gridfeed", "where the gridfeed answers (default " + role.GridfeedGRPC + ")"},
		},
		func(ctx context.Context, env daemon.Env, cfg config) error {
			return calculatord.Run(ctx, env, calculatord.Config{
				NATS: cfg.NATS.URL, Doors: role.Doors{GRPC: cfg.Roles.Calculator, HTTP: cfg.Roles.HTTP, Insecure: cfg.Roles.Insecure}, GridfeedGRPC: cfg.Roles.Gridfeed, Calculator: cfg.Calculator,
			})
		})
}

func (a *app) gatewayCommand() *cobra.Command {
	return a.role("gateway", "Run the gateway: the one public door",
		map[string]flag{
			"grpc":       {"gateway.grpc", "where to answer native gRPC (default 127.0.0.1:9090)"},
			"http":       {"gateway.http", "where to answer HTTP: metrics and health (default 127.0.0.1:8080)"},
			"collector":  {"roles.collector", "where a collector takes imports in (default " + role.CollectorGRPC + ")"},
			"gridfeed":   {"roles.gridfeed", "where the gridfeed answers (default " + role.GridfeedGRPC + ")"},
			"calculator": {"roles.calculator", "where the calculator answers (default " + role.CalculatorGRPC + ")"},
		},
		func(ctx context.Context, env daemon.Env, cfg config) error {
			return gatewayd.Run(ctx, env, gatewayd.Config{
				CollectorGRPC: cfg.Roles.Collector, GridfeedGRPC: cfg.Roles.Gridfeed, CalculatorGRPC: cfg.Roles.Calculator,
				Gateway: cfg.Gateway,
			})
		})
}
