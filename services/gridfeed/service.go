package gridfeed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/singleflight"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/sqlite"
	"github.com/wattfold/wattfold/services/gridfeed/internal/csvfile"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
	"github.com/wattfold/wattfold/services/gridfeed/internal/yearly"
)

// Deps are what the service needs from its process. Any of them may be nil.
type Deps struct {
	NATS  *nats.Conn           // announcements go there; nil: none are made
	Meter metric.MeterProvider // nil: nothing is counted
	Now   func() time.Time     // the wall clock; nil: time.Now
}

// Reasons of errors, for programs.
const (
	reasonZoneUnknown = "ZONE_UNKNOWN"
	reasonUnavailable = "INTENSITY_UNAVAILABLE"
	reasonFileRefused = "FILE_REFUSED"
)

// Service is gridfeed. Make it with [New], give it to a server with
// [Service.Register], and let it live in [Service.Run].
type Service struct {
	log     *slog.Logger
	nats    *nats.Conn
	now     func() time.Time
	metrics metrics

	// life is held for reading by whoever uses the store, and for writing by Run when
	// it closes it.
	life    sync.RWMutex
	closed  bool
	store   store.Store
	release func() // gives the directory back

	// writing is held from before an append to after its lanes are dropped. A reader as
	// of a moment takes it once for that moment, so it never reads around a commit.
	writing sync.RWMutex
	settled atomic.Int64 // nothing will be recorded at or before this moment

	cache  *cache
	loads  singleflight.Group
	zones  atomic.Pointer[zones]
	chains map[laneKey][]store.Chain // declared ones by moment; fixed after New
}

// zones is what there is, as of the last write.
type zones struct {
	names     []string // sorted
	timelines map[string][]store.Timeline
}

// New opens the timelines in the configured directory, declares its chains and brings
// the yearly table up to date. Close what it opens by calling [Service.Run], with a
// context that has ended if need be.
func New(log *slog.Logger, cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gridfeed: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("gridfeed: %w", err)
	}
	release, err := sqlite.Lock(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("gridfeed: %w", err)
	}
	now := deps.Now
	if now == nil {
		now = time.Now
	}
	timelines, err := store.Open(context.Background(), cfg.Dir, now)
	if err != nil {
		release()
		return nil, fmt.Errorf("gridfeed: %w", err)
	}
	s, err := newService(log, cfg, deps, timelines)
	if err != nil {
		err = errors.Join(fmt.Errorf("gridfeed: %w", err), timelines.Close())
		release()
		return nil, err
	}
	s.release = release
	return s, nil
}

// newService builds the service on any store.
func newService(log *slog.Logger, cfg Config, deps Deps, timelines store.Store) (*Service, error) {
	s := &Service{
		log: log, nats: deps.NATS, now: deps.Now, store: timelines, release: func() {},
		cache: newCache(cfg.CacheRecords), chains: map[laneKey][]store.Chain{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.zones.Store(&zones{})
	if err := s.makeMetrics(deps.Meter); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := s.declareChains(ctx, cfg.Chains); err != nil {
		return nil, err
	}
	if err := s.bringTable(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Run keeps the service alive until ctx ends, then waits for the calls that use the
// timelines and closes them. Calls that come later fail as unavailable.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	defer s.release()
	if err := s.store.Close(); err != nil {
		return fmt.Errorf("gridfeed: close the timelines: %w", err)
	}
	return nil
}

// enter begins a use of the store. Unless it fails, life.RUnlock ends the use.
func (s *Service) enter() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return fault.New(fault.Unavailable, "gridfeed is stopping")
	}
	return nil
}

// declareChains records what the configuration says and reads what it ever said.
func (s *Service) declareChains(ctx context.Context, declared []ChainConfig) error {
	chains := make([]store.Chain, 0, len(declared))
	for _, c := range declared {
		signal, err := c.signal()
		if err != nil {
			return err
		}
		chain := store.Chain{Subject: c.Zone, Signal: signal}
		for _, e := range c.Entries {
			chain.Entries = append(chain.Entries, timeline.Entry{
				Source: e.Source, Product: e.Product, MaxAgeMS: e.MaxAge.Milliseconds(),
			})
		}
		chains = append(chains, chain)
	}
	if err := s.store.DeclareChains(ctx, chains); err != nil {
		return err
	}
	recorded, err := s.store.Chains(ctx)
	if err != nil {
		return err
	}
	for _, c := range recorded {
		key := laneKey{c.Subject, c.Signal}
		s.chains[key] = append(s.chains[key], c)
	}
	return nil
}

// bringTable stores the yearly table, or what a newer program changed in it. What it
// holds at first is known since ever.
func (s *Service) bringTable(ctx context.Context) error {
	countries, err := yearly.Countries()
	if err != nil {
		return err
	}
	batches := make([]store.Batch, len(countries))
	for i, c := range countries {
		batches[i] = store.Batch{
			Key: store.Key{
				Subject: c.Zone, Signal: store.AverageLifecycle, Source: yearly.Source, Product: yearly.Product,
			},
			Attribution: yearly.Attribution,
			SinceEver:   true,
			Intervals: []store.Interval{{
				Start: allTimeStart, End: allTimeEnd, Value: c.Value, Quality: timeline.Static,
			}},
		}
	}
	_, err = s.write(ctx, batches)
	return err
}

// write appends, forgets what readers knew of the zones, and announces the changes.
func (s *Service) write(ctx context.Context, batches []store.Batch) (store.Receipt, error) {
	receipt, err := s.append(ctx, batches)
	if err != nil {
		return store.Receipt{}, err
	}
	for i, change := range receipt.Changes {
		if change.Start != change.End {
			s.announce(ctx, batches[i].Key, change, receipt.RecordedMS)
		}
	}
	return receipt, nil
}

func (s *Service) append(ctx context.Context, batches []store.Batch) (store.Receipt, error) {
	if err := s.enter(); err != nil {
		return store.Receipt{}, err
	}
	defer s.life.RUnlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	receipt, err := s.store.Append(ctx, batches)
	// An append that failed may have been applied all the same.
	written := make(map[laneKey]bool, len(batches))
	for _, b := range batches {
		written[laneKey{b.Subject, b.Signal}] = true
	}
	s.cache.drop(func(key laneKey) bool {
		country, part := yearly.CountryOf(key.zone)
		return written[key] || part && written[laneKey{country, key.signal}]
	})
	timelines, listErr := s.store.Timelines(context.WithoutCancel(ctx))
	if listErr == nil {
		s.zones.Store(newZones(timelines))
	}
	return receipt, errors.Join(err, listErr)
}

func newZones(timelines []store.Timeline) *zones {
	z := &zones{timelines: map[string][]store.Timeline{}}
	for _, t := range timelines {
		if n := len(z.names); n == 0 || z.names[n-1] != t.Subject {
			z.names = append(z.names, t.Subject)
		}
		z.timelines[t.Subject] = append(z.timelines[t.Subject], t)
	}
	return z
}

// announce tells the bus about a change. It is told once; who must not miss one asks.
func (s *Service) announce(ctx context.Context, key store.Key, change store.Change, recordedMS int64) {
	if s.nats == nil {
		return
	}
	msg := nats.NewMsg(Subject(key.Subject, key.Signal.String()))
	otel.GetTextMapPropagator().Inject(ctx, bus.HeaderCarrier(msg.Header))
	var err error
	if msg.Data, err = revisedMessage(key, change, recordedMS); err == nil {
		err = s.nats.PublishMsg(msg)
	}
	if err != nil {
		s.log.WarnContext(ctx, "revision not announced", "zone", key.Subject, "signal", key.Signal.String(), "err", err)
		count(ctx, s.metrics.announcements, 1, "outcome", "failed")
		return
	}
	count(ctx, s.metrics.announcements, 1, "outcome", "sent")
}

// Subject returns where revisions of a zone's signal are announced. The signal is
// named in full, such as CARBON_MARGINAL.
func Subject(zone, signal string) string {
	return "wattfold.grid." + bus.SubjectToken(zone) + "." + bus.SubjectToken(signal)
}

// importFile is one file to import: its key is complete but for the product, which is
// observed.
type importFile struct {
	key         store.Key
	quality     timeline.Quality
	knownMS     int64 // store.WhenRecorded, or when all rows were known
	attribution string
	mapping     csvfile.Mapping
}

// imported says what an import brought.
type imported struct {
	file       *csvfile.File
	change     store.Change
	start, end slot.Slot // of the rows with a value; equal: none had one
	recordedMS int64
}

// importCSV reads the whole file before any of it is stored.
func (s *Service) importCSV(ctx context.Context, r io.Reader, in importFile) (imported, error) {
	in.key.Product = observed
	in.mapping.Now = s.now()
	file, err := csvfile.Parse(r, in.mapping)
	if err != nil {
		if problems, ok := errors.AsType[csvfile.Problems](err); ok {
			count(ctx, s.metrics.imports, 1, "outcome", "refused")
			return imported{}, refusal(problems)
		}
		count(ctx, s.metrics.imports, 1, "outcome", "failed")
		return imported{}, err
	}
	result := imported{file: file}
	batch := store.Batch{Key: in.key, Attribution: in.attribution, Intervals: make([]store.Interval, len(file.Rows))}
	length := slot.Slot(file.Step / (slot.Millis * time.Millisecond))
	for i := range file.Rows {
		row := &file.Rows[i]
		to := &batch.Intervals[i]
		*to = store.Interval{
			Start: row.Start, End: row.Start + length, Value: row.Value, Quality: in.quality, KnownMS: in.knownMS,
		}
		if in.mapping.KnownColumn != "" {
			to.KnownMS = row.KnownMS
		}
		if file.Unit != in.key.Signal.Unit() {
			to.Raw, to.RawUnit = row.Raw, file.Unit
		}
		if i == 0 {
			result.start, result.end = to.Start, to.End
		}
		result.start, result.end = min(result.start, to.Start), max(result.end, to.End)
	}
	file.Rows = nil // the batch has them
	receipt, err := s.write(ctx, []store.Batch{batch})
	if err != nil {
		count(ctx, s.metrics.imports, 1, "outcome", "failed")
		return imported{}, err
	}
	result.change, result.recordedMS = receipt.Changes[0], receipt.RecordedMS
	result.change.Unchanged += file.Repeated
	outcome := "stored"
	if result.change.Added+result.change.Revised == 0 {
		outcome = "unchanged"
	}
	count(ctx, s.metrics.imports, 1, "outcome", outcome)
	count(ctx, s.metrics.rows, result.change.Added, "result", "added")
	count(ctx, s.metrics.rows, result.change.Revised, "result", "revised")
	count(ctx, s.metrics.rows, result.change.Unchanged, "result", "unchanged")
	count(ctx, s.metrics.rows, file.Empty, "result", "empty")
	s.log.InfoContext(ctx, "intensities imported", "zone", in.key.Subject, "signal", in.key.Signal.String(),
		"source", in.key.Source, "rows", file.Total, "added", result.change.Added, "revised", result.change.Revised,
		"unchanged", result.change.Unchanged, "empty", file.Empty)
	return result, nil
}

// refusal makes the caller's error of what is wrong with a file.
func refusal(problems csvfile.Problems) error {
	violations := make([]fault.Violation, len(problems))
	for i, p := range problems {
		path := "chunk"
		if p.Line == 0 {
			path = "mapping"
		}
		violations[i] = fault.Field(path, p.Error())
	}
	return fault.WithReason(fault.WithFields(fault.Wrap(fault.Invalid, problems), violations...), reasonFileRefused)
}

// lane returns a zone's signal as of the last write. An error of kind NotFound says
// that there is no such zone.
func (s *Service) lane(ctx context.Context, c call, zone string, signal store.Signal) (*lane, error) {
	key := laneKey{zone, signal}
	l, generation := s.cache.get(key)
	if l != nil {
		return l, nil
	}
	known := s.zones.Load()
	country, part := yearly.CountryOf(zone)
	part = part && slices.ContainsFunc(known.timelines[country], isYearly)
	if known.timelines[zone] == nil && !part {
		s.metrics.answers.Add(ctx, 1, answeredUnknown[c]...)
		return nil, fault.WithReason(fault.Newf(fault.NotFound, "no zone %q%s", zone, known.hint(zone)), reasonZoneUnknown)
	}
	// Whoever asks meanwhile waits for the same read, but not for one that began before
	// a write that they know of.
	loaded, err, _ := s.loads.Do(fmt.Sprintf("%d %d %s", generation, signal, zone), func() (any, error) {
		return s.load(context.WithoutCancel(ctx), key, country, part)
	})
	if err != nil {
		return nil, err
	}
	l = loaded.(*lane) //nolint:forcetypeassert // it is what the function above returns
	s.cache.put(key, l, generation)
	return l, nil
}

// load reads a lane from the store; part says that the zone is a part of country.
func (s *Service) load(ctx context.Context, key laneKey, country string, part bool) (*lane, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	s.metrics.loads.Add(ctx, 1)
	series, err := s.store.Series(ctx, key.zone, key.signal)
	if err != nil {
		return nil, err
	}
	if !part {
		country = ""
	} else {
		whole, err := s.store.Series(ctx, country, key.signal)
		if err != nil {
			return nil, err
		}
		for _, in := range whole {
			if in.Source == yearly.Source && in.Product == yearly.Product {
				series = append(series, in)
			}
		}
	}
	return newLane(key.zone, key.signal, series, country, s.chains[key]), nil
}

func isYearly(t store.Timeline) bool { return t.Source == yearly.Source && t.Product == yearly.Product }

// hint names the zone that was probably meant.
func (z *zones) hint(zone string) string {
	for _, name := range z.names {
		if strings.EqualFold(name, zone) {
			return fmt.Sprintf("; did you mean %s?", name)
		}
	}
	return ": import intensities for it, or name it as Electricity Maps does, such as DE or US-CAL-CISO"
}

// settle makes an answer as of a moment final: what is being written is waited for, and
// what will be is recorded later.
func (s *Service) settle(v view) error {
	if v.by != asOf || v.at <= s.settled.Load() {
		return nil
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	s.writing.RLock()
	defer s.writing.RUnlock()
	now := s.now().UnixMilli()
	s.store.Hold(min(v.at, now))
	for {
		settled := s.settled.Load()
		if settled >= min(v.at, now) || s.settled.CompareAndSwap(settled, min(v.at, now)) {
			return nil
		}
	}
}

// intensity answers for the slot that holds an instant.
func (s *Service) intensity(ctx context.Context, zone string, signal store.Signal, ms int64, v view) (*lane, timeline.Step, error) {
	if err := s.settle(v); err != nil {
		return nil, timeline.Step{}, err
	}
	l, err := s.lane(ctx, getIntensity, zone, signal)
	if err != nil {
		return nil, timeline.Step{}, err
	}
	step, ok := l.at(slot.Of(ms), v)
	if !ok {
		s.metrics.answers.Add(ctx, 1, answeredNoData[getIntensity]...)
		return nil, timeline.Step{}, fault.WithReason(fault.Newf(fault.NotFound,
			"no %s of %s at %s by this view: import it, or declare a chain with a source that has it",
			signal, zone, time.UnixMilli(ms).UTC().Format(time.RFC3339)), reasonUnavailable)
	}
	s.metrics.answers.Add(ctx, 1, answeredOK[getIntensity]...)
	return l, step, nil
}

// intensities answers for the slots [from, to), up to most of them.
func (s *Service) intensities(
	ctx context.Context, zone string, signal store.Signal, from, to slot.Slot, v view, most int,
) (*lane, []answer, slot.Slot, error) {
	if err := s.settle(v); err != nil {
		return nil, nil, 0, err
	}
	l, err := s.lane(ctx, listIntensities, zone, signal)
	if err != nil {
		return nil, nil, 0, err
	}
	answers, next := l.between(from, to, v, most)
	s.metrics.answers.Add(ctx, 1, answeredOK[listIntensities]...)
	return l, answers, next, nil
}
