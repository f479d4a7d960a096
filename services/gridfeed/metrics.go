package gridfeed

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the instruments of the service:
//
//	wattfold_gridfeed_answers{call,outcome}   answers, by call and outcome: ok, no_data, unknown_zone
//	wattfold_gridfeed_imports{outcome}        imports: stored, unchanged, refused, failed
//	wattfold_gridfeed_rows{result}            rows of files imported: added, revised, unchanged, empty
//	wattfold_gridfeed_loads                   lanes read from the store
//	wattfold_gridfeed_announcements{outcome}  announcements: sent, failed
//	wattfold_gridfeed_lanes                   lanes in memory
//	wattfold_gridfeed_cached_records          records and steps in memory
//	wattfold_gridfeed_zones                   zones with a timeline
type metrics struct {
	answers       metric.Int64Counter
	imports       metric.Int64Counter
	rows          metric.Int64Counter
	loads         metric.Int64Counter
	announcements metric.Int64Counter
}

// The outcomes that are counted often have their attributes made once.
var (
	answeredOK      = callOutcomes("ok")
	answeredNoData  = callOutcomes("no_data")
	answeredUnknown = callOutcomes("unknown_zone")
)

type call uint8

const (
	getIntensity call = iota
	listIntensities
	listRevisions
)

var callNames = [...]string{"GetIntensity", "ListIntensities", "ListRevisions"}

func callOutcomes(outcome string) (options [len(callNames)][]metric.AddOption) {
	for i, name := range callNames {
		set := attribute.NewSet(attribute.String("call", name), attribute.String("outcome", outcome))
		options[i] = []metric.AddOption{metric.WithAttributeSet(set)}
	}
	return options
}

func (s *Service) makeMetrics(provider metric.MeterProvider) error {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/wattfold/wattfold/services/gridfeed")
	for _, counter := range []struct {
		at                *metric.Int64Counter
		name, unit, about string
	}{
		{&s.metrics.answers, "wattfold_gridfeed_answers", "{answer}", "Answers about intensities, by call and outcome."},
		{&s.metrics.imports, "wattfold_gridfeed_imports", "{import}", "Imports of intensities, by outcome."},
		{&s.metrics.rows, "wattfold_gridfeed_rows", "{row}", "Rows of imported files, by what became of them."},
		{&s.metrics.loads, "wattfold_gridfeed_loads", "{load}", "Signals of zones read from the store into memory."},
		{&s.metrics.announcements, "wattfold_gridfeed_announcements", "{announcement}", "Announcements of revisions on the bus, by outcome."},
	} {
		var err error
		if *counter.at, err = meter.Int64Counter(counter.name, metric.WithUnit(counter.unit), metric.WithDescription(counter.about)); err != nil {
			return fmt.Errorf("metric %s: %w", counter.name, err)
		}
	}
	for _, gauge := range []struct {
		name, unit, about string
		read              func() int64
	}{
		{"wattfold_gridfeed_lanes", "{lane}", "Signals of zones in memory.", func() int64 {
			lanes, _ := s.cache.len()
			return int64(lanes)
		}},
		{"wattfold_gridfeed_cached_records", "{record}", "Records and resolved steps in memory.", func() int64 {
			_, records := s.cache.len()
			return int64(records)
		}},
		{"wattfold_gridfeed_zones", "{zone}", "Zones that have a timeline.", func() int64 {
			return int64(len(s.zones.Load().names))
		}},
	} {
		_, err := meter.Int64ObservableGauge(gauge.name, metric.WithUnit(gauge.unit), metric.WithDescription(gauge.about),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(gauge.read())
				return nil
			}))
		if err != nil {
			return fmt.Errorf("metric %s: %w", gauge.name, err)
		}
	}
	return nil
}

// count adds to a counter under one attribute.
func count(ctx context.Context, c metric.Int64Counter, n uint64, key, value string) {
	if n > 0 {
		c.Add(ctx, int64(n), metric.WithAttributes(attribute.String(key, value))) //nolint:gosec // rows of a file
	}
}
