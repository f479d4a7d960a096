package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
)

// The limits of a server. grpc-go's own are 4 MiB, 2 GiB, 4 billion and 16 MiB.
const (
	// MaxReceive is the largest request message, in bytes.
	MaxReceive = 4 << 20
	// MaxSend is the largest response message, in bytes.
	MaxSend = 16 << 20
	// MaxStreams bounds the calls in flight on one connection.
	MaxStreams = 250
	// MaxHeaderList bounds the headers of a call, in bytes.
	MaxHeaderList = 16 << 10
)

// DefaultDrain is how long [Serve] lets calls finish.
const DefaultDrain = 20 * time.Second

// Options of a server. The zero value is a server without telemetry.
type Options struct {
	// Reflection lets callers list services and messages.
	Reflection bool
	// Tracer and Meter observe calls; nil: not observed.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// Drain is how long calls may go on after the end; 0: [DefaultDrain].
	Drain time.Duration
	// Elsewhere are services that this server answers for without registering
	// them; nil: none.
	Elsewhere Elsewhere
	// Observed chooses the calls, by full method, that Tracer and Meter see; nil:
	// all but health checks. A server that takes any method must bound them: each
	// is a label of its metrics.
	Observed func(fullMethod string) bool
	// Extra comes after all other options and so may change them.
	Extra []grpc.ServerOption
}

// Server is a gRPC server that knows its own health and when it drains.
type Server struct {
	*grpc.Server
	log    *slog.Logger
	drain  time.Duration
	health *health

	draining  chan struct{}
	drainOnce sync.Once
}

// NewServer makes a server. Services are registered next, then [Serve] is called.
// The health service is there from the start and speaks for every service.
func NewServer(log *slog.Logger, o Options) *Server {
	s := &Server{log: log, drain: o.Drain, draining: make(chan struct{})}
	if s.drain == 0 {
		s.drain = DefaultDrain
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxReceive),
		grpc.MaxSendMsgSize(MaxSend),
		grpc.MaxConcurrentStreams(MaxStreams),
		grpc.MaxHeaderListSize(MaxHeaderList),
		grpc.ConnectionTimeout(20 * time.Second),
		// A stream may have 1 MiB in flight and a connection 4: enough for 100 ms
		// of a slow link, small enough for many readers that do not read.
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 15 * time.Minute,
			// Old connections are replaced so that clients see new servers. A stream
			// still open after the grace is cut, so it is as long as a large import.
			MaxConnectionAge:      30 * time.Minute,
			MaxConnectionAgeGrace: time.Hour,
			Time:                  time.Minute,
			Timeout:               20 * time.Second,
		}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.WaitForHandlers(true),
	}
	if o.Tracer != nil || o.Meter != nil {
		observed := observe(o.Tracer, o.Meter)
		if o.Observed != nil {
			observed = append(observed, otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return o.Observed(info.FullMethodName) }))
		}
		opts = append(opts, grpc.StatsHandler(otelgrpc.NewServerHandler(observed...)))
	}
	s.Server = grpc.NewServer(append(opts, o.Extra...)...)
	s.health = &health{services: s.GetServiceInfo, next: o.Elsewhere, draining: s.draining}
	healthv1.RegisterHealthServer(s.Server, s.health)
	if o.Reflection {
		reflection.Register(listing{s.Server, o.Elsewhere})
	}
	return s
}

// Draining is closed when the server stops taking calls. Handlers of streams
// that would never end by themselves end then; those that only send are ended by
// the server.
func (s *Server) Draining() <-chan struct{} { return s.draining }

// Serve answers calls on every listener until ctx ends. Then it reports itself as
// not serving, takes no more calls, lets those in flight finish within
// [Options.Drain], and cuts off the rest. It returns nil after that, or the error
// of a listener that failed. The listeners are closed in either case.
func Serve(ctx context.Context, log *slog.Logger, s *Server, listeners ...net.Listener) error {
	failed := make(chan error, len(listeners))
	for _, lis := range listeners {
		go func() { failed <- s.Server.Serve(lis) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		if err == nil || errors.Is(err, grpc.ErrServerStopped) {
			err = errors.New("the server was stopped from elsewhere")
		}
		err = fmt.Errorf("serve grpc: %w", err)
	}
	s.drainOnce.Do(func() { close(s.draining) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.GracefulStop()
	}()
	late := time.NewTimer(s.drain)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		log.WarnContext(ctx, "calls cut off at the end", "after", s.drain)
		s.Stop()
		<-done
	}
	return err
}

// listing is what reflection shows.
type listing struct {
	*grpc.Server
	elsewhere Elsewhere
}

func (l listing) GetServiceInfo() map[string]grpc.ServiceInfo {
	all := l.Server.GetServiceInfo()
	if l.elsewhere != nil {
		for _, name := range l.elsewhere.Services() {
			all[name] = grpc.ServiceInfo{}
		}
	}
	return all
}

func observe(tracer trace.TracerProvider, meter metric.MeterProvider) []otelgrpc.Option {
	opts := []otelgrpc.Option{otelgrpc.WithFilter(filters.Not(filters.HealthCheck()))}
	if tracer != nil {
		opts = append(opts, otelgrpc.WithTracerProvider(tracer))
	}
	if meter != nil {
		opts = append(opts, otelgrpc.WithMeterProvider(meter))
	}
	return opts
}
