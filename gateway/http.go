package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/wattfold/wattfold/internal/daemon"
)

// handler serves the three paths. draining is closed when the gRPC port stops.
func (g *Gateway) handler(draining <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	if g.deps.Metrics != nil {
		mux.Handle("GET /metrics", g.deps.Metrics)
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		var report strings.Builder
		ready := true
		select {
		case <-draining:
			ready = false
			report.WriteString("gateway: NOT_SERVING\n")
		default:
			report.WriteString("gateway: SERVING\n")
		}
		for _, service := range g.backends.Services() {
			state := g.backends.CheckHealth(r.Context(), service)
			ready = ready && state == healthv1.HealthCheckResponse_SERVING
			fmt.Fprintf(&report, "%s: %v\n", service, state)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(report.String())) // a prober that left needs no answer
	})
	return mux
}

func (g *Gateway) serveHTTP(ctx context.Context, draining <-chan struct{}) error {
	if err := daemon.ServeHTTP(ctx, g.log, g.http, g.handler(draining)); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}
