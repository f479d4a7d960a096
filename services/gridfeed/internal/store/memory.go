package store

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wattfold/wattfold/carbon/timeline"
)

// Memory is a store that lasts as long as the process: for tests of what is built on
// stores. Make one with [NewMemory].
type Memory struct {
	mu        sync.RWMutex
	clock     clock
	timelines map[Key]*memoryTimeline
	chains    []Chain
}

type memoryTimeline struct {
	Timeline
	first   int64
	records []timeline.Record
}

// NewMemory returns an empty store whose moments are those of now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{clock: clock{now: now}, timelines: map[Key]*memoryTimeline{}}
}

// Append implements [Store].
func (m *Memory) Append(ctx context.Context, batches []Batch) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	receipt := Receipt{RecordedMS: m.clock.next(), Changes: make([]Change, len(batches))}
	for i, batch := range batches {
		t := m.timelines[batch.Key]
		if t == nil {
			t = &memoryTimeline{Timeline: Timeline{Key: batch.Key}}
		}
		var fresh []timeline.Record
		fresh, _, receipt.Changes[i] = apply(t.records, batch, receipt.RecordedMS)
		if len(t.records)+len(fresh) == 0 {
			continue
		}
		if len(t.records) == 0 {
			t.first = fresh[0].RecordedMS
			m.timelines[batch.Key] = t
		}
		if batch.Attribution != "" {
			t.Attribution = batch.Attribution
		}
		t.summarise(fresh)
		t.records = append(t.records, fresh...)
		slices.SortFunc(t.records, byStart)
	}
	return receipt, nil
}

// summarise takes records that are being stored into the description.
func (t *Timeline) summarise(fresh []timeline.Record) {
	t.Revisions += uint64(len(fresh))
	for i := range fresh {
		r := &fresh[i]
		switch {
		case r.Retracted:
		case t.Start == t.End:
			t.Start, t.End = r.Start, r.End
		default:
			t.Start, t.End = min(t.Start, r.Start), max(t.End, r.End)
		}
	}
}

// Timelines implements [Store].
func (m *Memory) Timelines(context.Context) ([]Timeline, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]Timeline, 0, len(m.timelines))
	for _, t := range m.timelines {
		list = append(list, t.Timeline)
	}
	slices.SortFunc(list, func(a, b Timeline) int { return a.compare(b.Key) })
	return list, nil
}

// Series implements [Store].
func (m *Memory) Series(_ context.Context, subject string, signal Signal) ([]timeline.Series, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var found []*memoryTimeline
	for key, t := range m.timelines {
		if key.Subject == subject && key.Signal == signal {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *memoryTimeline) int {
		return cmp.Or(cmp.Compare(b.first, a.first), a.compare(b.Key))
	})
	series := make([]timeline.Series, len(found))
	for i, t := range found {
		series[i] = timeline.Series{Source: t.Source, Product: t.Product, Records: slices.Clone(t.records)}
	}
	return series, nil
}

// DeclareChains implements [Store].
func (m *Memory) DeclareChains(ctx context.Context, chains []Chain) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := changedChains(m.chains, chains)
	if len(changed) == 0 {
		return nil
	}
	since := m.clock.untouched()
	recorded := m.clock.next()
	if since {
		recorded = timeline.SinceEver
	}
	for _, c := range changed {
		c.RecordedMS = recorded
		m.chains = append(m.chains, c)
	}
	slices.SortFunc(m.chains, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Signal, b.Signal), cmp.Compare(a.RecordedMS, b.RecordedMS))
	})
	return nil
}

// Chains implements [Store].
func (m *Memory) Chains(context.Context) ([]Chain, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.chains), nil
}

// Hold implements [Store].
func (m *Memory) Hold(ms int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock.hold(ms)
}

// Close implements [Store].
func (m *Memory) Close() error { return nil }
