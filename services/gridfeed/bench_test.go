package gridfeed_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
)

// yearFeed holds a year of hours, each revised once.
func yearFeed(b *testing.B) *feed {
	b.Helper()
	f := newFeed(b)
	for revision := range 2 {
		var text strings.Builder
		text.WriteString("t,v\n")
		for i := range 8760 {
			fmt.Fprintf(&text, "%s,%d.%d\n", at("2022-01-01T00:00:00Z").Add(time.Duration(i)*time.Hour).Format(time.RFC3339), 100+i*7%300, i%10+revision)
		}
		f.mustImport(text.String(), mapping("DE"))
	}
	return f
}

// BenchmarkGetIntensity goes through real gRPC over memory, client included.
func BenchmarkGetIntensity(b *testing.B) {
	f := yearFeed(b)
	then := f.clock.pass(-time.Hour)
	for name, v := range map[string]*gridv1.View{"latest": nil, "as_of": asOf(then), "as_known_then": asKnownThen()} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for i := int64(0); pb.Next(); i++ {
					_, err := f.GetIntensity(b.Context(), &gridv1.GetIntensityRequest{
						Zone: "DE", Time: &timestamppb.Timestamp{Seconds: 1640995200 + i*7919%31_536_000}, View: v,
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

// BenchmarkListIntensities reads a year of hours in one page.
func BenchmarkListIntensities(b *testing.B) {
	f := yearFeed(b)
	for name, v := range map[string]*gridv1.View{"latest": nil, "as_known_then": asKnownThen()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				resp, err := f.ListIntensities(b.Context(), &gridv1.ListIntensitiesRequest{
					Zone: "DE", StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2023-01-01T00:00:00Z")), View: v,
				})
				if err != nil || v == nil && len(resp.GetIntensities()) != 8760 {
					b.Fatalf("%d intensities, %v", len(resp.GetIntensities()), err)
				}
			}
		})
	}
}

// BenchmarkImport reads and stores a year of hours into a fresh zone.
func BenchmarkImport(b *testing.B) {
	f := newFeed(b)
	var text strings.Builder
	text.WriteString("t,v\n")
	for i := range 8760 {
		fmt.Fprintf(&text, "%s,%d\n", at("2022-01-01T00:00:00Z").Add(time.Duration(i)*time.Hour).Format(time.RFC3339), i)
	}
	for n := 0; b.Loop(); n++ {
		f.mustImport(text.String(), mapping(fmt.Sprintf("Z%d", n)))
	}
	b.ReportMetric(8760*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
