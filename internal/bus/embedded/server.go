// Package embedded starts a NATS server with JetStream inside the process. It is
// apart from package bus so that a program which only connects, such as a
// collector on every node, does not carry a server.
//
//	server, err := embedded.Start(embedded.Config{StoreDir: dir, Log: log})
//	defer server.Shutdown()
//	nc, err := server.Connect("calculator")
//
// [Server.Connect] goes through memory; without [Config.Listen] the server opens
// no port.
package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wattfold/wattfold/internal/bus"
)

// MaxPayload is the largest message that the embedded server takes, in bytes.
const MaxPayload = 1 << 20

// DefaultMaxStore is the file store of an embedded server that is not told
// otherwise, in bytes.
const DefaultMaxStore = 8 << 30

// maxMemory bounds streams in memory. We keep none; operators may.
const maxMemory = 64 << 20

// startTimeout bounds the recovery of the streams at start: reading 8 GB of
// blocks from a slow disk.
const startTimeout = 2 * time.Minute

// Config is the embedded server.
type Config struct {
	// StoreDir holds the streams. Mandatory: by default they would go to a
	// temporary directory.
	StoreDir string
	// Listen is host:port for clients of other processes; port 0 takes a free
	// one. Empty: no port is opened.
	Listen string
	// MaxStore bounds all streams together, in bytes; 0: [DefaultMaxStore].
	MaxStore int64
	// Log takes the warnings and errors of the server and of its connections;
	// nil: they are dropped.
	Log *slog.Logger
}

// Server is an embedded NATS server with JetStream.
type Server struct {
	server *server.Server
	log    *slog.Logger
}

// Start starts a server and returns when it accepts clients.
func Start(cfg Config) (*Server, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded nats: %w", err)
	}
	said := &serverLog{log: log.With("component", "nats")}
	s.SetLoggerV2(said, false, false, false)
	s.Start()
	if err := said.ready(s); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("embedded nats: store %s: %w", cfg.StoreDir, err)
	}
	return &Server{server: s, log: log}, nil
}

func options(cfg Config) (*server.Options, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("store_dir is empty: name a directory that survives a restart")
	}
	if cfg.MaxStore < 0 {
		return nil, fmt.Errorf("max_store is %d bytes: it must not be negative", cfg.MaxStore)
	}
	opts := &server.Options{
		ServerName: "wattfold",
		// The process handles signals, and its own log says what it does.
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
		DontListen:             true,
		MaxPayload:             MaxPayload,
		// The server cuts off a client to which it holds more than this: more
		// than consumers and publishers are bound to.
		MaxPending:         64 << 20,
		MaxConn:            65_536,
		WriteDeadline:      10 * time.Second,
		PingInterval:       30 * time.Second,
		MaxPingsOut:        3,
		JetStream:          true,
		StoreDir:           cfg.StoreDir,
		JetStreamMaxMemory: maxMemory,
		JetStreamMaxStore:  cfg.MaxStore,
	}
	if opts.JetStreamMaxStore == 0 {
		opts.JetStreamMaxStore = DefaultMaxStore
	}
	if cfg.Listen != "" {
		host, port, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen %q: %w", cfg.Listen, err)
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("listen %q: the port is not a number up to 65535", cfg.Listen)
		}
		opts.DontListen = false
		opts.Host, opts.Port = host, int(number)
		if number == 0 {
			opts.Port = server.RANDOM_PORT
		}
		if host == "" {
			opts.Host = "0.0.0.0"
		}
	}
	return opts, nil
}

// Connect returns a connection through memory, named name in the server's
// monitoring. It lasts as long as the server; closing it is the caller's part.
func (s *Server) Connect(name string) (*nats.Conn, error) {
	return bus.ConnectInProcess(s.server, name, s.log)
}

// URL returns where clients of other processes connect; "" if the server does
// not listen.
func (s *Server) URL() string {
	if s.server.Addr() == nil {
		return ""
	}
	return s.server.ClientURL()
}

// Healthy returns nil while the server and all its streams work.
func (s *Server) Healthy() error {
	status := s.server.Healthz(&server.HealthzOptions{})
	if status.Status == "ok" {
		return nil
	}
	return fmt.Errorf("embedded nats: %s", strings.TrimSpace(status.Status+" "+status.Error))
}

// Shutdown writes out what is held and ends the server. Connections should be
// closed before.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}
