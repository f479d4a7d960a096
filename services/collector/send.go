package collector

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

const (
	// firstRetry doubles up to lastRetry while the broker takes nothing.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	// manyRetries stop new groups from being read: a broker that takes nothing
	// need not be offered more.
	manyRetries = 64
)

// sender publishes what is pending in the spool, in its order, and again what
// the ledger does not report. One goroutine decides; acks come from others.
type sender struct {
	log     *slog.Logger
	cfg     PublishConfig
	spool   *spool.Spool
	pub     Publisher
	metrics *metrics
	tracer  trace.Tracer

	// Of the goroutine in run.
	next     spool.ID              // groups below are tracked, committed or of unknown keys
	tracked  map[spool.ID]*tracked // published, or about to be again
	due      dueHeap
	retrying int // of due, those that are batches
	batches  []spool.Batch
	subjects map[spool.Key]string

	mu          sync.Mutex
	outstanding int
	held        int64 // bytes of groups in memory
	acked       []*load
	failed      []*flight
	lookNow     bool // groups whose keys became known may be pending
	lookLater   bool // floors fell
	wake        chan struct{}
}

// tracked is a group that was published or will be.
type tracked struct {
	sends int
}

// load is a group that is being published.
type load struct {
	id     spool.ID
	buf    []byte
	header nats.Header
	count  int
	left   int
	// span is from the first publish to the last ack. The spool's group, not this
	// span, is what a message names as its origin: that is the same each time it
	// is sent.
	span trace.Span
}

// flight is one batch of a load.
type flight struct {
	load  *load
	msg   Message
	tries int
	err   error
}

func newSender(log *slog.Logger, cfg PublishConfig, sp *spool.Spool, pub Publisher, m *metrics, tracer trace.Tracer) *sender {
	return &sender{
		log: log, cfg: cfg, spool: sp, pub: pub, metrics: m, tracer: tracer,
		next: sp.Fresh(), tracked: make(map[spool.ID]*tracked), subjects: make(map[spool.Key]string),
		wake: make(chan struct{}, 1),
	}
}

// floorsMoved tells the sender that the ledger spoke: fell, that groups which
// were committed are not any longer.
func (s *sender) floorsMoved(fell bool) {
	s.mu.Lock()
	s.lookNow = true
	s.lookLater = s.lookLater || fell
	s.mu.Unlock()
	s.poke()
}

func (s *sender) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends or the spool cannot be read.
func (s *sender) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := s.spool.Changed()
		if err := s.work(ctx); err != nil {
			return err
		}
		wait := time.Hour
		if len(s.due) > 0 {
			wait = max(0, time.Until(s.due[0].at))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// work does all that can be done now.
func (s *sender) work(ctx context.Context) error {
	for ctx.Err() == nil {
		s.settle(ctx)
		if worked, err := s.workDue(ctx); err != nil || worked {
			if err != nil {
				return err
			}
			continue
		}
		p, ok := s.spool.Next(s.next)
		if !ok || s.retrying >= manyRetries || !s.room(p.Size) {
			return nil
		}
		s.next = p.ID
		s.next.Index++
		if err := s.send(ctx, p.ID); err != nil {
			return err
		}
	}
	return nil
}

// settle takes over what came from the acks and from the ledger.
func (s *sender) settle(ctx context.Context) {
	s.mu.Lock()
	acked, failed := s.acked, s.failed
	now, later := s.lookNow, s.lookLater
	s.acked, s.failed, s.lookNow, s.lookLater = nil, nil, false, false
	s.mu.Unlock()
	for _, l := range acked {
		s.metrics.published.Add(ctx, int64(l.count))
		s.expect(l.id, s.resendAfter(s.tracked[l.id]))
	}
	if len(failed) > 0 {
		s.log.DebugContext(ctx, "the broker did not take batches; they are tried again",
			"batches", len(failed), "error", failed[0].err)
	}
	for _, f := range failed {
		backoff := min(firstRetry<<min(f.tries, 16), lastRetry)
		s.push(dueItem{at: time.Now().Add(backoff/2 + rand.N(backoff)), flight: f})
	}
	if now || later {
		s.look(later)
	}
}

// look tracks every pending group behind next that is not: groups of older
// epochs once the ledger has spoken of them, and groups that fell.
func (s *sender) look(fell bool) {
	for p, ok := s.spool.Next(spool.ID{}); ok && p.ID.Compare(s.next) < 0; p, ok = s.spool.Next(p.ID) {
		if s.tracked[p.ID] == nil && p.Known {
			after := time.Duration(0)
			if fell {
				// One message may have overtaken another: what fell for good is still
				// fallen then.
				after = s.cfg.ResendAfter
			}
			s.tracked[p.ID] = &tracked{}
			s.expect(p.ID, after)
		}
		p.ID.Index++
	}
}

// expect has the group looked at again after a while.
func (s *sender) expect(id spool.ID, after time.Duration) {
	s.push(dueItem{at: time.Now().Add(after), id: id})
}

func (s *sender) resendAfter(t *tracked) time.Duration {
	after := min(s.cfg.ResendAfter<<min(max(t.sends-1, 0), 16), s.cfg.MaxResendAfter)
	return after + rand.N(after/8+1)
}

// workDue does the first thing that is due; worked is false if none is, or if
// there is no room for it.
func (s *sender) workDue(ctx context.Context) (worked bool, err error) {
	now := time.Now()
	if len(s.due) == 0 || s.due[0].at.After(now) {
		return false, nil
	}
	d := s.due[0]
	if d.flight != nil {
		s.pop()
		return true, s.publish(ctx, d.flight)
	}
	p, ok := s.spool.Next(d.id)
	switch {
	case !ok || p.ID != d.id:
		s.pop()
		delete(s.tracked, d.id)
	case s.tracked[d.id].sends > 0 && s.spool.Lagging(d.id, now.Add(-s.cfg.ResendAfter)):
		s.pop()
		s.expect(d.id, s.cfg.ResendAfter)
	case !s.room(p.Size):
		// An ack makes room, and wakes us.
		s.due[0].at = now.Add(firstRetry)
		heap.Fix(&s.due, 0)
	default:
		s.pop()
		return true, s.send(ctx, d.id)
	}
	return true, nil
}

// room tells whether a group may be read into memory.
func (s *sender) room(size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held == 0 || s.held+int64(size) <= s.cfg.MaxOutstandingBytes
}

// send publishes the pending batches of a group.
func (s *sender) send(ctx context.Context, id spool.ID) error {
	t := s.tracked[id]
	if t == nil {
		t = &tracked{}
		s.tracked[id] = t
	}
	origin, buf, batches, err := s.spool.Read(id, nil, s.batches[:0])
	s.batches = batches
	if errors.Is(err, spool.ErrClosed) {
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if len(batches) == 0 {
		delete(s.tracked, id)
		return nil
	}
	again := t.sends > 0 || id.Compare(s.spool.Fresh()) < 0
	if again {
		s.metrics.resent.Add(ctx, int64(len(batches)))
	}
	t.sends++
	l := &load{id: id, buf: buf, count: len(batches), left: len(batches)}
	if origin != "" {
		l.header = nats.Header{"traceparent": {origin}}
	}
	l.span = s.startSpan(ctx, origin, batches, again)
	s.mu.Lock()
	s.held += int64(len(buf))
	s.mu.Unlock()
	flights := make([]flight, len(batches))
	for i := range batches {
		b := &batches[i]
		flights[i] = flight{load: l, msg: Message{Subject: s.subject(b.Key), Header: l.header, Data: b.Data}}
		if err := s.publish(ctx, &flights[i]); err != nil {
			return err
		}
	}
	return nil
}

// powerSubjects is the form of the subjects that power travels under.
const powerSubjects = "wattfold.power.{partition}.{site}"

// startSpan starts the span of sending batches of a group, within the trace that
// the group was spooled in. A group that was spooled outside of any has none.
func (s *sender) startSpan(ctx context.Context, origin string, batches []spool.Batch, again bool) trace.Span {
	if origin == "" {
		return trace.SpanFromContext(context.Background())
	}
	destination := s.subject(batches[0].Key)
	for i := range batches {
		if s.subject(batches[i].Key) != destination {
			destination = ""
			break
		}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": origin})
	//nolint:spancheck // it ends when the broker has acked the last batch
	_, span := s.tracer.Start(ctx, bus.Publish.SpanName(powerSubjects), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(bus.Publish.SpanAttributes(destination, powerSubjects, len(batches))...),
		trace.WithAttributes(attribute.Bool("wattfold.resent", again)))
	return span //nolint:spancheck // as above
}

func (s *sender) subject(k spool.Key) string {
	subject, ok := s.subjects[k]
	if !ok {
		subject = powerSubject(k.Producer, k.Site)
		s.subjects[k] = subject
	}
	return subject
}

// powerSubject is where the batches of a producer go: the partition is its first
// byte, for ever.
func powerSubject(producer [16]byte, site string) string {
	return fmt.Sprintf("wattfold.power.p%03d.%s", producer[0], bus.SubjectToken(site))
}

// publish hands a batch to the broker, once fewer than MaxOutstanding are there.
// The broker acks each, or the publisher gives it up, so this ends.
func (s *sender) publish(ctx context.Context, f *flight) error {
	for {
		s.mu.Lock()
		if s.outstanding < s.cfg.MaxOutstanding {
			s.outstanding++
			s.mu.Unlock()
			break
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
	s.pub.Publish(&f.msg, func(err error) { s.done(ctx, f, err) })
	return nil
}

func (s *sender) done(ctx context.Context, f *flight, err error) {
	wake := err != nil
	s.mu.Lock()
	s.outstanding--
	if s.outstanding == s.cfg.MaxOutstanding-1 {
		wake = true
	}
	if err == nil {
		if f.load.left--; f.load.left == 0 {
			s.held -= int64(len(f.load.buf))
			f.load.buf = nil
			f.load.span.End()
			s.acked = append(s.acked, f.load)
			wake = true
		}
	} else {
		f.tries++
		f.err = err
		f.load.span.AddEvent("not acked", trace.WithAttributes(attribute.String("reason", reasonOf(err))))
		s.failed = append(s.failed, f)
	}
	s.mu.Unlock()
	if err != nil {
		s.metrics.failed(ctx, reasonOf(err))
	}
	if wake {
		s.poke()
	}
}

// dueItem is a batch to be tried again, or a group to be looked at.
type dueItem struct {
	at     time.Time
	flight *flight
	id     spool.ID
}

func (s *sender) push(d dueItem) {
	heap.Push(&s.due, d)
	if d.flight != nil {
		s.retrying++
	}
}

func (s *sender) pop() {
	if d, _ := heap.Pop(&s.due).(dueItem); d.flight != nil {
		s.retrying--
	}
}

type dueHeap []dueItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueItem)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = dueItem{}
	*h = old[:len(old)-1]
	return last
}
