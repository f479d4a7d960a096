package calculator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// openMemory opens the quick store.
var openMemory = stores["memory"]

// fails checks the error of a call: its code, its reason, and words of its text.
func fails(t *testing.T, err error, code codes.Code, reason string, words ...string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Fatalf("%v: code %v, want %v", err, got, code)
	}
	if got := fault.ReasonOf(rpc.FromStatus(err)); got != reason {
		t.Errorf("%v: reason %q, want %q", err, got, reason)
	}
	text := err.Error()
	for _, v := range fault.FieldsOf(rpc.FromStatus(err)) {
		text += " " + v.Path + ": " + v.Message
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// TestStatementByHand is one whole statement that can be checked with a pencil.
func TestStatementByHand(t *testing.T) {
	w := newWorld(t, openMemory)
	w.site("east", "FR", "1.5")
	w.site("west", "DE", "")
	w.grid.add("FR", carbonAverageLifecycle, "rte", 0, measured(t, base+2, "100", base.StartMS(), base.StartMS()+7))
	w.clock.Store((base + 2).StartMS())
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(2), kWh(4), kWh(1))) // the last has no factor
	w.commit("west", "n1", reads(gpuOf("west", "n1", "r1"), "p", base, kWh(8)))
	w.clock.Store((base + 3).StartMS() + 30_000)

	resp, err := w.ledger.GetStatement(t.Context(), &ledgerv1.GetStatementRequest{
		Selection: &ledgerv1.Selection{Run: "r1"},
		Interval: &ledgerv1.Interval{
			StartTime: timestamp(base.StartMS() + 1), EndTime: timestamp((base + 3).StartMS() - 1),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ratio := 1_200_000.0 / (1_200_000 + 600_000)
	mean := 100.0
	want := &ledgerv1.GetStatementResponse{
		Statement: &ledgerv1.Statement{
			Interval: &ledgerv1.Interval{
				StartTime: timestamp(base.StartMS() + 1), EndTime: timestamp((base + 3).StartMS() - 1),
				Effective: &ledgerv1.Interval{StartTime: timestamp(base.StartMS()), EndTime: timestamp((base + 3).StartMS())},
			},
			Energy: &ledgerv1.Energy{
				ItMicrojoules: "54000000000000", ItKwh: 15, FacilityKwh: 10.5, FacilityUnknownKwh: 8,
				MeanKw: 60, PeakSlotKw: 120,
			},
			Emissions: []*ledgerv1.Emissions{{
				Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, Grams: 900, MeanGramsPerKwh: &mean, UnpricedKwh: 9,
				Quality: []*ledgerv1.QualityShare{{Quality: gridv1.Quality_QUALITY_MEASURED, Kwh: 6, Share: 1}},
			}},
			// West has been silent since its first slot; east reads until now.
			Coverage: &ledgerv1.Coverage{ObservedMs: 1_200_000, SilentMs: 600_000, Ratio: &ratio},
			Provenance: []*ledgerv1.Provenance{
				{
					Factor: "CARBON_AVERAGE_LIFECYCLE", Subject: "FR", Source: "rte", Product: "observed",
					Quality: gridv1.Quality_QUALITY_MEASURED, Method: gridv1.Method_METHOD_DIRECT, Kwh: 6,
					RecordedAt: timestamp(base.StartMS() + 7), Attribution: "by rte",
				},
				{
					Factor: "PUE", Subject: "east", Source: "declared", Method: gridv1.Method_METHOD_DIRECT, Kwh: 7,
					RecordedAt: timestamp(base.StartMS()),
				},
			},
			Provisional: true,
		},
		Pricing: &ledgerv1.Pricing{By: &ledgerv1.Pricing_Latest{Latest: true}},
		Freshness: &ledgerv1.Freshness{
			LastTick: timestamp((base + 3).StartMS()), CommittedAt: timestamp((base + 2).StartMS()),
		},
	}
	if diff := cmp.Diff(want, resp, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	w.clock.Store((base + 3).StartMS() + 3_600_000)
	if w.statement(&ledgerv1.GetStatementRequest{}).GetProvisional() {
		t.Error("still provisional an hour after its end")
	}
	empty := w.statement(&ledgerv1.GetStatementRequest{
		Selection: &ledgerv1.Selection{Site: "east", Run: "r1"},
		Interval:  &ledgerv1.Interval{StartTime: timestamp((base - 9).StartMS()), EndTime: timestamp((base - 8).StartMS())},
	})
	if empty.GetEnergy().GetItMicrojoules() != "0" || empty.GetEmissions()[0].MeanGramsPerKwh != nil ||
		empty.GetCoverage().Ratio != nil || empty.GetEmissions()[0].GetGrams() != 0 {
		t.Errorf("before all data: %v", empty)
	}
}

// TestImportShowsAtOnce: LATEST follows an import without delay, AS_OF the moment
// before it does not, and AS_KNOWN_THEN only if it was known in time.
func TestImportShowsAtOnce(t *testing.T) {
	w := newWorld(t, openMemory)
	w.site("east", "FR", "1")
	at := base.StartMS()
	w.grid.add("FR", carbonAverageLifecycle, "rte", 0, measured(t, base+1, "100", at, at))
	w.clock.Store((base + 1).StartMS())
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1)))
	w.clock.Store((base + 100).StartMS())
	before := timestamp((base + 50).StartMS())
	grams := func(by *ledgerv1.Pricing) float64 {
		return w.statement(&ledgerv1.GetStatementRequest{Pricing: by}).GetEmissions()[0].GetGrams()
	}
	asOf := &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: before}}
	then := &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}}
	for range 2 {
		if a, b, c := grams(nil), grams(asOf), grams(then); a != 100 || b != 100 || c != 100 {
			t.Fatalf("%v, %v, %v g", a, b, c)
		}
	}
	asked := w.grid.asked
	if grams(nil) != 100 || w.grid.asked != asked {
		t.Error("asked again though nothing was imported")
	}
	w.grid.add("FR", carbonAverageLifecycle, "rte", 0, measured(t, base+1, "200", at+1, (base+60).StartMS()))
	if a, b, c := grams(nil), grams(asOf), grams(then); a != 200 || b != 100 || c != 100 {
		t.Errorf("after a revision: %v, %v, %v g", a, b, c)
	}
	w.grid.add("FR", carbonAverageLifecycle, "rte", 0, measured(t, base+1, "300", at, (base+61).StartMS()))
	if a, b, c := grams(nil), grams(asOf), grams(then); a != 300 || b != 100 || c != 300 {
		t.Errorf("after one that was known in time: %v, %v, %v g", a, b, c)
	}
	asked = w.grid.asked
	w.clock.Add(keepFactors.Milliseconds() + 1)
	if grams(nil) != 300 || w.grid.asked == asked {
		t.Error("factors are kept for ever")
	}
}

// TestAsOfIsByBooking: energy that was committed late is not in an earlier answer,
// and neither are slots that had not ended.
func TestAsOfIsByBooking(t *testing.T) {
	w := newWorld(t, openMemory)
	w.clock.Store((base + 1).StartMS())
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1), kWh(2)))
	w.clock.Store((base + 40).StartMS())
	late := w.commit("east", "n2", reads(gpuOf("east", "n2", "r1"), "p", base, kWh(4)))
	w.clock.Store((base + 80).StartMS())
	energy := func(ms int64) float64 {
		return w.statement(&ledgerv1.GetStatementRequest{
			Pricing: &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: timestamp(ms)}},
		}).GetEnergy().GetItKwh()
	}
	for _, c := range []struct {
		ms   int64
		want float64
	}{
		{base.EndMS() - 1, 0},
		{base.EndMS(), 1},
		{(base + 1).EndMS(), 3},
		{late.Booked*1000 - 1, 3},
		{late.Booked * 1000, 7},
	} {
		if got := energy(c.ms); got != c.want {
			t.Errorf("as of %d: %v kWh, want %v", c.ms-base.StartMS(), got, c.want)
		}
	}
	// Terms say when they were booked.
	var booked []int64
	for _, term := range w.terms(&ledgerv1.ExplainStatementRequest{}) {
		booked = append(booked, term.GetBooked().GetSeconds())
	}
	if diff := cmp.Diff([]int64{0, late.Booked, 0}, booked); diff != "" {
		t.Errorf("booked (-want +got):\n%s", diff)
	}
	// What is read as of a moment is final.
	ms := w.clock.Load()
	was := energy(ms)
	w.commit("east", "n3", reads(gpuOf("east", "n3", "r1"), "p", base, kWh(8)))
	if got := energy(ms); got != was {
		t.Errorf("as of the same moment %v kWh, then %v", was, got)
	}
	_, err := w.ledger.GetStatement(t.Context(), &ledgerv1.GetStatementRequest{
		Pricing: &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: timestamp(w.clock.Load() + 1)}},
	})
	fails(t, err, codes.InvalidArgument, "", "pricing.as_of", "future")
}

// TestSilence goes through what a series can be silent of. Every series reads slots
// 2 and 3 with one hole of a minute that never arrived; now is the start of slot 10
// and thirty seconds, for which a tick may be on its way.
func TestSilence(t *testing.T) {
	const now, period = 10, 1000
	second := func(s slot.Slot) int64 { return (base + s).StartMS() }
	for name, c := range map[string]struct {
		closed             bool
		clipStart, clipEnd slot.Slot // after base; 0: not declared
		from, to           slot.Slot
		want               int64 // seconds
	}{
		"open":                          {from: 0, to: 20, want: 6*300 + 60},
		"open, a range inside":          {from: 2, to: 3, want: 60},
		"open, before it":               {from: 0, to: 2, want: 0},
		"open, after it":                {from: 5, to: 7, want: 600},
		"open, in the future":           {from: 10, to: 20, want: 0},
		"closed":                        {closed: true, from: 0, to: 20, want: 60},
		"declared":                      {clipStart: 1, clipEnd: 6, from: 0, to: 20, want: 300 + 60 + 600},
		"declared and closed":           {closed: true, clipStart: 1, clipEnd: 6, from: 0, to: 20, want: 300 + 60 + 600},
		"declared beyond now":           {clipStart: 1, clipEnd: 15, from: 0, to: 20, want: 300 + 60 + 6*300},
		"declared inside":               {clipStart: 2, clipEnd: 4, from: 0, to: 20, want: 60},
		"declared from, closed":         {closed: true, clipStart: 1, from: 0, to: 20, want: 300 + 60},
		"declared, a range of its head": {clipStart: 1, clipEnd: 6, from: 1, to: 2, want: 300},
		"declared, a range of its tail": {clipStart: 1, clipEnd: 6, from: 5, to: 9, want: 300},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, openMemory)
			w.clock.Store(second(now) + 30*period)
			key := gpuOf("east", "n1", "r1")
			r := reading{
				SeriesKey: key, project: "p", firstMS: second(2), lastMS: second(4), closed: c.closed,
				parts: []segment.Part{
					{Slot: base + 2, StartMS: second(2), EndMS: second(3), Energy: 1, ObservedMS: 240_000},
					{Slot: base + 3, StartMS: second(3), EndMS: second(4), Energy: 1, ObservedMS: 200_000, MissingMS: 100_000},
				},
			}
			if c.clipStart != 0 {
				r.clipStart = second(c.clipStart)
			}
			if c.clipEnd != 0 {
				r.clipEnd = second(c.clipEnd)
			}
			w.commit("east", "n1", r)
			req := &ledgerv1.GetStatementRequest{Interval: &ledgerv1.Interval{
				StartTime: timestamp(second(c.from)), EndTime: timestamp(second(c.to)),
			}}
			if got := w.statement(req).GetCoverage().GetSilentMs(); got != c.want*1000 {
				t.Errorf("silent %v s, want %v", float64(got)/1000, c.want)
			}
			// In buckets it is the same, and each has its own.
			var sum int64
			for _, s := range w.pages(&ledgerv1.QueryStatementsRequest{
				Interval: req.GetInterval(), Every: "5m", PageSize: 3,
				GroupBy: []ledgerv1.Dimension{ledgerv1.Dimension_DIMENSION_PROJECT, ledgerv1.Dimension_DIMENSION_NODE},
			}) {
				if s.GetGroup()["project"] != "p" || s.GetGroup()["node"] != "n1" {
					t.Errorf("group %v", s.GetGroup())
				}
				sum += s.GetCoverage().GetSilentMs()
			}
			if sum != c.want*1000 {
				t.Errorf("buckets are silent %v s, want %v", float64(sum)/1000, c.want)
			}
		})
	}
}

func TestUnknownIsNotZero(t *testing.T) {
	w := newWorld(t, openMemory)
	w.site("east", "FR", "1")
	w.commit("west", "n1", reads(gpuOf("west", "n1", "r1"), "p", base, kWh(1)))
	for _, c := range []struct {
		sel    *ledgerv1.Selection
		reason string
	}{
		{&ledgerv1.Selection{Site: "East"}, reasonSiteUnknown},
		{&ledgerv1.Selection{Run: "r2"}, reasonRunUnknown},
		{&ledgerv1.Selection{Project: "q"}, reasonProjectUnknown},
		{&ledgerv1.Selection{Node: "n2"}, reasonNodeUnknown},
		{&ledgerv1.Selection{Component: "gpuu"}, reasonComponentUnknown},
		{&ledgerv1.Selection{Site: "west", Run: "r1", Node: "n2"}, reasonNodeUnknown},
	} {
		_, err := w.ledger.GetStatement(t.Context(), &ledgerv1.GetStatementRequest{Selection: c.sel})
		fails(t, err, codes.NotFound, c.reason)
		_, err = w.ledger.QueryStatements(t.Context(), &ledgerv1.QueryStatementsRequest{Selection: c.sel})
		fails(t, err, codes.NotFound, c.reason)
		_, err = w.ledger.ExplainStatement(t.Context(), &ledgerv1.ExplainStatementRequest{Selection: c.sel})
		fails(t, err, codes.NotFound, c.reason)
	}
	_, err := w.ledger.GetStatement(t.Context(), &ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Site: "East"}})
	fails(t, err, codes.NotFound, reasonSiteUnknown, "did you mean east?")
	// Known, and without data: zero, and no range.
	got := w.statement(&ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Site: "east"}})
	if got.GetEnergy().GetItMicrojoules() != "0" || got.GetInterval() != nil || got.GetCoverage().Ratio != nil {
		t.Errorf("a site without data: %v", got)
	}
	if all := w.pages(&ledgerv1.QueryStatementsRequest{Selection: &ledgerv1.Selection{Site: "east"}}); len(all) != 1 {
		t.Errorf("%d statements of a site without data, want 1", len(all))
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, openMemory)
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1), kWh(1), kWh(1)))
	at := timestamp(base.StartMS())
	statement := func(req *ledgerv1.GetStatementRequest) error {
		_, err := w.ledger.GetStatement(t.Context(), req)
		return err
	}
	query := func(req *ledgerv1.QueryStatementsRequest) error {
		_, err := w.ledger.QueryStatements(t.Context(), req)
		return err
	}
	fails(t, statement(&ledgerv1.GetStatementRequest{Interval: &ledgerv1.Interval{StartTime: at, EndTime: at}}),
		codes.InvalidArgument, "", "interval.end_time")
	fails(t, statement(&ledgerv1.GetStatementRequest{Interval: &ledgerv1.Interval{StartTime: &timestamppb.Timestamp{Nanos: -1}}}),
		codes.InvalidArgument, "", "interval.start_time")
	fails(t, statement(&ledgerv1.GetStatementRequest{Pricing: &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{}}}),
		codes.InvalidArgument, "", "pricing.as_known_then")
	fails(t, query(&ledgerv1.QueryStatementsRequest{PageToken: "?"}), codes.InvalidArgument, "", "page_token")
	first, err := w.ledger.QueryStatements(t.Context(), &ledgerv1.QueryStatementsRequest{Every: "5m", PageSize: 1})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	fails(t, query(&ledgerv1.QueryStatementsRequest{Every: "1h", PageToken: first.GetNextPageToken()}),
		codes.InvalidArgument, "", "page_token")
	series := func(req *ledgerv1.GetSeriesRequest) error {
		_, err := w.ledger.GetSeries(t.Context(), req)
		return err
	}
	in := &ledgerv1.Interval{StartTime: at, EndTime: timestamp((base + 9).StartMS())}
	fails(t, series(&ledgerv1.GetSeriesRequest{Interval: &ledgerv1.Interval{StartTime: at}}), codes.InvalidArgument, "", "interval")
	fails(t, series(&ledgerv1.GetSeriesRequest{Interval: in, Step: durationpb.New(7 * time.Minute)}), codes.InvalidArgument, "", "step")
	fails(t, series(&ledgerv1.GetSeriesRequest{Interval: in, Step: durationpb.New(-5 * time.Minute)}), codes.InvalidArgument, "", "step")
	for _, req := range []*ledgerv1.WatchEmissionsRequest{
		{FromStart: true, ResumeToken: "x"}, {ResumeToken: "x"},
	} {
		stream, err := w.ledger.WatchEmissions(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		fails(t, err, codes.InvalidArgument, "")
	}
}

// TestGridAway: a statement that cannot be priced fails; it is never told unpriced.
func TestGridAway(t *testing.T) {
	w := newWorld(t, openMemory)
	w.site("east", "FR", "1")
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1)))
	w.grid.mu.Lock()
	w.grid.broken = errors.New("a defect")
	w.grid.mu.Unlock()
	_, err := w.ledger.GetStatement(t.Context(), &ledgerv1.GetStatementRequest{})
	fails(t, err, codes.Internal, "")
	w.grid.mu.Lock()
	w.grid.broken = fault.New(fault.Unavailable, "stopping")
	w.grid.mu.Unlock()
	// Without a client's retries.
	_, _, err = w.q.whole(t.Context(), question{signals: []signal{carbonAverageLifecycle}})
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "gridfeed") {
		t.Errorf("%v", err)
	}
}

func TestRejectedAreOfTheSelectedSites(t *testing.T) {
	w := newWorld(t, openMemory)
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1)))
	w.commit("west", "n1", reads(gpuOf("west", "n1", "r1"), "p", base, kWh(1)))
	w.commit("west", "n2", reads(gpuOf("west", "n2", "r2"), "p", base, kWh(1)))
	if _, err := w.store.Commit(t.Context(), &ledger.Tx{
		Owner: "me", Fences: slices.Clone(w.positions), CommitMS: w.clock.Load(),
		Rejected: map[string]map[string]uint64{"east": {"blank": 1}, "west": {"blank": 2, "negative": 4}, "south": {"blank": 8}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sel  *ledgerv1.Selection
		want map[string]uint64
	}{
		{nil, map[string]uint64{"blank": 11, "negative": 4}},
		{&ledgerv1.Selection{Site: "east"}, map[string]uint64{"blank": 1}},
		{&ledgerv1.Selection{Site: "south"}, map[string]uint64{"blank": 8}},
		// Nobody knows which of a site's refusals are of a part of it.
		{&ledgerv1.Selection{Run: "r1"}, nil},
		{&ledgerv1.Selection{Site: "west", Node: "n2"}, nil},
	} {
		got := w.statement(&ledgerv1.GetStatementRequest{Selection: c.sel}).GetRejected()
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.sel, diff)
		}
	}
	asOf := &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: timestamp(w.clock.Load() - 1)}}
	if got := w.statement(&ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Site: "east"}, Pricing: asOf}).GetRejected(); got != nil {
		t.Errorf("as of an earlier moment: %v", got)
	}
	for _, s := range w.pages(&ledgerv1.QueryStatementsRequest{GroupBy: []ledgerv1.Dimension{ledgerv1.Dimension_DIMENSION_SITE}}) {
		if s.GetGroup()["site"] == "east" && s.GetRejected()["blank"] != 1 {
			t.Errorf("east: %v", s.GetRejected())
		}
	}
}

// TestMonths: a bucket is a calendar month in UTC.
func TestMonths(t *testing.T) {
	w := newWorld(t, openMemory)
	december := slot.Of(time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	january := slot.Of(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	w.clock.Store((january + 3).StartMS())
	r := reads(gpuOf("east", "n1", "r1"), "p", january-2, kWh(1), kWh(2), kWh(4))
	r.closed = true
	w.commit("east", "n1", r)
	got := w.pages(&ledgerv1.QueryStatementsRequest{
		Every:    "1mo",
		Interval: &ledgerv1.Interval{StartTime: timestamp((december - 1).StartMS()), EndTime: timestamp((january + 9).StartMS())},
	})
	if len(got) != 2 || got[0].GetEnergy().GetItKwh() != 3 || got[1].GetEnergy().GetItKwh() != 4 {
		t.Fatalf("%v", got)
	}
	if e := got[0].GetInterval().GetEffective(); milliseconds(e.GetStartTime()) != december.StartMS() ||
		milliseconds(e.GetEndTime()) != january.StartMS() {
		t.Errorf("December is %v", e)
	}
	if e := got[1].GetInterval().GetEffective(); milliseconds(e.GetEndTime()) != (january + 9).StartMS() {
		t.Errorf("January is %v", e)
	}
}

// TestTooManyGroups: what would not fit memory is refused, with what to do.
func TestTooManyGroups(t *testing.T) {
	p := &plan{question: question{groupBy: []dimension{byRun}, signals: []signal{carbonAverageLifecycle}}, from: 0, to: 1}
	p.rates = map[string]*rates{"s": {site: "s", signals: make([]track, 1)}}
	f := newFold(p, true, func(slots, []*cell) error { return nil })
	var err error
	for i := 0; err == nil && i <= maxGroups; i++ {
		err = f.add(t.Context(), &entry{PostingRow: PostingRow{Account: Account{Site: "s", Run: fmt.Sprint(i)}}})
	}
	if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != reasonTooLarge {
		t.Errorf("%v", err)
	}
}

func TestSites(t *testing.T) {
	w := newWorld(t, openMemory)
	create := func(name, zone, pue string) (*fleetv1.Site, error) {
		resp, err := w.fleet.CreateSite(t.Context(), &fleetv1.CreateSiteRequest{Site: &fleetv1.Site{Site: name, Zone: zone, Pue: pue}})
		return resp.GetSite(), err
	}
	w.commit("heard", "n1", reads(gpuOf("heard", "n1", "r1"), "p", base, kWh(1)))
	first, err := create("east", "FR", "1.10")
	if err != nil || first.GetPue() != "1.1" || milliseconds(first.GetCreateTime()) != w.clock.Load() {
		t.Fatalf("%v, %v", first, err)
	}
	w.clock.Add(5000)
	again, err := create("east", "FR", "1.1")
	if err != nil || !cmp.Equal(again, first, protocmp.Transform()) {
		t.Errorf("the same again: %v, %v", again, err)
	}
	_, err = create("east", "DE", "1.1")
	fails(t, err, codes.AlreadyExists, reasonSiteDiffers, "FR", "1.1")
	_, err = create("east", "FR", "")
	fails(t, err, codes.AlreadyExists, reasonSiteDiffers)
	_, err = create("west", "FR", "0.9")
	fails(t, err, codes.InvalidArgument, "", "site.pue")
	_, err = create("a b", "FR", "1")
	fails(t, err, codes.InvalidArgument, "", "site.site")
	// A site that was only heard of takes the words.
	if s, err := create("heard", "FR", "1.2"); err != nil || s.GetZone() != "FR" {
		t.Errorf("%v, %v", s, err)
	}
	for i := range 3 {
		if _, err := create(fmt.Sprintf("more-%d", i), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	req := &fleetv1.ListSitesRequest{PageSize: 2}
	for {
		resp, err := w.fleet.ListSites(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.GetSites() {
			names = append(names, s.GetSite())
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"east", "heard", "more-0", "more-1", "more-2"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWatchGoesOn: a watcher hears of what is committed after it came, once, and a
// sign of life when nothing is.
func TestWatchGoesOn(t *testing.T) {
	w := newWorld(t, openMemory)
	w.site("east", "FR", "1.5")
	w.grid.add("FR", carbonAverageLifecycle, "rte", 0, measured(t, base+9, "100", base.StartMS()-1, base.StartMS()))
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1)))
	stream, err := w.ledger.WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// It begins when the server takes the call; so commit until it hears of one.
	heard := make(chan *ledgerv1.WatchEmissionsResponse)
	go func() {
		resp, err := stream.Recv()
		if err != nil {
			t.Error(err)
		}
		heard <- resp
	}()
	var resp *ledgerv1.WatchEmissionsResponse
	for n := slot.Slot(1); resp == nil; n++ {
		w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base+n%8, kWh(int64(n+1))))
		select {
		case resp = <-heard:
		case <-time.After(10 * time.Millisecond):
		}
	}
	s := resp.GetSegments()
	if len(s) != 1 || s[0].GetSite() != "east" || s[0].GetProject() != "p" || s[0].GetPue() != "1.5" ||
		s[0].GetFactor().GetDecimal() != "100" || s[0].GetItMicrojoules() == "3600000000000" ||
		!s[0].GetEndTime().AsTime().Equal(s[0].GetStartTime().AsTime().Add(5*time.Minute)) {
		t.Errorf("heard %v", s)
	}

	// Another ledger counts anew.
	other := newWorld(t, openMemory)
	foreign, err := other.ledger.WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{ResumeToken: resp.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = foreign.Recv()
	fails(t, err, codes.InvalidArgument, reasonTokenStale, "resume_token")

	// One that was restored from a back-up counts again from there.
	at := watched{ID: 1 << 40}
	if at.Ledger, err = w.store.Incarnation(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum, err := requestSum(&ledgerv1.WatchEmissionsRequest{Selection: &ledgerv1.Selection{}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := encodeToken(sum, at)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := w.ledger.WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{
		Selection: &ledgerv1.Selection{}, ResumeToken: token,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = restored.Recv()
	fails(t, err, codes.InvalidArgument, reasonTokenStale, "resume_token")
}

func TestWatchShowsLife(t *testing.T) {
	w := newWorld(t, openMemory)
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, kWh(1)))
	synctest.Test(t, func(t *testing.T) {
		q := *w.q
		q.signal = new(commitSignal)
		ctx, cancel := context.WithCancel(t.Context())
		start, signs := time.Now(), 0
		err := q.watch(ctx, selection{run: "another"}, carbonAverageLifecycle, watched{}, func(parts []pricedPart, at watched) error {
			if signs++; signs == 3 {
				cancel()
			}
			if len(parts) != 0 || at.ID != 1 || time.Since(start) != time.Duration(signs)*signOfLife {
				t.Errorf("after %v: %v at %+v", time.Since(start), parts, at)
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) || signs != 3 {
			t.Errorf("%v after %d signs", err, signs)
		}
	})
}

// TestWatchSplitsLongRows: the chunk of an import may hold a year, which is more
// than an answer may; it goes on behind any part.
func TestWatchSplitsLongRows(t *testing.T) {
	w := newWorld(t, openMemory)
	n := watchSegments + 10
	energies := make([]unit.Energy, n)
	for i := range energies {
		energies[i] = unit.Energy(i + 1)
	}
	long := reads(gpuOf("east", "n1", "r1"), "p", base-slot.Slot(n), energies...)
	other := reads(SeriesKey{Site: "east", Node: "n1", Device: "psu/0", Component: envelope}, "", base, 1)
	w.commit("east", "n1", other, long)
	w.commit("east", "n1", other) // nothing for this watcher
	w.commit("east", "n1", reads(gpuOf("east", "n1", "r1"), "p", base, unit.Energy(n+1)))
	head, token := drain(t, w, &ledgerv1.WatchEmissionsRequest{FromStart: true}, 1)
	if len(head) != watchSegments {
		t.Fatalf("%d segments at first", len(head))
	}
	tail, _ := drain(t, w, &ledgerv1.WatchEmissionsRequest{ResumeToken: token}, n+1-watchSegments)
	for i, s := range append(head, tail...) {
		if want := unit.Energy(i + 1).Microjoules(); s.GetItMicrojoules() != want {
			t.Fatalf("segment %d is %s µJ, want %s", i, s.GetItMicrojoules(), want)
		}
	}
}
