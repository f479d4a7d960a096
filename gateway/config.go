package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/wattfold/wattfold/internal/rpc"
)

// Config of the gateway.
type Config struct {
	// GRPC is host:port for native gRPC. Port 0 takes a free one.
	GRPC string `yaml:"grpc"`
	// HTTP is host:port for /metrics, /livez and /readyz; empty: no such port.
	HTTP string `yaml:"http"`
	// Reflection lets callers list services and messages, for tools such as
	// grpcurl.
	Reflection bool `yaml:"reflection"`
	// Insecure allows addresses other than loopback. Whoever reaches them may then
	// read and write everything: there is no authentication yet.
	Insecure bool `yaml:"insecure"`
	// MaxConnections bounds the connections of the gRPC port, each with up to 250
	// calls in flight.
	MaxConnections int `yaml:"max_connections"`
	// Drain is how long calls may go on after the end.
	Drain time.Duration `yaml:"drain"`
}

// Default returns the configuration of a gateway on loopback.
func Default() Config {
	return Config{
		GRPC:           "127.0.0.1:9090",
		HTTP:           "127.0.0.1:8080",
		Reflection:     true,
		MaxConnections: 1000,
		Drain:          rpc.DefaultDrain,
	}
}

// Validate returns all mistakes, each with its key.
func (c Config) Validate() error {
	var errs []error
	errs = append(errs, c.address("grpc", c.GRPC))
	if c.HTTP != "" {
		errs = append(errs, c.address("http", c.HTTP))
	}
	if c.MaxConnections < 1 {
		errs = append(errs, fmt.Errorf("max_connections: is %d; it must be at least 1", c.MaxConnections))
	}
	if c.Drain <= 0 {
		errs = append(errs, fmt.Errorf("drain: is %v; it must be above 0", c.Drain))
	}
	return errors.Join(errs...)
}

func (c Config) address(key, address string) error {
	if err := rpc.CheckListen(address, c.Insecure); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
