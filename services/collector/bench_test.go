package collector_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/services/collector"
)

// taking stores nothing and counts what it is given.
type taking struct{ taken chan struct{} }

func (p taking) Publish(_ *collector.Message, done func(error)) {
	p.taken <- struct{}{}
	done(nil)
}

// acked counts the acks of the broker.
type acked struct {
	next collector.Publisher
	acks chan struct{}
}

func (a *acked) Publish(m *collector.Message, done func(error)) {
	a.next.Publish(m, func(err error) {
		if err == nil {
			a.acks <- struct{}{}
		}
		done(err)
	})
}

// BenchmarkPublish publishes a spool of batches of one series and 60 ticks into a
// stream on file. Nothing reads the stream, and the time includes opening the
// collector's connections. Batches of more series were not measured: their cost
// grows with their bytes.
func BenchmarkPublish(b *testing.B) {
	const nodes, ticks, perBatch = 64, 60 * 400, 60
	server := bustest.Start(b)
	nc := server.Connect("stream")
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := bus.EnsureStream(b.Context(), js, bus.StreamConfig{Name: stream, Subjects: []string{"wattfold.power.>"}, MaxBytes: 8 << 30}); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("node,ms,watts\n")
	for tick := range ticks {
		for n := range nodes {
			fmt.Fprintf(&text, "n%d,%d,%d\n", n, start+int64(tick)*1000, 4000+(tick*7919+n*104729)%1500)
		}
	}
	file := filepath.Join(b.TempDir(), "trace.csv")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	// The ledger holds nothing, and says so.
	if _, err := nc.Subscribe("wattfold.floors.*", func(msg *nats.Msg) {
		if err := msg.Respond(nil); err != nil {
			b.Error(err)
		}
	}); err != nil {
		b.Fatal(err)
	}
	want := nodes * ticks / perBatch
	for b.Loop() {
		b.StopTimer()
		cfg := collector.Default()
		cfg.Dir = b.TempDir()
		cfg.Replays = []collector.ReplayConfig{{
			File: file, Site: "s", Component: "chassis", Kind: "INSTANT_POWER", NodeColumn: "node",
			TimeColumn: "ms", TimeFormat: "unix_ms", ValueColumn: "watts", Unit: "W", Speed: "max",
		}}
		fill, cancel := context.WithCancel(b.Context())
		taken := make(chan struct{}, 1<<20)
		s, err := collector.New(quiet, cfg, collector.Deps{NATS: nc}, collector.WithPublisher(func(collector.Publisher) collector.Publisher {
			return taking{taken}
		}))
		if err != nil {
			b.Fatal(err)
		}
		ran := make(chan error, 1)
		go func() { ran <- s.Run(fill) }()
		for range want {
			<-taken
		}
		cancel()
		if err := <-ran; err != nil {
			b.Fatal(err)
		}
		cfg.Replays = nil
		a := &acked{acks: make(chan struct{}, 1<<20)}
		s, err = collector.New(quiet, cfg, collector.Deps{NATS: nc}, collector.WithPublisher(func(p collector.Publisher) collector.Publisher {
			a.next = p
			return a
		}))
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		b.StartTimer()
		go func() { ran <- s.Run(ctx) }()
		for range want {
			<-a.acks
		}
		b.StopTimer()
		stop()
		if err := <-ran; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(nodes*ticks)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
	b.ReportMetric(float64(want)*float64(b.N)/b.Elapsed().Seconds(), "batches/s")
}
