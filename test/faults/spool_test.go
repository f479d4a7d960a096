package faults_test

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/test/oracle"
)

// spool is the least that a producer has to do: it numbers its batches and
// sends them again until the ledger says that it has them.
type spool struct {
	producer [16]byte
	epoch    uint64
	site     string
	// batches by sequence - 1.
	batches [][]byte
}

// newSpool divides the trace into batches of up to ticks readings a node, the
// nodes taking turns.
func newSpool(t *testing.T, site string, seed uint64, trace oracle.Trace, ticks int) *spool {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 16)) //nolint:gosec // drawn again alike, on purpose
	s := &spool{epoch: rng.Uint64() | 1, site: site}
	for i := range s.producer {
		s.producer[i] = byte(rng.Uint32())
	}
	for from, more := 0, true; more; from += ticks {
		more = false
		for _, node := range trace.Nodes() {
			samples := trace[node]
			if from >= len(samples) {
				continue
			}
			to := min(from+ticks, len(samples))
			more = more || to < len(samples)
			batch := samplewire.Batch{
				Producer: s.producer, Epoch: s.epoch, Sequence: uint64(len(s.batches) + 1), Site: site, Node: node,
			}
			series := samplewire.Series{
				Descriptor: samplewire.Descriptor{
					Device: "chassis/0", Component: "chassis", Run: "run-" + site, Project: "faults",
					Kind: uint8(telemetryv1.ReadingKind_READING_KIND_INSTANT_POWER), Provenance: uint8(telemetryv1.Provenance_PROVENANCE_MEASURED),
					MaxGapMS: 30_000, Scale: 3,
				},
				Closed: to == len(samples),
			}
			if from > 0 {
				series.HasPrevious = true
				series.PreviousMS, series.PreviousValue = samples[from-1].TimeMS, samples[from-1].Value/1000
			}
			for _, r := range samples[from:to] {
				batch.Ticks = append(batch.Ticks, r.TimeMS)
				series.Values = append(series.Values, r.Value/1000)
			}
			batch.Series = []samplewire.Series{series}
			message, err := samplewire.Append(nil, &batch)
			if err != nil {
				t.Fatal(err)
			}
			s.batches = append(s.batches, message)
		}
	}
	return s
}

func (s *spool) subject() string {
	return fmt.Sprintf("wattfold.power.p%03d.%s", s.producer[0], s.site)
}

// send publishes the batches with the sequences given, in that order, and
// returns when each is acknowledged or refused. What was refused is missing
// from the floors, and is sent again by deliver.
func (s *spool) send(ctx context.Context, js jetstream.JetStream, sequences []uint64) {
	var acks []jetstream.PubAckFuture
	for _, n := range sequences {
		ack, err := js.PublishAsync(s.subject(), s.batches[n-1])
		if err != nil {
			break
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case <-ack.Err(): //nolint:errcheck // what was refused is missing from the floors
		case <-ctx.Done():
			return
		}
	}
}

// pending asks the ledger which sequences it does not have.
func (s *spool) pending(ctx context.Context, nc *nats.Conn) ([]uint64, error) {
	ask, err := proto.Marshal(&telemetryv1.FloorsRequest{Producers: []*telemetryv1.Floor{{Producer: s.producer[:], Epoch: s.epoch}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, "wattfold.floors."+s.site, ask)
	if err != nil {
		return nil, err
	}
	var floors telemetryv1.Floors
	if err := proto.Unmarshal(reply.Data, &floors); err != nil {
		return nil, err
	}
	has := make([]bool, len(s.batches)+1)
	for _, f := range floors.GetFloors() {
		if string(f.GetProducer()) != string(s.producer[:]) || f.GetEpoch() != s.epoch {
			return nil, fmt.Errorf("asked for %x/%d and was told of %x/%d", s.producer, s.epoch, f.GetProducer(), f.GetEpoch())
		}
		if n := f.GetFloor(); n > uint64(len(s.batches)) {
			return nil, fmt.Errorf("the floor is %d, but only %d were sent", n, len(s.batches))
		}
		for n := range f.GetFloor() {
			has[n+1] = true
		}
		for _, r := range f.GetRanges() {
			for n := r.GetFirst(); n <= r.GetLast(); n++ {
				has[n] = true
			}
		}
		if len(f.GetRefused()) > 0 {
			return nil, fmt.Errorf("refused: %v", f.GetRefused())
		}
	}
	var out []uint64
	for n := 1; n < len(has); n++ {
		if !has[n] {
			out = append(out, uint64(n))
		}
	}
	return out, nil
}

// delivery is an order in which batches travel.
type delivery struct {
	name string
	// order arranges the sequences of one sending.
	order func(rng *rand.Rand, sequences []uint64) []uint64
}

// deliveries are the ways that a network, a stream and a resending spool may
// have with batches.
func deliveries() []delivery {
	inOrder := func(_ *rand.Rand, s []uint64) []uint64 { return s }
	shuffle := func(rng *rand.Rand, s []uint64) {
		rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	}
	return []delivery{
		{"in order", inOrder},
		{"shuffled within 24", func(rng *rand.Rand, s []uint64) []uint64 {
			s = slices.Clone(s)
			for chunk := range slices.Chunk(s, 24) {
				shuffle(rng, chunk)
			}
			return s
		}},
		{"each twice", func(rng *rand.Rand, s []uint64) []uint64 {
			var twice []uint64
			for chunk := range slices.Chunk(s, 12) {
				twice = append(append(twice, chunk...), chunk...)
			}
			return twice
		}},
		{"fully shuffled and resent", func(rng *rand.Rand, s []uint64) []uint64 {
			s = slices.Clone(s)
			shuffle(rng, s)
			return append(s, s[:len(s)/2]...)
		}},
	}
}

// small is a real trace that is quick to send: eight nodes, two pairs of which
// read one meter, and the one with gaps, bursts and a repeated timestamp.
func small(t *testing.T, shared string) (oracle.Trace, *big.Int, oracle.Slot) {
	t.Helper()
	gpt3, err := oracle.ReadGPT3(shared)
	if err != nil {
		t.Fatal(err)
	}
	trace, _, _, err := oracle.ReadLlama2(shared, oracle.Llama2Gaps)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"1", "6", "2", "59", "3", "4", "5", "7"} {
		trace[node] = gpt3[node]
	}
	total := trace.Fold(oracle.Law{Kind: oracle.InstantPower, MaxGapMS: 30_000}).Total.Total()
	return trace, total.Energy, total
}
