package calculator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/sqlite"
	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
)

// checkInterval is the time between two looks at a stream: what it may forget, and
// whether it is still the one that is being read.
const checkInterval = 5 * time.Second

// Deps are what the service needs from its process.
type Deps struct {
	// NATS is where batches come from and floors go to.
	NATS *nats.Conn
	// Grid is asked for factors.
	Grid gridClient
	// Tracer makes a span of each transaction; nil: none.
	Tracer trace.TracerProvider
	// Meter counts; nil: nothing is counted.
	Meter metric.MeterProvider
	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
}

// Service is a calculator. Make it with [New], give it to a server with
// [Service.Register], and let it live in [Service.Run].
type Service struct {
	log     *slog.Logger
	nats    *nats.Conn
	store   Store
	release func() // gives the directory back
	queries *queries
	readers []*ingest.Reader
	commits commitSignal
}

// New opens the ledger in the configured directory. Close what it opens by calling
// [Service.Run], with a context that has ended if need be.
func New(log *slog.Logger, cfg Config, deps Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("calculator: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider()
	}
	metrics, err := newMetrics(deps.Meter, deps.Now)
	if err != nil {
		return nil, fmt.Errorf("calculator: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("calculator: %w", err)
	}
	release, err := sqlite.Lock(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("calculator: %w", err)
	}
	store, err := sqlitestore.Open(context.Background(), cfg.Dir, deps.Now)
	if err != nil {
		release()
		return nil, fmt.Errorf("calculator: %w", err)
	}
	s := &Service{log: log, nats: deps.NATS, store: store, release: release}
	s.queries = newQueries(log, store, deps.Grid, &s.commits, deps.Now)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	for i := range cfg.Streams {
		reader, err := ingest.New(log, ingest.Config{
			Owner: fmt.Sprintf("%s/%d", host, os.Getpid()), Stream: i, Streams: cfg.Streams,
			Interval: cfg.CommitInterval, PendingBytes: cfg.PendingBytes, PullBytes: cfg.PullBytes,
			StreamBytes: cfg.StreamBytes, ReplayBytes: cfg.ReplayBytes, Replicas: cfg.Replicas, CheckInterval: checkInterval,
		}, ingest.Deps{
			NATS: deps.NATS, Store: store, Metrics: metrics, Now: deps.Now, Committed: s.commits.broadcast,
			Tracer: deps.Tracer.Tracer("github.com/wattfold/wattfold/services/calculator"),
		})
		if err != nil {
			return nil, fmt.Errorf("calculator: %w", errors.Join(err, s.close()))
		}
		s.readers = append(s.readers, reader)
	}
	return s, nil
}

// Register gives the services to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { s.queries.Register(r) }

// Run reads batches and answers spools until ctx ends, and then closes the ledger.
func (s *Service) Run(ctx context.Context) error {
	fns := []func(context.Context) error{
		func(ctx context.Context) error { return ingest.ServeFloors(ctx, s.log, s.nats, s.store) },
	}
	for _, reader := range s.readers {
		fns = append(fns, reader.Run)
	}
	if err := errors.Join(daemon.Group(ctx, fns...), s.close()); err != nil {
		return fmt.Errorf("calculator: %w", err)
	}
	return nil
}

func (s *Service) close() error {
	err := s.store.Close()
	s.release()
	return err
}
