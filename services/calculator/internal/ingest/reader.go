package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// Partitions is the number of partitions, for ever.
const Partitions = 256

// Config says what a reader reads and how much it holds.
type Config struct {
	// Owner names this calculator to the ledger.
	Owner string
	// Stream is read, of Streams: the partitions p with p % Streams == Stream.
	Stream, Streams int
	// Interval is the time between two commits.
	Interval time.Duration
	// PendingBytes bounds what one transaction holds, about.
	PendingBytes int
	// PullBytes bounds what is fetched ahead from the stream.
	PullBytes int
	// StreamBytes bounds the stream; ReplayBytes of it are kept after the commit.
	StreamBytes, ReplayBytes int64
	// Replicas of the stream in a cluster.
	Replicas int
	// CheckInterval is the time between two looks at the stream: what it may
	// forget, and whether it is still the one that is being read.
	CheckInterval time.Duration
}

// Deps are what a reader works with.
type Deps struct {
	NATS    *nats.Conn
	Store   ledger.Store
	Tracer  trace.Tracer
	Metrics *Metrics
	// Committed is called after each commit.
	Committed func()
	// Now is the clock of commits.
	Now func() time.Time
}

// Reader reads one stream into the ledger. Make it with [New], run it once.
type Reader struct {
	log *slog.Logger
	cfg Config
	Deps
	js     jetstream.JetStream
	stream string
	label  metric.MeasurementOption

	incarnation string
	poisons     poisons
}

// poisons deals with energy that does not fit a posting: the transaction is read
// again, batch by batch, until the one that it comes from is known. That one is
// refused.
type poisons struct {
	batches map[batchID]bool
	// carefulTo is the sequence up to which each message is committed alone.
	carefulTo uint64
	// learned: the next round does better, and need not wait.
	learned bool
}

// learn draws the lesson from a commit that failed.
func (x *poisons) learn(p *pending, err error) {
	if !errors.Is(err, ledger.ErrOverflow) {
		return
	}
	if len(p.tx.Batches) == 1 {
		b := &p.tx.Batches[0]
		x.batches[batchID{b.Site, b.ProducerKey, b.Sequence}] = true
		x.learned = true
	}
	if p.sequence > x.carefulTo {
		x.carefulTo, x.learned = p.sequence, true
	}
}

// New returns a reader.
func New(log *slog.Logger, cfg Config, deps Deps) (*Reader, error) {
	js, err := jetstream.New(deps.NATS)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	name := fmt.Sprintf("WATTFOLD_POWER_%d", cfg.Stream)
	return &Reader{
		log: log.With("stream", name), cfg: cfg, Deps: deps, js: js, stream: name,
		label:   metric.WithAttributeSet(attribute.NewSet(attribute.String("stream", name))),
		poisons: poisons{batches: map[batchID]bool{}},
	}, nil
}

// partitions are those of the stream.
func (r *Reader) partitions() []int {
	var all []int
	for p := r.cfg.Stream; p < Partitions; p += r.cfg.Streams {
		all = append(all, p)
	}
	return all
}

func (r *Reader) subjects() []string {
	if r.cfg.Streams == 1 {
		return []string{"wattfold.power.*.*"}
	}
	var subjects []string
	for _, p := range r.partitions() {
		subjects = append(subjects, fmt.Sprintf("%s%03d.*", subjectPrefix, p))
	}
	return subjects
}

// Waits between two rounds: the first, and the longest.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// Run reads until ctx ends; then it returns nil. It goes on after every error but
// one: another calculator took the partitions over.
func (r *Reader) Run(ctx context.Context) error {
	wait := firstWait
	for {
		started := time.Now()
		err := r.round(ctx)
		if errors.Is(err, ledger.ErrFenced) {
			return fmt.Errorf("stream %s: %w", r.stream, err)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the round ended because it was told to
		}
		r.log.WarnContext(ctx, "reading starts again from the ledger's position", "err", err)
		if r.poisons.learned {
			r.poisons.learned = false
			continue
		}
		if time.Since(started) > longestWait {
			wait = firstWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait = min(2*wait, longestWait)
	}
}

// round is one life of what is remembered. It ends with an error.
type round struct {
	*Reader
	acc    *accumulator
	fences []ledger.Position
	// identity names the stream as it was made.
	identity string
	handle   jetstream.Stream

	// committing is in the ledger's hands; done tells of its end. spare is the
	// memory of the one before.
	committing, spare *pending
	done              chan error
	commits           sync.WaitGroup
	committed         uint64
	checkAt           time.Time

	started time.Time // of what accumulates
	links   []trace.Link
	last    jetstream.Msg
}

func (r *Reader) round(ctx context.Context) (err error) {
	if r.incarnation, err = r.Store.Incarnation(ctx); err != nil {
		return err
	}
	stream, err := bus.EnsureStream(ctx, r.js, bus.StreamConfig{
		Name: r.stream, Subjects: r.subjects(), MaxBytes: r.cfg.StreamBytes, Replicas: r.cfg.Replicas,
	})
	if err != nil {
		return err
	}
	rd := &round{Reader: r, handle: stream, acc: newAccumulator(r.Store, r.poisons.batches), done: make(chan error, 1)}
	from, err := rd.position(ctx)
	if err != nil {
		return err
	}
	consumer, err := r.js.OrderedConsumer(ctx, r.stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from + 1, InactiveThreshold: 30 * time.Second,
		// If the consumer cannot be made again, the stream may be gone: a new round looks.
		MaxResetAttempts: 1,
	})
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxBytes(r.cfg.PullBytes))
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	// Whoever waits for a message does not see ctx.
	defer context.AfterFunc(ctx, messages.Stop)()
	defer messages.Stop()
	// The ledger is not to be read again, nor closed, under a commit.
	defer rd.commits.Wait()
	return rd.loop(ctx, messages)
}

// Causes for which a stream is not as it was left.
const (
	causeCreated    = "created"
	causeRolledBack = "rolled_back"
	causeGap        = "gap"
)

// position takes the partitions and returns the sequence up to which nothing has
// to be read.
func (r *round) position(ctx context.Context) (uint64, error) {
	info, err := r.handle.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	r.identity = identityOf(info)
	if r.fences, err = r.Store.Acquire(ctx, r.cfg.Owner, r.identity, r.partitions()); err != nil {
		return 0, err
	}
	from, cause := r.fences[0].Sequence, ""
	for _, f := range r.fences {
		switch {
		case f.Stream != r.identity:
			cause = causeCreated
		case f.Sequence > info.State.LastSeq:
			cause = causeRolledBack
		default:
			from = min(from, f.Sequence)
		}
	}
	first := info.State.FirstSeq
	switch {
	case cause != "":
		from = 0
		r.Metrics.StreamResets.Add(ctx, 1, metric.WithAttributes(attribute.String("cause", cause)))
		r.log.WarnContext(ctx, "audit: the stream is not the one that was read; reading from its start, duplicates are dropped",
			"cause", cause, "was", r.fences[0].Stream, "at", r.fences[0].Sequence, "is", r.identity, "last", info.State.LastSeq)
	case first > from+1 && info.State.LastSeq > from:
		r.Metrics.StreamResets.Add(ctx, 1, metric.WithAttributes(attribute.String("cause", causeGap)))
		r.log.WarnContext(ctx, "audit: the stream lost messages before they were read; spools resend them",
			"at", from, "first", first)
	}
	if first > 0 && from < first-1 {
		from = first - 1
	}
	r.acc.pending.sequence = from
	r.committed = from
	r.checkAt = time.Now().Add(r.cfg.CheckInterval)
	return from, nil
}

func identityOf(info *jetstream.StreamInfo) string {
	return info.Config.Name + "@" + info.Created.UTC().Format(time.RFC3339Nano)
}

// commitPoll is how soon the end of a commit is seen while no message comes.
const commitPoll = 20 * time.Millisecond

func (r *round) loop(ctx context.Context, messages jetstream.MessagesContext) error {
	for {
		if err := r.turn(ctx); err != nil {
			return err
		}
		msg, err := r.next(ctx, messages)
		if err != nil {
			return err
		}
		if msg == nil {
			continue
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("message: %w", err)
		}
		p := r.acc.pending
		if p.messages == 0 {
			r.started = time.Now()
		}
		if err := r.acc.message(ctx, msg.Subject(), msg.Data()); err != nil {
			return err
		}
		p.sequence = meta.Sequence.Stream
		r.last = msg
		r.link(msg)
	}
}

// next waits for a message, but no longer than until something else is due; then
// it returns nil.
func (r *round) next(ctx context.Context, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	wait := time.Until(r.checkAt)
	if r.acc.pending.messages > 0 {
		wait = min(wait, time.Until(r.started.Add(r.cfg.Interval)))
	}
	if r.committing != nil {
		wait = min(wait, commitPoll)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	msg, err := messages.Next(jetstream.NextMaxWait(max(wait, time.Millisecond)))
	if errors.Is(err, nats.ErrTimeout) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("next message: %w", err)
	}
	return msg, nil
}

// turn hands over what has accumulated if it is time, takes note of a commit that
// has ended, and looks after the stream.
func (r *round) turn(ctx context.Context) error {
	if r.committing != nil {
		select {
		case err := <-r.done:
			if err := r.ended(err); err != nil {
				return err
			}
		default:
		}
	}
	p := r.acc.pending
	full := p.bytes >= r.cfg.PendingBytes || p.replaces
	careful := p.messages > 0 && p.sequence <= r.poisons.carefulTo
	if p.messages > 0 && (full || careful || r.committing == nil && time.Since(r.started) >= r.cfg.Interval) {
		if err := r.wait(ctx); err != nil {
			return err
		}
		r.commit(ctx)
		if careful || r.committing.replaces {
			if err := r.wait(ctx); err != nil {
				return err
			}
		}
	}
	if time.Now().After(r.checkAt) {
		r.checkAt = time.Now().Add(r.cfg.CheckInterval)
		return r.check(ctx)
	}
	return nil
}

// wait waits for the commit that is under way.
func (r *round) wait(ctx context.Context) error {
	if r.committing == nil {
		return nil
	}
	select {
	case err := <-r.done:
		return r.ended(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended takes note of the end of a commit.
func (r *round) ended(err error) error {
	p := r.committing
	r.committing = nil
	if err == nil {
		r.committed = p.sequence
		if p.replaces {
			r.acc.forgetNodes()
		}
		r.spare = p
		return nil
	}
	r.poisons.learn(p, err)
	return err
}

// commitTimeout ends a commit that hangs; the round then starts again.
const commitTimeout = time.Minute

// commit hands what has accumulated to the ledger.
func (r *round) commit(ctx context.Context) {
	p := r.acc.take(r.spare)
	r.spare = nil
	r.committing = p
	tx := &p.tx
	tx.Owner, tx.Fences, tx.CommitMS = r.cfg.Owner, r.fences, r.Now().UnixMilli()
	for i := range r.fences {
		r.fences[i].Stream, r.fences[i].Sequence = r.identity, p.sequence
	}
	r.acc.pending.sequence = p.sequence
	links := r.links
	r.links = nil
	var unread uint64
	if meta, err := r.last.Metadata(); err == nil {
		unread = meta.NumPending
	}
	// A commit that was begun is seen through when the process is asked to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	r.commits.Go(func() {
		defer cancel()
		r.done <- r.apply(ctx, p, links, unread)
	})
}

// apply commits, and tells those who wait for it.
func (r *round) apply(ctx context.Context, p *pending, links []trace.Link, unread uint64) error {
	ctx, span := r.Tracer.Start(ctx, bus.Commit.SpanName(powerSubjects),
		trace.WithNewRoot(), trace.WithLinks(links...), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(bus.Commit.SpanAttributes(r.stream, powerSubjects, p.messages)...),
		trace.WithAttributes(
			attribute.Int("wattfold.batches", len(p.tx.Batches)),
			attribute.Int64("wattfold.samples", p.samples),
			attribute.Int64("wattfold.duplicates", p.duplicates)))
	defer span.End()
	started := time.Now()
	_, err := r.Store.Commit(ctx, &p.tx)
	r.Metrics.CommitSeconds.Record(ctx, time.Since(started).Seconds())
	r.Metrics.Lag.Record(ctx, int64(unread), r.label) //nolint:gosec // messages of one stream
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "aborted")
		r.Metrics.Transactions.Add(ctx, 1, outcomeAborted)
		return err
	}
	r.Metrics.Transactions.Add(ctx, 1, outcomeCommitted)
	r.count(ctx, p)
	r.Committed()
	if err := publishFloors(r.NATS, r.incarnation, p.tx.Producers); err != nil {
		// The spools ask within half a minute.
		r.log.WarnContext(ctx, "floors not published", "err", err)
	}
	return nil
}

var (
	outcomeAborted   = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "aborted")))
	outcomeCommitted = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "committed")))
)

func (r *Reader) count(ctx context.Context, p *pending) {
	m := r.Metrics
	m.CommittedBatches.Add(ctx, int64(len(p.tx.Batches)))
	m.CommittedSamples.Add(ctx, p.samples)
	m.DuplicateBatches.Add(ctx, p.duplicates)
	m.DeferredBatches.Add(ctx, p.ignored)
	for _, reasons := range p.tx.Rejected {
		for reason, n := range reasons {
			m.Rejected.Add(ctx, int64(n), metric.WithAttributes(attribute.String("reason", reason))) //nolint:gosec // a count
		}
	}
	for reason, n := range p.counted {
		m.Rejected.Add(ctx, int64(n), metric.WithAttributes(attribute.String("reason", reason))) //nolint:gosec // a count
	}
	for newest := m.NewestTickMS.Load(); p.newestMS > newest; newest = m.NewestTickMS.Load() {
		if m.NewestTickMS.CompareAndSwap(newest, p.newestMS) {
			break
		}
	}
}

// powerSubjects is the form of the subjects that power travels under.
const powerSubjects = "wattfold.power.{partition}.{site}"

// maxLinks bounds the links of a span.
const maxLinks = 128

// link notes the span that a message comes from; the batches of one flush share
// theirs.
func (r *round) link(msg jetstream.Msg) {
	header := msg.Headers()
	if len(header) == 0 || len(r.links) == maxLinks {
		return
	}
	of := trace.SpanContextFromContext(otel.GetTextMapPropagator().Extract(context.Background(), bus.HeaderCarrier(header)))
	linked := slices.ContainsFunc(r.links, func(l trace.Link) bool { return l.SpanContext.Equal(of) })
	if of.IsValid() && !linked {
		r.links = append(r.links, trace.Link{SpanContext: of})
	}
}

// check ends the round if the stream is not the one that is being read, and
// otherwise lets it forget what is committed, less what is kept for a replay.
func (r *round) check(ctx context.Context) error {
	info, err := r.handle.Info(ctx)
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	if identity := identityOf(info); identity != r.identity {
		return fmt.Errorf("stream %s was made again as %s", r.identity, identity)
	}
	if last := info.State.LastSeq; last < r.acc.pending.sequence {
		return fmt.Errorf("stream %s ends at %d, but %d was read", r.identity, last, r.acc.pending.sequence)
	}
	upTo, ok := purgeUpTo(info.State, r.committed, r.cfg.ReplayBytes)
	if !ok {
		return nil
	}
	if err := r.handle.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// purgeUpTo returns the last sequence that a stream may forget; ok is false if it
// is not worth while. Sizes of messages are known on average only.
func purgeUpTo(state jetstream.StreamState, committed uint64, keep int64) (upTo uint64, ok bool) {
	if state.Msgs == 0 || state.Bytes == 0 || committed < state.FirstSeq {
		return 0, false
	}
	kept := uint64(float64(keep) / float64(state.Bytes) * float64(state.Msgs))
	// Below a tenth of what is kept the next look does as well.
	if committed < state.FirstSeq+kept+kept/10 {
		return 0, false
	}
	return committed - kept, true
}
