// Package gridfeedd is the gridfeed as a process.
package gridfeedd

import (
	"context"
	"errors"

	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/services/gridfeed"
)

// Config is the gridfeed and where it stands.
type Config struct {
	// NATS is the server's URL.
	NATS string `koanf:"nats" yaml:"nats"`
	// Doors are where to answer.
	Doors    role.Doors      `koanf:"doors" yaml:"doors"`
	Gridfeed gridfeed.Config `koanf:"gridfeed" yaml:"gridfeed"`
}

// Default returns the configuration of a gridfeed on this machine.
func Default() Config {
	cfg := Config{NATS: role.NATS, Doors: role.Doors{GRPC: role.GridfeedGRPC}, Gridfeed: gridfeed.Default()}
	cfg.Gridfeed.Dir = "wattfold-data/gridfeed"
	return cfg
}

// Validate returns every mistake with its dotted path.
func (c Config) Validate() error {
	return errors.Join(role.Under("doors", c.Doors.Validate()), role.Under("gridfeed", c.Gridfeed.Validate()))
}

// Run lives until ctx ends.
func Run(ctx context.Context, env daemon.Env, cfg Config) error {
	nc, err := bus.Connect(ctx, cfg.NATS, "wattfold-gridfeed", env.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	svc, err := gridfeed.New(env.Log, cfg.Gridfeed, gridfeed.Deps{NATS: nc, Meter: env.Telemetry.Meter})
	if err != nil {
		return err
	}
	srv := role.NewServer(env)
	svc.Register(srv)
	return daemon.Group(ctx, svc.Run, func(ctx context.Context) error { return role.Serve(ctx, env, cfg.Doors, srv) })
}
