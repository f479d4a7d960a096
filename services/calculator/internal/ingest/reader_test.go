package ingest_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/bus/bustest"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
	"github.com/wattfold/wattfold/services/calculator/storetest"
)

const streamName = "WATTFOLD_POWER_0"

// patience bounds waits that should end at once.
const patience = 30 * time.Second

// rig is a broker, a ledger and a reader between them.
type rig struct {
	t      *testing.T
	nc     *nats.Conn
	js     jetstream.JetStream
	store  *storetest.Faulty
	spans  *tracetest.SpanRecorder
	floors *nats.Subscription
	cfg    ingest.Config
	// done has what the reader started last returned.
	done chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	nc := bustest.Start(t).Connect("test")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	floors, err := nc.SubscribeSync("wattfold.committed.s.*")
	if err != nil {
		t.Fatal(err)
	}
	return &rig{
		t: t, nc: nc, js: js, floors: floors,
		store: &storetest.Faulty{Store: memstore.New(time.Now)},
		spans: tracetest.NewSpanRecorder(),
		cfg: ingest.Config{
			Owner: "me", Streams: 1, Interval: 10 * time.Millisecond, PendingBytes: 64 << 10, PullBytes: 4 << 20,
			StreamBytes: 64 << 20, ReplayBytes: 32 << 20, CheckInterval: 20 * time.Millisecond,
		},
	}
}

func instruments() *ingest.Metrics {
	return &ingest.Metrics{
		CommittedBatches: noop.Int64Counter{}, CommittedSamples: noop.Int64Counter{}, DuplicateBatches: noop.Int64Counter{},
		DeferredBatches: noop.Int64Counter{}, Rejected: noop.Int64Counter{}, Transactions: noop.Int64Counter{},
		StreamResets: noop.Int64Counter{}, CommitSeconds: noop.Float64Histogram{}, Lag: noop.Int64Gauge{},
		NewestTickMS: new(atomic.Int64),
	}
}

// start runs a reader until the returned function is called, which returns what
// Run did.
func (r *rig) start() (stop func() error) {
	r.t.Helper()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	reader, err := ingest.New(slog.New(slog.NewTextHandler(r.t.Output(), nil)), r.cfg, ingest.Deps{
		NATS: r.nc, Store: r.store, Tracer: provider.Tracer(""), Metrics: instruments(),
		Committed: func() {}, Now: time.Now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	r.done = done
	go func() { done <- reader.Run(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(patience):
			return errors.New("the reader does not end")
		}
	}
	r.t.Cleanup(func() {
		if err := stop(); err != nil && !errors.Is(err, ledger.ErrFenced) {
			r.t.Errorf("Run: %v", err)
		}
	})
	return stop
}

// publish publishes messages once the stream is there, and checks every ack.
func (r *rig) publish(messages []ingest.Message) {
	r.t.Helper()
	r.waitStream()
	for _, m := range messages {
		future, err := r.js.PublishAsync(m.Subject, m.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		select {
		case <-future.Ok():
		case err := <-future.Err():
			r.t.Fatal(err)
		}
	}
}

func (r *rig) waitStream() {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, err := r.js.Stream(r.t.Context(), streamName)
		if err == nil {
			return
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) || time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}

// waitFloor waits until the broadcast says that all up to the floor is committed.
func (r *rig) waitFloor(floor uint64) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		msg, err := r.floors.NextMsg(time.Until(deadline))
		if err != nil {
			r.t.Fatalf("floor %d: %v", floor, err)
		}
		var floors telemetryv1.Floors
		if err := proto.Unmarshal(msg.Data, &floors); err != nil {
			r.t.Fatal(err)
		}
		for _, f := range floors.GetFloors() {
			if [16]byte(f.GetProducer()) == spool && f.GetFloor() >= floor && len(f.GetRanges()) == 0 {
				return
			}
		}
	}
}

func TestReader(t *testing.T) {
	tr := synthetic()
	messages := tr.batches(t, spool, 60)
	r := newRig(t)
	stop := r.start()
	r.publish(twice(shuffled(rand.New(rand.NewPCG(1, 1)), messages, 24)))
	r.waitFloor(uint64(len(messages)))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	tr.check(t, r.store)
	tr.checkClean(t, r.store, uint64(len(messages)))
	// Another one goes on from there.
	r.start()
	more := encode(t, steady(9, 1, 1, 0, 10))
	more.Subject = subject(spool, "s")
	r.publish([]ingest.Message{more})
}

// TestAborts: a commit that failed, applied or not, changes nothing in the end.
func TestAborts(t *testing.T) {
	tr := synthetic()
	messages := tr.batches(t, spool, 60)
	for _, fault := range []storetest.Fault{storetest.NotApplied, storetest.Applied} {
		r := newRig(t)
		r.start()
		r.store.Break(fault, 1)
		r.publish(messages[:len(messages)/2])
		// What was applied but reported failed is broadcast by nobody.
		r.waitAsked(uint64(len(messages) / 2))
		r.store.Break(fault, 0)
		r.publish(messages[len(messages)/2:])
		r.waitAsked(uint64(len(messages)))
		tr.check(t, r.store)
		tr.checkClean(t, r.store, uint64(len(messages)))
	}
}

// waitAsked waits until the ledger holds all up to the floor, whether or not that
// was broadcast.
func (r *rig) waitAsked(floor uint64) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		known, err := r.store.Producers(r.t.Context(), "s", []ledger.ProducerKey{{Producer: spool}})
		if err != nil || time.Now().After(deadline) {
			r.t.Fatalf("floor %d: %+v, %v", floor, known, err)
		}
		if len(known) == 1 && known[0].Floor == floor {
			return
		}
		// Something is committed, or it is time to look again.
		if _, err := r.floors.NextMsg(20 * time.Millisecond); err != nil && !errors.Is(err, nats.ErrTimeout) {
			r.t.Fatal(err)
		}
	}
}

// TestStreamLost: the stream is deleted while it is read, and again while nobody
// reads; the spool resends all.
func TestStreamLost(t *testing.T) {
	tr := synthetic()
	messages := tr.batches(t, spool, 60)
	half := len(messages) / 2
	r := newRig(t)
	stop := r.start()
	r.publish(messages[:half])
	r.waitFloor(uint64(half))
	if err := r.js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	r.publish(messages[:half+5])
	r.waitFloor(uint64(half + 5))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.publish(messages)
	r.waitFloor(uint64(len(messages)))
	tr.check(t, r.store)
	tr.checkClean(t, r.store, uint64(len(messages)))
}

// TestStreamRolledBack: the stream lost its tail and gives out the same sequences
// again.
func TestStreamRolledBack(t *testing.T) {
	tr := synthetic()
	messages := tr.batches(t, spool, 60)
	r := newRig(t)
	stop := r.start()
	r.publish(messages)
	r.waitFloor(uint64(len(messages)))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The ledger is ahead of a stream that has the same name and age.
	positions, err := r.store.Acquire(t.Context(), "me", "", []int{0})
	if err != nil {
		t.Fatal(err)
	}
	positions[0].Sequence += 1000
	if _, err := r.store.Commit(t.Context(), &ledger.Tx{Owner: "me", Fences: positions, CommitMS: 1}); err != nil {
		t.Fatal(err)
	}
	more := steady(1, 1, 1, 0, 10)
	more.Producer, more.Epoch = spool, 10
	r.publish([]ingest.Message{encode(t, more)})
	r.start()
	for {
		known, err := r.store.Producers(t.Context(), "s", []ledger.ProducerKey{{Producer: spool, Epoch: 10}})
		if err != nil {
			t.Fatal(err)
		}
		if len(known) == 1 {
			break
		}
		if _, err := r.floors.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFenced(t *testing.T) {
	r := newRig(t)
	r.start()
	r.publish([]ingest.Message{encode(t, producerBatch(1))})
	r.waitFloor(1)
	if _, err := r.store.Acquire(t.Context(), "another", "", []int{int(spool[0])}); err != nil {
		t.Fatal(err)
	}
	r.publish([]ingest.Message{encode(t, producerBatch(2))})
	select {
	case err := <-r.done:
		r.done <- err
		if !errors.Is(err, ledger.ErrFenced) {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(patience):
		t.Error("the reader goes on")
	}
}

// producerBatch is a batch of the spool.
func producerBatch(sequence uint64) *samplewire.Batch {
	b := steady(1, 9, sequence, int64(sequence)*10, int64(sequence)*10+10)
	b.Producer = spool
	return b
}

// TestPurge: what is committed is forgotten, less what is kept.
func TestPurge(t *testing.T) {
	r := newRig(t)
	r.cfg.ReplayBytes = 10_000
	r.start()
	var messages []ingest.Message
	for i := range uint64(500) {
		messages = append(messages, encode(t, producerBatch(i+1)))
	}
	r.publish(messages)
	r.waitFloor(500)
	deadline := time.Now().Add(patience)
	for {
		stream, err := r.js.Stream(t.Context(), streamName)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", stream, err)
		}
		if state := stream.CachedInfo().State; state.FirstSeq > 1 && state.Bytes < 12_000 {
			if state.Bytes < 5_000 {
				t.Errorf("%d bytes are kept", state.Bytes)
			}
			break
		}
	}
}

func TestFloors(t *testing.T) {
	r := newRig(t)
	r.start()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ingest.ServeFloors(ctx, slog.New(slog.DiscardHandler), r.nc, r.store) }()
	r.publish([]ingest.Message{encode(t, producerBatch(1)), encode(t, producerBatch(3))})
	request, err := proto.Marshal(&telemetryv1.FloorsRequest{Producers: []*telemetryv1.Floor{
		{Producer: spool[:]}, {Producer: make([]byte, 16), Epoch: 5},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := &telemetryv1.Floors{Floors: []*telemetryv1.Floor{
		{Producer: spool[:], Epoch: 9, Floor: 1, Ranges: []*telemetryv1.SequenceRange{{First: 3, Last: 3}}},
		{Producer: make([]byte, 16), Epoch: 5},
	}}
	want.Incarnation, err = r.store.Incarnation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		msg, err := r.nc.Request("wattfold.floors.s", request, patience)
		if errors.Is(err, nats.ErrNoResponders) && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got telemetryv1.Floors
		if err := proto.Unmarshal(msg.Data, &got); err != nil {
			t.Fatal(err)
		}
		if proto.Equal(&got, want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("floors %v, want %v", &got, want)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("ServeFloors: %v", err)
	}
}

// TestLinks: the span of a transaction links to those that its batches come from,
// once to each and to no more than 128.
func TestLinks(t *testing.T) {
	before := otel.GetTextMapPropagator()
	otel.SetTextMapPropagator(propagation.TraceContext{})
	t.Cleanup(func() { otel.SetTextMapPropagator(before) })
	r := newRig(t)
	r.cfg.Interval, r.cfg.PendingBytes = 500*time.Millisecond, 64<<20
	r.start()
	r.waitStream()
	const batches = 300
	for i := range uint64(batches) {
		m := encode(t, producerBatch(1+i))
		msg := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{}}
		// Two batches a flush.
		flush := trace.TraceID{1, byte(i >> 9), byte(i >> 1)}
		from := trace.NewSpanContext(trace.SpanContextConfig{TraceID: flush, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
		otel.GetTextMapPropagator().Inject(trace.ContextWithSpanContext(t.Context(), from), bus.HeaderCarrier(msg.Header))
		if _, err := r.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	r.waitFloor(batches)
	messages := int64(0)
	linked := map[trace.TraceID]bool{}
	for _, s := range r.spans.Started() {
		var size int64
		for _, a := range s.Attributes() {
			if a.Key == "messaging.batch.message_count" {
				size = a.Value.AsInt64()
			}
		}
		messages += size
		own := map[trace.TraceID]bool{}
		for _, l := range s.Links() {
			own[l.SpanContext.TraceID()] = true
			linked[l.SpanContext.TraceID()] = true
		}
		// A transaction begins in the middle of a flush at worst.
		if want := min(128, size/2); len(s.Links()) != len(own) || int64(len(own)) < want || int64(len(own)) > min(128, want+1) {
			t.Errorf("a transaction of %d messages has %d links to %d flushes, want %d", size, len(s.Links()), len(own), want)
		}
	}
	if messages != batches {
		t.Errorf("the spans tell of %d messages, want %d", messages, batches)
	}
	if len(linked) == 0 {
		t.Error("no transaction is linked")
	}
}
