package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/rpc"
)

// defaultDataDir is where everything is kept unless told otherwise.
const defaultDataDir = "wattfold-data"

// inProcess runs a role with a log and telemetry. Logs go to standard error:
// text for a person, JSON for a machine.
func (a *app) inProcess(ctx context.Context, name string, level slog.Level, run func(context.Context, daemon.Env) error) error {
	level, err := daemon.LogLevel(level)
	if err != nil {
		return err
	}
	env := daemon.Env{Name: name, Stdin: a.in, Stdout: a.out, Stderr: a.err, Log: daemon.NewLogger(a.err, level)}
	return daemon.Frame(ctx, env, run)
}

// inMemory connects to a server of this process.
func inMemory(env daemon.Env, name string) (*rpc.MemoryListener, *grpc.ClientConn, error) {
	listener := rpc.Memory()
	conn, err := rpc.Dial(name, rpc.ClientOptions{
		Memory: listener, NoRetry: true, Tracer: env.Telemetry.Tracer, Meter: env.Telemetry.Meter,
	})
	return listener, conn, err
}
