// Package bench measures the main job end to end, with the values of a real
// trace: publish → JetStream → integrate → commit to SQLite, publisher and all
// in one process; and what a call costs with and without the gateway.
package bench
