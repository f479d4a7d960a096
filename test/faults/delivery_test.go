package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// The size of batches, the order and the number of times in which they arrive,
// and a kill in the middle of a commit: none of them shows in a total, nothing
// is rejected, and coverage is that of the trace.
func TestBatchingOrderAndRepetition(all *testing.T) {
	harness.Long(all)
	trace, energy, total := small(all, testdata.Shared(all))
	up := harness.Up(all, all.TempDir())
	seed := uint64(0)
	for _, restart := range []string{"none", "mid-commit"} {
		for _, ticks := range []int{1, 7, 60, 600} {
			for _, d := range deliveries() {
				seed++
				site := fmt.Sprintf("s%d", seed)
				name := fmt.Sprintf("restart %s/%d ticks/%s/seed %d", restart, ticks, d.name, seed)
				all.Run(name, func(t *testing.T) {
					s := newSpool(t, site, seed, trace, ticks)
					rng := rand.New(rand.NewPCG(seed, 24)) //nolint:gosec // drawn again alike, on purpose
					before := up.In(t).Metrics()[duplicates]
					if restart == "mid-commit" {
						killDuring(t, up, s, d, rng)
						up = up.Again(all)
					}
					deliver(t, up.NATS, s, d, rng)
					got := up.In(t).Statement("--site", site)
					if harness.JudgeEnergy(t, site, got, energy) {
						harness.JudgeCoverage(t, site, got, total, 0)
					}
					for reason, n := range got.GetRejected() {
						if reason != "duplicate" && n != 0 {
							t.Errorf("%d rejected as %s", n, reason)
						}
					}
					// A killed life takes its counters with it.
					after := up.In(t).Metrics()[duplicates]
					if restart == "none" && d.name == "each twice" && after <= before {
						t.Errorf("every batch came twice, and duplicates went from %v to %v", before, after)
					}
				})
				if all.Failed() && seed > 4 {
					all.Fatal("the others would fail alike")
				}
			}
		}
	}
}

// killDuring kills the server while batches arrive.
func killDuring(t *testing.T, up *harness.Server, s *spool, d delivery, rng *rand.Rand) {
	t.Helper()
	nc, js := connect(t, up.NATS)
	defer nc.Close()
	sequences := make([]uint64, len(s.batches))
	for i := range sequences {
		sequences[i] = uint64(i + 1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.send(ctx, js, d.order(rng, sequences))
	}()
	// The moment of the fault: a commit comes within a second of the first batch.
	after := time.NewTimer(50*time.Millisecond + time.Duration(s.epoch%1_100)*time.Millisecond)
	<-after.C
	up.Kill()
	cancel()
	<-sent
}

// deliver sends what the ledger does not have until there is nothing left: once
// in the order of the delivery, then, as a spool does, in that of the batches.
func deliver(t *testing.T, addr string, s *spool, d delivery, rng *rand.Rand) {
	t.Helper()
	nc, js := connect(t, addr)
	defer nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for first := true; ; {
		pending, err := s.pending(ctx, nc)
		switch {
		case err == nil && len(pending) == 0:
			return
		case err == nil:
			if first {
				pending, first = d.order(rng, pending), false
			}
			s.send(ctx, js, pending)
			err = s.settle(ctx, nc, len(pending))
		case errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded):
			err = nil // the calculator is not up yet
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("%d batches of %s: %v, %v", len(s.batches), s.site, err, ctx.Err())
		}
	}
}

// settle waits until a commit after the sending has been told of: until less is
// pending than was, or the site's floors have been broadcast.
func (s *spool) settle(ctx context.Context, nc *nats.Conn, was int) error {
	told, err := nc.SubscribeSync("wattfold.committed." + s.site + ".*")
	if err != nil {
		return err
	}
	defer func() { _ = told.Unsubscribe() }()
	pending, err := s.pending(ctx, nc)
	if err != nil || len(pending) < was {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = told.NextMsgWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // asked again anyhow
	}
	return err
}

// connect connects to the server's NATS.
func connect(t *testing.T, addr string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect("nats://"+addr, nats.RetryOnFailedConnect(true), nats.ReconnectWait(50*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(256), jetstream.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}
