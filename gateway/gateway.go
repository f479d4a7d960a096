package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/rpc"
)

// healthTimeout bounds one question for the health of a backend.
const healthTimeout = 2 * time.Second

// Deps are what a gateway works with besides its backends. All may be nil.
type Deps struct {
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// Metrics serves /metrics.
	Metrics http.Handler
}

// Gateway forwards calls. Make it with [New], and [Gateway.Run] it.
type Gateway struct {
	log      *slog.Logger
	cfg      Config
	deps     Deps
	methods  map[string]Method // by full name; only of services with a backend
	backends backends

	grpc, http net.Listener
}

// New makes a gateway to backends, the connections by full name of the service.
// A service may be absent: its calls are answered UNIMPLEMENTED. Connections are
// dialed with [rpc.ClientOptions.NoRetry]: the caller retries, and twice four
// attempts would be sixteen.
func New(log *slog.Logger, cfg Config, conns map[string]grpc.ClientConnInterface, deps Deps) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	methods, err := Methods()
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g := &Gateway{log: log, cfg: cfg, deps: deps, methods: map[string]Method{}, backends: conns}
	known := map[string]bool{}
	for _, m := range methods {
		known[m.Service] = true
		if conns[m.Service] != nil {
			g.methods[m.FullName()] = m
		}
	}
	for _, service := range g.backends.Services() {
		if !known[service] || conns[service] == nil {
			return nil, fmt.Errorf("gateway: backend %s: no such service; there are %v", service, slices.Sorted(maps.Keys(known)))
		}
	}
	return g, nil
}

// Listen opens the ports, so that [Gateway.GRPCAddr] and [Gateway.HTTPAddr] are
// known before [Gateway.Run], which calls it otherwise. Calls wait until Run.
func (g *Gateway) Listen(ctx context.Context) error {
	if g.grpc != nil {
		return nil
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", g.cfg.GRPC)
	if err != nil {
		return fmt.Errorf("gateway: grpc: %w", err)
	}
	if g.cfg.HTTP != "" {
		if g.http, err = lc.Listen(ctx, "tcp", g.cfg.HTTP); err != nil {
			_ = lis.Close()
			return fmt.Errorf("gateway: http: %w", err)
		}
	}
	g.grpc = netutil.LimitListener(lis, g.cfg.MaxConnections)
	return nil
}

// GRPCAddr returns the address of the gRPC port; nil before [Gateway.Listen].
func (g *Gateway) GRPCAddr() net.Addr {
	if g.grpc == nil {
		return nil
	}
	return g.grpc.Addr()
}

// HTTPAddr returns the address of the HTTP port; nil if there is none.
func (g *Gateway) HTTPAddr() net.Addr {
	if g.http == nil {
		return nil
	}
	return g.http.Addr()
}

// Run serves until ctx ends, then lets calls finish within [Config.Drain].
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.Listen(ctx); err != nil {
		return err
	}
	proxy := &proxy{methods: g.methods, backends: g.backends, codec: newCodec()}
	srv := rpc.NewServer(g.log, rpc.Options{
		Reflection: g.cfg.Reflection,
		Tracer:     g.deps.Tracer,
		Meter:      g.deps.Meter,
		Drain:      g.cfg.Drain,
		Elsewhere:  g.backends,
		Observed:   func(method string) bool { _, ok := g.methods[method]; return ok },
		Extra:      []grpc.ServerOption{grpc.ForceServerCodecV2(proxy.codec), grpc.UnknownServiceHandler(proxy.handle)},
	})
	proxy.draining = srv.Draining()
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return rpc.Serve(ctx, g.log, srv, g.grpc) },
	}
	if g.http != nil {
		parts = append(parts, func(ctx context.Context) error { return g.serveHTTP(ctx, srv.Draining()) })
	}
	return daemon.Group(ctx, parts...)
}

// backends are the connections by full name of the service.
type backends map[string]grpc.ClientConnInterface

// Services returns the names of the services that have a backend.
func (b backends) Services() []string { return slices.Sorted(maps.Keys(b)) }

// CheckHealth asks the backend of the service how it is.
func (b backends) CheckHealth(ctx context.Context, service string) healthv1.HealthCheckResponse_ServingStatus {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	resp, err := healthv1.NewHealthClient(b[service]).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING
	}
	return resp.GetStatus()
}
