package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/telemetry"
)

// defaultDataDir is where everything is kept unless told otherwise.
const defaultDataDir = "wattfold-data"

// flushTimeout is how long the last spans may take to leave.
const flushTimeout = 5 * time.Second

// process is what every role has of its surroundings.
type process struct {
	log       *slog.Logger
	telemetry telemetry.Providers
}

// inProcess runs a role with a log and telemetry. Logs go to standard error:
// text for a person, JSON for a machine.
func (a *app) inProcess(ctx context.Context, name string, level slog.Level, run func(context.Context, *process) error) error {
	if text := os.Getenv("WATTFOLD_LOG_LEVEL"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return usagef("WATTFOLD_LOG_LEVEL=%s: use debug, info, warn or error", text)
		}
	}
	log := daemon.NewLogger(a.err, level)
	providers, shutdown, err := telemetry.Setup(ctx, log, name)
	if err != nil {
		return err
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := shutdown(flush); err != nil {
			log.WarnContext(ctx, "telemetry not flushed", "err", err)
		}
	}()
	return run(ctx, &process{log: log, telemetry: providers})
}

func (p *process) connect(ctx context.Context, c natsConfig, name string) (*nats.Conn, error) {
	if c.URL == "" {
		return nil, usagef("nats.url: no NATS server is named; give --nats nats://host:4222")
	}
	return bus.Connect(ctx, c.URL, "wattfold-"+name, p.log)
}

// server makes a gRPC server with the process's telemetry.
func (p *process) server() *rpc.Server {
	return rpc.NewServer(p.log, rpc.Options{Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter})
}

// serve answers at the address until ctx ends.
func (p *process) serve(address string, srv *rpc.Server) func(context.Context) error {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("grpc: %w", err)
		}
		p.log.InfoContext(ctx, "answering", "grpc", listener.Addr().String())
		return rpc.Serve(ctx, p.log, srv, listener)
	}
}

// dial connects to another role. A gateway does not repeat calls: its callers do.
func (p *process) dial(target string, noRetry bool) (*grpc.ClientConn, error) {
	return rpc.Dial(target, rpc.ClientOptions{NoRetry: noRetry, Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter})
}

// inMemory connects to a server of this process.
func (p *process) inMemory(name string) (*rpc.MemoryListener, *grpc.ClientConn, error) {
	listener := rpc.Memory()
	conn, err := rpc.Dial(name, rpc.ClientOptions{Memory: listener, NoRetry: true, Tracer: p.telemetry.Tracer, Meter: p.telemetry.Meter})
	return listener, conn, err
}
