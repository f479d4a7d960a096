package bench_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/bus/embedded"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/testdata"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator"
	"github.com/wattfold/wattfold/services/gridfeed"
	"github.com/wattfold/wattfold/test/oracle"
)

// guard is what the whole path has to carry, in samples a second.
const guard = 5_000_000

// A node sends 13 series: 8 GPUs, 2 CPUs, 2 times memory and the rest.
const (
	nodes         = 64
	seriesPerNode = 13
)

// BenchmarkEndToEnd carries batches of 60 and of 10 ticks. An operation is a
// whole load, into an empty ledger: spools are filled before, and the time runs
// until the ledger tells that it has committed the last batch.
func BenchmarkEndToEnd(b *testing.B) {
	for _, c := range []struct{ ticks, batches int }{{60, 250_000}, {10, 250_000}} {
		b.Run(fmt.Sprintf("ticks=%d", c.ticks), func(b *testing.B) {
			load := newLoad(b, c.batches, c.ticks)
			samples := float64(c.batches) * seriesPerNode * float64(c.ticks)
			rounds := 0
			var took time.Duration
			for b.Loop() {
				b.StopTimer()
				line, stop := newLine(b)
				b.StartTimer()
				start := time.Now()
				line.carry(b, load)
				took += time.Since(start)
				rounds++
				b.StopTimer()
				stop()
				b.StartTimer()
			}
			rate := samples * float64(rounds) / took.Seconds()
			b.ReportMetric(rate, "samples/s")
			b.ReportMetric(float64(load.bytes)/samples, "B/sample")
			if c.ticks == 60 && rate < guard {
				b.Errorf("%.1f M samples/s end to end, the guard is at %.1f M", rate/1e6, guard/1e6)
			}
		})
	}
}

// load is what a site's spool has to send.
type load struct {
	producer [16]byte
	epoch    uint64
	messages [][]byte
	bytes    int
}

const site = "bench"

func (l *load) subject() string { return fmt.Sprintf("wattfold.power.p%03d.%s", l.producer[0], site) }

// newLoad encodes the batches, the nodes taking turns, with power as it was
// measured on 64 nodes in training: each series is an eighth of a node's, in
// milliwatts, and noisy to the last of them.
func newLoad(b *testing.B, batches, ticks int) *load {
	b.Helper()
	trace, err := oracle.ReadGPT3(testdata.Shared(b))
	if err != nil {
		b.Fatal(err)
	}
	names := trace.Nodes()
	rng := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // drawn again alike, on purpose
	l := &load{epoch: rng.Uint64() | 1}
	binary.LittleEndian.PutUint64(l.producer[:], rng.Uint64())
	binary.LittleEndian.PutUint64(l.producer[8:], rng.Uint64())
	components := [seriesPerNode]string{"gpu", "gpu", "gpu", "gpu", "gpu", "gpu", "gpu", "gpu", "cpu", "cpu", "dram", "dram", "other"}
	batch := samplewire.Batch{Producer: l.producer, Epoch: l.epoch, Site: site, Ticks: make([]int64, ticks)}
	for s, component := range components {
		batch.Series = append(batch.Series, samplewire.Series{
			Descriptor: samplewire.Descriptor{
				Device: fmt.Sprintf("%s/%d", component, s), Component: component, Run: "bench", Project: "bench",
				Kind:       uint8(telemetryv1.ReadingKind_READING_KIND_AVERAGE_POWER),
				Provenance: uint8(telemetryv1.Provenance_PROVENANCE_MEASURED), PeriodMS: 1000,
			},
			Values: make([]int64, ticks),
		})
	}
	const startMS = 1_650_000_000_000
	var last [nodes][seriesPerNode]int64
	for n := range batches {
		node, round := n%nodes, n/nodes
		samples := trace[names[node]]
		batch.Node, batch.Sequence = fmt.Sprintf("node-%03d", node), uint64(n+1)
		for t := range ticks {
			batch.Ticks[t] = startMS + int64(round*ticks+t)*1000
		}
		for s := range batch.Series {
			series := &batch.Series[s]
			if round > 0 {
				series.HasPrevious, series.PreviousMS, series.PreviousValue = true, batch.Ticks[0]-1000, last[node][s]
			}
			for t := range ticks {
				series.Values[t] = samples[(round*ticks+t)%len(samples)].Value/8 + rng.Int64N(2_000)
			}
			last[node][s] = series.Values[ticks-1]
		}
		message, err := samplewire.Append(nil, &batch)
		if err != nil {
			b.Fatal(err)
		}
		l.messages = append(l.messages, message)
		l.bytes += len(message)
	}
	return l
}

// line is the path under test.
type line struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// newLine starts a NATS server, a gridfeed and a calculator in this process, and
// returns what ends them.
func newLine(b *testing.B) (*line, func()) {
	b.Helper()
	dir, log := b.TempDir(), slog.New(slog.DiscardHandler)
	server, err := embedded.Start(embedded.Config{StoreDir: filepath.Join(dir, "nats")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Shutdown)
	nc, err := server.Connect("bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	tracer, meter := tracenoop.NewTracerProvider(), metricnoop.NewMeterProvider()

	gridConfig := gridfeed.Default()
	gridConfig.Dir = filepath.Join(dir, "gridfeed")
	grid, err := gridfeed.New(log, gridConfig, gridfeed.Deps{NATS: nc, Meter: meter})
	if err != nil {
		b.Fatal(err)
	}
	listener := rpc.Memory()
	conn, err := rpc.Dial("gridfeed", rpc.ClientOptions{Memory: listener})
	if err != nil {
		b.Fatal(err)
	}
	config := calculator.Default()
	config.Dir = filepath.Join(dir, "calculator")
	calc, err := calculator.New(log, config, calculator.Deps{NATS: nc, Grid: gridv1.NewGridServiceClient(conn), Tracer: tracer, Meter: meter})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		grid.Run, calc.Run, func(ctx context.Context) error {
			srv := rpc.NewServer(log, rpc.Options{})
			var registrar grpc.ServiceRegistrar = srv
			grid.Register(registrar)
			return rpc.Serve(ctx, log, srv, listener)
		},
	} {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				b.Errorf("ended by itself: %v", err)
			}
		})
	}
	stop := func() {
		cancel()
		running.Wait()
		if err := conn.Close(); err != nil {
			b.Error(err)
		}
		nc.Close()
		server.Shutdown()
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4_000), jetstream.WithPublishAsyncTimeout(30*time.Second))
	if err != nil {
		b.Fatal(err)
	}
	l := &line{nc: nc, js: js}
	l.waitReady(b)
	return l, stop
}

// waitReady returns when the calculator answers.
func (l *line) waitReady(b *testing.B) {
	b.Helper()
	for {
		_, err := l.nc.Request("wattfold.floors."+site, nil, 100*time.Millisecond)
		if err == nil {
			return
		}
		if b.Context().Err() != nil {
			b.Fatal(err)
		}
	}
}

// carry sends everything and returns when the ledger has committed it.
func (l *line) carry(b *testing.B, load *load) {
	b.Helper()
	told, err := l.nc.SubscribeSync("wattfold.committed." + site + ".*")
	if err != nil {
		b.Fatal(err)
	}
	for _, message := range load.messages {
		if _, err := l.js.PublishAsync(load.subject(), message); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	for {
		message, err := told.NextMsgWithContext(ctx)
		if err != nil {
			b.Fatalf("the ledger has not committed all: %v", err)
		}
		var floors telemetryv1.Floors
		if err := proto.Unmarshal(message.Data, &floors); err != nil {
			b.Fatal(err)
		}
		for _, f := range floors.GetFloors() {
			if f.GetEpoch() == load.epoch && f.GetFloor() == uint64(len(load.messages)) {
				return
			}
		}
	}
}
