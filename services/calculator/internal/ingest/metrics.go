package ingest

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/wattfold/wattfold/carbon/segment"
)

// Metrics are the instruments of readers. The service makes and documents them.
type Metrics struct {
	// CommittedBatches and CommittedSamples count what new batches brought.
	CommittedBatches, CommittedSamples metric.Int64Counter
	// DuplicateBatches counts batches that were in the ledger already.
	DuplicateBatches metric.Int64Counter
	// DeferredBatches counts batches left to be resent: too many holes before them.
	DeferredBatches metric.Int64Counter
	// Rejected counts refused readings, series and batches by attribute reason.
	Rejected metric.Int64Counter
	// CommitSeconds is how long the ledger takes for a transaction.
	CommitSeconds metric.Float64Histogram
	// Transactions counts by attribute outcome: committed or aborted.
	Transactions metric.Int64Counter
	// StreamResets counts streams read again from the start, by attribute cause.
	StreamResets metric.Int64Counter
	// Lag is how many messages of the stream are not read yet, by attribute stream.
	Lag metric.Int64Gauge
	// NewestTickMS is the newest tick committed since start; 0: none.
	NewestTickMS *atomic.Int64
}

// Reasons returns every value of the attribute reason of [Metrics.Rejected].
func Reasons() []string {
	reasons := []string{
		reasonMalformed, reasonSite, reasonPartition, reasonContent, reasonSuperseded, reasonMeter, reasonSpan, reasonOverflow,
	}
	for r := range segment.NumReasons {
		if counts(r) {
			reasons = append(reasons, r.String())
		}
	}
	return reasons
}

// Show makes every series of the counters appear with 0, so that an alert sees the
// first time that something is counted.
func (m *Metrics) Show(ctx context.Context) {
	for _, c := range []metric.Int64Counter{m.CommittedBatches, m.CommittedSamples, m.DuplicateBatches, m.DeferredBatches} {
		c.Add(ctx, 0)
	}
	for _, reason := range reasons() {
		m.Rejected.Add(ctx, 0, metric.WithAttributes(attribute.String("reason", reason)))
	}
	m.Transactions.Add(ctx, 0, outcomeCommitted)
	m.Transactions.Add(ctx, 0, outcomeAborted)
	for _, cause := range []string{causeCreated, causeRolledBack, causeGap} {
		m.StreamResets.Add(ctx, 0, metric.WithAttributes(attribute.String("cause", cause)))
	}
}

// reasons are all for which something is refused.
func reasons() []string {
	all := []string{
		reasonMalformed, reasonSite, reasonPartition, reasonContent, reasonSuperseded, reasonMeter, reasonSpan, reasonOverflow,
	}
	for r := range segment.NumReasons {
		if counts(r) {
			all = append(all, r.String())
		}
	}
	return all
}
