// Package bus is the one place that knows how NATS is set up: the embedded
// server, connections, and the streams that carry power.
//
// To the product the bus is a buffer, not a vault: what a producer sends stays
// with it until the ledger has it. Streams are therefore plain and fast. They
// push back when they are full ([EnsureStream]), forget nothing by age, and
// neither compress nor de-duplicate.
//
//	server, err := bus.Start(bus.ServerConfig{StoreDir: dir, Log: log})
//	defer server.Shutdown()
//	nc, err := server.Connect("calculator")
//
// [Server.Connect] goes through memory; without [ServerConfig.Listen] the server
// opens no port. [Connect] reaches a server elsewhere. Both give an ordinary
// [nats.Conn]. A trace crosses the bus in the headers of messages through
// [HeaderCarrier]; names become parts of subjects through [SubjectToken].
package bus
