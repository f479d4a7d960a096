// Package memstore keeps a ledger in memory, for tests. It is the dumb twin of
// the stores that last: it keeps what every batch posted and computes everything
// else from that when it is asked.
package memstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// Store is a ledger that lasts as long as the process. Make one with [New].
type Store struct {
	now func() time.Time

	mu         sync.RWMutex
	partitions map[int]partition
	producers  map[producerID]*producer
	details    []detail
	sums       map[posting]unit.Energy // only to see what does not fit
	meters     map[nodeID]map[[16]byte][]ledger.MeterSpan
	sites      map[string]ledger.Site
	projects   map[string]string // by run
	rejected   map[string]map[string]uint64
	booked     int64
	held       int64
}

var _ ledger.Store = (*Store)(nil)

type partition struct {
	ledger.Position
	owner string
}

type producerID struct {
	site string
	ledger.ProducerKey
}

type producer struct {
	ledger.Producer
	superseded bool
}

type nodeID struct{ site, node string }

type detail struct {
	id, booked, sign int64
	producer         producerID
	node             nodeID
	series           []series
}

type series struct {
	ledger.SeriesWindow
	rollup string
	parts  []segment.Part
}

// New returns an empty ledger whose clock is now.
func New(now func() time.Time) *Store {
	return &Store{
		now:        now,
		partitions: map[int]partition{},
		producers:  map[producerID]*producer{},
		meters:     map[nodeID]map[[16]byte][]ledger.MeterSpan{},
		sites:      map[string]ledger.Site{},
		projects:   map[string]string{},
		sums:       map[posting]unit.Energy{},
		rejected:   map[string]map[string]uint64{},
	}
}

// Close implements [ledger.Store].
func (s *Store) Close() error { return nil }

// Incarnation implements [ledger.Store].
func (s *Store) Incarnation(context.Context) (string, error) {
	return fmt.Sprintf("%p", s), nil
}

// Hold implements [ledger.Store].
func (s *Store) Hold(_ context.Context, second int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = max(s.held, min(second, s.now().Unix()))
	return nil
}

// Acquire implements [ledger.Store].
func (s *Store) Acquire(_ context.Context, owner, stream string, partitions []int) ([]ledger.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	positions := make([]ledger.Position, len(partitions))
	for i, id := range partitions {
		p := s.partitions[id]
		if p.Fence == 0 {
			p.Stream = stream
		}
		p.Partition, p.owner = id, owner
		p.Fence++
		s.partitions[id] = p
		positions[i] = p.Position
	}
	return positions, nil
}

// Producers implements [ledger.Store].
func (s *Store) Producers(_ context.Context, site string, keys []ledger.ProducerKey) ([]ledger.Producer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []ledger.Producer
	for _, key := range keys {
		var epochs []ledger.Producer
		for id, p := range s.producers {
			if id.site == site && id.Producer == key.Producer && (key.Epoch == 0 || id.Epoch == key.Epoch) {
				epochs = append(epochs, clone(p.Producer))
			}
		}
		slices.SortFunc(epochs, func(a, b ledger.Producer) int { return cmp.Compare(a.Epoch, b.Epoch) })
		found = append(found, epochs...)
	}
	return found, nil
}

func clone(p ledger.Producer) ledger.Producer {
	p.Ranges = slices.Clone(p.Ranges)
	p.Refused = maps.Clone(p.Refused)
	if p.Import != nil {
		info := *p.Import
		info.Content = bytes.Clone(info.Content)
		p.Import = &info
	}
	return p
}

// Meters implements [ledger.Store].
func (s *Store) Meters(_ context.Context, site, node string) ([]ledger.MeterSpan, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	of := s.meters[nodeID{site, node}]
	var spans []ledger.MeterSpan
	for _, producer := range slices.SortedFunc(maps.Keys(of), compareProducers) {
		spans = append(spans, of[producer]...)
	}
	return spans, nil
}

func compareProducers(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }

// Commit implements [ledger.Store].
func (s *Store) Commit(_ context.Context, t *ledger.Tx) (ledger.Committed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range t.Fences {
		if p := s.partitions[f.Partition]; p.Fence != f.Fence || p.owner != t.Owner {
			return ledger.Committed{}, fmt.Errorf("partition %d: %w", f.Partition, ledger.ErrFenced)
		}
	}
	for _, m := range t.Producers {
		var have ledger.Producer
		if p := s.producers[producerID{m.Site, m.New.ProducerKey}]; p != nil {
			have = p.Producer
		}
		if have.Floor != m.Old.Floor || !slices.Equal(have.Ranges, m.Old.Ranges) {
			return ledger.Committed{}, fmt.Errorf("producer %x: %w", m.New.Producer, ledger.ErrConflict)
		}
	}
	booked := max(s.booked, s.held+1, (t.CommitMS+999)/1000)
	details := s.details
	for _, b := range t.Batches {
		details = append(details, newDetail(&b, booked, int64(len(details))+1))
	}
	for _, m := range t.Producers {
		if m.Replaces() {
			details = append(details, s.negations(details, &m, booked)...)
		}
	}
	grown, err := s.grow(details[len(s.details):])
	if err != nil {
		return ledger.Committed{}, err
	}

	// From here on nothing can fail.
	s.details, s.booked = details, booked
	maps.Copy(s.sums, grown)
	for _, f := range t.Fences {
		s.partitions[f.Partition] = partition{Position: f, owner: t.Owner}
	}
	for _, name := range t.Sites {
		s.hear(name, t.CommitMS)
	}
	for _, b := range t.Batches {
		s.hear(b.Site, t.CommitMS)
		for _, x := range b.Series {
			if r := x.Run; r != nil && r.Name != "" && s.projects[r.Name] == "" {
				s.projects[r.Name] = r.Project
			}
		}
	}
	for _, m := range t.Producers {
		s.hear(m.Site, t.CommitMS)
		id := producerID{m.Site, m.New.ProducerKey}
		if s.producers[id] == nil {
			s.producers[id] = new(producer)
		}
		s.producers[id].Producer = clone(m.New)
	}
	for _, m := range t.Meters {
		s.putMeter(nodeID{m.Site, m.Node}, m.Producer, slices.Clone(m.Spans))
	}
	for _, m := range t.Producers {
		if m.Replaces() {
			s.supersede(&m)
		}
	}
	for site, reasons := range t.Rejected {
		s.hear(site, t.CommitMS)
		if s.rejected[site] == nil {
			s.rejected[site] = map[string]uint64{}
		}
		for reason, n := range reasons {
			s.rejected[site][reason] += n
		}
	}
	return ledger.Committed{Booked: booked, LastDetail: int64(len(details))}, nil
}

func (s *Store) hear(site string, ms int64) {
	if _, known := s.sites[site]; !known {
		s.sites[site] = ledger.Site{Name: site, CreatedMS: ms}
	}
}

func newDetail(b *ledger.TxBatch, booked, id int64) detail {
	d := detail{
		id: id, booked: booked, sign: 1,
		producer: producerID{b.Site, b.ProducerKey}, node: nodeID{b.Site, b.Node},
	}
	for _, x := range b.Series {
		one := series{parts: slices.Clone(x.Parts), SeriesWindow: ledger.SeriesWindow{
			SeriesKey: x.Key(b.Site, b.Node), PeriodMS: int64(x.PeriodMS), FirstMS: x.FirstMS, LastMS: x.LastMS, Booked: booked,
		}}
		if x.Closed {
			one.ClosedMS = x.LastMS
		}
		if r := x.Run; r != nil {
			one.ClipStartMS, one.ClipEndMS = r.ClipStartMS, r.ClipEndMS
			if r.Name == "" {
				one.rollup = r.Project
			}
		}
		d.series = append(d.series, one)
	}
	return d
}

// older reports whether a producer is an older epoch of the move's, not replaced
// before.
func (s *Store) older(id producerID, m *ledger.ProducerMove) bool {
	p := s.producers[id]
	return id.site == m.Site && id.Producer == m.New.Producer && id.Epoch < m.New.Epoch && (p == nil || !p.superseded)
}

func (s *Store) negations(details []detail, m *ledger.ProducerMove, booked int64) []detail {
	var negations []detail
	for _, d := range details {
		if d.sign == 1 && s.older(d.producer, m) {
			d.sign, d.booked, d.id = -1, booked, int64(len(details)+len(negations))+1
			negations = append(negations, d)
		}
	}
	return negations
}

func (s *Store) supersede(m *ledger.ProducerMove) {
	nodes := map[nodeID]bool{}
	for _, d := range s.details {
		if d.sign == 1 && s.older(d.producer, m) {
			nodes[d.node] = true
		}
	}
	for id, p := range s.producers {
		if s.older(id, m) {
			p.superseded = true
		}
	}
	for node := range nodes {
		var own, others []ledger.MeterSpan
		for _, d := range s.details {
			if d.node != node || d.sign < 0 || s.producers[d.producer].superseded || d.producer.Producer != m.New.Producer {
				continue
			}
			for _, x := range d.series {
				span := ledger.MeterSpan{Device: x.Device, Producer: m.New.Producer, FirstMS: x.FirstMS, LastMS: x.LastMS}
				for _, p := range x.parts {
					span.FirstMS, span.LastMS = min(span.FirstMS, p.StartMS), max(span.LastMS, p.EndMS)
				}
				own = append(own, span)
			}
		}
		for producer, spans := range s.meters[node] {
			if producer != m.New.Producer {
				others = append(others, spans...)
			}
		}
		s.putMeter(node, m.New.Producer, ledger.JoinSpans(own, others))
	}
}

func (s *Store) putMeter(node nodeID, producer [16]byte, spans []ledger.MeterSpan) {
	of := s.meters[node]
	if of == nil {
		of = map[[16]byte][]ledger.MeterSpan{}
		s.meters[node] = of
	}
	delete(of, producer)
	if len(spans) > 0 {
		of[producer] = spans
	}
}

type posting struct {
	ledger.Account
	slot      slot.Slot
	booked    int64
	partition byte
}

// grow returns the postings that details change, and refuses those that would not
// fit.
func (s *Store) grow(added []detail) (map[posting]unit.Energy, error) {
	sums := map[posting]unit.Sum{}
	for i := range added {
		d := &added[i]
		for j := range d.series {
			x := &d.series[j]
			a := x.Account()
			if x.Run == "" {
				a.Project = x.rollup
			}
			for k := range x.parts {
				p := &x.parts[k]
				key := posting{a, p.Slot, ledger.BookedOf(p.Slot, d.booked), d.producer.Producer[0]}
				sum, touched := sums[key]
				if !touched {
					sum = unit.SumOf(s.sums[key])
				}
				sum.Add(unit.Energy(d.sign) * p.Energy)
				sums[key] = sum
			}
		}
	}
	grown := map[posting]unit.Energy{}
	for key, sum := range sums {
		var fits bool
		switch grown[key], fits = sum.Energy(); {
		case !fits && sum.Sign() < 0:
			grown[key] = math.MinInt64 // what is taken back always fits
		case !fits:
			return nil, fmt.Errorf("slot %v: %w", key.slot, ledger.ErrOverflow)
		}
	}
	return grown, nil
}

func (s *Store) project(x *series) string {
	if x.Run == "" {
		return x.rollup
	}
	return s.projects[x.Run]
}

func (s *Store) selects(f *ledger.Filter, x *series) bool {
	return (f.Site == "" || f.Site == x.Site) && (f.Run == "" || f.Run == x.Run) &&
		(f.Project == "" || f.Project == s.project(x)) && (f.Component == "" || f.Component == x.Component) &&
		(f.Node == "" || f.Node == x.Node)
}

func selectsPart(f *ledger.Filter, p *segment.Part, booked int64) bool {
	return (f.From == 0 || p.Slot >= f.From) && (f.To == 0 || p.Slot < f.To) && (f.BookedBy == 0 || booked <= f.BookedBy)
}

// Postings implements [ledger.Reader].
func (s *Store) Postings(ctx context.Context, f ledger.Filter, yield func(ledger.PostingRow) error) error {
	f.Node = ""
	var rows []ledger.PostingRow
	at := map[posting]int{}
	if err := s.Details(ctx, ledger.DetailFilter{Filter: f}, func(d ledger.DetailRow) error {
		for _, p := range d.Parts {
			account := p.Account()
			account.Project = p.Project
			key := posting{Account: account, slot: p.Slot, booked: p.Booked}
			i, found := at[key]
			if !found || (rows[i].Energy+p.Energy < rows[i].Energy) != (p.Energy < 0) { // goes on in another row
				i = len(rows)
				at[key] = i
				rows = append(rows, ledger.PostingRow{Account: account, Slot: p.Slot, Booked: p.Booked})
			}
			rows[i].Energy += p.Energy
			rows[i].ObservedMS += p.ObservedMS
			rows[i].InterpolatedMS += p.InterpolatedMS
			rows[i].MissingMS += p.MissingMS
		}
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b ledger.PostingRow) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Run, b.Run),
			cmp.Compare(a.Project, b.Project), cmp.Compare(a.Component, b.Component),
			compareBools(a.Modelled, b.Modelled), cmp.Compare(a.Booked, b.Booked))
	})
	for _, row := range rows {
		if err := yield(row); err != nil {
			return err
		}
	}
	return nil
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// Details implements [ledger.Reader].
func (s *Store) Details(_ context.Context, f ledger.DetailFilter, yield func(ledger.DetailRow) error) error {
	s.mu.RLock()
	var found []ledger.DetailRow
	for i := range s.details {
		d := &s.details[i]
		if d.id <= f.AfterID {
			continue
		}
		row := ledger.DetailRow{ID: d.id, Booked: d.booked}
		for j := range d.series {
			x := &d.series[j]
			if !s.selects(&f.Filter, x) {
				continue
			}
			for k := range x.parts {
				p := &x.parts[k]
				booked := ledger.BookedOf(p.Slot, d.booked)
				if !selectsPart(&f.Filter, p, booked) {
					continue
				}
				row.Parts = append(row.Parts, ledger.DetailPart{
					SeriesKey: x.SeriesKey, Project: s.project(x), Slot: p.Slot, StartMS: p.StartMS, EndMS: p.EndMS,
					Energy: unit.Energy(d.sign) * p.Energy, ObservedMS: d.sign * p.ObservedMS,
					InterpolatedMS: d.sign * p.InterpolatedMS, MissingMS: d.sign * p.MissingMS, Booked: booked,
				})
			}
		}
		if len(row.Parts) > 0 {
			found = append(found, row)
		}
		if f.Limit > 0 && len(found) == f.Limit {
			break
		}
	}
	s.mu.RUnlock()
	for _, row := range found {
		if err := yield(row); err != nil {
			return err
		}
	}
	return nil
}

// LastDetail implements [ledger.Reader].
func (s *Store) LastDetail(context.Context) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return int64(len(s.details)), nil
}

// SeriesWindows implements [ledger.Reader].
func (s *Store) SeriesWindows(_ context.Context, f ledger.Filter) ([]ledger.SeriesWindow, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	type key struct {
		ledger.SeriesKey
		rollup string
	}
	windows := map[key]*ledger.SeriesWindow{}
	booked := map[key]int64{}
	for i := range s.details {
		d := &s.details[i]
		for j := range d.series {
			x := &d.series[j]
			k := key{x.SeriesKey, x.rollup}
			if d.sign < 0 || !s.selects(&f, x) {
				continue
			}
			if booked[k] == 0 {
				booked[k] = d.booked
			}
			if s.producers[d.producer].superseded {
				continue
			}
			w := windows[k]
			if w == nil {
				w = &ledger.SeriesWindow{SeriesKey: x.SeriesKey, Project: s.project(x), FirstMS: math.MaxInt64, LastMS: math.MinInt64}
				windows[k] = w
			}
			w.Booked = booked[k]
			w.FirstMS, w.LastMS = min(w.FirstMS, x.FirstMS), max(w.LastMS, x.LastMS)
			w.ClosedMS = max(w.ClosedMS, x.ClosedMS)
			w.PeriodMS, w.ClipStartMS, w.ClipEndMS = x.PeriodMS, x.ClipStartMS, x.ClipEndMS
		}
	}
	var found []ledger.SeriesWindow
	for _, w := range windows {
		if w.ClosedMS < w.LastMS {
			w.ClosedMS = 0 // it went on
		}
		if (f.To == 0 || w.FirstMS < f.To.StartMS()) && (f.BookedBy == 0 || w.Booked <= f.BookedBy) {
			found = append(found, *w)
		}
	}
	slices.SortFunc(found, func(a, b ledger.SeriesWindow) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Device, b.Device),
			cmp.Compare(a.Component, b.Component), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Run, b.Run),
			cmp.Compare(a.Project, b.Project), compareBools(a.Modelled, b.Modelled))
	})
	return found, nil
}

// Extent implements [ledger.Reader].
func (s *Store) Extent(ctx context.Context, f ledger.Filter) (first, last slot.Slot, ok bool, err error) {
	return ledger.ExtentOf(ctx, s, f)
}

// Rejected implements [ledger.Reader].
func (s *Store) Rejected(_ context.Context, site string) (map[string]uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counts := map[string]uint64{}
	for name, reasons := range s.rejected {
		if site == "" || site == name {
			for reason, n := range reasons {
				counts[reason] += n
			}
		}
	}
	return counts, nil
}

// Freshness implements [ledger.Reader].
func (s *Store) Freshness(ctx context.Context, f ledger.Filter) (lastTickMS, committedAt int64, err error) {
	windows, err := s.SeriesWindows(ctx, f)
	if err != nil {
		return 0, 0, err
	}
	for _, w := range windows {
		lastTickMS = max(lastTickMS, w.LastMS)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return lastTickMS, s.booked, nil
}

// CreateSite implements [ledger.Sites].
func (s *Store) CreateSite(_ context.Context, site ledger.Site) (stored ledger.Site, created bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, heard := s.sites[site.Name]
	if old.Declared {
		return old, false, nil
	}
	if heard {
		site.CreatedMS = old.CreatedMS
	}
	site.Declared = true
	s.sites[site.Name] = site
	return site, true, nil
}

// ListSites implements [ledger.Sites].
func (s *Store) ListSites(_ context.Context, after string, limit int) ([]ledger.Site, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var sites []ledger.Site
	for _, name := range slices.Sorted(maps.Keys(s.sites)) {
		if name > after && len(sites) < limit {
			sites = append(sites, s.sites[name])
		}
	}
	return sites, nil
}
