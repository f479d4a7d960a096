package rpc

import (
	"context"
	"net"
	"sync"
)

// MemoryListener is a listener that is reached within the process alone, over
// [net.Pipe]: real gRPC with its limits, deadlines and interceptors, and no port.
type MemoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Memory returns a listener for [Serve] and, as [ClientOptions.Memory], for
// [Dial].
func Memory() *MemoryListener {
	return &MemoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the server's end of the next connection.
func (l *MemoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; connections stay.
func (l *MemoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns an address that means nothing outside.
func (l *MemoryListener) Addr() net.Addr { return memoryAddr{} }

// DialContext returns the client's end of a new connection, once the server
// accepts it.
func (l *MemoryListener) DialContext(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }
