package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/services/collector/internal/replay"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

// releaseEvery is how often the spool is asked to delete what has become old.
const releaseEvery = time.Minute

// Deps are what a collector works with. They stay the caller's.
type Deps struct {
	// NATS is the connection to the site's broker.
	NATS *nats.Conn
	// Tracer and Meter observe; nil: not observed.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
}

// Option changes a part of a collector, for tests.
type Option func(*options)

type options struct {
	publisher        func(Publisher) Publisher
	importStep       func(importStep) error
	importGroupBytes int
}

// WithPublisher puts a publisher around the one of the broker: to lose, repeat
// or shuffle what leaves the spool.
func WithPublisher(wrap func(Publisher) Publisher) Option {
	return func(o *options) { o.publisher = wrap }
}

// Service is a collector. Make it with [New].
type Service struct {
	log     *slog.Logger
	cfg     Config
	tracer  trace.Tracer
	spool   *spool.Spool
	metrics *metrics
	acks    *natsPublisher
	sender  *sender
	floors  *floors
	imports chan struct{}

	importer *importer

	mu      sync.Mutex
	playing int           // replays that have not ended
	ended   chan struct{} // closed when none is
}

// New opens the spool of a valid configuration. Run must be called, and closes
// the spool again.
func New(log *slog.Logger, cfg Config, deps Deps, opts ...Option) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("collector configuration: %w", err)
	}
	if deps.NATS == nil {
		return nil, errors.New("collector needs a connection to NATS")
	}
	if deps.Tracer == nil {
		deps.Tracer = tracenoop.NewTracerProvider()
	}
	if deps.Meter == nil {
		deps.Meter = metricnoop.NewMeterProvider()
	}
	o := options{importStep: func(importStep) error { return nil }, importGroupBytes: importGroupBytes}
	for _, opt := range opts {
		opt(&o)
	}
	sp, err := spool.Open(log, cfg.Dir, spool.Options{
		MaxUncommitted: cfg.Spool.MaxUncommittedBytes,
		KeepFor:        cfg.Spool.KeepCommittedFor,
		KeepBytes:      cfg.Spool.KeepCommittedBytes,
		SegmentBytes:   cfg.Spool.SegmentBytes,
	})
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(deps.Meter, sp)
	if err != nil {
		return nil, errors.Join(err, sp.Close())
	}
	s := &Service{
		log: log, cfg: cfg, spool: sp, metrics: m,
		tracer:  deps.Tracer.Tracer("github.com/wattfold/wattfold/services/collector"),
		acks:    newNATSPublisher(deps.NATS, cfg.Publish.AckTimeout),
		imports: make(chan struct{}, cfg.Import.MaxConcurrent),
		playing: len(cfg.Replays),
		ended:   make(chan struct{}),
	}
	if s.playing == 0 {
		close(s.ended)
	}
	var pub Publisher = s.acks
	if o.publisher != nil {
		pub = o.publisher(pub)
	}
	s.sender = newSender(log, cfg.Publish, sp, pub, m, s.tracer)
	s.floors = newFloors(log, deps.NATS, sp, cfg.Publish.FloorsEvery, s.sender.floorsMoved)
	store, unfinished, err := openImportStore(log, filepath.Join(cfg.Dir, "imports"))
	if err != nil {
		return nil, errors.Join(err, m.unobserve(), sp.Close())
	}
	s.importer = newImporter(s, store, unfinished, &o)
	return s, nil
}

// enterImport counts a call in, or refuses it.
func (s *Service) enterImport() (release func(), err error) {
	select {
	case s.imports <- struct{}{}:
		return func() { <-s.imports }, nil
	default:
		return nil, fault.RetryAfter(fault.Newf(fault.Exhausted, "%d imports are under way: try again later", cap(s.imports)), time.Second)
	}
}

// Run collects until ctx ends, and then returns nil; an error means that the
// collector cannot go on. What is in the spool stays there.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		if err := errors.Join(s.metrics.unobserve(), s.spool.Close()); err != nil {
			s.log.Warn("closing the spool", "error", err)
		}
	}()
	defer s.importer.close()
	acking := make(chan struct{})
	fns := []func(context.Context) error{
		func(ctx context.Context) error { return s.acks.run(ctx, func() { close(acking) }) },
		func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-acking:
				return s.sender.run(ctx)
			}
		},
		s.floors.run,
		s.importer.resume,
		s.release,
	}
	for i := range s.cfg.Replays {
		fns = append(fns, func(ctx context.Context) error { return s.replay(ctx, &s.cfg.Replays[i]) })
	}
	return daemon.Group(ctx, fns...)
}

// RunUntilCommitted is Run until every replay has ended, every import that the
// process before left has, and the ledger holds all that is in the spool; then it
// returns nil. If ctx ends before, it returns its error.
func (s *Service) RunUntilCommitted(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- s.Run(running) }()
	committed := make(chan error, 1)
	go func() { committed <- s.WaitCommitted(running) }()
	select {
	case err := <-failed:
		return errors.Join(err, ctx.Err())
	case err := <-committed:
		cancel()
		if ran := <-failed; ran != nil {
			return ran
		}
		return err
	}
}

// WaitCommitted waits until every replay and every import that the process
// before left has ended, and nothing in the spool is pending.
func (s *Service) WaitCommitted(ctx context.Context) error {
	for _, ended := range []<-chan struct{}{s.ended, s.importer.drained} {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.importer.stopping:
			return spool.ErrClosed
		case <-ended:
		}
	}
	for {
		changed := s.spool.Changed()
		if s.spool.Stats().PendingBytes == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.importer.stopping:
			return spool.ErrClosed
		case <-changed:
		}
	}
}

func (s *Service) replay(ctx context.Context, c *ReplayConfig) error {
	cfg, err := c.parse()
	if err != nil {
		return err
	}
	cfg.Count = func(ctx context.Context, duplicates, rounded uint64) {
		s.metrics.rows(ctx, sourceReplay, duplicates, rounded)
	}
	if err := replay.New(s.log, cfg, &sink{Spool: s.spool, append: s.append}).Run(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	if s.playing--; s.playing == 0 {
		close(s.ended)
	}
	s.mu.Unlock()
	return nil
}

// sink is the spool as a source sees it.
type sink struct {
	*spool.Spool
	append func(context.Context, *spool.Group) error
}

func (s *sink) Reserve(source, site string, n int) (spool.Key, uint64) {
	return s.Spool.Reserve(s.ProducerOf(source), site, n)
}

func (s *sink) Append(ctx context.Context, g *spool.Group) error { return s.append(ctx, g) }

// append makes a group durable, under the span that its batches belong to on
// their way to the ledger.
func (s *Service) append(ctx context.Context, g *spool.Group) error {
	samples := int64(0)
	for i := range g.Batches {
		samples += int64(g.Batches[i].Samples)
	}
	ctx, span := s.tracer.Start(ctx, "flush", trace.WithAttributes(
		attribute.String("wattfold.source", g.Source),
		attribute.Int("wattfold.batches", len(g.Batches)),
		attribute.Int64("wattfold.samples", samples)))
	defer span.End()
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	g.Trace = carrier.Get("traceparent")
	if err := s.spool.Append(ctx, g); err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "not spooled")
		return err
	}
	s.metrics.samples.Add(ctx, samples)
	return nil
}

// release lets time pass for the spool.
func (s *Service) release(ctx context.Context) error {
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.spool.Release()
		}
	}
}
