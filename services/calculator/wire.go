package calculator

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// gridClient is gridfeed, in this process or elsewhere.
type gridClient = gridv1.GridServiceClient

// gridReader reads grid.v1 in the words of this package.
type gridReader struct{ client gridClient }

const (
	zonesPerPage       = 1000
	intensitiesPerPage = 50_000
)

// gridError classifies a failed call of gridfeed: what it finds wrong with our
// request is ours, not the caller's.
func gridError(err error) error {
	err = rpc.FromStatus(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	kind := fault.Internal
	if fault.KindOf(err).Temporary() {
		kind = fault.Unavailable
	}
	return fault.Wrap(kind, fmt.Errorf("ask gridfeed for factors: %w", err))
}

// zones implements [intensitySource].
func (g gridReader) zones(ctx context.Context) (map[string][]gridTimeline, error) {
	all := map[string][]gridTimeline{}
	req := &gridv1.ListZonesRequest{PageSize: zonesPerPage}
	for {
		resp, err := g.client.ListZones(ctx, req)
		if err != nil {
			return nil, gridError(err)
		}
		for _, z := range resp.GetZones() {
			timelines := make([]gridTimeline, len(z.GetTimelines()))
			for i, t := range z.GetTimelines() {
				timelines[i] = gridTimeline{
					signal: signal(t.GetSignal()), source: t.GetSource(), product: t.GetProduct(), //nolint:gosec // few
					revisions: t.GetRevisions(), attribution: t.GetAttribution(),
				}
			}
			all[z.GetZone()] = timelines
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return all, nil
		}
	}
}

// intensities implements [intensitySource].
func (g gridReader) intensities(
	ctx context.Context, zone string, s signal, by pricing, from, to slot.Slot,
) ([]factor, error) {
	req := &gridv1.ListIntensitiesRequest{
		Zone: zone, Signal: gridv1.Signal(s), View: viewToProto(by), PageSize: intensitiesPerPage,
		StartTime: timestamp(from.StartMS()), EndTime: timestamp(to.StartMS()),
	}
	var steps []factor
	for {
		resp, err := g.client.ListIntensities(ctx, req)
		if err != nil {
			if fault.ReasonOf(rpc.FromStatus(err)) == "ZONE_UNKNOWN" {
				return nil, nil // no data, and its energy is unpriced
			}
			return nil, gridError(err)
		}
		if steps == nil {
			steps = make([]factor, 0, len(resp.GetIntensities()))
		}
		for _, m := range resp.GetIntensities() {
			f, err := factorFromProto(m)
			if err != nil {
				return nil, err
			}
			if n := len(steps); n > 0 { // one text for all of them
				last := &steps[n-1]
				f.zone, f.Source, f.Product = same(f.zone, last.zone), same(f.Source, last.Source), same(f.Product, last.Product)
			}
			steps = append(steps, f)
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return steps, nil
		}
	}
}

func same(text, kept string) string {
	if text == kept {
		return kept
	}
	return text
}

func factorFromProto(m *gridv1.Intensity) (factor, error) {
	value, err := unit.ParseDecimal(m.GetDecimal())
	if err != nil {
		return factor{}, fmt.Errorf("gridfeed's factor of %s: %w", m.GetZone(), err)
	}
	return factor{zone: m.GetZone(), Step: timeline.Step{
		Start: slot.Of(milliseconds(m.GetStartTime())), End: slot.Of(milliseconds(m.GetEndTime())), Value: value,
		Source: m.GetSource(), Product: m.GetProduct(),
		Quality: timeline.Quality(m.GetQuality()), Method: timeline.Method(m.GetMethod()), //nolint:gosec // few
		AgeMS: m.GetAgeSeconds() * 1000, Revision: m.GetRevision(),
		KnownMS: milliseconds(m.GetKnownAt()), RecordedMS: milliseconds(m.GetRecordedAt()),
	}}, nil
}

// milliseconds reads an instant, rounded down.
func milliseconds(t *timestamppb.Timestamp) int64 {
	return t.GetSeconds()*1000 + int64(t.GetNanos())/1_000_000
}

// timestamp tells an instant.
func timestamp(ms int64) *timestamppb.Timestamp {
	ms = max(ms, minSlot.StartMS())
	seconds := floorDiv(ms, 1000)
	return &timestamppb.Timestamp{Seconds: seconds, Nanos: int32(ms-seconds*1000) * 1_000_000} //nolint:gosec // below 1000
}

// instant reads a time of a request, rounded down to milliseconds.
func instant(path string, t *timestamppb.Timestamp) (int64, error) {
	if err := t.CheckValid(); err != nil {
		return 0, fault.Fields(fault.Fieldf(path, "not a timestamp: %v", err))
	}
	return milliseconds(t), nil
}

func viewToProto(by pricing) *gridv1.View {
	switch by.by {
	case pricedAsOf:
		return &gridv1.View{By: &gridv1.View_AsOf{AsOf: timestamp(by.atMS)}}
	case pricedAsKnownThen:
		return &gridv1.View{By: &gridv1.View_AsKnownThen{AsKnownThen: true}}
	default:
		return nil
	}
}

func pricingFromProto(m *ledgerv1.Pricing) (pricing, error) {
	no := func(name string) error {
		return fault.Fields(fault.Fieldf("pricing."+name, "false says nothing: leave it out or set another one"))
	}
	switch by := m.GetBy().(type) {
	case *ledgerv1.Pricing_AsOf:
		ms, err := instant("pricing.as_of", by.AsOf)
		return pricing{by: pricedAsOf, atMS: ms}, err
	case *ledgerv1.Pricing_AsKnownThen:
		if !by.AsKnownThen {
			return pricing{}, no("as_known_then")
		}
		return pricing{by: pricedAsKnownThen}, nil
	case *ledgerv1.Pricing_Latest:
		if !by.Latest {
			return pricing{}, no("latest")
		}
		return pricing{}, nil
	default:
		return pricing{}, nil
	}
}

func pricingToProto(by pricing) *ledgerv1.Pricing {
	switch by.by {
	case pricedAsOf:
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: timestamp(by.atMS)}}
	case pricedAsKnownThen:
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}}
	default:
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_Latest{Latest: true}}
	}
}

func signalFromProto(path string, m gridv1.Signal) (signal, error) {
	switch m {
	case gridv1.Signal_SIGNAL_UNSPECIFIED, gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE:
		return carbonAverageLifecycle, nil
	case gridv1.Signal_SIGNAL_CARBON_AVERAGE_DIRECT:
		return carbonAverageDirect, nil
	case gridv1.Signal_SIGNAL_CARBON_MARGINAL:
		return carbonMarginal, nil
	default:
		return 0, fault.Fields(fault.Fieldf(path, "%d is not a signal", m))
	}
}

func signalsFromProto(all []gridv1.Signal) ([]signal, error) {
	if len(all) == 0 {
		return []signal{carbonAverageLifecycle}, nil
	}
	var found []signal
	seen := map[signal]bool{}
	for i, m := range all {
		s, err := signalFromProto(fmt.Sprintf("signals[%d]", i), m)
		if err != nil {
			return nil, err
		}
		if !seen[s] {
			seen[s] = true
			found = append(found, s)
		}
	}
	return found, nil
}

func dimensionsFromProto(all []ledgerv1.Dimension) ([]dimension, error) {
	found := make([]dimension, len(all))
	seen := map[ledgerv1.Dimension]bool{}
	for i, m := range all {
		if m < ledgerv1.Dimension_DIMENSION_SITE || m > ledgerv1.Dimension_DIMENSION_NODE || seen[m] {
			return nil, fault.Fields(fault.Fieldf(fmt.Sprintf("group_by[%d]", i), "%s is no dimension, or given twice", m))
		}
		seen[m] = true
		found[i] = dimension(m) //nolint:gosec // checked above
	}
	return found, nil
}

func selectionFromProto(m *ledgerv1.Selection) selection {
	return selection{
		site: m.GetSite(), run: m.GetRun(), project: m.GetProject(), component: m.GetComponent(), node: m.GetNode(),
	}
}

// boundsFromProto reads a range; an end that is not given is nil.
func boundsFromProto(m *ledgerv1.Interval) (start, end *int64, err error) {
	read := func(path string, t *timestamppb.Timestamp) *int64 {
		if t == nil || err != nil {
			return nil
		}
		var ms int64
		ms, err = instant(path, t)
		return &ms
	}
	start, end = read("interval.start_time", m.GetStartTime()), read("interval.end_time", m.GetEndTime())
	if err == nil && start != nil && end != nil && *start >= *end {
		err = fault.Fields(fault.Field("interval.end_time", "not after start_time; a range is [start_time, end_time)"))
	}
	return start, end, err
}

// question reads what all requests have in common.
func questionFromProto(
	sel *ledgerv1.Selection, in *ledgerv1.Interval, by *ledgerv1.Pricing, signals []gridv1.Signal,
) (ask question, err error) {
	ask.selection = selectionFromProto(sel)
	if ask.start, ask.end, err = boundsFromProto(in); err != nil {
		return question{}, err
	}
	if ask.pricing, err = pricingFromProto(by); err != nil {
		return question{}, err
	}
	ask.signals, err = signalsFromProto(signals)
	return ask, err
}

// stepFromProto reads the step of a series.
func stepFromProto(m *ledgerv1.GetSeriesRequest) (bucketing, error) {
	if m.GetStep() == nil {
		return bucketing{slots: 1}, nil
	}
	const longest = 366 * 24 * time.Hour
	step := m.GetStep().AsDuration()
	if m.GetStep().CheckValid() != nil || step <= 0 || step > longest || step%(slot.Millis*time.Millisecond) != 0 {
		return bucketing{}, fault.Fields(fault.Fieldf("step", "%s is not a multiple of 5m up to a year", step))
	}
	return bucketing{slots: slot.Slot(step / (slot.Millis * time.Millisecond))}, nil
}

// interval tells a range.
func interval(asked, effective span) *ledgerv1.Interval {
	return &ledgerv1.Interval{
		StartTime: timestamp(asked.start), EndTime: timestamp(asked.end),
		Effective: &ledgerv1.Interval{StartTime: timestamp(effective.start), EndTime: timestamp(effective.end)},
	}
}

// meanKW is the mean power of an energy over a range.
func meanKW(e unit.Sum, over span) float64 {
	if over.end <= over.start {
		return 0
	}
	return e.KWh() / (float64(over.end-over.start) / float64(time.Hour.Milliseconds()))
}

func statementToProto(p *plan, s *statement) *ledgerv1.Statement {
	first := &s.folders[0]
	m := &ledgerv1.Statement{
		Energy: &ledgerv1.Energy{
			ItMicrojoules:      first.Energy().Microjoules(),
			ItKwh:              first.Energy().KWh(),
			FacilityKwh:        first.FacilityKWh(),
			FacilityUnknownKwh: first.FacilityUnknown().KWh(),
			ModelledKwh:        first.Modelled().KWh(),
			MeanKw:             meanKW(first.Energy(), s.effective),
			PeakSlotKw:         s.peak.KWh() * float64(time.Hour.Milliseconds()/slot.Millis),
		},
		Coverage: coverageToProto(s.coverage), Provisional: s.provisional, Rejected: s.rejected,
		Emissions: make([]*ledgerv1.Emissions, len(p.signals)), Provenance: make([]*ledgerv1.Provenance, len(s.provenance)),
	}
	if s.asked != (span{}) { // the ledger has nothing, and no range was given
		m.Interval = interval(s.asked, s.effective)
	}
	if len(p.groupBy) > 0 {
		m.Group = make(map[string]string, len(p.groupBy))
		for i, d := range p.groupBy {
			m.Group[d.String()] = s.group[i]
		}
	}
	for i, of := range p.signals {
		m.Emissions[i] = emissionsToProto(of, &s.folders[i])
	}
	for i := range s.provenance {
		m.Provenance[i] = provenanceToProto(&s.provenance[i])
	}
	return m
}

func emissionsToProto(of signal, f *account.Folder) *ledgerv1.Emissions {
	m := &ledgerv1.Emissions{Signal: gridv1.Signal(of), Grams: f.Grams(), UnpricedKwh: f.Unpriced().KWh()}
	if mean, ok := f.MeanGramsPerKWh(); ok {
		m.MeanGramsPerKwh = &mean
	}
	priced := f.Priced().KWh()
	for _, share := range f.Qualities() {
		q := &ledgerv1.QualityShare{Quality: gridv1.Quality(share.Quality), Kwh: share.Energy.KWh()}
		if priced != 0 {
			q.Share = q.GetKwh() / priced
		}
		m.Quality = append(m.Quality, q)
	}
	return m
}

func provenanceToProto(p *provenance) *ledgerv1.Provenance {
	return &ledgerv1.Provenance{
		Factor: p.factor, Subject: p.subject, Source: p.source, Product: p.product,
		Quality: gridv1.Quality(p.quality), Method: gridv1.Method(p.method),
		Kwh: p.energy.KWh(), RecordedAt: timestamp(p.recordedMS), Attribution: p.attribution,
	}
}

func coverageToProto(c coverage) *ledgerv1.Coverage {
	m := &ledgerv1.Coverage{ObservedMs: c.observed, InterpolatedMs: c.interpolated, MissingMs: c.missing, SilentMs: c.silent}
	if ratio, ok := c.ratio(); ok {
		m.Ratio = &ratio
	}
	return m
}

func freshnessToProto(f freshness) *ledgerv1.Freshness {
	m := &ledgerv1.Freshness{}
	if f.lastTickMS != 0 {
		m.LastTick = timestamp(f.lastTickMS)
	}
	if f.committedAt != 0 {
		m.CommittedAt = timestamp(f.committedAt * 1000)
	}
	return m
}

func pointToProto(p *plan, at *point) *ledgerv1.Point {
	f := &at.folder
	m := &ledgerv1.Point{
		StartTime: timestamp(at.startMS), ItMicrojoules: f.Energy().Microjoules(),
		MeanKw: meanKW(f.Energy(), span{0, int64(p.buckets.slots) * slot.Millis}),
		Grams:  f.Grams(), UnpricedKwh: f.Unpriced().KWh(), Coverage: coverageToProto(at.coverage),
	}
	if mean, ok := f.MeanGramsPerKWh(); ok {
		m.GramsPerKwh = &mean
	}
	return m
}

// factorToProto tells a factor as it holds in one slot.
func factorToProto(of signal, f *factor, s slot.Slot) *gridv1.Intensity {
	age := f.AgeMS
	if f.Method == timeline.Carried {
		age += int64(s-f.Start) * slot.Millis
	}
	return &gridv1.Intensity{
		Zone: f.zone, Signal: gridv1.Signal(of), StartTime: timestamp(s.StartMS()), EndTime: timestamp(s.EndMS()),
		Value: f.Value.Float64(), Decimal: f.Value.String(), Unit: of.unit(), Source: f.Source, Product: f.Product,
		Quality: gridv1.Quality(f.Quality), Method: gridv1.Method(f.Method), AgeSeconds: age / 1000,
		Revision: f.Revision, KnownAt: timestamp(f.KnownMS), RecordedAt: timestamp(f.RecordedMS),
	}
}

func termToProto(of signal, t *term) *ledgerv1.Term {
	m := &ledgerv1.Term{
		SlotStart: timestamp(t.slot.StartMS()), Site: t.Site, Run: t.Run, Component: t.Component, Modelled: t.Modelled,
		ItMicrojoules: t.energy.Microjoules(),
	}
	if t.rates.pue != nil {
		m.Pue = t.rates.pue.String()
	}
	if t.factor != nil {
		m.Factor = factorToProto(of, t.factor, t.slot)
	}
	if t.priced() {
		m.Grams = new(t.grams.Grams())
	}
	if t.booked != 0 {
		m.Booked = timestamp(t.booked * 1000)
	}
	return m
}

func segmentToProto(of signal, s *pricedPart) *ledgerv1.Segment {
	m := &ledgerv1.Segment{
		Site: s.Site, Node: s.Node, Device: s.Device, Component: s.Component, Run: s.Run, Project: s.Project,
		StartTime: timestamp(s.StartMS), EndTime: timestamp(s.EndMS), ItMicrojoules: s.Energy.Microjoules(),
	}
	if s.rates.pue != nil {
		m.Pue = s.rates.pue.String()
	}
	if s.factor != nil {
		m.Factor = factorToProto(of, s.factor, s.Slot)
	}
	if s.priced() {
		m.Grams = new(s.grams)
	}
	return m
}

func siteFromProto(m *fleetv1.Site) (Site, error) {
	s := Site{Name: m.GetSite(), Zone: m.GetZone()}
	if m.GetPue() != "" {
		pue, err := unit.ParseDecimal(m.GetPue())
		if err != nil {
			return Site{}, fault.Fields(fault.Fieldf("site.pue", "%v", err))
		}
		s.PUE = &pue
	}
	return s, nil
}

func siteToProto(s *Site) *fleetv1.Site {
	m := &fleetv1.Site{Site: s.Name, Zone: s.Zone, CreateTime: timestamp(s.CreatedMS)}
	if s.PUE != nil {
		m.Pue = s.PUE.String()
	}
	return m
}

// token is where something goes on, bound to the request that it was given for.
type token[T any] struct {
	Request []byte `json:"r"`
	At      T      `json:"a"`
}

// requestSum is of all that makes a request but its page. A deterministic encoding
// is enough: a token that another version of this program refuses is asked for anew.
func requestSum(req proto.Message) ([]byte, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	sum := sha256.Sum256(append([]byte(req.ProtoReflect().Descriptor().FullName()), text...))
	return sum[:8], nil
}

func encodeToken[T any](request []byte, at T) (string, error) {
	text, err := json.Marshal(token[T]{request, at})
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}

// decodeToken returns where the request goes on; nil: from the start.
func decodeToken[T any](path string, request []byte, text string) (*T, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // as the comment says
	}
	var t token[T]
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil || string(t.Request) != string(request) {
		return nil, fault.Fields(fault.Field(path, "not from an answer to this request: leave it empty to start anew"))
	}
	return &t.At, nil
}
