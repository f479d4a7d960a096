package bench_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/telemetry"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/gridfeed"
)

const (
	// callers are in flight at once, over callerConns connections.
	callers     = 64
	callerConns = 4
	// offered is the pace of the paced runs, in calls a second.
	offered = 10_000
)

// BenchmarkGetIntensity asks for hours of a year: of gridfeed itself over TCP, of a
// gateway with gridfeed in its own process, as in `wattfold up`, and of one that
// reaches it over TCP. Metrics are counted as in production, and nothing is traced.
// An operation is one call.
//
//	flat out: as many as 64 callers can make; the latency is that of a queue
//	paced:    10,000 a second; a call that found all callers busy is counted from
//	          the moment that it was due
func BenchmarkGetIntensity(b *testing.B) {
	for _, way := range newWays(b) {
		b.Run(way.name+"/flat-out", func(b *testing.B) {
			way.measure(b, max(b.N, 20_000), func(int) time.Time { return time.Now() })
		})
		b.Run(way.name+"/paced", func(b *testing.B) {
			start := time.Now()
			way.measure(b, max(b.N, 3*offered), func(i int) time.Time {
				due := start.Add(time.Duration(i) * (time.Second / offered))
				wait := time.Until(due)
				if wait <= 0 {
					return due
				}
				// How late a timer fires is no fault of who is called.
				<-time.After(wait)
				return time.Now()
			})
		})
	}
}

// measure makes so many calls, each at the moment for which its due returns, and
// reports their pace, what they cost all of this process, callers included, and how
// long each took from its moment on.
func (w *way) measure(b *testing.B, calls int, due func(i int) time.Time) {
	b.Helper()
	took := make([]time.Duration, calls)
	var next atomic.Int64
	var busy sync.WaitGroup
	start, spent := time.Now(), processorTime(b)
	for range callers {
		busy.Go(func() {
			for i := int(next.Add(1)) - 1; i < calls; i = int(next.Add(1)) - 1 {
				at := due(i)
				if err := w.ask(b.Context(), i); err != nil {
					b.Error(err)
				}
				took[i] = time.Since(at)
			}
		})
	}
	busy.Wait()
	elapsed := time.Since(start)
	spent = processorTime(b) - spent
	slices.Sort(took)
	milliseconds := func(q float64) float64 {
		return float64(took[int(q*float64(calls-1))]) / float64(time.Millisecond)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(calls)/elapsed.Seconds(), "calls/s")
	b.ReportMetric(float64(spent.Microseconds())/float64(calls), "cpu-µs/call")
	b.ReportMetric(milliseconds(0.5), "p50-ms")
	b.ReportMetric(milliseconds(0.99), "p99-ms")
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// way is a way to gridfeed.
type way struct {
	name    string
	clients []gridv1.GridServiceClient
}

// newWays starts gridfeed with a year of hours and two gateways before it.
func newWays(b *testing.B) []way {
	b.Helper()
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"} {
		b.Setenv(name, "")
	}
	log := slog.New(slog.DiscardHandler)
	observed, shutdown, err := telemetry.Setup(b.Context(), log, "bench")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	run := func(fn func(context.Context) error) {
		running.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				b.Errorf("ended by itself: %v", err)
			}
		})
	}
	b.Cleanup(func() {
		cancel()
		running.Wait()
		if err := shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	})

	cfg := gridfeed.Default()
	cfg.Dir = filepath.Join(b.TempDir(), "gridfeed")
	grid, err := gridfeed.New(log, cfg, gridfeed.Deps{Meter: observed.Meter})
	if err != nil {
		b.Fatal(err)
	}
	run(grid.Run)
	serve := func(lis net.Listener) {
		srv := rpc.NewServer(log, rpc.Options{Tracer: observed.Tracer, Meter: observed.Meter})
		grid.Register(srv)
		run(func(ctx context.Context) error { return rpc.Serve(ctx, log, srv, lis) })
	}
	lis, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	serve(lis)
	memory := rpc.Memory()
	serve(memory)

	dial := func(target string, o rpc.ClientOptions) *grpc.ClientConn {
		conn, err := rpc.Dial(target, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	before := func(o rpc.ClientOptions) string {
		o.NoRetry, o.Tracer, o.Meter = true, observed.Tracer, observed.Meter
		cfg := gateway.Default()
		cfg.GRPC, cfg.HTTP = "127.0.0.1:0", ""
		door, err := gateway.New(log, cfg, map[string]grpc.ClientConnInterface{
			gridv1.GridService_ServiceDesc.ServiceName: dial(lis.Addr().String(), o),
		}, gateway.Deps{Tracer: observed.Tracer, Meter: observed.Meter})
		if err != nil {
			b.Fatal(err)
		}
		if err := door.Listen(b.Context()); err != nil {
			b.Fatal(err)
		}
		run(door.Run)
		return door.GRPCAddr().String()
	}
	importYear(b, gridv1.NewGridServiceClient(dial(lis.Addr().String(), rpc.ClientOptions{})))
	ways := []way{{name: "direct"}, {name: "gateway-memory"}, {name: "gateway-tcp"}}
	for i, address := range []string{
		lis.Addr().String(), before(rpc.ClientOptions{Memory: memory}), before(rpc.ClientOptions{}),
	} {
		for range callerConns {
			ways[i].clients = append(ways[i].clients, gridv1.NewGridServiceClient(dial(address, rpc.ClientOptions{NoRetry: true})))
		}
		// Connects, and has the year read into memory.
		for call := range 2000 {
			if err := ways[i].ask(b.Context(), call); err != nil {
				b.Fatal(err)
			}
		}
	}
	return ways
}

// yearStart is the first of the hours.
var yearStart = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

const yearHours = 365 * 24

func importYear(b *testing.B, client gridv1.GridServiceClient) {
	b.Helper()
	var rows strings.Builder
	rows.WriteString("at,g\n")
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range yearHours {
		fmt.Fprintf(&rows, "%s,%.2f\n", yearStart.Add(time.Duration(i)*time.Hour).Format(time.RFC3339), 20+500*rng.Float64())
	}
	stream, err := client.ImportIntensities(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, part := range []*gridv1.ImportIntensitiesRequest{
		{Part: &gridv1.ImportIntensitiesRequest_Mapping{Mapping: &gridv1.IntensityMapping{
			Zone: "FR", Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, TimeColumn: "at", ValueColumn: "g",
			StepSeconds: 3600, Source: "bench", Quality: gridv1.Quality_QUALITY_MEASURED, File: "year.csv",
		}}},
		{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: []byte(rows.String())}},
	} {
		if err := stream.Send(part); err != nil {
			b.Fatal(err)
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil || answer.GetRows() != yearHours {
		b.Fatalf("import: %v, %v", answer, err)
	}
}

// ask makes the i-th call.
func (w *way) ask(ctx context.Context, i int) error {
	at := yearStart.Add(time.Duration(i*7919%yearHours) * time.Hour)
	_, err := w.clients[i%len(w.clients)].GetIntensity(ctx, &gridv1.GetIntensityRequest{Zone: "FR", Time: timestamppb.New(at)})
	return err
}
