// Package gatewayd is the gateway as a process.
package gatewayd

import (
	"context"

	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/daemon"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// Config is the gateway and where the roles behind it answer, host:port.
type Config struct {
	// CollectorGRPC is where a collector takes imports in.
	CollectorGRPC string `koanf:"collector_grpc" yaml:"collector_grpc"`
	// GridfeedGRPC is where the gridfeed answers.
	GridfeedGRPC string `koanf:"gridfeed_grpc" yaml:"gridfeed_grpc"`
	// CalculatorGRPC is where the calculator answers.
	CalculatorGRPC string         `koanf:"calculator_grpc" yaml:"calculator_grpc"`
	Gateway        gateway.Config `koanf:"gateway" yaml:"gateway"`
}

// Default returns the configuration of a gateway on this machine.
func Default() Config {
	return Config{
		CollectorGRPC: role.CollectorGRPC, GridfeedGRPC: role.GridfeedGRPC, CalculatorGRPC: role.CalculatorGRPC,
		Gateway: gateway.Default(),
	}
}

// Validate returns every mistake with its dotted path.
func (c Config) Validate() error { return role.Under("gateway", c.Gateway.Validate()) }

// Backends says which connection answers which service.
func Backends(collector, gridfeed, calculator grpc.ClientConnInterface) map[string]grpc.ClientConnInterface {
	return map[string]grpc.ClientConnInterface{
		telemetryv1.TelemetryService_ServiceDesc.ServiceName: collector,
		gridv1.GridService_ServiceDesc.ServiceName:           gridfeed,
		ledgerv1.LedgerService_ServiceDesc.ServiceName:       calculator,
		fleetv1.FleetService_ServiceDesc.ServiceName:         calculator,
	}
}

// Run lives until ctx ends.
func Run(ctx context.Context, env daemon.Env, cfg Config) error {
	var conns []*grpc.ClientConn
	for _, target := range []string{cfg.CollectorGRPC, cfg.GridfeedGRPC, cfg.CalculatorGRPC} {
		conn, err := role.DialOnce(env, target)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	door, err := gateway.New(env.Log, cfg.Gateway, Backends(conns[0], conns[1], conns[2]),
		gateway.Deps{Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter, Metrics: env.Telemetry.MetricsHandler})
	if err != nil {
		return err
	}
	if err := door.Listen(ctx); err != nil {
		return err
	}
	env.Log.InfoContext(ctx, "answering", "grpc", door.GRPCAddr().String())
	return door.Run(ctx)
}
