package ingest

import (
	"sync/atomic"

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
