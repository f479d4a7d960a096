package gateway_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
)

// BenchmarkUnary puts a call through the gateway beside the same call made to its
// backend, 32 callers on one connection each way.
func BenchmarkUnary(b *testing.B) {
	resp := &gridv1.GetIntensityResponse{Intensity: &gridv1.Intensity{
		Zone: "FR", Value: 56.1, Decimal: "56.1", Unit: "g/kWh", Source: "electricitymaps", Product: "observed", Revision: 3,
	}}
	s := start(b, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return resp, nil
	}})
	for _, way := range []struct {
		name string
		conn *grpc.ClientConn
	}{{"direct", s.direct}, {"gateway", s.through}} {
		b.Run(way.name, func(b *testing.B) {
			client := gridv1.NewGridServiceClient(way.conn)
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := client.GetIntensity(b.Context(), france()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
