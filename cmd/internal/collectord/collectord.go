// Package collectord is the collector as a process.
package collectord

import (
	"context"
	"errors"

	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/services/collector"
)

// Config is the collector and where it stands.
type Config struct {
	// NATS is the server's URL.
	NATS string `koanf:"nats" yaml:"nats"`
	// Doors are where to answer.
	Doors role.Doors `koanf:"doors" yaml:"doors"`
	// Once ends the process when the replays have ended and the ledger has all of
	// them; imports are not taken in then.
	Once      bool             `koanf:"once" yaml:"once"`
	Collector collector.Config `koanf:"collector" yaml:"collector"`
}

// Default returns the configuration of a collector on this machine.
func Default() Config {
	cfg := Config{NATS: role.NATS, Doors: role.Doors{GRPC: role.CollectorGRPC}, Collector: collector.Default()}
	cfg.Collector.Dir = "wattfold-data/collector"
	return cfg
}

// Validate returns every mistake with its dotted path.
func (c Config) Validate() error {
	return errors.Join(role.Under("doors", c.Doors.Validate()), role.Under("collector", c.Collector.Validate()))
}

// Run lives until ctx ends or, with Once, until all is committed.
func Run(ctx context.Context, env daemon.Env, cfg Config) error {
	nc, err := bus.Connect(ctx, cfg.NATS, "wattfold-collector", env.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	svc, err := collector.New(env.Log, cfg.Collector, collector.Deps{NATS: nc, Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter})
	if err != nil {
		return err
	}
	if cfg.Once {
		return svc.RunUntilCommitted(ctx)
	}
	srv := role.NewServer(env)
	svc.Register(srv)
	return daemon.Group(ctx, svc.Run, func(ctx context.Context) error { return role.Serve(ctx, env, cfg.Doors, srv) })
}
