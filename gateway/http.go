package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
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
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(g.handler(draining), 1<<10),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(g.http) }()
	select {
	case err := <-failed:
		return fmt.Errorf("gateway: http: %w", err)
	case <-ctx.Done():
	}
	// Probes are answered while calls drain; a scrape takes no longer than this.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("gateway: http: %w", err), srv.Close())
	}
	return nil
}
