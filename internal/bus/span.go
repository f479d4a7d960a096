package bus

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Operation is what a span does to messages, in the words of OpenTelemetry's
// semantic conventions for messaging.
type Operation struct{ name, kind attribute.KeyValue }

// The operations on the bus.
var (
	// Publish sends messages: a span of kind producer.
	Publish = Operation{semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend}
	// Commit makes what messages say durable: a span of kind consumer.
	Commit = Operation{semconv.MessagingOperationName("commit"), semconv.MessagingOperationTypeProcess}
)

// SpanName returns the name of a span of the operation on subjects of a form,
// such as "wattfold.power.{partition}.{site}": forms are few, subjects are many.
func (o Operation) SpanName(form string) string { return o.name.Value.AsString() + " " + form }

// SpanAttributes returns the attributes of such a span over so many messages. All
// of them went to, or came from, the destination: a subject or a stream; it is
// empty if they have none in common. The names are here and nowhere else: the
// conventions are not stable yet.
func (o Operation) SpanAttributes(destination, form string, messages int) []attribute.KeyValue {
	attributes := []attribute.KeyValue{
		semconv.MessagingSystemKey.String("nats"),
		o.name, o.kind,
		semconv.MessagingDestinationTemplate(form),
		semconv.MessagingBatchMessageCount(messages),
	}
	if destination != "" {
		attributes = append(attributes, semconv.MessagingDestinationName(destination))
	}
	return attributes
}
