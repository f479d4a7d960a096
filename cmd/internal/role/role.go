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
	"net/http"

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

// Doors are where a role answers.
type Doors struct {
	// GRPC is host:port for its calls.
	GRPC string `koanf:"grpc" yaml:"grpc"`
	// HTTP is host:port for /metrics and /livez; empty: no such port.
	HTTP string `koanf:"http" yaml:"http"`
	// Insecure allows addresses other than loopback. There is no authentication yet.
	Insecure bool `koanf:"insecure" yaml:"insecure"`
}

// Validate returns every mistake.
func (d Doors) Validate() error {
	return errors.Join(CheckListen("grpc", d.GRPC, d.Insecure), CheckListen("http", d.HTTP, d.Insecure))
}

// Serve answers at the doors until ctx ends.
func Serve(ctx context.Context, env daemon.Env, doors Doors, srv *rpc.Server) error {
	if err := doors.Validate(); err != nil {
		return daemon.Usage(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", doors.GRPC)
	if err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	if doors.HTTP == "" {
		env.Log.InfoContext(ctx, "answering", "grpc", listener.Addr().String())
		return rpc.Serve(ctx, env.Log, srv, listener)
	}
	web, err := lc.Listen(ctx, "tcp", doors.HTTP)
	if err != nil {
		return errors.Join(fmt.Errorf("http: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", env.Telemetry.MetricsHandler)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	env.Log.InfoContext(ctx, "answering", "grpc", listener.Addr().String(), "http", web.Addr().String())
	return daemon.Group(ctx,
		func(ctx context.Context) error { return rpc.Serve(ctx, env.Log, srv, listener) },
		func(ctx context.Context) error { return daemon.ServeHTTP(ctx, env.Log, web, mux) },
	)
}

// CheckListen returns why a server may not listen at the address of a key; an
// empty address is none.
func CheckListen(key, address string, insecure bool) error {
	if address == "" {
		return nil
	}
	if err := rpc.CheckListen(address, insecure); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
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
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range list.Unwrap() {
			all = append(all, Under(section, e))
		}
		return errors.Join(all...)
	}
	return fmt.Errorf("%s.%w", section, err)
}
