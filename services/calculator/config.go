package calculator

import (
	"errors"
	"fmt"
	"time"

	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
)

// Config is what an operator may decide. [Default] is its start.
type Config struct {
	// Dir is the directory of the ledger. It is made if it is not there, and locked:
	// no other process, and no other service, may use it.
	Dir string `koanf:"dir" yaml:"dir"`

	// CommitInterval is the time between two commits while samples come in. It is most
	// of what a statement lags behind, and each commit costs a sync of the disk.
	CommitInterval time.Duration `koanf:"commit_interval" yaml:"commit_interval"`
	// PendingBytes bounds the memory of one transaction; it is committed early when it
	// is full. Twice that is held.
	PendingBytes int `koanf:"pending_bytes" yaml:"pending_bytes"`

	// Streams is the number of streams that the 256 partitions are spread over. It can
	// be changed only while the streams are empty.
	Streams int `koanf:"streams" yaml:"streams"`
	// StreamBytes bounds each stream. A full one refuses messages, and the spools wait.
	StreamBytes int64 `koanf:"stream_bytes" yaml:"stream_bytes"`
	// ReplayBytes of each stream are kept after they are committed.
	ReplayBytes int64 `koanf:"replay_bytes" yaml:"replay_bytes"`
	// Replicas of each stream, in a cluster of NATS servers.
	Replicas int `koanf:"replicas" yaml:"replicas"`
	// PullBytes bounds what is fetched ahead from a stream. The server cuts off a
	// client that it holds more than 64 MiB for.
	PullBytes int `koanf:"pull_bytes" yaml:"pull_bytes"`
}

// Default returns the configuration of a service that nobody configured. Dir is up to
// the program.
func Default() Config {
	return Config{
		CommitInterval: time.Second,
		PendingBytes:   8 << 20,
		Streams:        1,
		StreamBytes:    1 << 30,
		ReplayBytes:    64 << 20,
		Replicas:       1,
		PullBytes:      16 << 20,
	}
}

// Validate returns every mistake in the configuration, each with its dotted path.
func (c Config) Validate() error {
	var mistakes []error
	say := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		say("dir: empty; want a directory for the ledger")
	}
	if c.CommitInterval < 10*time.Millisecond || c.CommitInterval > time.Minute {
		say("commit_interval: %s; want 10ms to 1m", c.CommitInterval)
	}
	if c.PendingBytes < 64<<10 || c.PendingBytes > 1<<30 {
		say("pending_bytes: %d; want 64 KiB to 1 GiB", c.PendingBytes)
	}
	if c.Streams < 1 || c.Streams > ingest.Partitions {
		say("streams: %d; want 1 to %d", c.Streams, ingest.Partitions)
	}
	if c.StreamBytes < 16<<20 {
		say("stream_bytes: %d; want at least 16 MiB", c.StreamBytes)
	}
	if c.ReplayBytes < 0 || c.ReplayBytes > c.StreamBytes/2 {
		say("replay_bytes: %d; want 0 to half of stream_bytes, or a stream stays full", c.ReplayBytes)
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		say("replicas: %d; want 1 to 5", c.Replicas)
	}
	if c.PullBytes < 2<<20 || c.PullBytes > 24<<20 {
		say("pull_bytes: %d; want 2 MiB to 24 MiB", c.PullBytes)
	}
	return errors.Join(mistakes...)
}
