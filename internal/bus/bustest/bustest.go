// Package bustest gives tests an embedded NATS server.
package bustest

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wattfold/wattfold/internal/bus/embedded"
)

// Server is a server of a test that may be stopped and started again on the
// same streams.
type Server struct {
	t   testing.TB
	cfg embedded.Config
	*embedded.Server
}

// Start starts a server on a directory of its own that opens no port. It is
// stopped at the end of the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartWith(t, embedded.Config{})
}

// Listen is [Start] with a free port on loopback: see [embedded.Server.URL].
func Listen(t testing.TB) *Server {
	t.Helper()
	return StartWith(t, embedded.Config{Listen: "127.0.0.1:0"})
}

// StartWith is [Start] with other settings; an empty StoreDir is a directory of
// the test.
func StartWith(t testing.TB, cfg embedded.Config) *Server {
	t.Helper()
	if cfg.StoreDir == "" {
		cfg.StoreDir = t.TempDir()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s := &Server{t: t, cfg: cfg}
	s.start()
	t.Cleanup(func() { s.Shutdown() })
	return s
}

func (s *Server) start() {
	s.t.Helper()
	server, err := embedded.Start(s.cfg)
	if err != nil {
		s.t.Fatalf("start the embedded server: %v", err)
	}
	s.Server = server
}

// Restart stops the server and starts it again on the same directory and, if it
// listened, the same port. Connections from [Server.Connect] end; connections
// over the port reconnect.
func (s *Server) Restart() {
	s.t.Helper()
	if url := s.URL(); url != "" {
		s.cfg.Listen = url[len("nats://"):]
	}
	s.Shutdown()
	s.start()
}

// Connect returns a connection through memory that is closed at the end of the
// test.
func (s *Server) Connect(name string) *nats.Conn {
	s.t.Helper()
	nc, err := s.Server.Connect(name)
	if err != nil {
		s.t.Fatalf("connect %s: %v", name, err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}
