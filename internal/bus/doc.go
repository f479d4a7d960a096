// Package bus is the one place that knows how NATS is set up: connections, the
// streams that carry power, and in package embedded a server of our own.
//
// To the product the bus is a buffer, not a vault: what a producer sends stays
// with it until the ledger has it. Streams are therefore plain and fast. They
// push back when they are full ([EnsureStream]), forget nothing by age, and
// neither compress nor de-duplicate.
//
//	nc, err := bus.Connect(ctx, "nats://127.0.0.1:4222", "calculator", log)
//	defer nc.Close()
//
// A connection is an ordinary [nats.Conn]. A trace crosses the bus in the headers
// of messages through [HeaderCarrier]; names become parts of subjects through
// [SubjectToken].
package bus
