package calculator

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// randomWorld commits postings in any order and at any time, over timelines that
// were revised meanwhile: some early, some late, some never known.
func randomWorld(t testing.TB, rng *rand.Rand, open func(testing.TB, func() time.Time) Store) *world {
	w := newWorld(t, open)
	w.site("east", "FR", "1.10")
	w.site("west", "US-CAL-CISO", "1.257")
	w.site("nowhere", "", "1.5") // its zone is not known
	w.site("plain", "FR", "")    // nor its PUE
	w.site("lost", "XX", "1.2")  // no timeline
	const days = 3
	for range 60 {
		zone := []string{"FR", "US-CAL-CISO"}[rng.IntN(2)]
		of := []signal{carbonAverageLifecycle, carbonMarginal}[rng.IntN(2)]
		start := base + slot.Slot(rng.IntN(days*slotsPerDay)-30)
		at := base.StartMS() + rng.Int64N(6*slotsPerDay*slot.Millis)
		known := at - rng.Int64N(4*slotsPerDay*slot.Millis)
		source := fmt.Sprintf("source-%d", rng.IntN(2))
		w.grid.add(zone, of, source, map[string]int64{"source-0": 0, "source-1": 12 * slot.Millis}[source], timeline.Record{
			Start: start, End: start + slot.Slot(1+rng.IntN(60)),
			Value:     unit.Decimal{Coef: 2*rng.Int64N(100_000) + 1, Exp: -int32(rng.IntN(4))},
			Retracted: rng.IntN(8) == 0, Quality: timeline.Quality(1 + rng.IntN(5)), KnownMS: known, RecordedMS: at,
		})
	}
	sites := []string{"east", "west", "nowhere", "plain", "lost", "heard-of"}
	for range 50 {
		w.clock.Add(rng.Int64N(int64(3 * time.Hour / time.Millisecond)))
		site, node := sites[rng.IntN(len(sites))], fmt.Sprintf("n%d", rng.IntN(3))
		var batch []reading
		for k := range 1 + rng.IntN(3) {
			run := rng.IntN(4)
			key := SeriesKey{
				Site: site, Node: node, Device: fmt.Sprintf("d%d", k), Modelled: k == 2,
				Component: []string{"gpu", "cpu", envelope}[rng.IntN(3)],
			}
			project := fmt.Sprintf("p%d", run%2)
			if run > 0 {
				key.Run = fmt.Sprintf("r%d", run)
			} else {
				key.Workload, project = "system", "p9" // energy of a project without a run
			}
			from := min(base+slot.Slot(rng.IntN(days*slotsPerDay)), slot.Of(w.clock.Load()))
			r := reading{SeriesKey: key, project: project, firstMS: from.StartMS()}
			for range 1 + rng.IntN(20) {
				p := segment.Part{
					Slot: from, StartMS: from.StartMS(), EndMS: from.EndMS(), Energy: unit.Energy(rng.Int64N(1 << uint(1+rng.IntN(50)))),
					ObservedMS: rng.Int64N(slot.Millis),
				}
				if rng.IntN(20) == 0 {
					p.Energy = 1<<62 + unit.Energy(rng.Int64N(1<<61)) // two of them do not fit
				}
				p.InterpolatedMS, p.MissingMS = rng.Int64N(p.ObservedMS+1), slot.Millis-p.ObservedMS
				r.parts = append(r.parts, p)
				from++
			}
			r.lastMS = from.StartMS()
			batch = append(batch, r)
		}
		if fits(w.posted, batch) {
			w.commit(site, node, batch...)
		}
	}
	w.clock.Store((base + 4*slotsPerDay).StartMS() + 12_345)
	return w
}

// fits reports whether the ledger can hold the batch: a posting has 64 bits.
func fits(posted []postedPart, batch []reading) bool {
	type account struct {
		site, run, component string
		project              string
		modelled             bool
		slot                 slot.Slot
	}
	sums := map[account]*big.Int{}
	add := func(k SeriesKey, project string, p *segment.Part) bool {
		if k.Run != "" {
			project = ""
		}
		a := account{k.Site, k.Run, k.Component, project, k.Modelled, p.Slot}
		if sums[a] == nil {
			sums[a] = new(big.Int)
		}
		return sums[a].Add(sums[a], big.NewInt(int64(p.Energy))).IsInt64()
	}
	for i := range posted {
		add(posted[i].SeriesKey, posted[i].project, &posted[i].Part)
	}
	for _, r := range batch {
		for i := range r.parts {
			if !add(r.SeriesKey, r.project, &r.parts[i]) {
				return false
			}
		}
	}
	return true
}

func pricings(rng *rand.Rand, w *world) map[string]*ledgerv1.Pricing {
	asOf := base.StartMS() + rng.Int64N(w.clock.Load()-base.StartMS())
	return map[string]*ledgerv1.Pricing{
		"latest":        nil,
		"as of":         {By: &ledgerv1.Pricing_AsOf{AsOf: timestamp(asOf)}},
		"as known then": {By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}},
	}
}

// choose reports whether a part belongs to a selection, by the book.
func choose(s *ledgerv1.Selection) func(*postedPart) bool {
	return func(p *postedPart) bool {
		return (s.GetSite() == "" || s.GetSite() == p.Site) && (s.GetRun() == "" || s.GetRun() == p.Run) &&
			(s.GetProject() == "" || s.GetProject() == p.project) && (s.GetNode() == "" || s.GetNode() == p.Node) &&
			(s.GetComponent() == p.Component || s.GetComponent() == "" && p.Component != envelope)
	}
}

// selections picks some that something was committed for.
func selections(rng *rand.Rand, w *world) []*ledgerv1.Selection {
	picked := []*ledgerv1.Selection{{}}
	for range 5 {
		p := w.posted[rng.IntN(len(w.posted))]
		s := &ledgerv1.Selection{}
		for _, set := range []func(){
			func() { s.Site = p.Site }, func() { s.Run = p.Run }, func() { s.Project = p.project },
			func() { s.Node = p.Node }, func() { s.Component = p.Component },
		} {
			if rng.IntN(3) == 0 {
				set()
			}
		}
		picked = append(picked, s)
	}
	return picked
}

func ranges(rng *rand.Rand) []*ledgerv1.Interval {
	start := base.StartMS() + rng.Int64N(2*slotsPerDay*slot.Millis)
	return []*ledgerv1.Interval{nil, {
		StartTime: timestamp(start), EndTime: timestamp(start + 1 + rng.Int64N(2*slotsPerDay*slot.Millis)),
	}}
}

// bounds are the slots of a range.
func bounds(m *ledgerv1.Interval) (from, to slot.Slot) {
	if m == nil {
		return slot.Min, slot.Max
	}
	return slot.Of(milliseconds(m.GetStartTime())), slot.Ceil(milliseconds(m.GetEndTime()))
}

func eachWorld(t *testing.T, seeds uint64, test func(t *testing.T, rng *rand.Rand, w *world)) {
	t.Helper()
	for name, open := range stores {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 11))
				test(t, rng, randomWorld(t, rng, open))
			})
		}
	}
}

// TestStatementEqualsOracle holds statements to sums in big.Rat over what was
// committed: energy and grams, doubles to the last bit.
func TestStatementEqualsOracle(t *testing.T) {
	eachWorld(t, 3, func(t *testing.T, rng *rand.Rand, w *world) {
		for by, pricing := range pricings(rng, w) {
			for _, sel := range selections(rng, w) {
				for _, in := range ranges(rng) {
					for _, of := range []signal{carbonAverageLifecycle, carbonMarginal} {
						got := w.statement(&ledgerv1.GetStatementRequest{
							Selection: sel, Interval: in, Pricing: pricing, Signals: []gridv1.Signal{gridv1.Signal(of)},
						})
						from, to := bounds(in)
						want := w.expect(pricing, of, from, to, choose(sel))
						if diff := compareStatement(got, want); diff != "" {
							t.Fatalf("%s, %v, %v, %v: %s", by, of, sel, in, diff)
						}
					}
				}
			}
		}
	})
}

// compareStatement says what differs.
func compareStatement(got *ledgerv1.Statement, want *oracle) string {
	e, m := got.GetEnergy(), got.GetEmissions()[0]
	if a, b := e.GetItMicrojoules(), microjoules(&want.energy); a != b {
		return fmt.Sprintf("energy %s, want %s", a, b)
	}
	var peak *big.Int
	for _, sum := range want.bySlot {
		if peak == nil || sum.Cmp(peak) > 0 {
			peak = sum
		}
	}
	if peak == nil {
		peak = new(big.Int)
	}
	for _, f := range []struct {
		name      string
		got, want float64
	}{
		{"it kWh", e.GetItKwh(), inKWh(&want.energy)},
		{"facility kWh", e.GetFacilityKwh(), nearest(&want.facility)},
		{"facility unknown kWh", e.GetFacilityUnknownKwh(), inKWh(&want.unknownPUE)},
		{"modelled kWh", e.GetModelledKwh(), inKWh(&want.modelled)},
		{"grams", m.GetGrams(), nearest(&want.grams)},
		{"unpriced kWh", m.GetUnpricedKwh(), inKWh(&want.unpriced)},
		{"peak kW", e.GetPeakSlotKw(), 12 * inKWh(peak)},
	} {
		if f.got != f.want {
			return fmt.Sprintf("%s %v, want %v", f.name, f.got, f.want)
		}
	}
	if want.priced.Sign() == 0 {
		if m.MeanGramsPerKwh != nil {
			return fmt.Sprintf("mean %v, want none", m.GetMeanGramsPerKwh())
		}
	} else if a, b := m.GetMeanGramsPerKwh(), nearest(new(big.Rat).Quo(&want.grams, &want.priced)); a != b {
		return fmt.Sprintf("mean %v, want %v", a, b)
	}
	priced := e.GetItKwh() - m.GetUnpricedKwh()
	var shares, sources, pue float64
	for _, q := range m.GetQuality() {
		shares += q.GetKwh()
	}
	for _, p := range got.GetProvenance() {
		if p.GetFactor() == factorPUE {
			pue += p.GetKwh()
			continue
		}
		sources += p.GetKwh()
		if p.GetAttribution() != "by "+p.GetSource() || p.GetRecordedAt() == nil {
			return fmt.Sprintf("provenance %v", p)
		}
	}
	if !near(shares, priced, e.GetItKwh()) || !near(sources, priced, e.GetItKwh()) ||
		!near(pue, e.GetItKwh()-e.GetFacilityUnknownKwh(), e.GetItKwh()) {
		return fmt.Sprintf("shares %v, sources %v of %v, PUE %v", shares, sources, priced, pue)
	}
	c := got.GetCoverage()
	if c.GetObservedMs() != want.observed || c.GetInterpolatedMs() != want.interpolated || c.GetMissingMs() != want.missing {
		return fmt.Sprintf("coverage %v, want %d %d %d", c, want.observed, want.interpolated, want.missing)
	}
	if all := c.GetObservedMs() + c.GetMissingMs() + c.GetSilentMs(); all == 0 != (c.Ratio == nil) ||
		all != 0 && c.GetRatio() != float64(c.GetObservedMs())/float64(all) {
		return fmt.Sprintf("coverage %v", c)
	}
	return ""
}

// near compares sums of doubles.
func near(a, b, size float64) bool { return math.Abs(a-b) <= 1e-12*math.Abs(size) }

// TestGroupsAndBucketsAddUp: Σ groups = Σ buckets = the statement = the oracle of
// each group and bucket, whatever the size of the pages.
func TestGroupsAndBucketsAddUp(t *testing.T) {
	value := map[ledgerv1.Dimension]func(p *postedPart) (string, string){
		ledgerv1.Dimension_DIMENSION_SITE:      func(p *postedPart) (string, string) { return "site", p.Site },
		ledgerv1.Dimension_DIMENSION_RUN:       func(p *postedPart) (string, string) { return "run", p.Run },
		ledgerv1.Dimension_DIMENSION_PROJECT:   func(p *postedPart) (string, string) { return "project", p.project },
		ledgerv1.Dimension_DIMENSION_COMPONENT: func(p *postedPart) (string, string) { return "component", p.Component },
		ledgerv1.Dimension_DIMENSION_NODE:      func(p *postedPart) (string, string) { return "node", p.Node },
	}
	eachWorld(t, 2, func(t *testing.T, rng *rand.Rand, w *world) {
		for by, pricing := range pricings(rng, w) {
			for _, sel := range selections(rng, w) {
				for _, in := range ranges(rng) {
					var dims []ledgerv1.Dimension
					for d := range value {
						if rng.IntN(3) == 0 {
							dims = append(dims, d)
						}
					}
					every := []string{"", "5m", "1h", "1d", "1mo"}[rng.IntN(5)]
					if every == "5m" { // six hours of it are many pages
						at := (base + slot.Slot(rng.IntN(2*slotsPerDay))).StartMS() + 1
						in = &ledgerv1.Interval{StartTime: timestamp(at), EndTime: timestamp(at + 72*slot.Millis)}
					}
					what := fmt.Sprintf("%s, %v, %v, by %v, every %q", by, sel, in, dims, every)
					whole := w.statement(&ledgerv1.GetStatementRequest{Selection: sel, Interval: in, Pricing: pricing})
					size := int32(1 + rng.IntN(40))
					parts := w.pages(&ledgerv1.QueryStatementsRequest{
						Selection: sel, Interval: in, Pricing: pricing, GroupBy: dims, Every: every, PageSize: size,
					})
					energy, grams, silent := new(big.Int), 0.0, int64(0)
					told := map[string]bool{}
					for _, p := range parts {
						id := fmt.Sprint(p.GetInterval().GetEffective(), p.GetGroup())
						if told[id] {
							t.Fatalf("%s: %s told twice", what, id)
						}
						told[id] = true
						sum, err := unit.ParseMicrojoules(p.GetEnergy().GetItMicrojoules())
						if err != nil {
							t.Fatal(err)
						}
						energy.Add(energy, sum.Big())
						grams += p.GetEmissions()[0].GetGrams()
						silent += p.GetCoverage().GetSilentMs()
						from, to := bounds(p.GetInterval().GetEffective())
						want := w.expect(pricing, carbonAverageLifecycle, from, to, func(row *postedPart) bool {
							for _, d := range dims {
								if name, v := value[d](row); p.GetGroup()[name] != v {
									return false
								}
							}
							return choose(sel)(row)
						})
						if diff := compareStatement(p, want); diff != "" {
							t.Fatalf("%s: %v %v: %s", what, p.GetInterval(), p.GetGroup(), diff)
						}
					}
					if got, want := microjoules(energy), whole.GetEnergy().GetItMicrojoules(); got != want {
						t.Fatalf("%s: Σ %s, want %s", what, got, want)
					}
					if total := whole.GetEmissions()[0].GetGrams(); !near(grams, total, total) {
						t.Fatalf("%s: Σ %v g, want %v", what, grams, total)
					}
					if silent < whole.GetCoverage().GetSilentMs() {
						t.Fatalf("%s: Σ silent %d, want at least %d", what, silent, whole.GetCoverage().GetSilentMs())
					}
					if !slices.IsSortedFunc(parts, func(a, b *ledgerv1.Statement) int {
						return a.GetInterval().GetStartTime().AsTime().Compare(b.GetInterval().GetStartTime().AsTime())
					}) {
						t.Fatalf("%s: not in the order of time", what)
					}
				}
			}
		}
	})
}

// TestTermsAndPointsAddUp: Σ ExplainStatement = Σ GetSeries = the statement.
func TestTermsAndPointsAddUp(t *testing.T) {
	eachWorld(t, 2, func(t *testing.T, rng *rand.Rand, w *world) {
		for by, pricing := range pricings(rng, w) {
			for _, sel := range selections(rng, w) {
				in := ranges(rng)[1]
				what := fmt.Sprintf("%s, %v, %v", by, sel, in)
				whole := w.statement(&ledgerv1.GetStatementRequest{Selection: sel, Interval: in, Pricing: pricing})
				total := whole.GetEmissions()[0].GetGrams()
				energy, grams := new(big.Int), 0.0
				add := func(text string, g float64) {
					sum, err := unit.ParseMicrojoules(text)
					if err != nil {
						t.Fatal(err)
					}
					energy.Add(energy, sum.Big())
					grams += g
				}
				check := func(name string) {
					t.Helper()
					if got := microjoules(energy); got != whole.GetEnergy().GetItMicrojoules() || !near(grams, total, total) {
						t.Fatalf("%s: %s sum to %s and %v g, want %s and %v g", what, name, got, grams,
							whole.GetEnergy().GetItMicrojoules(), total)
					}
					energy, grams = new(big.Int), 0
				}
				last := time.Time{}
				for _, term := range w.terms(&ledgerv1.ExplainStatementRequest{
					Selection: sel, Interval: in, Pricing: pricing, PageSize: int32(5 + rng.IntN(50)),
				}) {
					add(term.GetItMicrojoules(), term.GetGrams())
					if (term.Grams != nil) != (term.GetFactor() != nil && term.GetPue() != "") {
						t.Fatalf("%s: term %v", what, term)
					}
					if term.Grams != nil { // anyone can multiply it again
						e, err := unit.ParseMicrojoules(term.GetItMicrojoules())
						if err != nil {
							t.Fatal(err)
						}
						g := new(big.Rat).SetFrac(e.Big(), big.NewInt(unit.HalfMicrojoulesPerKWh))
						g.Mul(g, decimal(t, term.GetPue()).Rat())
						g.Mul(g, decimal(t, term.GetFactor().GetDecimal()).Rat())
						if term.GetGrams() != nearest(g) {
							t.Fatalf("%s: term %v, want %v g", what, term, nearest(g))
						}
					}
					if at := term.GetSlotStart().AsTime(); at.Before(last) {
						t.Fatalf("%s: terms out of order", what)
					} else {
						last = at
					}
				}
				check("terms")

				// A range of whole steps, so that the same is asked.
				step := []slot.Slot{1, 3, 12, 144}[rng.IntN(4)]
				from, to := bounds(in)
				from, to = floorTo(from, step), floorTo(to+step-1, step)
				aligned := &ledgerv1.Interval{StartTime: timestamp(from.StartMS()), EndTime: timestamp(to.StartMS())}
				whole = w.statement(&ledgerv1.GetStatementRequest{Selection: sel, Interval: aligned, Pricing: pricing})
				total = whole.GetEmissions()[0].GetGrams()
				resp, err := w.ledger.GetSeries(t.Context(), &ledgerv1.GetSeriesRequest{
					Selection: sel, Interval: in, Pricing: pricing, Step: durationpb.New(time.Duration(step) * 5 * time.Minute),
				})
				if err != nil {
					t.Fatal(err)
				}
				var observed int64
				for _, p := range resp.GetPoints() {
					add(p.GetItMicrojoules(), p.GetGrams())
					observed += p.GetCoverage().GetObservedMs()
					at := slot.Of(milliseconds(p.GetStartTime()))
					want := w.expect(pricing, carbonAverageLifecycle, at, at+step, choose(sel))
					if kw := inKWh(&want.energy) * 12 / float64(step); want.rows == 0 || !near(p.GetMeanKw(), kw, kw) ||
						p.GetGrams() != nearest(&want.grams) || p.GetUnpricedKwh() != inKWh(&want.unpriced) {
						t.Fatalf("%s: point %v, want %v kW, %v g of %d rows", what, p, kw, nearest(&want.grams), want.rows)
					}
				}
				check("points")
				if observed != whole.GetCoverage().GetObservedMs() {
					t.Fatalf("%s: points observe %d ms, want %d", what, observed, whole.GetCoverage().GetObservedMs())
				}
			}
		}
	})
}

// TestWatchEqualsStatementAsKnownThen: Σ WatchEmissions = the statement AS_KNOWN_THEN,
// as long as nothing known earlier is recorded after; resumed anywhere.
func TestWatchEqualsStatementAsKnownThen(t *testing.T) {
	eachWorld(t, 3, func(t *testing.T, rng *rand.Rand, w *world) {
		for _, sel := range selections(rng, w) {
			whole := w.statement(&ledgerv1.GetStatementRequest{
				Selection: sel, Pricing: &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}},
			})
			n := 0
			for i := range w.posted {
				if p := &w.posted[i]; choose(sel)(p) && (p.Energy != 0 || p.ObservedMS != 0) {
					n++
				}
			}
			first := rng.IntN(n)
			segments, token := []*ledgerv1.Segment(nil), ""
			if first > 0 {
				segments, token = drain(t, w, &ledgerv1.WatchEmissionsRequest{Selection: sel, FromStart: true}, first)
			}
			if len(segments) < n {
				rest, _ := drain(t, w, &ledgerv1.WatchEmissionsRequest{
					Selection: sel, ResumeToken: token, FromStart: token == "",
				}, n-len(segments))
				segments = append(segments, rest...)
			}
			energy, grams, unpriced := new(big.Int), 0.0, new(big.Int)
			for _, s := range segments {
				sum, err := unit.ParseMicrojoules(s.GetItMicrojoules())
				if err != nil {
					t.Fatal(err)
				}
				energy.Add(energy, sum.Big())
				grams += s.GetGrams()
				if s.Grams == nil {
					unpriced.Add(unpriced, sum.Big())
				}
			}
			total := whole.GetEmissions()[0]
			if len(segments) != n || microjoules(energy) != whole.GetEnergy().GetItMicrojoules() ||
				!near(grams, total.GetGrams(), total.GetGrams()) || inKWh(unpriced) != total.GetUnpricedKwh() {
				t.Fatalf("%v: %d segments of %s µJ, %v g, want %d of %s µJ, %v g", sel, len(segments),
					microjoules(energy), grams, n, whole.GetEnergy().GetItMicrojoules(), total.GetGrams())
			}
		}
	})
}
