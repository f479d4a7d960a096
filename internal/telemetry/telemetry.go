package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Providers are handed to whoever makes spans and instruments.
type Providers struct {
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// MetricsHandler serves the metrics of the process in Prometheus' format.
	MetricsHandler http.Handler
}

// Setup makes the providers of a process that is called service unless
// OTEL_SERVICE_NAME says otherwise. It sets the global propagator (W3C trace
// context and baggage) and routes OpenTelemetry's own errors to log, and changes
// no other global.
//
// shutdown sends what is still held back, within its context; it is to be called
// once, after the last span.
func Setup(ctx context.Context, log *slog.Logger, service string) (_ Providers, shutdown func(context.Context) error, err error) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("telemetry", "err", err)
	}))

	var closers []func(context.Context) error
	closeAll := func(ctx context.Context) error {
		var errs []error
		for _, closer := range slices.Backward(closers) {
			errs = append(errs, closer(ctx))
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("telemetry: %w", err), closeAll(ctx))
		}
	}()

	metrics, err := exports("METRICS")
	if err != nil {
		return Providers{}, nil, err
	}
	traces, err := exports("TRACES")
	if err != nil {
		return Providers{}, nil, err
	}
	res, err := describe(ctx, service)
	if err != nil {
		return Providers{}, nil, err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	pull, err := promexporter.New(
		promexporter.WithRegisterer(registry),
		promexporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		promexporter.WithoutScopeInfo(),
	)
	if err != nil {
		return Providers{}, nil, err
	}
	meterOptions := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(pull)}
	if metrics {
		push, err := otlpmetricgrpc.New(ctx)
		if err != nil {
			return Providers{}, nil, err
		}
		meterOptions = append(meterOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(push)))
	}
	meter := sdkmetric.NewMeterProvider(meterOptions...)
	closers = append(closers, meter.Shutdown)

	var tracer trace.TracerProvider = noop.NewTracerProvider()
	if traces {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return Providers{}, nil, err
		}
		provider := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(exporter))
		closers = append(closers, provider.Shutdown)
		tracer = provider
	}

	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: promLog{log},
		// One bad instrument must not hide all others.
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
		// A scrape walks every instrument: two at a time are enough.
		MaxRequestsInFlight: 2,
	})
	return Providers{Tracer: tracer, Meter: meter, MetricsHandler: handler}, closeAll, nil
}

// describe names the process. Variables of the environment come last and win.
func describe(ctx context.Context, service string) (*resource.Resource, error) {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", service),
			attribute.String("service.namespace", "wattfold"),
			attribute.String("service.version", version),
			attribute.String("service.instance.id", fmt.Sprintf("%s-%d", host, os.Getpid())),
			attribute.String("host.name", host),
		),
		resource.WithFromEnv(),
	)
}

// exports reports whether the environment wants the signal (TRACES or METRICS)
// sent over OTLP, and refuses what it asks for and this program cannot do.
func exports(signal string) (bool, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	name := "OTEL_" + signal + "_EXPORTER"
	switch exporter := strings.TrimSpace(os.Getenv(name)); exporter {
	case "none":
		return false, nil
	case "", "otlp":
	case "prometheus":
		if signal == "METRICS" {
			return false, nil // served in any case
		}
		fallthrough
	default:
		return false, fmt.Errorf("%s=%s: only otlp and none are supported", name, exporter)
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") == "" {
		return false, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" {
			if protocol != "grpc" {
				return false, fmt.Errorf("%s=%s: only grpc is supported", name, protocol)
			}
			break
		}
	}
	return true, nil
}

// promLog is where a scrape reports instruments that it could not show.
type promLog struct{ log *slog.Logger }

func (l promLog) Println(v ...any) {
	l.log.Warn("metrics", "err", strings.TrimSuffix(fmt.Sprintln(v...), "\n"))
}
