package telemetry_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/internal/telemetry"
)

func setup(t *testing.T) (telemetry.Providers, func(context.Context) error) {
	t.Helper()
	p, shutdown, err := telemetry.Setup(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)), "wattfold-test")
	if err != nil {
		t.Fatal(err)
	}
	return p, shutdown
}

// clean takes away the variables that would send telemetry elsewhere.
func clean(t *testing.T) {
	for _, name := range []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME",
	} {
		t.Setenv(name, "")
	}
}

func TestNamesOfMetrics(t *testing.T) {
	clean(t)
	p, shutdown := setup(t)
	meter := p.Meter.Meter("test")
	batches, err := meter.Int64Counter("wattfold_calculator_committed_batches", metric.WithUnit("{batch}"))
	if err != nil {
		t.Fatal(err)
	}
	batches.Add(t.Context(), 3, metric.WithAttributes(attribute.String("site", "paris")))
	already, err := meter.Int64Counter("wattfold_collector_resends_total")
	if err != nil {
		t.Fatal(err)
	}
	already.Add(t.Context(), 1)
	lag, err := meter.Float64Gauge("wattfold_calculator_freshness_seconds", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	lag.Record(t.Context(), 1.5)
	size, err := meter.Int64Gauge("wattfold_collector_spool_bytes", metric.WithUnit("By"))
	if err != nil {
		t.Fatal(err)
	}
	size.Record(t.Context(), 9)

	rec := httptest.NewRecorder()
	p.MetricsHandler.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`wattfold_calculator_committed_batches_total{site="paris"} 3`,
		`wattfold_collector_resends_total 1`,
		`wattfold_calculator_freshness_seconds 1.5`,
		`wattfold_collector_spool_bytes 9`,
		`go_goroutines `,
		`process_resident_memory_bytes `,
		`service_name="wattfold-test"`,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s is not in\n%s", want, rec.Body)
		}
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWithoutAnEndpointNothingIsTraced(t *testing.T) {
	clean(t)
	p, shutdown := setup(t)
	_, span := p.Tracer.Tracer("test").Start(t.Context(), "work")
	if span.IsRecording() {
		t.Error("a span is recorded for nobody")
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// sink is an OTLP receiver.
type sink struct {
	mu    sync.Mutex
	names []string
}

type traceSink struct {
	collectortrace.UnimplementedTraceServiceServer
	*sink
}

func (s traceSink) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	for _, r := range req.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.add(span.GetName())
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricSink struct {
	collectormetrics.UnimplementedMetricsServiceServer
	*sink
}

func (s metricSink) Export(_ context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	for _, r := range req.GetResourceMetrics() {
		for _, scope := range r.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				s.add(m.GetName())
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func (s *sink) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
}

func TestEndpointReceivesBoth(t *testing.T) {
	clean(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := &sink{}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traceSink{sink: received})
	collectormetrics.RegisterMetricsServiceServer(server, metricSink{sink: received})
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+lis.Addr().String())

	p, shutdown := setup(t)
	ctx, span := p.Tracer.Tracer("test").Start(t.Context(), "commit")
	var out bytes.Buffer
	log := slog.New(telemetry.LogHandler(slog.NewTextHandler(&out, nil))).With("zone", "FR")
	log.InfoContext(ctx, "committed")
	span.End()
	counter, err := p.Meter.Meter("test").Int64Counter("wattfold_test")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(ctx, 1)
	if err := shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	received.mu.Lock()
	defer received.mu.Unlock()
	if got := strings.Join(received.names, " "); !strings.Contains(got, "commit") || !strings.Contains(got, "wattfold_test") {
		t.Errorf("received: %s", got)
	}
	if want := "zone=FR trace_id=" + trace.SpanContextFromContext(ctx).TraceID().String(); !strings.Contains(out.String(), want) {
		t.Errorf("%s is not in %s", want, out.String())
	}
}

func TestWhatWeCannotDoIsRefused(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "zipkin",
	} {
		t.Run(name, func(t *testing.T) {
			clean(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(name, value)
			_, _, err := telemetry.Setup(t.Context(), slog.New(slog.DiscardHandler), "test")
			if err == nil || !strings.Contains(err.Error(), name+"="+value) {
				t.Errorf("got %v", err)
			}
		})
	}
}
