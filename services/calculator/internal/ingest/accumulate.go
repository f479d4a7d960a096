package ingest

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// Reasons for which a batch or a series is refused. Those of readings are
// segment's.
const (
	// reasonMalformed: bytes that are no batch or no series.
	reasonMalformed = "malformed"
	// reasonSite: the batch is of another site than its subject.
	reasonSite = "site_mismatch"
	// reasonPartition: the subject is not that of the producer.
	reasonPartition = "partition_mismatch"
	// reasonContent: another file under the import's id and epoch.
	reasonContent = "content_mismatch"
	// reasonSuperseded: of an epoch that a newer one has replaced.
	reasonSuperseded = "superseded"
	// reasonMeter: another producer has read the meter at that time.
	reasonMeter = "duplicate_meter"
	// reasonSpan: a few ticks that claim years for many series.
	reasonSpan = "span_too_long"
	// reasonOverflow: energy that does not fit the ledger.
	reasonOverflow = "posting_overflow"
)

// accumulator turns messages into transactions. It remembers what a round has
// read from the ledger, and serves one goroutine.
type accumulator struct {
	store   ledger.Store
	decoder samplewire.Decoder
	sites   map[string]*site // by subject token
	specs   map[segment.Spec]*segment.Spec
	runs    map[runKey]*ledger.Run
	// poisoned batches are refused: the ledger cannot hold them.
	poisoned map[batchID]bool

	pending *pending
	fold    folded
}

type site struct {
	name string
	// bad is set if the token is not one that a name has.
	bad       bool
	nodes     map[string]*node
	producers map[ledger.ProducerKey]*producer
	// pending is the transaction that names the site.
	pending uint64
}

// producer is what the ledger will hold of a producer once all that was read is
// committed.
type producer struct {
	ledger.Producer
	site *site
	// old is what it held before the transaction numbered pending.
	old     ledger.Producer
	pending uint64
	// superseded: a newer epoch has replaced this one.
	superseded bool
}

type batchID struct {
	site string
	ledger.ProducerKey
	sequence uint64
}

// pending is a transaction that accumulates.
type pending struct {
	id        uint64
	tx        ledger.Tx
	producers []*producer
	meters    []nodeReader
	series    []ledger.TxSeries
	parts     []segment.Part
	spans     []ledger.MeterSpan
	// sequence of the stream that is covered.
	sequence uint64
	messages int
	// bytes is about what is held in memory.
	bytes                        int
	samples, duplicates, ignored int64
	newestMS                     int64
	// counted are refusals that no site can be given for.
	counted map[string]uint64
	// replaces: the commit withdraws spans, which are to be read again.
	replaces bool
}

type nodeReader struct {
	site   *site
	node   *node
	reader int32
}

func newAccumulator(store ledger.Store, poisoned map[batchID]bool) *accumulator {
	return &accumulator{
		store: store, poisoned: poisoned,
		sites: map[string]*site{}, specs: map[segment.Spec]*segment.Spec{}, runs: map[runKey]*ledger.Run{},
		pending: &pending{id: 1},
	}
}

const subjectPrefix = "wattfold.power.p"

// message adds a message of the stream. An error is the ledger's: the round ends.
func (a *accumulator) message(ctx context.Context, subject string, data []byte) error {
	p := a.pending
	p.messages++
	s, partition := a.subject(subject)
	if s == nil {
		p.count(reasonMalformed)
		return nil
	}
	v, err := a.decoder.Decode(data)
	if err != nil || len(v.Node) == 0 || !isText(v.Node) {
		if header, ok := named(data, partition); ok {
			return a.refuse(ctx, s, header, nil, reasonMalformed)
		}
		p.reject(s, reasonMalformed)
		return nil
	}
	if v.Producer[0] != partition {
		// Its floor is another calculator's, perhaps: it cannot be moved here.
		p.reject(s, reasonPartition)
		return nil
	}
	switch {
	case string(v.Site) != s.name:
		return a.refuse(ctx, s, v.Header, v, reasonSite)
	case v.Ticks[0] < firstTickMS || v.Ticks[len(v.Ticks)-1] > lastTickMS:
		return a.refuse(ctx, s, v.Header, v, segment.OutOfRange.String())
	case tooLong(v):
		return a.refuse(ctx, s, v.Header, v, reasonSpan)
	case len(a.poisoned) > 0 && a.poisoned[batchID{s.name, key(v.Header), v.Sequence}]:
		return a.refuse(ctx, s, v.Header, v, reasonOverflow)
	}
	from, err := a.admit(ctx, s, v.Header, v)
	if from == nil || err != nil {
		return err
	}
	if from.superseded {
		a.refused(from, reasonSuperseded)
		return nil
	}
	if err := a.batch(ctx, from, v); err != nil {
		return err
	}
	a.completed(from)
	return nil
}

// named returns the name of a message that is no batch, if it has one that is the
// partition's.
func named(data []byte, partition byte) (samplewire.Header, bool) {
	h, err := samplewire.DecodeHeader(data)
	return h, err == nil && h.Producer[0] == partition
}

func key(h samplewire.Header) ledger.ProducerKey {
	return ledger.ProducerKey{Producer: h.Producer, Epoch: h.Epoch}
}

// subject returns the site and the partition of wattfold.power.p<NNN>.<site>, or
// nil if it is no such subject.
func (a *accumulator) subject(subject string) (s *site, partition byte) {
	rest, ok := strings.CutPrefix(subject, subjectPrefix)
	if !ok || len(rest) < 5 || rest[3] != '.' {
		return nil, 0
	}
	n := 0
	for _, c := range []byte(rest[:3]) {
		if c < '0' || c > '9' {
			return nil, 0
		}
		n = 10*n + int(c-'0')
	}
	token := rest[4:]
	s = a.sites[token]
	if s == nil {
		name, err := bus.ParseSubjectToken(token)
		s = &site{name: name, bad: err != nil || name == "" || !isText(name)}
		s.nodes, s.producers = map[string]*node{}, map[ledger.ProducerKey]*producer{}
		a.sites[strings.Clone(token)] = s
	}
	if s.bad || n > 255 {
		return nil, 0
	}
	return s, byte(n)
}

// admit returns the producer of a batch that is new, having moved its floor, and
// nil for a batch that is not to be counted.
func (a *accumulator) admit(ctx context.Context, s *site, h samplewire.Header, v *samplewire.BatchView) (*producer, error) {
	p := a.pending
	from := s.producers[key(h)]
	if from == nil {
		var err error
		if from, err = a.loadProducer(ctx, s, key(h), v == nil || v.HasImport); err != nil {
			return nil, err
		}
	}
	if holds(&from.Producer, h.Sequence) {
		p.duplicates++
		return nil, nil
	}
	if v != nil && !sameFile(&from.Producer, v) {
		// The number belongs to the other file's chunk, which is still to come.
		p.reject(s, reasonContent)
		return nil, nil
	}
	if from.pending != p.id {
		from.old, from.pending = snapshot(&from.Producer), p.id
		p.producers = append(p.producers, from)
	}
	if !add(&from.Producer, h.Sequence) {
		p.ignored++
		return nil, nil
	}
	if v != nil && v.HasImport && from.Import == nil {
		from.Import = &ledger.ImportInfo{
			ID: string(v.Import.ID), Content: bytes.Clone(v.Import.Content),
			Last: v.Import.LastSequence, Replace: v.Import.Replace,
		}
	}
	return from, nil
}

// sameFile reports whether a batch is of the file that the producer's others are
// of, if they are of one.
func sameFile(p *ledger.Producer, v *samplewire.BatchView) bool {
	return p.Import == nil || v.HasImport && bytes.Equal(p.Import.Content, v.Import.Content) &&
		p.Import.Last == v.Import.LastSequence && p.Import.Replace == v.Import.Replace
}

func (a *accumulator) loadProducer(ctx context.Context, s *site, key ledger.ProducerKey, imported bool) (*producer, error) {
	ask := key
	if imported {
		ask.Epoch = 0 // a newer epoch may have replaced this one
	}
	known, err := a.store.Producers(ctx, s.name, []ledger.ProducerKey{ask})
	if err != nil {
		return nil, err
	}
	from := &producer{Producer: ledger.Producer{ProducerKey: key}, site: s}
	for i := range known {
		switch k := &known[i]; {
		case k.ProducerKey == key:
			from.Producer = *k
		case k.Epoch > key.Epoch && k.Import != nil && k.Import.Replace && k.Complete():
			from.superseded = true
		}
	}
	// One that is still being committed counts, too.
	for _, other := range s.producers {
		if replaced(other, key) {
			from.superseded = true
		}
	}
	s.producers[key] = from
	return from, nil
}

// replaced reports whether a producer is a complete newer epoch that replaces the
// one of the key.
func replaced(by *producer, key ledger.ProducerKey) bool {
	return by.Import != nil && by.ProducerKey.Producer == key.Producer && by.Epoch > key.Epoch &&
		by.Import.Replace && by.Complete()
}

// completed withdraws the older epochs of an import that has just become whole.
func (a *accumulator) completed(from *producer) {
	if from.Import == nil || !from.Import.Replace || !from.Complete() {
		return
	}
	move := ledger.ProducerMove{Old: from.old, New: from.Producer}
	if !move.Replaces() {
		return
	}
	a.pending.replaces = true
	for _, other := range from.site.producers {
		if replaced(from, other.ProducerKey) {
			other.superseded = true
		}
	}
}

// forgetNodes makes the next batch of every node read its meters again.
func (a *accumulator) forgetNodes() {
	for _, s := range a.sites {
		s.nodes = map[string]*node{}
	}
}

// refuse counts a batch as committed, and refused.
func (a *accumulator) refuse(ctx context.Context, s *site, h samplewire.Header, v *samplewire.BatchView, reason string) error {
	from, err := a.admit(ctx, s, h, v)
	if from == nil || err != nil {
		return err
	}
	a.refused(from, reason)
	a.completed(from)
	return nil
}

// refused counts a batch or a series of a producer.
func (a *accumulator) refused(from *producer, reason string) {
	if from.Refused == nil {
		from.Refused = map[string]uint64{}
	}
	from.Refused[reason]++
	a.pending.reject(from.site, reason)
}

func (p *pending) reject(s *site, reason string) { p.rejectMany(s, reason, 1) }

func (p *pending) rejectMany(s *site, reason string, n uint64) {
	if p.tx.Rejected == nil {
		p.tx.Rejected = map[string]map[string]uint64{}
	}
	if p.tx.Rejected[s.name] == nil {
		p.tx.Rejected[s.name] = map[string]uint64{}
	}
	p.tx.Rejected[s.name][reason] += n
}

func (p *pending) count(reason string) {
	if p.counted == nil {
		p.counted = map[string]uint64{}
	}
	p.counted[reason]++
}

// batch integrates a new batch.
func (a *accumulator) batch(ctx context.Context, from *producer, v *samplewire.BatchView) error {
	p, s := a.pending, from.site
	n := s.nodes[string(v.Node)]
	if n == nil {
		var err error
		if n, err = a.loadNode(ctx, s, string(v.Node)); err != nil {
			return err
		}
	}
	if s.pending != p.id {
		s.pending = p.id
		p.tx.Sites = append(p.tx.Sites, s.name)
	}
	if len(n.series) > 4*len(v.Series)+spareSeries {
		n.series = nil
	}
	reader := n.reader(v.Producer)
	start := len(p.series)
	for i := range v.Series {
		err := a.series(from, n, reader, v, i)
		switch {
		case errors.Is(err, errMeterTaken):
			a.refused(from, reasonMeter)
		case err != nil:
			a.refused(from, reasonMalformed)
		}
	}
	added := p.series[start:len(p.series):len(p.series)]
	if len(added) == 0 {
		return nil
	}
	if n.producers[reader].pending != p.id {
		n.producers[reader].pending = p.id
		p.meters = append(p.meters, nodeReader{s, n, reader})
	}
	for i := range added {
		p.newestMS = max(p.newestMS, added[i].LastMS)
	}
	p.tx.Batches = append(p.tx.Batches, ledger.TxBatch{
		Site: s.name, Node: n.name, ProducerKey: from.ProducerKey, Sequence: v.Sequence, Series: added,
	})
	p.bytes += batchBytes
	return nil
}

// What a batch, a series and a part take in a transaction, in bytes.
const (
	batchBytes  = 200
	seriesBytes = 64
	partBytes   = 64
)

// errMeterTaken says that a segment or more was refused because another producer
// has read the meter. What was not refused is counted.
var errMeterTaken = errors.New("another producer reads the meter")

// series integrates one series of a batch.
func (a *accumulator) series(from *producer, n *node, reader int32, v *samplewire.BatchView, i int) error {
	view := &v.Series[i]
	s := n.find(view.Descriptor)
	if s == nil {
		var err error
		if s, err = a.parse(view.Descriptor); err != nil {
			return err
		}
		n.series = append(n.series, s)
	}
	times, values, err := a.decoder.Readings(i, s.scale)
	if err != nil {
		return err
	}
	var prev *segment.Reading
	if view.HasPrevious {
		value, err := samplewire.Scaled(view.PreviousValue, s.scale)
		if err != nil {
			return err
		}
		prev = &segment.Reading{TimeMS: view.PreviousMS, Value: value}
	}
	f := &a.fold
	f.refused = false
	others := n.others(s.Device, reader)
	if len(others) > 0 {
		added := f.foldOutside(s, prev, times, values, others)
		n.join(s, reader, added, others)
	} else {
		segment.Fold(s.spec, prev, times, values, &f.Result)
		if f.Readings > 0 {
			first, last := covered(&f.Result)
			n.extend(s, reader, first, last)
		}
	}
	a.add(from.site, s, view.Closed)
	if f.refused {
		return errMeterTaken
	}
	return nil
}

// add adds a folded series to the transaction.
func (a *accumulator) add(of *site, s *series, closed bool) {
	p, f := a.pending, &a.fold
	for reason, n := range f.Counts {
		if n > 0 && counts(segment.Reason(reason)) { //nolint:gosec // there are few
			p.rejectMany(of, segment.Reason(reason).String(), uint64(n)) //nolint:gosec // as above
		}
	}
	if f.Readings == 0 {
		return
	}
	start := len(p.parts)
	p.parts = append(p.parts, f.Parts...)
	p.series = append(p.series, ledger.TxSeries{
		Series: &s.Series, FirstMS: f.FirstMS, LastMS: f.LastMS, Closed: closed,
		Parts: p.parts[start:len(p.parts):len(p.parts)],
	})
	p.samples += int64(f.Readings)
	p.bytes += seriesBytes + partBytes*len(f.Parts)
}

// counts reports whether a reason costs a reading or its energy. A duplicate has
// been counted at its instant, and a wrap is as it should be.
func counts(r segment.Reason) bool { return r != segment.Duplicate && r != segment.Wrap }

// take returns what has accumulated, ready to be committed, and goes on with
// next, whose memory is used again.
func (a *accumulator) take(next *pending) *pending {
	p := a.pending
	tx := &p.tx
	for _, from := range p.producers {
		move := ledger.ProducerMove{Site: from.site.name, Old: from.old, New: snapshot(&from.Producer)}
		tx.Producers = append(tx.Producers, move)
	}
	for _, m := range p.meters {
		start := len(p.spans)
		p.spans = m.node.spansOf(m.reader, p.spans)
		tx.Meters = append(tx.Meters, ledger.TxMeter{
			Site: m.site.name, Node: m.node.name, Producer: m.node.producers[m.reader].id,
			Spans: p.spans[start:len(p.spans):len(p.spans)],
		})
	}
	if next == nil {
		next = new(pending)
	}
	next.reset(p.id + 1)
	a.pending = next
	return p
}

// reset empties a transaction for another use.
func (p *pending) reset(id uint64) {
	clear(p.series) // lets go of series that are no more
	clear(p.producers)
	clear(p.meters)
	clear(p.tx.Batches)
	clear(p.tx.Producers)
	*p = pending{
		id: id, producers: p.producers[:0], meters: p.meters[:0], series: p.series[:0], parts: p.parts[:0], spans: p.spans[:0],
		tx: ledger.Tx{
			Batches: p.tx.Batches[:0], Producers: p.tx.Producers[:0], Meters: p.tx.Meters[:0], Sites: p.tx.Sites[:0],
		},
	}
}
