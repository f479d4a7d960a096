package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/cmd/internal/gatewayd"
	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/bus/embedded"
	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/sqlite"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/calculator"
	"github.com/wattfold/wattfold/services/collector"
	"github.com/wattfold/wattfold/services/gridfeed"
)

func (a *app) upCommand() *cobra.Command {
	var file, dataDir, grpcAddress, httpAddress, natsListen string
	var noDemo bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process: collector, NATS, gridfeed, calculator, gateway",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := changed(cmd, map[string]string{
				"data-dir": "data_dir", "grpc": "gateway.grpc", "http": "gateway.http", "nats-listen": "nats.listen",
			})
			if noDemo {
				flags["demo"] = false
			}
			loaded, err := load(file, flags)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if loaded.Config.Demo && daemon.Terminal(a.out) && os.Getenv("TERM") != "dumb" {
				a.screen = &screen{out: a.out}
				a.out = a.screen
				if daemon.Terminal(a.err) {
					// The live line is what a person watches.
					a.err, level = a.screen, slog.LevelWarn
				}
			}
			return a.inProcess(cmd.Context(), "wattfold", level, func(ctx context.Context, env daemon.Env) error {
				return a.up(ctx, env, loaded.Config)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", "", "YAML file of the configuration (see 'wattfold config')")
	flags.StringVar(&dataDir, "data-dir", defaultDataDir, "where everything is kept")
	flags.StringVar(&grpcAddress, "grpc", "127.0.0.1:9090", "where the gateway answers native gRPC")
	flags.StringVar(&httpAddress, "http", "127.0.0.1:8080", "where the gateway answers HTTP: metrics and health")
	flags.StringVar(&natsListen, "nats-listen", "", "let collectors of other processes in at this host:port (default: no port)")
	flags.BoolVar(&noDemo, "no-demo", false, "do not replay the bundled trace")
	return cmd
}

// changed returns the flags that were given, by their path in the configuration.
func changed(cmd *cobra.Command, paths map[string]string) map[string]any {
	out := map[string]any{}
	for flag, path := range paths {
		if f := cmd.Flags().Lookup(flag); f.Changed {
			out[path] = f.Value.String()
		}
	}
	return out
}

// up runs every role over an in-process bus and in-memory gRPC: the same
// constructors as the single roles, with other edges.
func (a *app) up(ctx context.Context, env daemon.Env, cfg config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return err
	}
	release, err := sqlite.Lock(cfg.DataDir)
	if err != nil {
		return err
	}
	defer release()

	server, err := embedded.Start(embedded.Config{
		StoreDir: filepath.Join(cfg.DataDir, "nats"), Listen: cfg.NATS.Listen, MaxStore: cfg.NATS.MaxStore, Log: env.Log,
	})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	nc, err := server.Connect("wattfold")
	if err != nil {
		return err
	}
	defer nc.Close()

	if cfg.Demo {
		trace, err := writeDemoTrace(cfg.DataDir)
		if err != nil {
			return err
		}
		cfg.Collector.Replays = append(cfg.Collector.Replays, demoReplay(trace))
	}

	gridListener, gridConn, err := inMemory(env, "gridfeed")
	if err != nil {
		return err
	}
	defer gridConn.Close()
	calculatorListener, calculatorConn, err := inMemory(env, "calculator")
	if err != nil {
		return err
	}
	defer calculatorConn.Close()
	collectorListener, collectorConn, err := inMemory(env, "collector")
	if err != nil {
		return err
	}
	defer collectorConn.Close()

	grid, err := gridfeed.New(env.Log, cfg.Gridfeed, gridfeed.Deps{NATS: nc, Meter: env.Telemetry.Meter})
	if err != nil {
		return err
	}
	calc, err := calculator.New(env.Log, cfg.Calculator, calculator.Deps{
		NATS: nc, Grid: gridv1.NewGridServiceClient(gridConn), Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter,
	})
	if err != nil {
		return err
	}
	coll, err := collector.New(env.Log, cfg.Collector, collector.Deps{NATS: nc, Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter})
	if err != nil {
		return err
	}
	door, err := gateway.New(env.Log, cfg.Gateway, gatewayd.Backends(collectorConn, gridConn, calculatorConn),
		gateway.Deps{Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter, Metrics: env.Telemetry.MetricsHandler})
	if err != nil {
		return err
	}
	if err := door.Listen(ctx); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w; choose other ports with --grpc and --http", err)
		}
		return err
	}

	serve := func(listener *rpc.MemoryListener, register func(grpc.ServiceRegistrar)) func(context.Context) error {
		srv := role.NewServer(env)
		register(srv)
		return func(ctx context.Context) error { return rpc.Serve(ctx, env.Log, srv, listener) }
	}
	a.server = door.GRPCAddr().String()
	return daemon.Group(ctx,
		grid.Run, serve(gridListener, grid.Register),
		calc.Run, serve(calculatorListener, calc.Register),
		coll.Run, serve(collectorListener, coll.Register),
		door.Run,
		func(ctx context.Context) error { return a.show(ctx, env, cfg, door, server.URL()) },
	)
}

// show prints where everything is and then the live figures.
func (a *app) show(ctx context.Context, env daemon.Env, cfg config, door *gateway.Gateway, natsURL string) error {
	fmt.Fprintf(a.out, "wattfold is up: gRPC %s", door.GRPCAddr())
	if address := door.HTTPAddr(); address != nil {
		fmt.Fprintf(a.out, ", metrics http://%s/metrics", address)
	}
	if natsURL != "" {
		fmt.Fprintf(a.out, ", NATS %s", natsURL)
	}
	fmt.Fprintf(a.out, ", data in %s\n", cfg.DataDir)
	flag := ""
	if a.server != defaultServer {
		flag = " --server " + a.server
	}
	site := "SITE"
	if cfg.Demo {
		site = demoSite
		fmt.Fprintln(a.out, "The demo replays 8 nodes of a real 512-GPU training run into site demo, priced by California's grid of 2021.")
	}
	fmt.Fprintf(a.out, "Ask, in another terminal:\n"+
		"  %[3]s statement --site %[1]s --last 1h%[2]s\n"+
		"  %[3]s series --site %[1]s --last 1h%[2]s\n"+
		"  %[3]s statement --site %[1]s --last 1d --every 1h --group-by node -o json%[2]s\n\n", site, flag, os.Args[0])
	if !cfg.Demo {
		return nil
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.close()
	l := &live{log: env.Log, client: c, out: a.out, screen: a.screen}
	return daemon.Group(ctx,
		func(ctx context.Context) error { return keepDemo(ctx, c) },
		l.run,
	)
}
