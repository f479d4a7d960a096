package calculator

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
)

// newMetrics makes the instruments of the service:
//
//	wattfold_calculator_committed_batches       batches that were new
//	wattfold_calculator_committed_samples       readings that count, in them
//	wattfold_calculator_duplicate_batches       batches that were in the ledger already
//	wattfold_calculator_deferred_batches        batches left to be resent: too many holes before them
//	wattfold_calculator_rejected{reason}        refused readings, series and batches
//	wattfold_calculator_commit_seconds          time that the ledger took for a transaction
//	wattfold_calculator_transactions{outcome}   transactions: committed, aborted
//	wattfold_calculator_stream_resets{cause}    streams that were not as they were left: created, rolled_back, gap
//	wattfold_calculator_lag_messages{stream}    messages not read yet, at the last commit
//	wattfold_calculator_freshness_seconds       age of the newest tick committed since start
func newMetrics(provider metric.MeterProvider, now func() time.Time) (*ingest.Metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/wattfold/wattfold/services/calculator")
	m := &ingest.Metrics{NewestTickMS: new(atomic.Int64)}
	for _, counter := range []struct {
		at                *metric.Int64Counter
		name, unit, about string
	}{
		{&m.CommittedBatches, "wattfold_calculator_committed_batches", "{batch}", "Batches committed to the ledger."},
		{&m.CommittedSamples, "wattfold_calculator_committed_samples", "{sample}", "Readings that count in committed batches."},
		{&m.DuplicateBatches, "wattfold_calculator_duplicate_batches", "{batch}", "Batches that were in the ledger already."},
		{&m.DeferredBatches, "wattfold_calculator_deferred_batches", "{batch}", "Batches left to be resent: too many holes before them."},
		{&m.Rejected, "wattfold_calculator_rejected", "{item}", "Refused readings, series and batches, by reason."},
		{&m.Transactions, "wattfold_calculator_transactions", "{transaction}", "Transactions with the ledger, by outcome."},
		{&m.StreamResets, "wattfold_calculator_stream_resets", "{reset}", "Streams found not as they were left, by cause."},
	} {
		var err error
		if *counter.at, err = meter.Int64Counter(counter.name,
			metric.WithUnit(counter.unit), metric.WithDescription(counter.about)); err != nil {
			return nil, fmt.Errorf("metric %s: %w", counter.name, err)
		}
	}
	// A counter that appears with its first event has no rate at that event.
	for _, c := range []metric.Int64Counter{m.CommittedBatches, m.CommittedSamples, m.DuplicateBatches, m.DeferredBatches} {
		c.Add(context.Background(), 0)
	}
	for _, reason := range ingest.Reasons() {
		m.Rejected.Add(context.Background(), 0, metric.WithAttributes(attribute.String("reason", reason)))
	}
	var err error
	if m.CommitSeconds, err = meter.Float64Histogram("wattfold_calculator_commit_seconds", metric.WithUnit("s"),
		metric.WithDescription("Time that the ledger took for a transaction."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)); err != nil {
		return nil, fmt.Errorf("metric commit_seconds: %w", err)
	}
	if m.Lag, err = meter.Int64Gauge("wattfold_calculator_lag_messages", metric.WithUnit("{message}"),
		metric.WithDescription("Messages of the stream that were not read yet at the last commit.")); err != nil {
		return nil, fmt.Errorf("metric lag_messages: %w", err)
	}
	if _, err = meter.Float64ObservableGauge("wattfold_calculator_freshness_seconds", metric.WithUnit("s"),
		metric.WithDescription("Age of the newest tick that was committed since start."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			if newest := m.NewestTickMS.Load(); newest != 0 {
				o.Observe(float64(now().UnixMilli()-newest) / 1000)
			}
			return nil
		})); err != nil {
		return nil, fmt.Errorf("metric freshness_seconds: %w", err)
	}
	m.Show(context.Background())
	return m, nil
}
