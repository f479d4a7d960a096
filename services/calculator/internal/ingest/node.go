package ingest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
	"unique"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// node is what is remembered of a node: which series its descriptors mean, and
// who reads its meters.
type node struct {
	name string
	// series in the order in which they were seen first.
	series []*series
	next   int
	// producers that have spans.
	producers []meterReader
	spans     []span
}

// meterReader is a producer on a node; spans name it by its index.
type meterReader struct {
	id [16]byte
	// pending is the transaction that its spans are written with.
	pending uint64
}

type span struct {
	device      string
	reader      int32
	first, last int64
}

// series is a series of a node.
type series struct {
	ledger.Series
	// descriptor is what it was parsed from.
	descriptor string
	spec       *segment.Spec
	scale      uint8
	// span is where the span that grew last is in node.spans.
	span int32
}

// maxText bounds names from strangers, in bytes.
const maxText = 255

// isText reports whether a stranger's name can be kept: what is not UTF-8 would
// be in answers that cannot be encoded.
func isText[T string | []byte](name T) bool {
	return len(name) <= maxText && utf8.ValidString(string(name))
}

// spareSeries is how many series that are not in a batch are remembered of its
// node. Beyond that all are forgotten: jobs come and go.
const spareSeries = 64

// find returns the series of a descriptor. It looks first after the one found
// last: batches name their series in the same order.
func (n *node) find(descriptor []byte) *series {
	at := n.next
	for range n.series {
		if at >= len(n.series) {
			at = 0
		}
		s := n.series[at]
		at++
		if s.descriptor == string(descriptor) {
			n.next = at
			return s
		}
	}
	return nil
}

// parse makes the series of a descriptor seen for the first time.
func (a *accumulator) parse(raw []byte) (*series, error) {
	d, err := samplewire.ParseDescriptor(raw)
	if err != nil {
		return nil, err
	}
	for _, text := range []string{d.Device, d.Component, d.Workload, d.Run, d.Project} {
		if !isText(text) {
			return nil, fmt.Errorf("%w: a name of %d bytes, or not of UTF-8", samplewire.ErrMalformed, len(text))
		}
	}
	if d.Device == "" {
		return nil, errors.New("no device")
	}
	spec := segment.Spec{
		Kind: segment.Kind(d.Kind), PeriodMS: int64(d.PeriodMS), MaxGapMS: int64(d.MaxGapMS),
		Range: d.Range, MaxPower: d.MaxPower, ClipStart: segment.NoClipStart, ClipEnd: segment.NoClipEnd,
	}
	run := ledger.Run{Name: d.Run, Project: d.Project, Labels: d.Labels}
	if d.HasClipStart {
		spec.ClipStart, run.ClipStartMS = d.ClipStartMS, d.ClipStartMS
	}
	if d.HasClipEnd {
		spec.ClipEnd, run.ClipEndMS = d.ClipEndMS, d.ClipEndMS
	}
	s := &series{descriptor: string(raw), spec: a.spec(spec), scale: d.Scale, span: -1}
	s.Series = ledger.Series{
		Device: unique.Make(d.Device).Value(), Component: unique.Make(d.Component).Value(),
		Workload: unique.Make(d.Workload).Value(), PeriodMS: d.PeriodMS, Modelled: d.Provenance == modelled,
	}
	if run.Name != "" || run.Project != "" || d.HasClipStart || d.HasClipEnd {
		s.Run = a.run(run)
	}
	return s, nil
}

// modelled is telemetry.v1's PROVENANCE_MODELLED.
const modelled = 2

// internLimit bounds the memory of what is shared between series. What is
// dropped stays with the series that have it.
const internLimit = 1 << 16

func (a *accumulator) spec(s segment.Spec) *segment.Spec {
	shared := a.specs[s]
	if shared == nil {
		if len(a.specs) == internLimit {
			clear(a.specs)
		}
		shared = &s
		a.specs[s] = shared
	}
	return shared
}

// runKey tells runs apart that are described differently.
type runKey struct {
	name, project, labels string
	start, end            int64
}

func (a *accumulator) run(r ledger.Run) *ledger.Run {
	key := runKey{name: r.Name, project: r.Project, start: r.ClipStartMS, end: r.ClipEndMS}
	if len(r.Labels) > 0 {
		key.labels = fmt.Sprint(r.Labels) // maps are printed in order of their keys
	}
	shared := a.runs[key]
	if shared == nil {
		if len(a.runs) == internLimit {
			clear(a.runs)
		}
		shared = &r
		a.runs[key] = shared
	}
	return shared
}

// loadNode reads who reads a node's meters.
func (a *accumulator) loadNode(ctx context.Context, site *site, name string) (*node, error) {
	n := &node{name: name}
	spans, err := a.store.Meters(ctx, site.name, name)
	if err != nil {
		return nil, err
	}
	n.setSpans(spans)
	site.nodes[name] = n
	return n, nil
}

func (n *node) setSpans(spans []ledger.MeterSpan) {
	n.spans = make([]span, 0, len(spans))
	for i := range spans {
		s := &spans[i]
		n.spans = append(n.spans, span{
			device: unique.Make(s.Device).Value(), reader: n.reader(s.Producer), first: s.FirstMS, last: s.LastMS,
		})
	}
}

// reader returns the index of a producer.
func (n *node) reader(id [16]byte) int32 {
	for i := range n.producers {
		if n.producers[i].id == id {
			return int32(i) //nolint:gosec // as many producers as a node has collectors and imports
		}
	}
	n.producers = append(n.producers, meterReader{id: id})
	return int32(len(n.producers) - 1) //nolint:gosec // as above
}

// extend lets the span of a series' device grow. No other producer may have one.
func (n *node) extend(s *series, reader int32, first, last int64) {
	at := s.span
	if at < 0 || int(at) >= len(n.spans) || n.spans[at].reader != reader || n.spans[at].device != s.Device {
		i := slices.IndexFunc(n.spans, func(x span) bool { return x.device == s.Device && x.reader == reader })
		if i < 0 {
			i = len(n.spans)
			n.spans = append(n.spans, span{device: s.Device, reader: reader, first: first, last: last})
		}
		at = int32(i) //nolint:gosec // as many spans as a node has meters
		s.span = at
	}
	x := &n.spans[at]
	x.first, x.last = min(x.first, first), max(x.last, last)
}

// join is extend on a device that other producers have spans of, too.
func (n *node) join(s *series, reader int32, added []ledger.MeterSpan, others []ledger.MeterSpan) {
	own := slices.Clone(added)
	n.spans = slices.DeleteFunc(n.spans, func(x span) bool {
		mine := x.device == s.Device && x.reader == reader
		if mine {
			own = append(own, ledger.MeterSpan{Device: x.device, FirstMS: x.first, LastMS: x.last})
		}
		return mine
	})
	for _, j := range ledger.JoinSpans(own, others) {
		n.spans = append(n.spans, span{device: s.Device, reader: reader, first: j.FirstMS, last: j.LastMS})
	}
}

// others returns the spans that other producers have of a device.
func (n *node) others(device string, reader int32) []ledger.MeterSpan {
	if len(n.producers) == 1 {
		return nil
	}
	var others []ledger.MeterSpan
	for i := range n.spans {
		if x := &n.spans[i]; x.reader != reader && x.device == device {
			others = append(others, ledger.MeterSpan{Device: device, FirstMS: x.first, LastMS: x.last})
		}
	}
	return others
}

// spansOf returns the spans of one producer as the ledger has them.
func (n *node) spansOf(reader int32, dst []ledger.MeterSpan) []ledger.MeterSpan {
	for i := range n.spans {
		if x := &n.spans[i]; x.reader == reader {
			dst = append(dst, ledger.MeterSpan{
				Device: x.device, Producer: n.producers[reader].id, FirstMS: x.first, LastMS: x.last,
			})
		}
	}
	return dst
}

// folded is what became of one series of a batch.
type folded struct {
	segment.Result
	// refused says that segments lie in a span of another producer.
	refused bool
	run     segment.Result
	ticks   []int64
	read    []int64
}

// foldOutside folds only the segments that overlap no span of others. added are
// the spans that they cover.
func (f *folded) foldOutside(s *series, prev *segment.Reading, times, values []int64, others []ledger.MeterSpan) (added []ledger.MeterSpan) {
	// Everything once, for what is odd about the readings.
	segment.Fold(s.spec, prev, times, values, &f.Result)
	f.Parts, f.FirstMS, f.LastMS, f.Readings = f.Parts[:0], 0, 0, 0
	f.ticks, f.read = f.ticks[:0], f.read[:0]
	push := func(r segment.Reading) {
		if _, ok := s.spec.Accepts(r); ok && (len(f.ticks) == 0 || r.TimeMS > f.ticks[len(f.ticks)-1]) {
			f.ticks, f.read = append(f.ticks, r.TimeMS), append(f.read, r.Value)
		}
	}
	if prev != nil {
		push(*prev)
	}
	opened := len(f.ticks) == 0 // the first reading opens the series
	for i := range times {
		push(segment.Reading{TimeMS: times[i], Value: values[i]})
	}
	outside := func(i int) bool {
		of := ledger.MeterSpan{Device: s.Device, FirstMS: f.ticks[i-1], LastMS: f.ticks[i]}
		return !slices.ContainsFunc(others, of.Overlaps)
	}
	for i := 1; i < len(f.ticks); i++ {
		if !outside(i) {
			f.refused = true
			continue
		}
		start := i - 1
		for i+1 < len(f.ticks) && outside(i+1) {
			i++
		}
		opening := segment.Reading{TimeMS: f.ticks[start], Value: f.read[start]}
		segment.Fold(s.spec, &opening, f.ticks[start+1:i+1], f.read[start+1:i+1], &f.run)
		first := f.run.FirstMS
		if start == 0 && opened {
			first = opening.TimeMS
			f.run.Readings++
		}
		if f.Readings == 0 {
			f.FirstMS = first
		}
		f.LastMS = f.run.LastMS
		f.Readings += f.run.Readings
		f.Parts = append(f.Parts, f.run.Parts...)
		added = append(added, ledger.MeterSpan{Device: s.Device, FirstMS: opening.TimeMS, LastMS: f.run.LastMS})
	}
	if len(f.ticks) == 1 && opened {
		at := f.ticks[0]
		if slices.ContainsFunc(others, func(o ledger.MeterSpan) bool { return o.FirstMS < at && at < o.LastMS }) {
			f.refused = true
		} else {
			f.FirstMS, f.LastMS, f.Readings = at, at, 1
			added = append(added, ledger.MeterSpan{Device: s.Device, FirstMS: at, LastMS: at})
		}
	}
	return added
}

// covered is the time that a folded series has a claim to.
func covered(r *segment.Result) (first, last int64) {
	first, last = r.FirstMS, r.LastMS
	if len(r.Parts) > 0 {
		first = min(first, r.Parts[0].StartMS)
	}
	return first, last
}

// reach is how far before the first tick a batch's segments begin, in ms.
func reach(previousMS, firstMS int64) int64 {
	if previousMS >= firstMS || previousMS < segment.MinTimeMS || firstMS > segment.MaxTimeMS {
		return 0
	}
	if age := firstMS - previousMS; age <= segment.MaxSegmentMS {
		return age
	}
	return 0
}

// firstTickMS and lastTickMS bound the ticks of a batch to what the timestamps of
// answers can tell, the years 1 to 9999, less a segment before the first.
const (
	firstTickMS = -62_135_596_800_000 + segment.MaxSegmentMS
	lastTickMS  = 253_402_300_500_000
)

// maxParts bounds the parts of a batch, so that a small message cannot claim
// years for thousands of series.
const maxParts = 1 << 20

// tooLong reports whether a batch could make more parts than maxParts.
func tooLong(v *samplewire.BatchView) bool {
	first, last := v.Ticks[0], v.Ticks[len(v.Ticks)-1]
	age := int64(0)
	for i := range v.Series {
		if v.Series[i].HasPrevious {
			age = max(age, reach(v.Series[i].PreviousMS, first))
		}
	}
	slots := float64(last-first+age)/(5*60*1000) + 2
	return slots*float64(len(v.Series)) > maxParts || math.Abs(float64(last-first)) > float64(segment.MaxTimeMS)
}
