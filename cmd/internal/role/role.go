// Package role is what the four roles have in common when each runs in a process
// of its own: gRPC with the process's telemetry, and connections to the others.
// The packages beside it are the roles; the slim mains and the command line of
// wattfold run them alike.
package role

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/rpc"
)

// Where the roles answer unless told otherwise.
const (
	NATS           = "nats://127.0.0.1:4222"
	CollectorGRPC  = "127.0.0.1:9191"
	GridfeedGRPC   = "127.0.0.1:9192"
	CalculatorGRPC = "127.0.0.1:9193"
)

// NewServer makes a gRPC server with the process's telemetry.
func NewServer(env daemon.Env) *rpc.Server {
	return rpc.NewServer(env.Log, rpc.Options{Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter})
}

// Serve returns what answers at the address until its context ends.
func Serve(env daemon.Env, address string, srv *rpc.Server) func(context.Context) error {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("grpc: %w", err)
		}
		env.Log.InfoContext(ctx, "answering", "grpc", listener.Addr().String())
		return rpc.Serve(ctx, env.Log, srv, listener)
	}
}

// Dial connects to another role and repeats calls that did not reach it.
func Dial(env daemon.Env, target string) (*grpc.ClientConn, error) {
	return rpc.Dial(target, rpc.ClientOptions{Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter})
}

// DialOnce connects to another role for a gateway, whose callers repeat calls.
func DialOnce(env daemon.Env, target string) (*grpc.ClientConn, error) {
	return rpc.Dial(target, rpc.ClientOptions{NoRetry: true, Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter})
}

// Under puts the name of a section before each of its mistakes.
func Under(section string, err error) error {
	if err == nil {
		return nil
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // each of the joined mistakes is wanted
		var all []error
		for _, e := range list.Unwrap() {
			all = append(all, Under(section, e))
		}
		return errors.Join(all...)
	}
	return fmt.Errorf("%s.%w", section, err)
}
