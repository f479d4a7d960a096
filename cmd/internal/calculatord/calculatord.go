// Package calculatord is the calculator as a process.
package calculatord

import (
	"context"
	"errors"

	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/daemon"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/calculator"
)

// Config is the calculator and where it stands.
type Config struct {
	// NATS is the server's URL.
	NATS string `koanf:"nats" yaml:"nats"`
	// Doors are where to answer.
	Doors role.Doors `koanf:"doors" yaml:"doors"`
	// GridfeedGRPC is where the gridfeed answers, host:port.
	GridfeedGRPC string            `koanf:"gridfeed_grpc" yaml:"gridfeed_grpc"`
	Calculator   calculator.Config `koanf:"calculator" yaml:"calculator"`
}

// Default returns the configuration of a calculator on this machine.
func Default() Config {
	cfg := Config{NATS: role.NATS, Doors: role.Doors{GRPC: role.CalculatorGRPC}, GridfeedGRPC: role.GridfeedGRPC, Calculator: calculator.Default()}
	cfg.Calculator.Dir = "wattfold-data/calculator"
	return cfg
}

// Validate returns every mistake with its dotted path.
func (c Config) Validate() error {
	return errors.Join(role.Under("doors", c.Doors.Validate()), role.Under("calculator", c.Calculator.Validate()))
}

// Run lives until ctx ends.
func Run(ctx context.Context, env daemon.Env, cfg Config) error {
	nc, err := bus.Connect(ctx, cfg.NATS, "wattfold-calculator", env.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	grid, err := role.Dial(env, cfg.GridfeedGRPC)
	if err != nil {
		return err
	}
	defer grid.Close()
	svc, err := calculator.New(env.Log, cfg.Calculator, calculator.Deps{
		NATS: nc, Grid: gridv1.NewGridServiceClient(grid), Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter,
	})
	if err != nil {
		return err
	}
	srv := role.NewServer(env)
	svc.Register(srv)
	return daemon.Group(ctx, svc.Run, func(ctx context.Context) error { return role.Serve(ctx, env, cfg.Doors, srv) })
}
