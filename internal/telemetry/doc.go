// Package telemetry sets up tracing, metrics and the trace ids in the log of one
// process.
//
// Metrics are always kept and shown by [Providers.MetricsHandler] in the format
// of Prometheus. Traces and metrics leave the process over OTLP (gRPC) only when
// the standard variables say where to: OTEL_EXPORTER_OTLP_ENDPOINT, or that of
// one signal, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and …_METRICS_ENDPOINT. The
// other OTEL_EXPORTER_OTLP_* variables, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL,
// OTEL_TRACES_EXPORTER=none, OTEL_METRICS_EXPORTER=none and OTEL_SDK_DISABLED
// mean what the specification says. Without an endpoint nothing is recorded for
// traces, and the context of callers is passed on unaltered.
//
// An instrument named wattfold_calculator_committed_batches appears as
// wattfold_calculator_committed_batches_total if it is a counter; a suffix that
// the name already has (_total, or the unit) is not put there twice. The units
// "1" of a gauge adds _ratio, so a count uses a unit in braces, "{batch}".
package telemetry
