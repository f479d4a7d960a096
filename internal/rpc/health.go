package rpc

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Elsewhere are services behind a server: a gateway's.
type Elsewhere interface {
	// Services returns their full names.
	Services() []string
	// CheckHealth asks for the state of one of them.
	CheckHealth(ctx context.Context, service string) healthv1.HealthCheckResponse_ServingStatus
}

// health serves grpc.health.v1: what is registered serves until the server
// drains. That a service can do its work is said by its calls, one by one.
type health struct {
	healthv1.UnimplementedHealthServer
	services func() map[string]grpc.ServiceInfo
	next     Elsewhere
	draining <-chan struct{}
}

func (h *health) Check(ctx context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	name := req.GetService()
	switch {
	case h.knows(name):
		return &healthv1.HealthCheckResponse{Status: h.own()}, nil
	case h.next != nil && slices.Contains(h.next.Services(), name):
		return &healthv1.HealthCheckResponse{Status: h.next.CheckHealth(ctx, name)}, nil
	}
	return nil, status.Errorf(codes.NotFound, "no service %s here", name)
}

func (h *health) List(ctx context.Context, _ *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	out := &healthv1.HealthListResponse{Statuses: map[string]*healthv1.HealthCheckResponse{}}
	state := &healthv1.HealthCheckResponse{Status: h.own()}
	out.Statuses[""] = state
	for name := range h.services() {
		out.Statuses[name] = state
	}
	if h.next != nil {
		for _, name := range h.next.Services() {
			out.Statuses[name] = &healthv1.HealthCheckResponse{Status: h.next.CheckHealth(ctx, name)}
		}
	}
	return out, nil
}

// Watch sends the state of a service of this server, and again when the server
// drains. Others are to be watched where they are.
func (h *health) Watch(req *healthv1.HealthCheckRequest, stream grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	if !h.knows(req.GetService()) {
		// As the protocol has it: the stream stays open for a service to come.
		if err := stream.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVICE_UNKNOWN}); err != nil {
			return err
		}
		<-stream.Context().Done()
		return context.Cause(stream.Context())
	}
	state := h.own()
	if err := stream.Send(&healthv1.HealthCheckResponse{Status: state}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-h.draining:
		if state == healthv1.HealthCheckResponse_SERVING {
			return stream.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING})
		}
	}
	return context.Cause(stream.Context())
}

func (h *health) knows(service string) bool {
	_, ok := h.services()[service]
	return ok || service == ""
}

func (h *health) own() healthv1.HealthCheckResponse_ServingStatus {
	select {
	case <-h.draining:
		return healthv1.HealthCheckResponse_NOT_SERVING
	default:
		return healthv1.HealthCheckResponse_SERVING
	}
}
