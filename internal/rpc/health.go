package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// HealthChecker answers for services that live elsewhere.
type HealthChecker interface {
	// CheckHealth returns the state of a service by its full name. An error, which
	// is a gRPC status, says that the state is not known; NOT_FOUND that there is
	// no such service.
	CheckHealth(ctx context.Context, service string) (healthv1.HealthCheckResponse_ServingStatus, error)
}

// health serves grpc.health.v1: what is registered serves until the server
// drains. That a service can do its work is said by its calls, one by one.
type health struct {
	healthv1.UnimplementedHealthServer
	services func() map[string]grpc.ServiceInfo
	next     HealthChecker
	draining <-chan struct{}
}

func (h *health) Check(ctx context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	state, err := h.state(ctx, req.GetService())
	if err != nil {
		return nil, err
	}
	return &healthv1.HealthCheckResponse{Status: state}, nil
}

func (h *health) List(context.Context, *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
	out := &healthv1.HealthListResponse{Statuses: map[string]*healthv1.HealthCheckResponse{}}
	state := &healthv1.HealthCheckResponse{Status: h.own()}
	out.Statuses[""] = state
	for name := range h.services() {
		out.Statuses[name] = state
	}
	return out, nil
}

// Watch sends the state of a service of this server, and again when the server
// drains. Others are to be watched where they are.
func (h *health) Watch(req *healthv1.HealthCheckRequest, stream grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	known := req.GetService() == ""
	if _, ok := h.services()[req.GetService()]; ok {
		known = true
	}
	if !known {
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

func (h *health) state(ctx context.Context, service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
	if service == "" {
		return h.own(), nil
	}
	if _, ok := h.services()[service]; ok {
		return h.own(), nil
	}
	if h.next != nil {
		return h.next.CheckHealth(ctx, service)
	}
	return 0, status.Errorf(codes.NotFound, "no service %s here", service)
}

func (h *health) own() healthv1.HealthCheckResponse_ServingStatus {
	select {
	case <-h.draining:
		return healthv1.HealthCheckResponse_NOT_SERVING
	default:
		return healthv1.HealthCheckResponse_SERVING
	}
}
