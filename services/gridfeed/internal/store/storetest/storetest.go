// Package storetest holds the contract of [store.Store] as a suite that every
// implementation passes, the fake included, and [Faulty], which breaks a store on
// purpose.
package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
)

// ErrBroken is what a [Faulty] store fails with.
var ErrBroken = errors.New("broken on purpose")

// Faulty passes everything on to a store, except that the next Append fails when it is
// told to: before it is applied, or after.
type Faulty struct {
	store.Store

	mu    sync.Mutex
	fault Fault
}

// Fault is a way for Append to fail.
type Fault uint8

// The ways. An Append that fails clears what was set.
const (
	NoFault    Fault = iota
	NotApplied       // fails, and nothing was stored
	Applied          // fails, yet everything was stored
)

// Break makes the next Append fail.
func (f *Faulty) Break(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Append implements [store.Store].
func (f *Faulty) Append(ctx context.Context, batches []store.Batch) (store.Receipt, error) {
	f.mu.Lock()
	fault := f.fault
	f.fault = NoFault
	f.mu.Unlock()
	if fault == NotApplied {
		return store.Receipt{}, ErrBroken
	}
	receipt, err := f.Store.Append(ctx, batches)
	if fault == Applied {
		return store.Receipt{}, ErrBroken
	}
	return receipt, err
}

// Clock is a wall clock that stands still unless it is moved, backwards too.
type Clock struct {
	mu sync.Mutex
	ms int64
}

// Now returns the time of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.UnixMilli(c.ms)
}

// Set moves the clock to Unix milliseconds.
func (c *Clock) Set(ms int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ms = ms
}

// Run holds an implementation to the contract. open opens the store of a directory,
// again and again; reopens says whether a directory keeps what was stored in it.
func Run(t *testing.T, reopens bool, open func(t *testing.T, dir string, now func() time.Time) store.Store) {
	t.Helper()
	fresh := func(t *testing.T) (*Faulty, *Clock) {
		t.Helper()
		clock := &Clock{ms: start}
		s := open(t, t.TempDir(), clock.Now)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return &Faulty{Store: s}, clock
	}
	t.Run("Empty", func(t *testing.T) { s, _ := fresh(t); testEmpty(t, s) })
	t.Run("Revisions", func(t *testing.T) { s, c := fresh(t); testRevisions(t, s, c) })
	t.Run("PollLogTwice", func(t *testing.T) { s, _ := fresh(t); testPollLogTwice(t, s) })
	t.Run("SinceEver", func(t *testing.T) { s, c := fresh(t); testSinceEver(t, s, c) })
	t.Run("Descriptions", func(t *testing.T) { s, c := fresh(t); testDescriptions(t, s, c) })
	t.Run("Moments", func(t *testing.T) { s, c := fresh(t); testMoments(t, s, c) })
	t.Run("Chains", func(t *testing.T) { s, c := fresh(t); testChains(t, s, c) })
	t.Run("Twin", func(t *testing.T) { s, c := fresh(t); testTwin(t, s, c) })
	t.Run("Together", func(t *testing.T) { s, _ := fresh(t); testTogether(t, s) })
	t.Run("Cancelled", func(t *testing.T) { s, _ := fresh(t); testCancelled(t, s) })
	for name, fault := range map[string]Fault{"FailedAndNotApplied": NotApplied, "FailedButApplied": Applied} {
		t.Run(name, func(t *testing.T) { s, _ := fresh(t); testFault(t, s, fault) })
	}
	if reopens {
		t.Run("Reopened", func(t *testing.T) { testReopened(t, open) })
	}
}

const start = 1_750_000_000_000

var key = store.Key{Subject: "DE", Signal: store.AverageLifecycle, Source: "import", Product: "observed"}

// hour returns an interval of hour h with a value.
func hour(h int64, value int64) store.Interval {
	return store.Interval{
		Start: slot.Slot(h * 12), End: slot.Slot(h*12 + 12), Value: decimal(value), Quality: timeline.Measured,
	}
}

func decimal(v int64) unit.Decimal {
	d, err := unit.NewDecimal(v, 0)
	if err != nil {
		panic(err)
	}
	return d
}

func known(in store.Interval, ms int64) store.Interval {
	in.KnownMS = ms
	return in
}

func retracted(in store.Interval) store.Interval {
	in.Retracted, in.Value = true, unit.Decimal{}
	return in
}

func mustAppend(t *testing.T, s store.Store, in ...store.Interval) store.Receipt {
	t.Helper()
	receipt, err := s.Append(t.Context(), []store.Batch{{Key: key, Intervals: in}})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return receipt
}

func records(t *testing.T, s store.Store) []timeline.Record {
	t.Helper()
	series, err := s.Series(t.Context(), key.Subject, key.Signal)
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	if len(series) == 0 {
		return nil
	}
	return series[0].Records
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

func testEmpty(t *testing.T, s store.Store) {
	if timelines, err := s.Timelines(t.Context()); err != nil || len(timelines) != 0 {
		t.Errorf("timelines %v, %v", timelines, err)
	}
	if series, err := s.Series(t.Context(), "DE", store.Marginal); err != nil || len(series) != 0 {
		t.Errorf("series %v, %v", series, err)
	}
	if chains, err := s.Chains(t.Context()); err != nil || len(chains) != 0 {
		t.Errorf("chains %v, %v", chains, err)
	}
	// A batch of nothing makes no timeline.
	mustAppend(t, s)
	if timelines, err := s.Timelines(t.Context()); err != nil || len(timelines) != 0 {
		t.Errorf("timelines %v, %v", timelines, err)
	}
}

func testRevisions(t *testing.T, s store.Store, clock *Clock) {
	first := mustAppend(t, s, hour(2, 20), hour(1, 10))
	same(t, "first", []store.Change{{Added: 2, Start: 12, End: 36}}, first.Changes)

	clock.Set(start + 1000)
	estimated := hour(2, 20)
	estimated.Quality = timeline.Estimated
	half := store.Interval{Start: 12, End: 18, Value: decimal(10), Quality: timeline.Measured}
	second := mustAppend(t, s, hour(1, 10), half, hour(2, 21), estimated, hour(3, 30), hour(3, 30))
	same(t, "second", []store.Change{{Added: 1, Revised: 2, Unchanged: 3, Start: 24, End: 48}}, second.Changes)

	clock.Set(start + 2000)
	third := mustAppend(t, s, retracted(hour(1, 0)), retracted(hour(1, 0)), hour(1, 10))
	same(t, "third", []store.Change{{Revised: 2, Unchanged: 1, Start: 12, End: 24}}, third.Changes)

	record := func(h, value, revision int64, q timeline.Quality, at store.Receipt) timeline.Record {
		return timeline.Record{
			Start: slot.Slot(h * 12), End: slot.Slot(h*12 + 12), Value: decimal(value), Quality: q,
			KnownMS: at.RecordedMS, RecordedMS: at.RecordedMS, Revision: revision,
		}
	}
	gone := record(1, 0, 2, timeline.Measured, third)
	gone.Retracted = true
	same(t, "records", []timeline.Record{
		record(1, 10, 1, timeline.Measured, first), gone, record(1, 10, 3, timeline.Measured, third),
		record(2, 20, 1, timeline.Measured, first), record(2, 21, 2, timeline.Measured, second),
		record(2, 20, 3, timeline.Estimated, second), record(3, 30, 1, timeline.Measured, second),
	}, records(t, s))

	// Longer and shorter intervals revise what they overlap.
	long := store.Interval{Start: 0, End: 48, Value: decimal(5), Quality: timeline.Measured}
	same(t, "long", store.Change{Revised: 1, Start: 0, End: 48}, mustAppend(t, s, long).Changes[0])
	same(t, "inside", store.Change{Revised: 1, Unchanged: 1, Start: 0, End: 12}, mustAppend(t, s, hour(1, 5), hour(0, 6)).Changes[0])
	all := records(t, s)
	if last := all[1]; last.Revision != 5 || last.End != 12 {
		t.Errorf("the hour above revision 4 is %+v", last)
	}
}

// testPollLogTwice: what was corrected within a log is not news when the log is read
// once more, nor is a value that came back.
func testPollLogTwice(t *testing.T, s store.Store) {
	log := []store.Interval{
		known(hour(1, 10), 100), known(hour(1, 11), 200), known(hour(2, 20), 200), known(hour(1, 10), 300),
		known(hour(1, 10), 400), known(hour(2, 22), 500),
	}
	same(t, "once", store.Change{Added: 2, Revised: 3, Unchanged: 1, Start: 12, End: 36}, mustAppend(t, s, log...).Changes[0])
	before := records(t, s)
	same(t, "twice", store.Change{Unchanged: 6}, mustAppend(t, s, log...).Changes[0])
	same(t, "records", before, records(t, s))
	// Known earlier than it was said to be: that is news.
	same(t, "earlier", store.Change{Revised: 1, Start: 24, End: 36}, mustAppend(t, s, known(hour(2, 20), 150)).Changes[0])
}

func testSinceEver(t *testing.T, s store.Store, clock *Clock) {
	table := store.Batch{Key: key, SinceEver: true, Intervals: []store.Interval{{Start: -1000, End: 1000, Value: decimal(1), Quality: timeline.Static}}}
	for i, want := range []store.Change{{Added: 1, Start: -1000, End: 1000}, {Unchanged: 1}} {
		receipt, err := s.Append(t.Context(), []store.Batch{table})
		if err != nil || receipt.Changes[0] != want {
			t.Fatalf("time %d: %+v, %v", i+1, receipt, err)
		}
	}
	clock.Set(start + 5000)
	table.Intervals[0].Value = decimal(2)
	receipt, err := s.Append(t.Context(), []store.Batch{table})
	if err != nil {
		t.Fatal(err)
	}
	got := records(t, s)
	if len(got) != 2 || got[0].RecordedMS != timeline.SinceEver || got[0].KnownMS != timeline.SinceEver ||
		got[1].RecordedMS != receipt.RecordedMS || got[1].KnownMS != receipt.RecordedMS || got[1].Revision != 2 {
		t.Errorf("records %+v", got)
	}
}

func testDescriptions(t *testing.T, s store.Store, clock *Clock) {
	other := key
	other.Source = "another"
	batches := []store.Batch{
		{Key: key, Attribution: "CC BY 4.0", Intervals: []store.Interval{hour(3, 1), hour(5, 1)}},
		{Key: other, Intervals: []store.Interval{retracted(hour(1, 0)), hour(1, 7)}},
		{Key: store.Key{Subject: "AT", Signal: store.Marginal, Source: "import", Product: "observed"}, Intervals: []store.Interval{hour(9, 1)}},
	}
	receipt, err := s.Append(t.Context(), batches)
	if err != nil {
		t.Fatal(err)
	}
	if len(receipt.Changes) != 3 || receipt.Changes[2].Added != 1 {
		t.Errorf("receipt %+v", receipt)
	}
	clock.Set(start + 1000)
	mustAppend(t, s, retracted(hour(7, 0)), hour(2, 1))
	timelines, err := s.Timelines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "timelines", []store.Timeline{
		{Key: batches[2].Key, Revisions: 1, Start: 108, End: 120},
		{Key: other, Revisions: 2, Start: 12, End: 24},
		{Key: key, Attribution: "CC BY 4.0", Revisions: 4, Start: 24, End: 72},
	}, timelines)

	// The newest first record comes first, whatever was added since.
	clock.Set(start + 2000)
	third := key
	third.Source = "later"
	if _, err := s.Append(t.Context(), []store.Batch{{Key: third, Intervals: []store.Interval{hour(1, 1)}}}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, hour(1, 2))
	series, err := s.Series(t.Context(), key.Subject, key.Signal)
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, in := range series {
		sources = append(sources, in.Source)
	}
	same(t, "sources", []string{"later", "another", "import"}, sources)
}

// testMoments: they rise whatever the wall clock does, and beyond what was promised.
func testMoments(t *testing.T, s store.Store, clock *Clock) {
	last := mustAppend(t, s, hour(1, 1)).RecordedMS
	if last != start {
		t.Errorf("the first moment is %d, the clock stood at %d", last, start)
	}
	for i, move := range []int64{0, 0, -60_000, 60_000, 60_000} {
		clock.Set(start + move)
		got := mustAppend(t, s, hour(1, int64(i+2))).RecordedMS
		if got <= last {
			t.Errorf("moment %d after %d", got, last)
		}
		last = got
	}
	clock.Set(start + 120_000)
	s.Hold(start + 120_000)
	if got := mustAppend(t, s, hour(1, 20)).RecordedMS; got != start+120_001 {
		t.Errorf("moment %d, though %d was promised to be past", got, start+120_000)
	}
	clock.Set(start + 180_000)
	s.Hold(start + 999_000_000) // what is to come cannot be promised
	if got := mustAppend(t, s, hour(1, 21)).RecordedMS; got != start+180_001 {
		t.Errorf("moment %d", got)
	}
	// A call that changes nothing has a moment too.
	if got := mustAppend(t, s, hour(1, 21)).RecordedMS; got != start+180_002 {
		t.Errorf("moment %d", got)
	}
}

func testChains(t *testing.T, s store.Store, clock *Clock) {
	declare := func(chains ...store.Chain) {
		t.Helper()
		if err := s.DeclareChains(t.Context(), chains); err != nil {
			t.Fatal(err)
		}
	}
	one := []timeline.Entry{{Source: "a", Product: "observed", MaxAgeMS: 7_200_000}, {Source: "ember", Product: "yearly"}}
	two := []timeline.Entry{{Source: "b", Product: "observed"}}
	de := store.Chain{Subject: "DE", Signal: store.AverageLifecycle, Entries: one}
	fr := store.Chain{Subject: "FR", Signal: store.Marginal, Entries: two}

	declare(fr, de)
	declare(de, fr)
	clock.Set(start + 1000)
	de.Entries = two
	declare(de) // FR is withdrawn
	clock.Set(start + 2000)
	declare(de)
	declare(de, fr)

	chains, err := s.Chains(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "chains", []store.Chain{
		{Subject: "DE", Signal: store.AverageLifecycle, RecordedMS: timeline.SinceEver, Entries: one},
		{Subject: "DE", Signal: store.AverageLifecycle, RecordedMS: start + 1000, Entries: two},
		{Subject: "FR", Signal: store.Marginal, RecordedMS: timeline.SinceEver, Entries: two},
		{Subject: "FR", Signal: store.Marginal, RecordedMS: start + 1000},
		{Subject: "FR", Signal: store.Marginal, RecordedMS: start + 2000, Entries: two},
	}, chains)
}

// testTwin appends at random and reads each moment back as of its time: the highest
// revision over a slot is the last that was told, as in a map that is overwritten.
func testTwin(t *testing.T, s store.Store, clock *Clock) {
	rng := rand.New(rand.NewPCG(7, 11)) //nolint:gosec // a test, to be repeated
	type state map[slot.Slot]int64
	twin := state{}
	var (
		moments []int64
		states  []state
	)
	for range 40 {
		clock.Set(start + rng.Int64N(100_000))
		var batch []store.Interval
		for range rng.IntN(12) {
			from := slot.Slot(rng.IntN(60) - 30)
			in := store.Interval{
				Start: from, End: from + slot.Slot(1+rng.IntN(15)), Value: decimal(1 + rng.Int64N(3)), Quality: timeline.Measured,
			}
			if rng.IntN(6) == 0 {
				in = retracted(in)
			}
			batch = append(batch, in)
			for at := in.Start; at < in.End; at++ {
				twin[at] = in.Value.Coef // 0: none
			}
		}
		moments = append(moments, mustAppend(t, s, batch...).RecordedMS)
		now := state{}
		for at, value := range twin {
			if value != 0 {
				now[at] = value
			}
		}
		states = append(states, now)
	}
	series, err := s.Series(t.Context(), key.Subject, key.Signal)
	if err != nil {
		t.Fatal(err)
	}
	chain := []timeline.Entry{{Source: key.Source, Product: key.Product}}
	for i, at := range moments {
		got := state{}
		for _, step := range timeline.Resolve(chain, series, -100, 100, timeline.AsOf(at)) {
			for in := step.Start; in < step.End; in++ {
				got[in] = step.Value.Coef
			}
		}
		same(t, "as of a moment", states[i], got)
	}
}

// testTogether: calls at once are each whole, and no two have the same moment.
func testTogether(t *testing.T, s store.Store) {
	const calls = 8
	var (
		wait    sync.WaitGroup
		moments [calls]int64
	)
	for i := range calls {
		wait.Go(func() {
			receipt, err := s.Append(t.Context(), []store.Batch{{Key: key, Intervals: []store.Interval{hour(1, int64(i+1)), hour(2, int64(i+1))}}})
			if err != nil {
				t.Errorf("append: %v", err)
			}
			moments[i] = receipt.RecordedMS
			if _, err := s.Series(t.Context(), key.Subject, key.Signal); err != nil {
				t.Errorf("series: %v", err)
			}
		})
	}
	wait.Wait()
	seen := map[int64]bool{}
	for _, ms := range moments {
		if seen[ms] {
			t.Errorf("moment %d was given out twice", ms)
		}
		seen[ms] = true
	}
	if got := len(records(t, s)); got != 2*calls {
		t.Errorf("%d records of %d", got, 2*calls)
	}
}

func testCancelled(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, []store.Batch{{Key: key, Intervals: []store.Interval{hour(1, 1)}}}); err == nil {
		t.Error("append under a cancelled context succeeded")
	}
	if err := s.DeclareChains(ctx, []store.Chain{{Subject: "DE", Signal: store.Marginal, Entries: []timeline.Entry{{Source: "a"}}}}); err == nil {
		t.Error("declare under a cancelled context succeeded")
	}
	testEmpty(t, s)
}

// testFault: whichever way a call failed, making it once more ends in the same place.
func testFault(t *testing.T, s *Faulty, fault Fault) {
	mustAppend(t, s, hour(1, 10))
	batch := []store.Batch{{Key: key, Intervals: []store.Interval{hour(1, 11), hour(2, 20)}}}
	s.Break(fault)
	if _, err := s.Append(t.Context(), batch); !errors.Is(err, ErrBroken) {
		t.Fatalf("error %v", err)
	}
	if got, want := len(records(t, s)), map[Fault]int{NotApplied: 1, Applied: 3}[fault]; got != want {
		t.Errorf("%d records after the failure, want %d", got, want)
	}
	if _, err := s.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var got [][2]int64
	for _, r := range records(t, s) {
		got = append(got, [2]int64{r.Value.Coef, r.Revision})
	}
	same(t, "records", [][2]int64{{1, 1}, {11, 2}, {2, 1}}, got)
}

func testReopened(t *testing.T, open func(t *testing.T, dir string, now func() time.Time) store.Store) {
	dir, clock := t.TempDir(), &Clock{ms: start}
	s := open(t, dir, clock.Now)
	if err := s.DeclareChains(t.Context(), []store.Chain{{Subject: "DE", Signal: store.Marginal, Entries: []timeline.Entry{{Source: "a", Product: "b"}}}}); err != nil {
		t.Fatal(err)
	}
	exact, err := unit.ParseDecimal("192.7840377205172353")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := unit.ParseDecimal("425.01605069")
	if err != nil {
		t.Fatal(err)
	}
	in := known(hour(1, 0), 77)
	in.Value, in.Raw, in.RawUnit = exact, raw, "lb/MWh"
	last := mustAppend(t, s, in, retracted(hour(1, 0))).RecordedMS
	before := records(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	clock.Set(start - 3_600_000) // somebody set the clock back meanwhile
	s = open(t, dir, clock.Now)
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	same(t, "records", before, records(t, s))
	if got := before[0].Value; got != exact {
		t.Errorf("value %s, want %s", got, exact)
	}
	if got := mustAppend(t, s, hour(2, 1)).RecordedMS; got <= last {
		t.Errorf("moment %d after %d", got, last)
	}
	chains, err := s.Chains(t.Context())
	if err != nil || len(chains) != 1 || chains[0].RecordedMS != timeline.SinceEver {
		t.Errorf("chains %+v, %v", chains, err)
	}
}
