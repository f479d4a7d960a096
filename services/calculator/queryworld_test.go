package calculator

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
)

// fakeGrid is gridfeed by the book: records in memory, resolved anew for every
// call, in short pages.
type fakeGrid struct {
	gridv1.UnimplementedGridServiceServer
	page int

	mu     sync.Mutex
	lanes  map[gridLane]*gridRecords
	broken error
	asked  int
}

type gridLane struct {
	zone   string
	signal signal
}

type gridRecords struct {
	chain  []timeline.Entry
	series []timeline.Series
}

func newFakeGrid() *fakeGrid { return &fakeGrid{page: 7, lanes: map[gridLane]*gridRecords{}} }

// add stores a record of a source, whose product is observed.
func (g *fakeGrid) add(zone string, s signal, source string, maxAgeMS int64, r timeline.Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lane := g.lanes[gridLane{zone, s}]
	if lane == nil {
		lane = &gridRecords{}
		g.lanes[gridLane{zone, s}] = lane
	}
	i := slices.IndexFunc(lane.series, func(x timeline.Series) bool { return x.Source == source })
	if i < 0 {
		i = len(lane.series)
		lane.series = append(lane.series, timeline.Series{Source: source, Product: "observed"})
		lane.chain = append(lane.chain, timeline.Entry{Source: source, Product: "observed", MaxAgeMS: maxAgeMS})
	}
	revised, _ := timeline.Revise(lane.series[i].Records, r)
	lane.series[i].Records = append(lane.series[i].Records, revised)
}

// resolve answers as gridfeed would.
func (g *fakeGrid) resolve(zone string, s signal, from, to slot.Slot, v timeline.View) ([]timeline.Step, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lane := g.lanes[gridLane{zone, s}]
	if lane == nil {
		return nil, false
	}
	return timeline.Resolve(lane.chain, lane.series, from, to, v), true
}

func (g *fakeGrid) ListZones(context.Context, *gridv1.ListZonesRequest) (*gridv1.ListZonesResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken != nil {
		return nil, g.broken
	}
	zones := map[string]*gridv1.Zone{}
	for key, lane := range g.lanes {
		z := zones[key.zone]
		if z == nil {
			z = &gridv1.Zone{Zone: key.zone}
			zones[key.zone] = z
		}
		for _, s := range lane.series {
			z.Timelines = append(z.Timelines, &gridv1.Timeline{
				Signal: gridv1.Signal(key.signal), Source: s.Source, Product: s.Product, Revisions: uint64(len(s.Records)),
				Attribution: "by " + s.Source,
			})
		}
	}
	resp := &gridv1.ListZonesResponse{}
	for _, z := range zones {
		slices.SortFunc(z.Timelines, func(a, b *gridv1.Timeline) int {
			return cmp.Or(cmp.Compare(a.GetSignal(), b.GetSignal()), cmp.Compare(a.GetSource(), b.GetSource()))
		})
		resp.Zones = append(resp.Zones, z)
	}
	return resp, nil
}

func (g *fakeGrid) ListIntensities(_ context.Context, req *gridv1.ListIntensitiesRequest) (*gridv1.ListIntensitiesResponse, error) {
	g.mu.Lock()
	g.asked++
	broken := g.broken
	g.mu.Unlock()
	if broken != nil {
		return nil, broken
	}
	view := timeline.Latest()
	switch by := req.GetView().GetBy().(type) {
	case *gridv1.View_AsOf:
		view = timeline.AsOf(milliseconds(by.AsOf))
	case *gridv1.View_AsKnownThen:
		view = timeline.AsKnownThen()
	}
	from, to := slot.Of(milliseconds(req.GetStartTime())), slot.Ceil(milliseconds(req.GetEndTime()))
	if req.GetPageToken() != "" {
		raw, err := base64.StdEncoding.DecodeString(req.GetPageToken())
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return nil, err
		}
		from = slot.Slot(n)
	}
	steps, ok := g.resolve(req.GetZone(), signal(req.GetSignal()), from, to, view)
	if !ok {
		return nil, fault.WithReason(fault.Newf(fault.NotFound, "no zone %q", req.GetZone()), "ZONE_UNKNOWN")
	}
	resp := &gridv1.ListIntensitiesResponse{}
	for _, s := range steps {
		if len(resp.GetIntensities()) == g.page {
			resp.NextPageToken = base64.StdEncoding.EncodeToString([]byte(strconv.FormatInt(int64(s.Start), 10)))
			break
		}
		resp.Intensities = append(resp.Intensities, factorInterval(req, s))
	}
	return resp, nil
}

func factorInterval(req *gridv1.ListIntensitiesRequest, s timeline.Step) *gridv1.Intensity {
	m := factorToProto(signal(req.GetSignal()), &factor{Step: s, zone: req.GetZone()}, s.Start)
	m.EndTime = timestamp(s.End.StartMS())
	return m
}

// world is a ledger with its services, and all that was committed to it.
type world struct {
	t     testing.TB
	store Store
	grid  *fakeGrid
	clock *atomic.Int64 // ms
	q     *queries

	ledger ledgerv1.LedgerServiceClient
	fleet  fleetv1.FleetServiceClient

	positions []ledger.Position
	floors    map[ledger.ProducerKey]uint64
	series    map[SeriesKey]*ledger.Series
	sites     map[string]Site
	posted    []postedPart
}

// postedPart is a part that was committed.
type postedPart struct {
	SeriesKey
	project string
	segment.Part
	second int64 // of booking, late or not
}

func (p *postedPart) booked() int64 { return ledger.BookedOf(p.Slot, p.second) }

var stores = map[string]func(t testing.TB, now func() time.Time) Store{
	"memory": func(_ testing.TB, now func() time.Time) Store { return memstore.New(now) },
	"sqlite": func(t testing.TB, now func() time.Time) Store {
		s, err := sqlitestore.Open(t.Context(), t.TempDir(), now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	},
}

// base is where the tests' time begins: a day, so that buckets are met.
const base = slot.Slot(1_764_547_200 / 300) // 2025-12-01

func newWorld(t testing.TB, open func(testing.TB, func() time.Time) Store) *world {
	t.Helper()
	w := &world{
		t: t, grid: newFakeGrid(), clock: new(atomic.Int64), floors: map[ledger.ProducerKey]uint64{},
		series: map[SeriesKey]*ledger.Series{}, sites: map[string]Site{},
	}
	w.clock.Store(base.StartMS())
	now := func() time.Time { return time.UnixMilli(w.clock.Load()) }
	w.store = open(t, now)
	var err error
	if w.positions, err = w.store.Acquire(t.Context(), "me", "stream", []int{1}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	grid := serve(t, log, func(r grpc.ServiceRegistrar) { gridv1.RegisterGridServiceServer(r, w.grid) })
	w.q = newQueries(log, w.store, gridv1.NewGridServiceClient(grid), new(commitSignal), now)
	conn := serve(t, log, w.q.Register)
	w.ledger, w.fleet = ledgerv1.NewLedgerServiceClient(conn), fleetv1.NewFleetServiceClient(conn)
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// serve returns a connection to services in memory, which end with the test.
func serve(t testing.TB, log *slog.Logger, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	srv := rpc.NewServer(log, rpc.Options{})
	register(srv)
	lis := rpc.Memory()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(ctx, log, srv, lis) }()
	conn, err := rpc.Dial("memory", rpc.ClientOptions{Memory: lis})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(conn.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// site declares a site.
func (w *world) site(name, zone, pue string) {
	w.t.Helper()
	if _, err := w.fleet.CreateSite(w.t.Context(), &fleetv1.CreateSiteRequest{
		Site: &fleetv1.Site{Site: name, Zone: zone, Pue: pue},
	}); err != nil {
		w.t.Fatal(err)
	}
	s := Site{Name: name, Zone: zone}
	if pue != "" {
		d, err := unit.ParseDecimal(pue)
		if err != nil {
			w.t.Fatal(err)
		}
		s.PUE = &d
	}
	w.sites[name] = s
}

// read is what one series reads in a batch.
type reading struct {
	SeriesKey
	project            string
	firstMS, lastMS    int64
	closed             bool
	clipStart, clipEnd int64
	parts              []segment.Part
}

// commit commits a batch of a node at the clock.
func (w *world) commit(site, node string, readings ...reading) ledger.Committed {
	w.t.Helper()
	key := ledger.ProducerKey{Producer: [16]byte{1}, Epoch: 1}
	copy(key.Producer[1:], site+"/"+node)
	old := ledger.Producer{ProducerKey: key, Floor: w.floors[key]}
	w.floors[key]++
	batch := ledger.TxBatch{Site: site, Node: node, ProducerKey: key, Sequence: w.floors[key]}
	for _, r := range readings {
		s := w.series[r.SeriesKey]
		if s == nil {
			s = &ledger.Series{
				Device: r.Device, Component: r.Component, Workload: r.Workload, Modelled: r.Modelled, PeriodMS: 1000,
			}
			if r.Run != "" || r.project != "" {
				s.Run = &ledger.Run{Name: r.Run, Project: r.project, ClipStartMS: r.clipStart, ClipEndMS: r.clipEnd}
			}
			w.series[r.SeriesKey] = s
		}
		batch.Series = append(batch.Series, ledger.TxSeries{
			Series: s, FirstMS: r.firstMS, LastMS: r.lastMS, Closed: r.closed, Parts: r.parts,
		})
	}
	done, err := w.store.Commit(w.t.Context(), &ledger.Tx{
		Owner: "me", Fences: slices.Clone(w.positions), Batches: []ledger.TxBatch{batch}, CommitMS: w.clock.Load(),
		Producers: []ledger.ProducerMove{{Site: site, Old: old, New: ledger.Producer{ProducerKey: key, Floor: w.floors[key]}}},
		Sites:     []string{site},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range readings {
		for _, p := range r.parts {
			w.posted = append(w.posted, postedPart{r.SeriesKey, r.project, p, done.Booked})
		}
	}
	w.q.signal.broadcast()
	return done
}

// whole is a part that fills its slot.
func wholeSlot(s slot.Slot, e unit.Energy) segment.Part {
	return segment.Part{Slot: s, StartMS: s.StartMS(), EndMS: s.EndMS(), Energy: e, ObservedMS: slot.Millis}
}

// gpuOf is a series.
func gpuOf(site, node, run string) SeriesKey {
	return SeriesKey{Site: site, Node: node, Device: "gpu/0", Component: "gpu", Run: run}
}

// reads fills consecutive slots, from tick to tick.
func reads(key SeriesKey, project string, from slot.Slot, energies ...unit.Energy) reading {
	r := reading{SeriesKey: key, project: project, firstMS: from.StartMS()}
	for i, e := range energies {
		r.parts = append(r.parts, wholeSlot(from+slot.Slot(i), e))
	}
	r.lastMS = (from + slot.Slot(len(energies))).StartMS()
	return r
}

// kWh is so many kilowatt-hours.
func kWh(n int64) unit.Energy { return unit.Energy(n * unit.HalfMicrojoulesPerKWh) }

func decimal(t testing.TB, text string) unit.Decimal {
	t.Helper()
	d, err := unit.ParseDecimal(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// measured is a record from base on that is known and recorded at an instant.
func measured(t testing.TB, to slot.Slot, value string, knownMS, recordedMS int64) timeline.Record {
	t.Helper()
	return timeline.Record{
		Start: base, End: to, Value: decimal(t, value), Quality: timeline.Measured, KnownMS: knownMS, RecordedMS: recordedMS,
	}
}

// statement asks for one statement.
func (w *world) statement(req *ledgerv1.GetStatementRequest) *ledgerv1.Statement {
	w.t.Helper()
	resp, err := w.ledger.GetStatement(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.GetStatement()
}

// pages asks for all pages.
func (w *world) pages(req *ledgerv1.QueryStatementsRequest) []*ledgerv1.Statement {
	w.t.Helper()
	var all []*ledgerv1.Statement
	for {
		resp, err := w.ledger.QueryStatements(w.t.Context(), req)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, resp.GetStatements()...)
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return all
		}
	}
}

// terms asks for all pages of terms.
func (w *world) terms(req *ledgerv1.ExplainStatementRequest) []*ledgerv1.Term {
	w.t.Helper()
	var all []*ledgerv1.Term
	for {
		resp, err := w.ledger.ExplainStatement(w.t.Context(), req)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, resp.GetTerms()...)
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return all
		}
	}
}

// oracle adds up by the book.
type oracle struct {
	energy, unpriced, unknownPUE, modelled big.Int
	facility, priced, grams, size          big.Rat
	bySlot                                 map[slot.Slot]*big.Int
	observed, interpolated, missing        int64
	rows                                   int
}

func (w *world) view(by *ledgerv1.Pricing) timeline.View {
	switch p := by.GetBy().(type) {
	case *ledgerv1.Pricing_AsOf:
		return timeline.AsOf(milliseconds(p.AsOf))
	case *ledgerv1.Pricing_AsKnownThen:
		return timeline.AsKnownThen()
	default:
		return timeline.Latest()
	}
}

// expect sums what was committed and is chosen, over slots.
func (w *world) expect(by *ledgerv1.Pricing, of signal, from, to slot.Slot, choose func(*postedPart) bool) *oracle {
	o := &oracle{bySlot: map[slot.Slot]*big.Int{}}
	asOf := by.GetAsOf()
	for i := range w.posted {
		p := &w.posted[i]
		if p.Slot < from || p.Slot >= to || !choose(p) {
			continue
		}
		if asOf != nil && (p.booked() > milliseconds(asOf)/1000 || p.Slot.EndMS() > milliseconds(asOf)) {
			continue
		}
		o.rows++
		e := big.NewInt(int64(p.Energy))
		o.energy.Add(&o.energy, e)
		if p.Modelled {
			o.modelled.Add(&o.modelled, e)
		}
		if o.bySlot[p.Slot] == nil {
			o.bySlot[p.Slot] = new(big.Int)
		}
		o.bySlot[p.Slot].Add(o.bySlot[p.Slot], e)
		o.observed += p.ObservedMS
		o.interpolated += p.InterpolatedMS
		o.missing += p.MissingMS
		site := w.sites[p.Site]
		if site.PUE == nil {
			o.unknownPUE.Add(&o.unknownPUE, e)
			o.unpriced.Add(&o.unpriced, e)
			continue
		}
		facility := new(big.Rat).SetFrac(e, big.NewInt(unit.HalfMicrojoulesPerKWh))
		facility.Mul(facility, site.PUE.Rat())
		o.facility.Add(&o.facility, facility)
		steps, _ := w.grid.resolve(site.Zone, of, p.Slot, p.Slot+1, w.view(by))
		if len(steps) == 0 {
			o.unpriced.Add(&o.unpriced, e)
			continue
		}
		o.priced.Add(&o.priced, facility)
		grams := new(big.Rat).Mul(facility, steps[0].Value.Rat())
		o.grams.Add(&o.grams, grams)
		o.size.Add(&o.size, grams.Abs(grams))
	}
	return o
}

// microjoules is the energy as the API has it.
func microjoules(half *big.Int) string {
	r := new(big.Rat).SetFrac(half, big.NewInt(2))
	if r.IsInt() {
		return r.Num().String()
	}
	return r.FloatString(1)
}

func nearest(r *big.Rat) float64 {
	f, _ := r.Float64()
	return f
}

func inKWh(half *big.Int) float64 {
	return nearest(new(big.Rat).SetFrac(half, big.NewInt(unit.HalfMicrojoulesPerKWh)))
}

// drain reads a stream until n segments have come, then ends it.
func drain(t testing.TB, w *world, req *ledgerv1.WatchEmissionsRequest, n int) (segments []*ledgerv1.Segment, token string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := w.ledger.WatchEmissions(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	for len(segments) < n {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			t.Fatalf("the stream ended after %d segments, want %d", len(segments), n)
		}
		if err != nil {
			t.Fatal(err)
		}
		segments = append(segments, resp.GetSegments()...)
		token = resp.GetResumeToken()
	}
	return segments, token
}
