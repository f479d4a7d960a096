package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
)

// Open opens the store in a directory; on the second call for a directory it is
// opened again.
type Open func(t *testing.T, dir string, now func() time.Time) ledger.Store

// Run runs the suite. lasting says that a store opened again holds what it held.
func Run(t *testing.T, lasting bool, open Open) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s ledger.Store)
	}{
		{"Commit", testCommit},
		{"Fence", testFence},
		{"Conflict", testConflict},
		{"Booking", testBooking},
		{"Overflow", testOverflow},
		{"Sites", testSites},
		{"Runs", testRuns},
		{"Windows", testWindows},
		{"Tail", testTail},
		{"Meters", testMeters},
		{"Replace", testReplace},
		{"Rejected", testRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), stopped)
			defer closeStore(t, s)
			c.test(t, s)
		})
	}
	t.Run("Twin", func(t *testing.T) {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { testTwin(t, seed, lasting, open) })
		}
	})
}

// stopped is a clock that stands at 1000 s.
func stopped() time.Time { return time.Unix(1000, 0) }

func closeStore(t *testing.T, s ledger.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// one is a transaction of one producer, which fixtures add to.
type fixture struct {
	t         *testing.T
	s         ledger.Store
	positions []ledger.Position
	producers map[ledger.ProducerKey]ledger.Producer
}

func newFixture(t *testing.T, s ledger.Store) *fixture {
	t.Helper()
	f := &fixture{t: t, s: s, producers: map[ledger.ProducerKey]ledger.Producer{}}
	f.acquire()
	return f
}

func (f *fixture) acquire() {
	f.t.Helper()
	var err error
	if f.positions, err = f.s.Acquire(f.t.Context(), "me", "stream@1", []int{7, 8}); err != nil {
		f.t.Fatalf("Acquire: %v", err)
	}
}

// commit commits the batches, in order of their sequences, at a second.
func (f *fixture) commit(second int64, batches ...ledger.TxBatch) ledger.Committed {
	f.t.Helper()
	tx := f.tx(second, nil, batches...)
	c, err := f.s.Commit(f.t.Context(), tx)
	if err != nil {
		f.t.Fatalf("Commit: %v", err)
	}
	f.applied(tx)
	return c
}

func (f *fixture) tx(second int64, info *ledger.ImportInfo, batches ...ledger.TxBatch) *ledger.Tx {
	tx := &ledger.Tx{Owner: "me", Fences: slices.Clone(f.positions), CommitMS: second * 1000, Batches: batches}
	moves := map[ledger.ProducerKey]int{}
	for _, b := range batches {
		i, found := moves[b.ProducerKey]
		if !found {
			i = len(tx.Producers)
			moves[b.ProducerKey] = i
			old := f.producers[b.ProducerKey]
			old.ProducerKey = b.ProducerKey
			tx.Producers = append(tx.Producers, ledger.ProducerMove{Site: b.Site, Old: old, New: old})
		}
		tx.Producers[i].New.Floor = b.Sequence
		tx.Producers[i].New.Import = info
	}
	return tx
}

func (f *fixture) applied(tx *ledger.Tx) {
	for _, m := range tx.Producers {
		f.producers[m.New.ProducerKey] = m.New
	}
}

func producer(first byte) [16]byte { return [16]byte{first, 1, 2} }

// batch is a batch of one series with a part in each slot from first on.
func batch(key ledger.ProducerKey, sequence uint64, node string, s *ledger.Series, first slot.Slot, energies ...unit.Energy) ledger.TxBatch {
	b := ledger.TxBatch{Site: "s", Node: node, ProducerKey: key, Sequence: sequence}
	b.Series = []ledger.TxSeries{{Series: s, FirstMS: first.StartMS(), LastMS: (first + slot.Slot(len(energies)) - 1).EndMS()}}
	for i, e := range energies {
		at := first + slot.Slot(i)
		b.Series[0].Parts = append(b.Series[0].Parts, segment.Part{
			Slot: at, StartMS: at.StartMS(), EndMS: at.EndMS(), Energy: e, ObservedMS: slot.Millis,
		})
	}
	return b
}

func gpu(run, project string) *ledger.Series {
	s := &ledger.Series{Device: "gpu/0", Component: "gpu", PeriodMS: 1000}
	if run+project != "" {
		s.Run = &ledger.Run{Name: run, Project: project, Labels: map[string]string{"k": run}}
	}
	return s
}

func postings(t *testing.T, s ledger.Reader, f ledger.Filter) []ledger.PostingRow {
	t.Helper()
	var rows []ledger.PostingRow
	last := slot.Slot(math.MinInt64)
	if err := s.Postings(t.Context(), f, func(p ledger.PostingRow) error {
		if p.Slot < last {
			t.Errorf("slot %v after slot %v", p.Slot, last)
		}
		last = p.Slot
		rows = append(rows, p)
		return nil
	}); err != nil {
		t.Fatalf("Postings: %v", err)
	}
	return merge(rows)
}

// merge sums what a store may keep in several rows, and orders what it need not.
func merge(rows []ledger.PostingRow) []ledger.PostingRow {
	type key struct {
		ledger.Account
		slot   slot.Slot
		booked int64
	}
	sums := map[key]*ledger.PostingRow{}
	var keys []key
	for _, r := range rows {
		k := key{r.Account, r.Slot, r.Booked}
		sum := sums[k]
		if sum == nil {
			sum = &ledger.PostingRow{Account: r.Account, Slot: r.Slot, Booked: r.Booked}
			sums[k] = sum
			keys = append(keys, k)
		}
		sum.Energy += r.Energy
		sum.ObservedMS += r.ObservedMS
		sum.InterpolatedMS += r.InterpolatedMS
		sum.MissingMS += r.MissingMS
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmpText(fmt.Sprint(a.slot, a.Account, a.booked), fmt.Sprint(b.slot, b.Account, b.booked))
	})
	merged := []ledger.PostingRow{}
	for _, k := range keys {
		merged = append(merged, *sums[k])
	}
	return merged
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

func details(t *testing.T, s ledger.Reader, f ledger.DetailFilter) []ledger.DetailRow {
	t.Helper()
	rows := []ledger.DetailRow{}
	if err := s.Details(t.Context(), f, func(d ledger.DetailRow) error {
		d.Parts = slices.Clone(d.Parts)
		rows = append(rows, d)
		return nil
	}); err != nil {
		t.Fatalf("Details: %v", err)
	}
	return rows
}

// total is Σ postings, having checked it against Σ details.
func total(t *testing.T, s ledger.Reader, f ledger.Filter) unit.Sum {
	t.Helper()
	var sum, again unit.Sum
	if err := s.Postings(t.Context(), f, func(p ledger.PostingRow) error {
		sum.Add(p.Energy)
		return nil
	}); err != nil {
		t.Fatalf("Postings: %v", err)
	}
	for _, d := range details(t, s, ledger.DetailFilter{Filter: f}) {
		for _, p := range d.Parts {
			again.Add(p.Energy)
		}
	}
	if sum != again {
		t.Errorf("%+v: Σ postings = %v, Σ details = %v", f, sum, again)
	}
	return sum
}

func testCommit(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: math.MaxUint64}
	f.positions[0].Stream, f.positions[0].Sequence = "stream@1", 40
	f.positions[1].Stream, f.positions[1].Sequence = "stream@1", 40
	series := gpu("r", "p")
	c := f.commit(1000, batch(key, 1, "n1", series, 0, 5, 6), batch(key, 2, "n2", gpu("r", "p"), 1, 7))
	if c.Booked != 1000 || c.LastDetail != 2 {
		t.Errorf("Commit = %+v", c)
	}
	// A series that the store has seen before.
	f.commit(1001, batch(key, 3, "n1", series, 1, math.MaxInt32))

	want := []ledger.PostingRow{
		{Account: ledger.Account{Site: "s", Run: "r", Project: "p", Component: "gpu"}, Slot: 0, Energy: 5, ObservedMS: slot.Millis},
		{Account: ledger.Account{Site: "s", Run: "r", Project: "p", Component: "gpu"}, Slot: 1, Energy: 13 + math.MaxInt32, ObservedMS: 3 * slot.Millis},
	}
	if diff := cmp.Diff(want, postings(t, s, ledger.Filter{})); diff != "" {
		t.Errorf("postings (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		filter ledger.Filter
		want   unit.Sum
	}{
		{ledger.Filter{Site: "s", Run: "r", Project: "p", Component: "gpu"}, unit.SumOf(18, math.MaxInt32)},
		{ledger.Filter{Site: "x"}, unit.Sum{}},
		{ledger.Filter{Run: "x"}, unit.Sum{}},
		{ledger.Filter{Project: "x"}, unit.Sum{}},
		{ledger.Filter{Component: "x"}, unit.Sum{}},
		{ledger.Filter{To: 1}, unit.SumOf(5)},
		{ledger.Filter{From: 1}, unit.SumOf(13, math.MaxInt32)},
	} {
		if got := total(t, s, c.filter); got != c.want {
			t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
		}
	}
	byNode := details(t, s, ledger.DetailFilter{Filter: ledger.Filter{Node: "n1", From: 1, To: 2}})
	if len(byNode) != 2 || byNode[0].Parts[0].Energy != 6 || byNode[1].Parts[0].Energy != math.MaxInt32 ||
		byNode[0].Parts[0].SeriesKey != series.Key("s", "n1") || byNode[0].Parts[0].Project != "p" {
		t.Errorf("details of n1 in slot 1 = %+v", byNode)
	}
	first, last, ok, err := s.Extent(t.Context(), ledger.Filter{Run: "r"})
	if first != 0 || last != 1 || !ok || err != nil {
		t.Errorf("Extent = %v, %v, %v, %v", first, last, ok, err)
	}
	if _, _, ok, err := s.Extent(t.Context(), ledger.Filter{Run: "x"}); ok || err != nil {
		t.Errorf("Extent of nothing = %v, %v", ok, err)
	}
	first, last, ok, err = s.Extent(t.Context(), ledger.Filter{Node: "n2"})
	if first != 1 || last != 1 || !ok || err != nil {
		t.Errorf("Extent of n2 = %v, %v, %v, %v", first, last, ok, err)
	}
	tick, committed, err := s.Freshness(t.Context(), ledger.Filter{})
	if tick != 2*slot.Millis || committed != 1001 || err != nil {
		t.Errorf("Freshness = %v, %v, %v", tick, committed, err)
	}
	known, err := s.Producers(t.Context(), "s", []ledger.ProducerKey{key, {Producer: producer(9)}})
	if err != nil || len(known) != 1 || known[0].Floor != 3 || known[0].ProducerKey != key {
		t.Errorf("Producers = %+v, %v", known, err)
	}
	f.acquire()
	if p := f.positions[1]; p.Fence != 2 || p.Sequence != 40 || p.Stream != "stream@1" {
		t.Errorf("Acquire again = %+v", p)
	}
	stop := errors.New("stop")
	if err := s.Postings(t.Context(), ledger.Filter{}, func(ledger.PostingRow) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Postings with a yield that fails = %v", err)
	}
	if err := s.Details(t.Context(), ledger.DetailFilter{}, func(ledger.DetailRow) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Details with a yield that fails = %v", err)
	}
}

func testFence(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	stale := f.tx(1000, nil, batch(key, 1, "n", gpu("", ""), 0, 5))
	f.acquire()
	if _, err := s.Commit(t.Context(), stale); !errors.Is(err, ledger.ErrFenced) {
		t.Fatalf("Commit with a stale fence: %v", err)
	}
	if got := total(t, s, ledger.Filter{}); got != (unit.Sum{}) {
		t.Errorf("a refused commit left %v", got)
	}
	series := gpu("", "")
	f.commit(1000, batch(key, 1, "n", series, 0, 5))
	other := f.tx(1000, nil, batch(key, 2, "n", series, 0, 5))
	other.Owner = "another"
	if _, err := s.Commit(t.Context(), other); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("Commit of another owner: %v", err)
	}
}

func testConflict(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	first := f.tx(1000, nil, batch(key, 1, "n", gpu("a", ""), 0, 5))
	again := f.tx(1000, nil, batch(key, 1, "n", gpu("b", ""), 0, 5))
	if _, err := s.Commit(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), again); !errors.Is(err, ledger.ErrConflict) {
		t.Fatalf("Commit of a batch that is in: %v", err)
	}
	f.applied(first)
	ranges := f.tx(1000, nil, batch(key, 2, "n", gpu("c", ""), 0, 1))
	ranges.Producers[0].New.Floor = 1
	ranges.Producers[0].New.Ranges = []ledger.Range{{First: 3, Last: 4}, {First: 9, Last: math.MaxUint64 - 1}}
	ranges.Producers[0].New.Refused = map[string]uint64{"duplicate_meter": 3}
	if _, err := s.Commit(t.Context(), ranges); err != nil {
		t.Fatal(err)
	}
	known, err := s.Producers(t.Context(), "s", []ledger.ProducerKey{{Producer: key.Producer}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ledger.Producer{ranges.Producers[0].New}, known); diff != "" {
		t.Errorf("Producers (-want +got):\n%s", diff)
	}
	if _, err := s.Commit(t.Context(), ranges); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("Commit over other ranges: %v", err)
	}
	// The name of a run that came with a refused commit may be used again.
	f.applied(ranges)
	f.commit(1000, batch(key, 5, "n", gpu("b", ""), 0, 2))
	if got := total(t, s, ledger.Filter{Run: "b"}); got != unit.SumOf(2) {
		t.Errorf("run b has %v", got)
	}
}

func testBooking(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	series := gpu("r", "")
	// Slot 0 ends at 300 s and is on time until 3900 s.
	if c := f.commit(3900, batch(key, 1, "n", series, 0, 1)); c.Booked != 3900 {
		t.Errorf("booked %d", c.Booked)
	}
	tx := f.tx(0, nil, batch(key, 2, "n", series, 0, 2))
	tx.CommitMS = 3_900_001
	c, err := s.Commit(t.Context(), tx)
	if err != nil || c.Booked != 3901 {
		t.Fatalf("Commit = %+v, %v", c, err)
	}
	f.applied(tx)
	// The clock ran backwards.
	if c := f.commit(3000, batch(key, 3, "n", series, 0, 4)); c.Booked != 3901 {
		t.Errorf("booked %d after a clock that ran backwards", c.Booked)
	}
	for by, want := range map[int64]unit.Sum{0: unit.SumOf(7), 3900: unit.SumOf(1), 3901: unit.SumOf(7), 1: unit.SumOf(1)} {
		if got := total(t, s, ledger.Filter{BookedBy: by}); got != want {
			t.Errorf("booked by %d: %v, want %v", by, got, want)
		}
	}
	// The store's clock stands at 1000: it promises no more than that.
	if err := s.Hold(t.Context(), 5000); err != nil {
		t.Fatal(err)
	}
	if c := f.commit(3000, batch(key, 4, "n", series, 0, 8)); c.Booked != 3901 {
		t.Errorf("booked %d after a promise beyond the clock", c.Booked)
	}
}

func testOverflow(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	series := gpu("r", "")
	f.commit(1000, batch(key, 1, "n", series, 0, math.MaxInt64-1))
	for _, energies := range [][]unit.Energy{{2}, {math.MaxInt64}} {
		tx := f.tx(1000, nil, batch(key, 2, "n", series, 0, energies...))
		if _, err := s.Commit(t.Context(), tx); !errors.Is(err, ledger.ErrOverflow) {
			t.Errorf("Commit of %v more: %v", energies, err)
		}
	}
	both := f.tx(1000, nil, batch(key, 2, "n", series, 1, math.MaxInt64), batch(key, 3, "n", series, 1, 1))
	if _, err := s.Commit(t.Context(), both); !errors.Is(err, ledger.ErrOverflow) {
		t.Errorf("Commit of too much in one: %v", err)
	}
	f.commit(1000, batch(key, 2, "n", series, 0, 1))
	// Other bookings and accounts have their own rows, and the sum knows no bound.
	f.commit(1_000_000, batch(key, 3, "n", series, 0, math.MaxInt64))
	if got := total(t, s, ledger.Filter{}); got != unit.SumOf(math.MaxInt64, math.MaxInt64) {
		t.Errorf("total %v", got)
	}
	// What was booked in several seconds is taken back in one.
	before := total(t, s, ledger.Filter{})
	imported := func(epoch uint64) ledger.ProducerKey { return ledger.ProducerKey{Producer: producer(8), Epoch: epoch} }
	put := func(second int64, epoch, last, sequence uint64, node string, energy unit.Energy) {
		t.Helper()
		info := &ledger.ImportInfo{ID: "i", Content: []byte{byte(epoch)}, Last: last, Replace: epoch > 1}
		tx := f.tx(second, info, batch(imported(epoch), sequence, node, gpu("r", ""), 0, energy))
		if _, err := s.Commit(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		f.applied(tx)
	}
	for i := range uint64(3) {
		put(2_000_000+int64(i), 1, 3, i+1, fmt.Sprint("n", i), math.MaxInt64)
	}
	put(3_000_000, 2, 1, 1, "n0", 5)
	before.Add(5)
	if got := total(t, s, ledger.Filter{}); got != before {
		t.Errorf("total %v after too much was replaced, want %v", got, before)
	}
}

func testSites(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	f.commit(1000, batch(ledger.ProducerKey{Producer: producer(7), Epoch: 1}, 1, "n", gpu("", ""), 0, 1))
	pue := unit.Decimal{Coef: 11, Exp: -1}
	heard, created, err := s.CreateSite(t.Context(), ledger.Site{Name: "s", Zone: "FR", PUE: &pue, CreatedMS: 5})
	want := ledger.Site{Name: "s", Zone: "FR", PUE: &pue, CreatedMS: 1_000_000, Declared: true}
	if diff := cmp.Diff(want, heard); diff != "" || !created || err != nil {
		t.Errorf("CreateSite of one heard of: %v, %v (-want +got):\n%s", created, err, diff)
	}
	again, created, err := s.CreateSite(t.Context(), ledger.Site{Name: "s", Zone: "DE"})
	if diff := cmp.Diff(want, again); diff != "" || created || err != nil {
		t.Errorf("CreateSite again: %v, %v (-want +got):\n%s", created, err, diff)
	}
	fresh := ledger.Site{Name: "a", CreatedMS: 7, Declared: true}
	if got, created, err := s.CreateSite(t.Context(), ledger.Site{Name: "a", CreatedMS: 7}); !cmp.Equal(got, fresh) || !created || err != nil {
		t.Errorf("CreateSite = %+v, %v, %v", got, created, err)
	}
	if got, err := s.ListSites(t.Context(), "", 10); !cmp.Equal(got, []ledger.Site{fresh, want}) || err != nil {
		t.Errorf("ListSites = %+v, %v", got, err)
	}
	if got, err := s.ListSites(t.Context(), "a", 1); !cmp.Equal(got, []ledger.Site{want}) || err != nil {
		t.Errorf("ListSites after a = %+v, %v", got, err)
	}
}

func testRuns(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	f.commit(1000,
		batch(key, 1, "n", gpu("r", ""), 0, 1),  // not known yet
		batch(key, 2, "n", gpu("r", "p"), 0, 2), // the first known
		batch(key, 3, "n", gpu("r", "q"), 0, 4), // not the first
		batch(key, 4, "n", gpu("", "p"), 0, 8),  // a project without a run
		batch(key, 5, "n", gpu("", "q"), 0, 16),
		batch(key, 6, "n", gpu("", ""), 0, 32))
	for project, want := range map[string]unit.Energy{"p": 15, "q": 16, "": 63} {
		if got := total(t, s, ledger.Filter{Project: project}); got != unit.SumOf(want) {
			t.Errorf("project %q: %v, want %v", project, got, want)
		}
	}
	if got := total(t, s, ledger.Filter{Run: "r"}); got != unit.SumOf(7) {
		t.Errorf("run r: %v", got)
	}
}

func testWindows(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	series := gpu("r", "p")
	series.Run.ClipStartMS, series.Run.ClipEndMS = 5, 9
	closing := batch(key, 1, "n", series, 4, 1)
	closing.Series[0].Closed = true
	f.commit(1000, closing)
	f.commit(1001, batch(key, 2, "n", series, 1, 1)) // earlier, later
	want := ledger.SeriesWindow{
		SeriesKey: series.Key("s", "n"), Project: "p", PeriodMS: 1000, FirstMS: slot.Slot(1).StartMS(), LastMS: slot.Slot(4).EndMS(),
		ClosedMS: slot.Slot(4).EndMS(), ClipStartMS: 5, ClipEndMS: 9, Booked: 1000,
	}
	check := func(what string, filter ledger.Filter, want ...ledger.SeriesWindow) {
		t.Helper()
		got, err := s.SeriesWindows(t.Context(), filter)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", what, err, diff)
		}
	}
	check("all", ledger.Filter{}, want)
	check("named", ledger.Filter{Site: "s", Node: "n", Run: "r", Project: "p", Component: "gpu", From: 9, BookedBy: 1000}, want)
	check("another node", ledger.Filter{Node: "m"})
	check("before it", ledger.Filter{To: 1})
	check("booked before it", ledger.Filter{BookedBy: 999})
	f.commit(1002, batch(key, 3, "n", series, 5, 1)) // it goes on
	want.LastMS, want.ClosedMS = slot.Slot(5).EndMS(), 0
	check("gone on", ledger.Filter{}, want)
}

func testTail(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	key := ledger.ProducerKey{Producer: producer(7), Epoch: 1}
	a, b := gpu("a", ""), gpu("b", "")
	if id, err := s.LastDetail(t.Context()); id != 0 || err != nil {
		t.Errorf("LastDetail = %v, %v", id, err)
	}
	for i := range uint64(6) {
		f.commit(1000, batch(key, 2*i+1, "n", a, 0, 1), batch(key, 2*i+2, "m", b, 0, 1))
	}
	after, ids := int64(3), []int64{}
	for range 4 {
		for _, row := range details(t, s, ledger.DetailFilter{Filter: ledger.Filter{Run: "a"}, AfterID: after, Limit: 2}) {
			ids = append(ids, row.ID)
			after = row.ID
		}
	}
	if !slices.Equal(ids, []int64{5, 7, 9, 11}) {
		t.Errorf("tail of run a = %v", ids)
	}
	if id, err := s.LastDetail(t.Context()); id != 12 || err != nil {
		t.Errorf("LastDetail = %v, %v", id, err)
	}
}

func testMeters(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	span := func(device string, p byte, first, last int64) ledger.MeterSpan {
		return ledger.MeterSpan{Device: device, Producer: producer(p), FirstMS: first, LastMS: last}
	}
	put := func(spans ...ledger.MeterSpan) {
		t.Helper()
		tx := f.tx(1000, nil)
		tx.Meters = []ledger.TxMeter{{Site: "s", Node: "n", Producer: spans[0].Producer, Spans: spans}}
		if _, err := s.Commit(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	}
	put(span("gpu/0", 7, -5, 10), span("gpu/0", 7, 40, 50), span("gpu/1", 7, 0, math.MaxInt64/2))
	put(span("gpu/0", 8, 10, 40))
	put(span("gpu/0", 7, -5, 10), span("gpu/0", 7, 40, 60))
	want := []ledger.MeterSpan{span("gpu/0", 7, -5, 10), span("gpu/0", 7, 40, 60), span("gpu/0", 8, 10, 40)}
	got, err := s.Meters(t.Context(), "s", "n")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Meters: %v (-want +got):\n%s", err, diff)
	}
	if got, err := s.Meters(t.Context(), "s", "m"); len(got) != 0 || err != nil {
		t.Errorf("Meters of another node = %v, %v", got, err)
	}
}

func testReplace(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	info := func(last uint64, replace bool) *ledger.ImportInfo {
		return &ledger.ImportInfo{ID: "i", Content: []byte{1}, Last: last, Replace: replace}
	}
	key := func(epoch uint64) ledger.ProducerKey { return ledger.ProducerKey{Producer: producer(7), Epoch: epoch} }
	commit := func(second int64, info *ledger.ImportInfo, batches ...ledger.TxBatch) {
		t.Helper()
		tx := f.tx(second, info, batches...)
		for _, b := range batches {
			tx.Meters = append(tx.Meters, ledger.TxMeter{Site: "s", Node: b.Node, Producer: b.Producer, Spans: []ledger.MeterSpan{{
				Device: "gpu/0", Producer: b.Producer, FirstMS: 0, LastMS: slot.Slot(9).EndMS(),
			}}})
		}
		if _, err := s.Commit(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		f.applied(tx)
	}
	f.commit(1000, batch(ledger.ProducerKey{Producer: producer(7), Epoch: 77}, 1, "other", gpu("r", ""), 0, 1000))
	series, gone := gpu("r", ""), gpu("gone", "")
	commit(1000, info(2, false), batch(key(1), 1, "n", series, 0, 1, 2), batch(key(1), 2, "n", gone, 2, 4))
	commit(9000, info(2, true), batch(key(2), 1, "n", series, 0, 8))
	if got := total(t, s, ledger.Filter{}); got != unit.SumOf(1015) {
		t.Errorf("with half of the new one in: %v", got)
	}
	commit(9001, info(2, true), batch(key(2), 2, "n", series, 1, 16))
	if got := total(t, s, ledger.Filter{}); got != unit.SumOf(1024) {
		t.Errorf("replaced: %v", got)
	}
	if got := total(t, s, ledger.Filter{BookedBy: 9000}); got != unit.SumOf(1015) {
		t.Errorf("as of before: %v", got)
	}
	for _, node := range []string{"", "n"} {
		for by, want := range map[int64][2]slot.Slot{0: {0, 1}, 9000: {0, 2}} {
			if first, last, ok, err := s.Extent(t.Context(), ledger.Filter{Node: node, BookedBy: by}); first != want[0] || last != want[1] || !ok || err != nil {
				t.Errorf("extent of node %q as of %d: %v to %v, %v, %v", node, by, first, last, ok, err)
			}
		}
		if first, last, ok, err := s.Extent(t.Context(), ledger.Filter{Node: node, Run: "gone"}); last >= first || !ok || err != nil {
			t.Errorf("extent of what was taken back: %v to %v, %v, %v", first, last, ok, err)
		}
	}
	var observed int64
	for _, p := range postings(t, s, ledger.Filter{}) {
		observed += p.ObservedMS
	}
	if observed != 3*slot.Millis {
		t.Errorf("observed %d ms", observed)
	}
	windows, err := s.SeriesWindows(t.Context(), ledger.Filter{Node: "n"})
	if err != nil || len(windows) != 1 || windows[0].Run != "r" || windows[0].LastMS != slot.Slot(1).EndMS() {
		t.Errorf("windows = %+v, %v", windows, err)
	}
	spans, err := s.Meters(t.Context(), "s", "n")
	if err != nil || len(spans) != 1 || spans[0].FirstMS != 0 || spans[0].LastMS != slot.Slot(1).EndMS() {
		t.Errorf("meters = %+v, %v", spans, err)
	}
	known, err := s.Producers(t.Context(), "s", []ledger.ProducerKey{{Producer: producer(7)}})
	if err != nil || len(known) != 3 || known[0].Floor != 2 || !known[0].Complete() || !known[1].Complete() {
		t.Errorf("Producers = %+v, %v", known, err)
	}
	// A third time: what was negated is not negated again.
	commit(9002, info(1, true), batch(key(3), 1, "n", series, 0, 32))
	if got := total(t, s, ledger.Filter{}); got != unit.SumOf(1032) {
		t.Errorf("replaced again: %v", got)
	}
}

func testRejected(t *testing.T, s ledger.Store) {
	f := newFixture(t, s)
	for _, second := range []int64{1000, 1001, 100_000} {
		tx := f.tx(second, nil)
		tx.Sites = []string{"empty"}
		tx.Rejected = map[string]map[string]uint64{"a": {"blank": 2, "malformed": 1}, "b": {"blank": 5}}
		if _, err := s.Commit(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	}
	for site, want := range map[string]map[string]uint64{
		"a": {"blank": 6, "malformed": 3}, "": {"blank": 21, "malformed": 3}, "empty": {},
	} {
		if got, err := s.Rejected(t.Context(), site); !cmp.Equal(got, want) || err != nil {
			t.Errorf("Rejected(%q) = %v, %v", site, got, err)
		}
	}
}

// testTwin commits at random and compares every answer with the memory's.
func testTwin(t *testing.T, seed uint64, lasting bool, open Open) {
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	s := open(t, dir, stopped)
	twin := memstore.New(stopped)
	f, g := newFixture(t, s), newFixture(t, twin)
	series := map[string]*ledger.Series{}
	names := []string{"", "a", "b"}
	sequences := map[ledger.ProducerKey]uint64{}
	second := int64(100_000)
	for range 30 {
		var ours, theirs []ledger.TxBatch
		for range rng.IntN(6) {
			key := ledger.ProducerKey{Producer: producer(byte(rng.IntN(3))), Epoch: rng.Uint64N(2) + 1}
			sequences[key]++
			b := randomBatch(rng, key, sequences[key], names)
			other := b
			other.Series = slices.Clone(b.Series)
			for i := range b.Series {
				x := &b.Series[i]
				copied := *x.Series
				other.Series[i].Series = &copied
				name := fmt.Sprintf("%v %v", x.Key(b.Site, b.Node), x.Run)
				if series[name] == nil {
					series[name] = x.Series
				}
				x.Series = series[name]
			}
			ours, theirs = append(ours, b), append(theirs, other)
		}
		second += rng.Int64N(4000)
		if f.commit(second, ours...) != g.commit(second, theirs...) {
			t.Fatalf("commits at %d differ", second)
		}
		if lasting && rng.IntN(5) == 0 {
			closeStore(t, s)
			s = open(t, dir, stopped)
			f.s = s
			clear(series)
		}
	}
	defer closeStore(t, s)
	pick := func() string { return names[rng.IntN(len(names))] }
	for range 60 {
		filter := ledger.Filter{Site: pick(), Run: pick(), Project: pick(), Component: pick(), Node: pick()}
		if rng.IntN(2) == 0 {
			filter.From = slot.Slot(rng.IntN(300))
			filter.To = filter.From + slot.Slot(rng.IntN(100)) + 1
		}
		if rng.IntN(3) == 0 {
			filter.BookedBy = 100_000 + rng.Int64N(second-100_000)
		}
		got, want := answers(t, s, filter), answers(t, twin, filter)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%+v (-twin +store):\n%s", filter, diff)
		}
	}
}

// answer is all that a store says to a filter.
type answer struct {
	Postings        []ledger.PostingRow
	Details         []ledger.DetailRow
	Windows         []ledger.SeriesWindow
	First, Last     slot.Slot
	OK              bool
	Tick, Committed int64
}

func answers(t *testing.T, s ledger.Store, f ledger.Filter) answer {
	t.Helper()
	a := answer{Postings: postings(t, s, f), Details: details(t, s, ledger.DetailFilter{Filter: f})}
	var errs [3]error
	a.Windows, errs[0] = s.SeriesWindows(t.Context(), f)
	a.First, a.Last, a.OK, errs[1] = s.Extent(t.Context(), f)
	a.Tick, a.Committed, errs[2] = s.Freshness(context.Background(), f)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(a.Windows, func(x, y ledger.SeriesWindow) int {
		return cmpText(fmt.Sprint(x), fmt.Sprint(y))
	})
	for i := range a.Details {
		slices.SortStableFunc(a.Details[i].Parts, func(x, y ledger.DetailPart) int {
			return cmpText(fmt.Sprint(x), fmt.Sprint(y))
		})
	}
	return a
}

func randomBatch(rng *rand.Rand, key ledger.ProducerKey, sequence uint64, names []string) ledger.TxBatch {
	pick := func() string { return names[rng.IntN(len(names))] }
	b := ledger.TxBatch{Site: names[1+key.Producer[0]%2], Node: names[1+rng.IntN(2)], ProducerKey: key, Sequence: sequence}
	for i := range 1 + rng.IntN(3) {
		x := &ledger.Series{Device: fmt.Sprint("d/", i), Component: names[1+rng.IntN(2)], Workload: pick(), Modelled: rng.IntN(2) == 0, PeriodMS: 1000}
		if run := pick(); run != "" {
			x.Run = &ledger.Run{Name: run, Project: "of-" + run}
		} else if project := pick(); project != "" {
			x.Run = &ledger.Run{Project: project}
		}
		first := slot.Slot(rng.IntN(300))
		s := ledger.TxSeries{Series: x, FirstMS: first.StartMS() + rng.Int64N(slot.Millis), Closed: rng.IntN(4) == 0}
		s.LastMS = s.FirstMS
		at := first
		for range rng.IntN(4) {
			p := segment.Part{Slot: at, StartMS: at.StartMS() + rng.Int64N(1000), Energy: unit.Energy(rng.Int64() >> rng.IntN(60) >> 12)}
			p.EndMS = p.StartMS + rng.Int64N(100_000)
			p.MissingMS = rng.Int64N(p.EndMS - p.StartMS + 1)
			p.ObservedMS = p.EndMS - p.StartMS - p.MissingMS - rng.Int64N(2)
			s.Parts = append(s.Parts, p)
			s.LastMS = max(s.LastMS, p.EndMS)
			at += 1 + slot.Slot(rng.IntN(20))
		}
		b.Series = append(b.Series, s)
	}
	return b
}
