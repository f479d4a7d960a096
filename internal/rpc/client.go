package rpc

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// ClientOptions of a connection. The zero value is a plain connection without
// telemetry.
type ClientOptions struct {
	// Memory is dialed in place of the target, which then is only a name.
	Memory *MemoryListener
	// NoRetry makes every call once: for those that pass on the calls of others,
	// who retry themselves.
	NoRetry bool
	// Tracer and Meter observe calls; nil: not observed.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// Extra comes after all other options and so may change them.
	Extra []grpc.DialOption
}

// serviceConfig spreads calls over all addresses of a name and tries a call that
// found nobody up to four times in all. UNAVAILABLE means that it was not begun,
// or that its effect is safe to repeat: every write of ours is.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{}],
		"retryPolicy": {
			"maxAttempts": 4,
			"initialBackoff": "0.1s",
			"maxBackoff": "2s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}],
	"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
}`

// Dial returns a connection to target, host:port or any form that grpc-go knows.
// It connects when first used and again whenever it is lost. Messages are up to
// [MaxSend] bytes to the client and [MaxReceive] from it, as servers have them.
func Dial(target string, o ClientOptions) (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // none by DNS
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxSend), grpc.MaxCallSendMsgSize(MaxReceive)),
		grpc.WithMaxHeaderListSize(MaxHeaderList),
		grpc.WithInitialWindowSize(1 << 20),
		grpc.WithInitialConnWindowSize(4 << 20),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
	if o.Memory != nil {
		target = "passthrough:///" + strings.TrimPrefix(target, "passthrough:///")
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return o.Memory.DialContext(ctx)
		}))
	}
	if o.NoRetry {
		opts = append(opts, grpc.WithDisableRetry())
	}
	if o.Tracer != nil || o.Meter != nil {
		opts = append(opts, grpc.WithStatsHandler(otelgrpc.NewClientHandler(observe(o.Tracer, o.Meter)...)))
	}
	conn, err := grpc.NewClient(target, append(opts, o.Extra...)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}
