package collector_test

import (
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/bus/bustest"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
)

type producer struct {
	id    [16]byte
	epoch uint64
}

type reading struct{ ms, value int64 }

// ledger is a small one: it takes batches off the stream, counts each name but
// once, says what it has, and can forget.
type ledger struct {
	t           *testing.T
	nc          *nats.Conn
	mu          sync.Mutex
	incarnation string
	held        map[producer]map[uint64]bool
	content     map[producer][]byte
	readings    map[string][]reading // by node, of batches counted
	traced      int
	duplicates  int
	closed      map[string]bool
	changed     chan struct{}
}

const stream = "WATTFOLD_POWER_0"

// newLedger makes the stream and begins to take.
func newLedger(t *testing.T, server *bustest.Server) *ledger {
	t.Helper()
	l := &ledger{
		t: t, nc: server.Connect("ledger"), incarnation: "first",
		held: map[producer]map[uint64]bool{}, content: map[producer][]byte{},
		readings: map[string][]reading{}, closed: map[string]bool{}, changed: make(chan struct{}),
	}
	js, err := jetstream.New(l.nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := bus.EnsureStream(t.Context(), js, bus.StreamConfig{Name: stream, Subjects: []string{"wattfold.power.>"}, MaxBytes: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := st.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	taking, err := consumer.Consume(func(msg jetstream.Msg) { l.take(msg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(taking.Stop)
	if _, err := l.nc.Subscribe("wattfold.floors.*", l.answer); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *ledger) take(msg jetstream.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var d samplewire.Decoder
	v, err := d.Decode(msg.Data())
	if err != nil {
		l.t.Errorf("batch: %v", err)
		return
	}
	p := producer{v.Producer, v.Epoch}
	if l.held[p][v.Sequence] {
		l.duplicates++
		return
	}
	if l.held[p] == nil {
		l.held[p] = map[uint64]bool{}
	}
	l.held[p][v.Sequence] = true
	if v.HasImport {
		l.content[p] = slices.Clone(v.Import.Content)
	}
	if msg.Headers().Get("traceparent") != "" {
		l.traced++
	}
	desc, err := samplewire.ParseDescriptor(v.Series[0].Descriptor)
	if err != nil {
		l.t.Errorf("descriptor: %v", err)
		return
	}
	times, values, err := d.Readings(0, desc.Scale)
	if err != nil {
		l.t.Errorf("readings: %v", err)
		return
	}
	node := string(v.Node)
	for i := range times {
		l.readings[node] = append(l.readings[node], reading{times[i], values[i]})
	}
	l.closed[node] = l.closed[node] || v.Series[0].Closed
	close(l.changed)
	l.changed = make(chan struct{})
	floors := &telemetryv1.Floors{Incarnation: l.incarnation, Floors: []*telemetryv1.Floor{l.floor(p)}}
	l.send("wattfold.committed."+bus.SubjectToken(string(v.Site))+".all", floors)
}

func (l *ledger) send(subject string, m proto.Message) {
	data, err := proto.Marshal(m)
	if err == nil {
		err = l.nc.Publish(subject, data)
	}
	if err != nil && !l.nc.IsClosed() {
		l.t.Errorf("publish %s: %v", subject, err)
	}
}

func (l *ledger) floor(p producer) *telemetryv1.Floor {
	f := &telemetryv1.Floor{Producer: p.id[:], Epoch: p.epoch, Content: l.content[p]}
	var all []uint64
	for s := range l.held[p] {
		all = append(all, s)
	}
	slices.Sort(all)
	for _, s := range all {
		switch n := len(f.Ranges); {
		case s == f.Floor+1 && n == 0:
			f.Floor = s
		case n > 0 && f.Ranges[n-1].Last == s-1:
			f.Ranges[n-1].Last = s
		default:
			f.Ranges = append(f.Ranges, &telemetryv1.SequenceRange{First: s, Last: s})
		}
	}
	return f
}

func (l *ledger) answer(msg *nats.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var req telemetryv1.FloorsRequest
	if err := proto.Unmarshal(msg.Data, &req); err != nil {
		l.t.Errorf("floors request: %v", err)
		return
	}
	floors := &telemetryv1.Floors{Incarnation: l.incarnation}
	for _, asked := range req.GetProducers() {
		id := [16]byte(asked.GetProducer())
		if asked.GetEpoch() != 0 {
			floors.Floors = append(floors.Floors, l.floor(producer{id, asked.GetEpoch()}))
			continue
		}
		for p := range l.held {
			if p.id == id {
				floors.Floors = append(floors.Floors, l.floor(p))
			}
		}
	}
	l.send(msg.Reply, floors)
}

// forget makes the ledger one that was restored from before anything.
func (l *ledger) forget(site string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	floors := &telemetryv1.Floors{Incarnation: "second"}
	for p := range l.held {
		floors.Floors = append(floors.Floors, &telemetryv1.Floor{Producer: p.id[:], Epoch: p.epoch})
	}
	l.incarnation = "second"
	l.held, l.readings = map[producer]map[uint64]bool{}, map[string][]reading{}
	l.send("wattfold.committed."+site+".all", floors)
}

// all returns the readings counted by node, each node's by time.
func (l *ledger) all() map[string][]reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string][]reading{}
	for node, rs := range l.readings {
		all[node] = slices.SortedFunc(slices.Values(rs), func(a, b reading) int { return int(a.ms - b.ms) })
	}
	return all
}

// until waits until the ledger is as asked.
func (l *ledger) until(ctx context.Context, ok func() bool) {
	l.t.Helper()
	for {
		l.mu.Lock()
		good, changed := ok(), l.changed
		l.mu.Unlock()
		if good {
			return
		}
		select {
		case <-ctx.Done():
			l.t.Fatal("the ledger does not get what it should")
		case <-changed:
		}
	}
}

func (l *ledger) epochs(id string) (epochs []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.held {
		if hex.EncodeToString(p.id[:]) == id {
			epochs = append(epochs, p.epoch)
		}
	}
	slices.Sort(epochs)
	return epochs
}
