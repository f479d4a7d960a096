package bus_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"

	"github.com/wattfold/wattfold/internal/bus"
)

func TestSpansSpeakTheConventions(t *testing.T) {
	const form = "wattfold.power.{partition}.{site}"
	if got, want := bus.Publish.SpanName(form), "publish "+form; got != want {
		t.Errorf("the span is named %q, want %q", got, want)
	}
	got := map[attribute.Key]any{}
	for _, a := range bus.Commit.SpanAttributes("WATTFOLD_POWER_0", form, 7) {
		got[a.Key] = a.Value.AsInterface()
	}
	want := map[attribute.Key]any{
		"messaging.system":               "nats",
		"messaging.operation.name":       "commit",
		"messaging.operation.type":       "process",
		"messaging.destination.name":     "WATTFOLD_POWER_0",
		"messaging.destination.template": form,
		"messaging.batch.message_count":  int64(7),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	for _, a := range bus.Publish.SpanAttributes("", form, 7) {
		if a.Key == "messaging.destination.name" {
			t.Errorf("messages to many subjects have one destination: %v", a)
		}
	}
}
