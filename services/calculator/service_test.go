package calculator_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/internal/sqlite"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator"
)

// TestService: the service makes its ledger, takes batches in, tells their floors
// and, started again, still holds them.
func TestService(t *testing.T) {
	cfg := calculator.Default()
	cfg.Dir = t.TempDir() + "/ledger"
	cfg.CommitInterval = 10 * time.Millisecond
	cfg.Streams = 2
	nc := bustest.Start(t).Connect("test")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	start := func() (stop func()) {
		t.Helper()
		service, err := calculator.New(log, cfg, calculator.Deps{NATS: nc})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := calculator.New(log, cfg, calculator.Deps{NATS: nc}); !errors.Is(err, sqlite.ErrLocked) {
			t.Errorf("a second service on one directory: %v", err)
		}
		service.Register(grpc.NewServer())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- service.Run(ctx) }()
		return func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	// floors asks what the ledger holds of two producers, one in each stream.
	floors := func(want uint64) {
		t.Helper()
		request, err := proto.Marshal(&telemetryv1.FloorsRequest{Producers: []*telemetryv1.Floor{
			{Producer: producerOf(4), Epoch: 1}, {Producer: producerOf(5), Epoch: 1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for time.Now().Before(deadline) {
			msg, err := nc.Request("wattfold.floors.s", request, time.Second)
			if err != nil {
				continue // it is not up yet
			}
			var got telemetryv1.Floors
			if err := proto.Unmarshal(msg.Data, &got); err != nil {
				t.Fatal(err)
			}
			if f := got.GetFloors(); len(f) == 2 && f[0].GetFloor() == want && f[1].GetFloor() == want {
				return
			}
		}
		t.Fatalf("the floors do not get to %d", want)
	}
	publish := func(partition byte, sequence uint64) {
		t.Helper()
		b := &samplewire.Batch{
			Producer: [16]byte(producerOf(partition)), Epoch: 1, Sequence: sequence, Site: "s", Node: fmt.Sprint("n", partition), Ticks: []int64{1000, 2000},
			Series: []samplewire.Series{{
				Descriptor: samplewire.Descriptor{Device: "gpu/0", Component: "gpu", Kind: 1, Provenance: 1}, Values: []int64{1, 1},
			}},
		}
		msg, err := samplewire.Append(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		for {
			_, err := js.Publish(t.Context(), fmt.Sprintf("wattfold.power.p%03d.s", partition), msg)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	stop := start()
	publish(4, 1)
	publish(5, 1)
	floors(1)
	stop()
	stop = start()
	defer stop()
	floors(1)
	publish(4, 2)
	publish(5, 2)
	floors(2)
}

func producerOf(partition byte) []byte { return append([]byte{partition}, make([]byte, 15)...) }

func TestConfig(t *testing.T) {
	cfg := calculator.Default()
	cfg.Dir = "somewhere"
	if err := cfg.Validate(); err != nil {
		t.Errorf("the default is refused: %v", err)
	}
	err := calculator.Config{ReplayBytes: 1}.Validate()
	for _, path := range []string{
		"dir:", "commit_interval:", "pending_bytes:", "streams:", "stream_bytes:", "replay_bytes:", "replicas:", "pull_bytes:",
	} {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is not in %v", path, err)
		}
	}
}
