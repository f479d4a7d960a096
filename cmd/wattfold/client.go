package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// defaultServer is where 'wattfold up' listens unless told otherwise.
const defaultServer = "127.0.0.1:9090"

// client asks a gateway.
type client struct {
	conn      *grpc.ClientConn
	fleet     fleetv1.FleetServiceClient
	grid      gridv1.GridServiceClient
	ledger    ledgerv1.LedgerServiceClient
	telemetry telemetryv1.TelemetryServiceClient
}

func newClient(conn *grpc.ClientConn) *client {
	return &client{
		conn:      conn,
		fleet:     fleetv1.NewFleetServiceClient(conn),
		grid:      gridv1.NewGridServiceClient(conn),
		ledger:    ledgerv1.NewLedgerServiceClient(conn),
		telemetry: telemetryv1.NewTelemetryServiceClient(conn),
	}
}

// dial connects to --server. The connection is made by the first call.
func (a *app) dial() (*client, error) {
	conn, err := grpc.NewClient(a.server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(rpc.MaxSend)))
	if err != nil {
		return nil, usagef("--server %q: %w", a.server, err)
	}
	return newClient(conn), nil
}

func (c *client) close() { _ = c.conn.Close() }
