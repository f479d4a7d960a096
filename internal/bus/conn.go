package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// Connect connects to a server elsewhere under a name for its monitoring, and
// waits until it answers or ctx ends. Lost connections are made again for ever;
// meanwhile publishes are held up to 8 MiB and then fail.
func Connect(ctx context.Context, url, name string, log *slog.Logger) (*nats.Conn, error) {
	up := make(chan struct{})
	opts := append(clientOptions(name, log),
		nats.RetryOnFailedConnect(true),
		nats.ConnectHandler(func(*nats.Conn) { close(up) }))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("nats %s: %w", url, err)
	}
	if nc.IsConnected() {
		return nc, nil
	}
	log.WarnContext(ctx, "waiting for nats", "url", url)
	select {
	case <-up:
		return nc, nil
	case <-ctx.Done():
		nc.Close()
		return nil, fmt.Errorf("nats %s: not reached: %w", url, context.Cause(ctx))
	}
}

// ConnectInProcess connects to a server of this process through memory.
func ConnectInProcess(server nats.InProcessConnProvider, name string, log *slog.Logger) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(clientOptions(name, log), nats.InProcessServer(server))...)
	if err != nil {
		return nil, fmt.Errorf("embedded nats: connect %s: %w", name, err)
	}
	return nc, nil
}

func clientOptions(name string, log *slog.Logger) []nats.Option {
	log = log.With("component", "nats", "client", name)
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.ReconnectBufSize(8 << 20),
		nats.PingInterval(20 * time.Second),
		nats.MaxPingsOutstanding(3),
		nats.Timeout(5 * time.Second),
		nats.DrainTimeout(10 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats connection lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("nats connection back", "url", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			attrs := []any{"err", err}
			if sub != nil {
				attrs = append(attrs, "subject", sub.Subject)
			}
			if errors.Is(err, nats.ErrPermissionViolation) {
				log.Error("nats refused", attrs...)
				return
			}
			log.Warn("nats connection", attrs...)
		}),
	}
}

// HeaderCarrier carries a trace context in the headers of a message. Keys are
// case-sensitive, as NATS has them; the propagators write them in lower case.
//
//	msg.Header = nats.Header{}
//	otel.GetTextMapPropagator().Inject(ctx, bus.HeaderCarrier(msg.Header))
type HeaderCarrier nats.Header

// Get returns the first value of key, or "".
func (c HeaderCarrier) Get(key string) string { return nats.Header(c).Get(key) }

// Set replaces the values of key.
func (c HeaderCarrier) Set(key, value string) { nats.Header(c).Set(key, value) }

// Keys returns the keys, in no order.
func (c HeaderCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
