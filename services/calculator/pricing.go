package calculator

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// signal is a factor that varies in time. The numbers are those of
// wattfold.grid.v1.Signal.
type signal uint8

const (
	carbonAverageLifecycle signal = 1
	carbonAverageDirect    signal = 2
	carbonMarginal         signal = 3
)

func (s signal) String() string {
	switch s {
	case carbonAverageLifecycle:
		return "CARBON_AVERAGE_LIFECYCLE"
	case carbonAverageDirect:
		return "CARBON_AVERAGE_DIRECT"
	case carbonMarginal:
		return "CARBON_MARGINAL"
	default:
		return fmt.Sprintf("signal(%d)", uint8(s))
	}
}

// unit returns the unit of the signal's values.
func (signal) unit() string { return "g/kWh" }

// pricingBy says by what knowledge energy is priced.
type pricingBy uint8

const (
	pricedLatest pricingBy = iota
	pricedAsOf
	pricedAsKnownThen
)

// pricing is a pricingBy with its moment. The zero value is the latest.
type pricing struct {
	by   pricingBy
	atMS int64 // of pricedAsOf
}

// factor is a step of a zone's signal, and whose timeline it is from: a zone that
// has none of its own is answered for by its country.
type factor struct {
	timeline.Step
	zone string
}

// gridTimeline is what there is of one signal of one zone from one source.
type gridTimeline struct {
	signal          signal
	source, product string
	revisions       uint64
	attribution     string
}

// intensitySource is what the pricer needs of grid.v1.
type intensitySource interface {
	// zones returns the timelines of every zone.
	zones(ctx context.Context) (map[string][]gridTimeline, error)
	// intensities resolves a zone's chain over the slots: steps in the order of
	// time with holes where there is no data; none for a zone that is not known.
	intensities(ctx context.Context, zone string, s signal, by pricing, from, to slot.Slot) ([]factor, error)
}

const (
	// keepFactors is how long steps are kept at most. They are dropped as soon as
	// the timelines they come from have a new revision; the limit is for what
	// cannot be seen from here, such as another declared chain after gridfeed was
	// started anew.
	keepFactors = time.Minute
	// maxFactors bounds the steps kept, at some 130 bytes each.
	maxFactors = 300_000
	// parallelFactors bounds the zones that one answer asks for at once.
	parallelFactors = 8
	// slotsPerDay aligns what is asked for, so that a range that grows with the
	// clock asks for the same steps until the day is over.
	slotsPerDay = 288
)

// pricer answers what a factor was, by asking gridfeed. It remembers steps
// together with how many revisions their timelines had when it began to ask:
// timelines are only ever added to, so the same number is the same timeline, and
// an answer after an import has seen it.
type pricer struct {
	grid intensitySource
	now  func() time.Time

	mu    sync.Mutex
	kept  map[factorKey]*keptFactors
	size  int
	calls int64
}

type factorKey struct {
	zone   string
	signal signal
	by     pricing
}

type keptFactors struct {
	version  uint64
	asked    time.Time
	from, to slot.Slot
	steps    []factor
	used     int64
}

func newPricer(grid intensitySource, now func() time.Time) *pricer {
	return &pricer{grid: grid, now: now, kept: map[factorKey]*keptFactors{}}
}

// session is the pricer for one answer: it reads the numbers of revisions once,
// when they are first needed.
type session struct {
	p    *pricer
	once sync.Once
	all  map[string][]gridTimeline
	err  error
}

func (p *pricer) open() *session { return &session{p: p} }

func (s *session) zones(ctx context.Context) (map[string][]gridTimeline, error) {
	s.once.Do(func() { s.all, s.err = s.p.grid.zones(ctx) })
	return s.all, s.err
}

// version sums up what can change the answers for a zone: its timelines and those
// of its country.
func version(all map[string][]gridTimeline, zone string) uint64 {
	h := fnv.New64a()
	country, _, _ := strings.Cut(zone, "-")
	for _, name := range []string{zone, country} {
		for _, t := range all[name] {
			fmt.Fprintf(h, "%d\x00%s\x00%s\x00%d\x01", t.signal, t.source, t.product, t.revisions)
		}
		fmt.Fprint(h, "\x02")
	}
	return h.Sum64()
}

// attribution returns the licence and attribution of a factor's timeline.
func (s *session) attribution(ctx context.Context, zone string, of signal, source, product string) (string, error) {
	all, err := s.zones(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range all[zone] {
		if t.signal == of && t.source == source && t.product == product {
			return t.attribution, nil
		}
	}
	return "", nil
}

// factors returns the steps of a zone's signal that touch the slots, some before
// and after them perhaps.
func (s *session) factors(ctx context.Context, zone string, of signal, by pricing, from, to slot.Slot) ([]factor, error) {
	if from >= to {
		return nil, nil
	}
	all, err := s.zones(ctx)
	if err != nil {
		return nil, err
	}
	now, want := version(all, zone), factorKey{zone: zone, signal: of, by: by}
	if steps, ok := s.p.recall(want, now, from, to); ok {
		return steps, nil
	}
	asked := s.p.now()
	from = max(floorTo(from, slotsPerDay), minSlot)
	to = min(floorTo(to+slotsPerDay-1, slotsPerDay), maxSlot)
	steps, err := s.p.grid.intensities(ctx, zone, of, by, from, to)
	if err != nil {
		return nil, err
	}
	s.p.keep(want, &keptFactors{version: now, asked: asked, from: from, to: to, steps: steps})
	return steps, nil
}

func floorTo(s, n slot.Slot) slot.Slot {
	r := s % n
	if r < 0 {
		r += n
	}
	return s - r
}

func (p *pricer) recall(key factorKey, version uint64, from, to slot.Slot) ([]factor, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kept[key]
	if k == nil || k.version != version || k.from > from || k.to < to || p.now().Sub(k.asked) > keepFactors {
		return nil, false
	}
	p.calls++
	k.used = p.calls
	return k.steps, true
}

func (p *pricer) keep(key factorKey, k *keptFactors) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	k.used = p.calls
	p.forget(key)
	p.kept[key] = k
	p.size += k.weight()
	for p.size > maxFactors && len(p.kept) > 1 {
		var oldest factorKey
		least := int64(-1)
		for other, o := range p.kept {
			if other != key && (least < 0 || o.used < least) {
				oldest, least = other, o.used
			}
		}
		p.forget(oldest)
	}
}

func (p *pricer) forget(key factorKey) {
	if old := p.kept[key]; old != nil {
		p.size -= old.weight()
		delete(p.kept, key)
	}
}

// weight is the steps that the answer holds and something for itself.
func (k *keptFactors) weight() int { return len(k.steps) + 8 }

// rates are the factors of one site over a range.
type rates struct {
	site string
	zone string
	pue  *unit.Decimal
	// recordedMS is when the PUE was entered.
	recordedMS int64
	signals    []track
}

// track walks the steps of one signal. Slots that are asked for in order cost a
// comparison each; any other a binary search.
type track struct {
	steps []factor
	at    int
}

// find returns what holds in the slot; nil: no data.
func (t *track) find(s slot.Slot) *factor {
	if t.at > 0 && t.steps[t.at-1].End > s {
		t.at, _ = slices.BinarySearchFunc(t.steps, s, func(f factor, s slot.Slot) int {
			if f.End > s {
				return 1
			}
			return -1
		})
	}
	for t.at < len(t.steps) && t.steps[t.at].End <= s {
		t.at++
	}
	if t.at == len(t.steps) || t.steps[t.at].Start > s {
		return nil
	}
	return &t.steps[t.at]
}

// newRates asks for the factors of the sites over the slots, zones side by side.
func (s *session) newRates(
	ctx context.Context, sites []Site, signals []signal, by pricing, from, to slot.Slot,
) (map[string]*rates, error) {
	found := make(map[string]*rates, len(sites))
	tracks := map[string][][]factor{} // by zone, then as in signals
	for _, site := range sites {
		found[site.Name] = &rates{
			site: site.Name, zone: site.Zone, pue: site.PUE, recordedMS: site.CreatedMS, signals: make([]track, len(signals)),
		}
		if site.Zone != "" {
			tracks[site.Zone] = make([][]factor, len(signals))
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFactors)
	for zone, into := range tracks {
		for i, of := range signals {
			g.Go(func() (err error) {
				into[i], err = s.factors(ctx, zone, of, by, from, to)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, r := range found {
		for i, steps := range tracks[r.zone] {
			r.signals[i].steps = steps
		}
	}
	return found, nil
}
