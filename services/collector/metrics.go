package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

// metrics are the figures of a collector:
//
//	wattfold_collector_samples_total             readings made durable in the spool
//	wattfold_collector_duplicate_rows_total      rows at the instant of the one
//	                                             before of their node, dropped, by
//	                                             source (replay, import)
//	wattfold_collector_rounded_total             rows whose time or value was finer
//	                                             than the unit, by source
//	wattfold_collector_published_batches_total   batches that the broker acked
//	wattfold_collector_resent_batches_total      batches sent again because the
//	                                             ledger did not report them
//	wattfold_collector_publish_errors_total      publishes without an ack, by reason
//	wattfold_collector_spool_bytes               size of the spool
//	wattfold_collector_spool_pending_bytes       what the ledger has not reported
//	wattfold_collector_spool_lost_bytes          what damage of the disk has cost
//	wattfold_collector_oldest_pending_seconds    age of the oldest of it
type metrics struct {
	samples    metric.Int64Counter
	duplicates metric.Int64Counter
	rounded    metric.Int64Counter
	published  metric.Int64Counter
	resent     metric.Int64Counter
	errors     metric.Int64Counter
	unobserve  func() error
}

func newMetrics(provider metric.MeterProvider, sp *spool.Spool) (*metrics, error) {
	meter := provider.Meter("github.com/wattfold/wattfold/services/collector")
	m := &metrics{}
	var errs []error
	counter := func(to *metric.Int64Counter, name, text string) {
		c, err := meter.Int64Counter(name, metric.WithDescription(text))
		*to = c
		errs = append(errs, err)
	}
	counter(&m.samples, "wattfold_collector_samples_total", "Readings made durable in the spool.")
	counter(&m.duplicates, "wattfold_collector_duplicate_rows_total", "Rows at the instant of the one before of their node, dropped, by source.")
	counter(&m.rounded, "wattfold_collector_rounded_total", "Rows whose time or value was finer than the unit, by source.")
	counter(&m.published, "wattfold_collector_published_batches_total", "Batches that the broker acked.")
	counter(&m.resent, "wattfold_collector_resent_batches_total", "Batches sent again because the ledger did not report them.")
	counter(&m.errors, "wattfold_collector_publish_errors_total", "Publishes without an ack, by reason.")
	gauge := func(name, unit, text string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return g
	}
	size := gauge("wattfold_collector_spool_bytes", "By", "Size of the spool.")
	pending := gauge("wattfold_collector_spool_pending_bytes", "By", "What the ledger has not reported as committed.")
	lost := gauge("wattfold_collector_spool_lost_bytes", "By", "What damage of the disk has cost.")
	oldest, err := meter.Float64ObservableGauge("wattfold_collector_oldest_pending_seconds",
		metric.WithUnit("s"), metric.WithDescription("Age of the oldest batch that the ledger has not reported as committed."))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("collector metrics: %w", err)
	}
	// A counter that appears with its first event has no rate at that event.
	for _, c := range []metric.Int64Counter{m.samples, m.published, m.resent} {
		c.Add(context.Background(), 0)
	}
	m.rows(context.Background(), sourceReplay, 0, 0)
	m.rows(context.Background(), sourceImport, 0, 0)
	registered, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := sp.Stats()
		o.ObserveInt64(size, st.Bytes)
		o.ObserveInt64(pending, st.PendingBytes)
		o.ObserveInt64(lost, st.LostBytes)
		age := 0.0
		if !st.Oldest.IsZero() {
			age = max(0, time.Since(st.Oldest).Seconds())
		}
		o.ObserveFloat64(oldest, age)
		return nil
	}, size, pending, lost, oldest)
	if err != nil {
		return nil, fmt.Errorf("collector metrics: %w", err)
	}
	m.unobserve = registered.Unregister
	return m, nil
}

// The sources of rows, as in the metrics.
const (
	sourceReplay = "replay"
	sourceImport = "import"
)

// rows counts what rows lost on their way to samples.
func (m *metrics) rows(ctx context.Context, source string, duplicates, rounded uint64) {
	from := metric.WithAttributes(attribute.String("source", source))
	m.duplicates.Add(ctx, int64(duplicates), from)
	m.rounded.Add(ctx, int64(rounded), from)
}

func (m *metrics) failed(ctx context.Context, reason string) {
	m.errors.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
}
