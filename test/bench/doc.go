// Package bench measures the main job end to end, with the values of a real
// trace: publish → JetStream → integrate → commit to SQLite, publisher and all
// in one process.
package bench
