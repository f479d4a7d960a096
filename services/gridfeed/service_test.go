package gridfeed_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/testdata"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/gridfeed"
)

// clock is a wall clock that the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: at("2026-01-02T03:04:05Z")} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	return c.at
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

// feed is a running service and a client that reaches it as any other would.
type feed struct {
	t     testing.TB
	dir   string
	clock *clock
	gridv1.GridServiceClient
	stop func()
}

func start(t testing.TB, dir string, c *clock, cfg gridfeed.Config, deps gridfeed.Deps) *feed {
	t.Helper()
	cfg.Dir, deps.Now = dir, c.Now
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	service, err := gridfeed.New(log, cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(log, rpc.Options{})
	service.Register(server)
	lis := rpc.Memory()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	running.Go(func() {
		if err := rpc.Serve(ctx, log, server, lis); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	conn, err := rpc.Dial("gridfeed", rpc.ClientOptions{Memory: lis})
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{t: t, dir: dir, clock: c, GridServiceClient: gridv1.NewGridServiceClient(conn)}
	f.stop = sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		running.Wait()
	})
	t.Cleanup(f.stop)
	return f
}

func newFeed(t testing.TB) *feed {
	t.Helper()
	return start(t, t.TempDir(), newClock(), gridfeed.Default(), gridfeed.Deps{})
}

// importFrom sends a file in small pieces.
func (f *feed) importFrom(r io.Reader, m *gridv1.IntensityMapping) (*gridv1.ImportIntensitiesResponse, error) {
	f.t.Helper()
	stream, err := f.ImportIntensities(f.t.Context())
	if err != nil {
		return nil, rpc.FromStatus(err)
	}
	send := func(req *gridv1.ImportIntensitiesRequest) bool {
		return stream.Send(req) == nil // the answer says why not
	}
	going := send(&gridv1.ImportIntensitiesRequest{Part: &gridv1.ImportIntensitiesRequest_Mapping{Mapping: m}})
	buffer := make([]byte, 40_000)
	for going {
		n, err := r.Read(buffer)
		if n > 0 {
			going = send(&gridv1.ImportIntensitiesRequest{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: bytes.Clone(buffer[:n])}})
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp, rpc.FromStatus(err)
}

func (f *feed) mustImport(text string, m *gridv1.IntensityMapping) *gridv1.ImportIntensitiesResponse {
	f.t.Helper()
	resp, err := f.importFrom(strings.NewReader(text), m)
	if err != nil {
		f.t.Fatalf("import: %v", err)
	}
	return resp
}

func mapping(zone string) *gridv1.IntensityMapping {
	return &gridv1.IntensityMapping{Zone: zone, TimeColumn: "t", ValueColumn: "v", StepSeconds: 3600, File: "ci.csv"}
}

func (f *feed) get(zone, when string, v *gridv1.View) (*gridv1.Intensity, error) {
	f.t.Helper()
	resp, err := f.GetIntensity(f.t.Context(), &gridv1.GetIntensityRequest{Zone: zone, Time: timestamppb.New(at(when)), View: v})
	return resp.GetIntensity(), rpc.FromStatus(err)
}

func (f *feed) mustGet(zone, when string, v *gridv1.View) *gridv1.Intensity {
	f.t.Helper()
	got, err := f.get(zone, when, v)
	if err != nil {
		f.t.Fatalf("get %s at %s: %v", zone, when, err)
	}
	return got
}

// list gathers all pages.
func (f *feed) list(req *gridv1.ListIntensitiesRequest) []*gridv1.Intensity {
	f.t.Helper()
	req = proto.CloneOf(req)
	var all []*gridv1.Intensity
	for {
		resp, err := f.ListIntensities(f.t.Context(), req)
		if err != nil {
			f.t.Fatalf("list: %v", err)
		}
		all = append(all, resp.GetIntensities()...)
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			return all
		}
	}
}

func asOf(t time.Time) *gridv1.View {
	return &gridv1.View{By: &gridv1.View_AsOf{AsOf: timestamppb.New(t)}}
}

func asKnownAt(t time.Time) *gridv1.View {
	return &gridv1.View{By: &gridv1.View_AsKnownAt{AsKnownAt: timestamppb.New(t)}}
}

func asKnownThen() *gridv1.View {
	return &gridv1.View{By: &gridv1.View_AsKnownThen{AsKnownThen: true}}
}

func same(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

const threeHours = "t,v\n2022-01-01T00:00:00Z,100\n2022-01-01T01:00:00Z,101.5\n2022-01-01T02:00:00Z,102\n"

func TestYearlyTableAnswersLast(t *testing.T) {
	f := newFeed(t)
	want := &gridv1.Intensity{
		Zone: "US", Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE,
		StartTime: &timestamppb.Timestamp{Seconds: -62_135_596_800}, EndTime: timestamppb.New(at("9999-12-31T23:55:00Z")),
		Value: 383.55, Decimal: "383.55", Unit: "g/kWh", Source: "ember", Product: "yearly",
		Quality: gridv1.Quality_QUALITY_STATIC, Method: gridv1.Method_METHOD_DIRECT, Revision: 1,
		KnownAt: &timestamppb.Timestamp{Seconds: -62_135_596_800}, RecordedAt: &timestamppb.Timestamp{Seconds: -62_135_596_800},
		ValidUntil: timestamppb.New(at("9999-12-31T23:55:00Z")),
	}
	for _, ts := range []*timestamppb.Timestamp{want.GetStartTime(), want.GetEndTime()} {
		if err := ts.CheckValid(); err != nil {
			t.Error(err)
		}
	}
	for _, zone := range []string{"US", "US-CAL-CISO"} {
		for _, v := range []*gridv1.View{nil, asOf(at("1990-01-01T00:00:00Z")), asKnownAt(at("0001-01-01T00:00:00Z")), asKnownThen()} {
			same(t, zone, want, f.mustGet(zone, "2022-02-03T04:05:06Z", v))
		}
	}
	for when, wantErr := range map[string]bool{"0001-01-01T00:00:00Z": false, "9999-12-31T23:54:59.999Z": false, "9999-12-31T23:55:00Z": true} {
		if _, err := f.get("DE", when, nil); (err != nil) != wantErr {
			t.Errorf("at %s: %v", when, err)
		}
	}
	// Without a time, now.
	resp, err := f.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "SE-SE1"})
	if err != nil || resp.GetIntensity().GetDecimal() != "35.89" || resp.GetIntensity().GetZone() != "SE" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestUnavailable(t *testing.T) {
	f := newFeed(t)
	f.mustImport(threeHours, mapping("ZZ"))
	for _, test := range []struct {
		zone, when string
		signal     gridv1.Signal
		reason     string
	}{
		{"QQ", "2022-01-01T00:00:00Z", 0, "ZONE_UNKNOWN"},
		{"QQ-A", "2022-01-01T00:00:00Z", 0, "ZONE_UNKNOWN"},
		{"de", "2022-01-01T00:00:00Z", 0, "ZONE_UNKNOWN"},
		{"DE", "2022-01-01T00:00:00Z", gridv1.Signal_SIGNAL_CARBON_MARGINAL, "INTENSITY_UNAVAILABLE"},
		{"US-CAL-CISO", "2022-01-01T00:00:00Z", gridv1.Signal_SIGNAL_CARBON_AVERAGE_DIRECT, "INTENSITY_UNAVAILABLE"},
		{"ZZ", "2021-12-31T23:59:59.999Z", 0, "INTENSITY_UNAVAILABLE"},
		{"ZZ", "2022-01-01T03:00:00Z", 0, "INTENSITY_UNAVAILABLE"},
	} {
		_, err := f.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{
			Zone: test.zone, Signal: test.signal, Time: timestamppb.New(at(test.when)),
		})
		err = rpc.FromStatus(err)
		if !fault.Is(err, fault.NotFound) || fault.ReasonOf(err) != test.reason {
			t.Errorf("%+v: %v (%s)", test, err, fault.ReasonOf(err))
		}
		if test.zone == "de" && !strings.Contains(err.Error(), "did you mean DE?") {
			t.Errorf("error %v", err)
		}
	}
}

func TestImportAndRevise(t *testing.T) {
	f := newFeed(t)
	m := mapping("FR")
	m.Source, m.Quality, m.Attribution = "rte", gridv1.Quality_QUALITY_ESTIMATED, "Licence Ouverte, RTE"
	before := f.clock.Now()
	first := f.clock.pass(time.Hour)
	same(t, "first", &gridv1.ImportIntensitiesResponse{
		Rows: 3, Added: 3, StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T03:00:00Z")),
		RecordedAt: timestamppb.New(first),
	}, f.mustImport(threeHours, m))
	hour := &gridv1.Intensity{
		Zone: "FR", Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE,
		StartTime: timestamppb.New(at("2022-01-01T01:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T02:00:00Z")),
		Value: 101.5, Decimal: "101.5", Unit: "g/kWh", Source: "rte", Product: "observed",
		Quality: gridv1.Quality_QUALITY_ESTIMATED, Method: gridv1.Method_METHOD_DIRECT, Revision: 1,
		KnownAt: timestamppb.New(first), RecordedAt: timestamppb.New(first), ValidUntil: timestamppb.New(at("2022-01-01T02:00:00Z")),
	}
	same(t, "the hour", hour, f.mustGet("FR", "2022-01-01T01:59:59.999Z", nil))

	// The same file once more changes nothing, and readers do not see it.
	f.clock.pass(time.Hour)
	again := f.mustImport(threeHours, m)
	if again.GetUnchanged() != 3 || again.GetAdded()+again.GetRevised() != 0 {
		t.Errorf("again: %v", again)
	}
	same(t, "the hour", hour, f.mustGet("FR", "2022-01-01T01:00:00Z", nil))

	// One hour is revised, one is new, one has no value now, one is repeated.
	third := f.clock.pass(time.Hour)
	same(t, "third", &gridv1.ImportIntensitiesResponse{
		Rows: 5, Added: 1, Revised: 1, Unchanged: 2, Empty: 1,
		StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T04:00:00Z")),
		RecordedAt: timestamppb.New(third),
	}, f.mustImport("t,v\n2022-01-01T03:00:00Z,103\n2022-01-01T01:00:00Z,99.25\n2022-01-01T00:00:00Z,100\n2022-01-01T02:00:00Z,\n2022-01-01T00:00:00Z,100.0\n", m))
	revised := f.mustGet("FR", "2022-01-01T01:00:00Z", nil)
	if revised.GetDecimal() != "99.25" || revised.GetRevision() != 2 || !revised.GetRecordedAt().AsTime().Equal(third) {
		t.Errorf("revised: %v", revised)
	}

	// As of earlier moments nothing changed, to the last digit.
	for _, then := range []time.Time{first, first.Add(time.Minute), third.Add(-time.Millisecond)} {
		same(t, "as of "+then.String(), hour, f.mustGet("FR", "2022-01-01T01:00:00Z", asOf(then)))
	}
	if got := f.mustGet("FR", "2022-01-01T01:00:00Z", asOf(before)); got.GetSource() != "ember" {
		t.Errorf("as of before the first import: %v", got)
	}
	if got := f.mustGet("FR", "2022-01-01T01:00:00Z", asOf(third)); got.GetDecimal() != "99.25" {
		t.Errorf("as of the revision: %v", got)
	}

	var story []string
	req := &gridv1.ListRevisionsRequest{Zone: "FR", PageSize: 2}
	for {
		resp, err := f.ListRevisions(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRevisions() {
			in := r.GetIntensity()
			story = append(story, fmt.Sprintf("%s %s %d %s", in.GetStartTime().AsTime().Format("2006-01-02T15"), in.GetSource(), in.GetRevision(), in.GetDecimal()))
		}
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	same(t, "revisions", []string{
		"0001-01-01T00 ember 1 44.18", "2022-01-01T00 rte 1 100", "2022-01-01T01 rte 1 101.5", "2022-01-01T01 rte 2 99.25",
		"2022-01-01T02 rte 1 102", "2022-01-01T03 rte 1 103",
	}, story)
	resp, err := f.ListRevisions(t.Context(), &gridv1.ListRevisionsRequest{
		Zone: "FR", Source: "rte", StartTime: timestamppb.New(at("2022-01-01T01:10:00Z")), EndTime: timestamppb.New(at("2022-01-01T02:00:00Z")),
	})
	if err != nil || len(resp.GetRevisions()) != 2 {
		t.Errorf("revisions of an hour: %v, %v", resp, err)
	}
}

// TestAsOfNowIsFinal: an answer as of now stays, though an import follows within the
// same millisecond.
func TestAsOfNowIsFinal(t *testing.T) {
	f := newFeed(t)
	f.mustImport(threeHours, mapping("DE"))
	f.clock.pass(time.Second)
	for i := range 5 {
		now := f.clock.Now()
		before := f.mustGet("DE", "2022-01-01T00:00:00Z", asOf(now))
		f.mustImport(fmt.Sprintf("t,v\n2022-01-01T00:00:00Z,%d\n", 200+i), mapping("DE"))
		same(t, "as of now", before, f.mustGet("DE", "2022-01-01T00:00:00Z", asOf(now)))
		if got := f.mustGet("DE", "2022-01-01T00:00:00Z", nil).GetValue(); got != float64(200+i) {
			t.Errorf("latest %v after importing %d", got, 200+i)
		}
	}
}

func TestDefaultChainPrefersTheNewerSource(t *testing.T) {
	f := newFeed(t)
	older, newer := mapping("DE"), mapping("DE")
	older.Source, newer.Source = "older", "newer"
	f.mustImport(threeHours, older)
	moment := f.clock.pass(time.Hour)
	f.clock.pass(time.Hour)
	f.mustImport("t,v\n2022-01-01T01:00:00Z,7\n", newer)
	f.clock.pass(time.Hour)
	f.mustImport("t,v\n2022-01-01T01:00:00Z,8\n", older) // first imported is what counts
	var got []string
	for _, in := range f.list(&gridv1.ListIntensitiesRequest{
		Zone: "DE", StartTime: timestamppb.New(at("2021-12-31T23:58:00Z")), EndTime: timestamppb.New(at("2022-01-01T03:01:00Z")),
	}) {
		got = append(got, fmt.Sprintf("%s-%s %s %s until %s", in.GetStartTime().AsTime().Format("15:04"),
			in.GetEndTime().AsTime().Format("15:04"), in.GetSource(), in.GetDecimal(), in.GetValidUntil().AsTime().Format("2006-01-02T15:04")))
	}
	same(t, "list", []string{
		"23:55-00:00 ember 342.06 until 2022-01-01T00:00", "00:00-01:00 older 100 until 2022-01-01T01:00", "01:00-02:00 newer 7 until 2022-01-01T02:00",
		"02:00-03:00 older 102 until 2022-01-01T03:00", "03:00-03:05 ember 342.06 until 9999-12-31T23:55",
	}, got)
	if in := f.mustGet("DE", "2022-01-01T01:00:00Z", asOf(moment)); in.GetSource() != "older" || in.GetDecimal() != "101.5" {
		t.Errorf("as of the moment between: %v", in)
	}
}

// TestDeclaredChain: carrying, leaving the table out, and a change of the chain that
// does not reach into the past.
func TestDeclaredChain(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	cfg := gridfeed.Default()
	cfg.Chains = []gridfeed.ChainConfig{{Zone: "DE", Entries: []gridfeed.EntryConfig{{Source: "import", Product: "observed", MaxAge: 30 * time.Minute}}}}
	f := start(t, dir, c, cfg, gridfeed.Deps{})
	f.mustImport(threeHours, mapping("DE"))
	want := func(when string, v *gridv1.View, story string) {
		t.Helper()
		in, err := f.get("DE", when, v)
		got := fault.ReasonOf(err)
		if err == nil {
			got = fmt.Sprintf("%s %s %s %ds", in.GetDecimal(), strings.TrimPrefix(in.GetQuality().String(), "QUALITY_"),
				strings.TrimPrefix(in.GetMethod().String(), "METHOD_"), in.GetAgeSeconds())
		}
		if got != story {
			t.Errorf("at %s: %s, want %s", when, got, story)
		}
	}
	want("2022-01-01T02:59:00Z", nil, "102 MEASURED DIRECT 0s")
	want("2022-01-01T03:29:00Z", nil, "102 FILLED CARRIED 0s")
	want("2022-01-01T03:30:00Z", nil, "102 FILLED CARRIED 0s")
	want("2022-01-01T03:35:00Z", nil, "INTENSITY_UNAVAILABLE")
	want("2021-12-31T23:00:00Z", nil, "INTENSITY_UNAVAILABLE")
	carried := f.list(&gridv1.ListIntensitiesRequest{
		Zone: "DE", StartTime: timestamppb.New(at("2022-01-01T03:10:00Z")), EndTime: timestamppb.New(at("2022-01-01T05:00:00Z")),
	})
	if len(carried) != 1 || carried[0].GetAgeSeconds() != 600 || !carried[0].GetEndTime().AsTime().Equal(at("2022-01-01T03:35:00Z")) {
		t.Errorf("cut inside what is carried: %v", carried)
	}

	f.stop()
	then := c.pass(time.Hour)
	c.pass(time.Hour)
	f = start(t, dir, c, gridfeed.Default(), gridfeed.Deps{})
	want("2022-01-01T03:35:00Z", nil, "342.06 STATIC DIRECT 0s")
	want("2022-01-01T03:35:00Z", asOf(then), "INTENSITY_UNAVAILABLE")
	want("2022-01-01T03:10:00Z", asOf(then), "102 FILLED CARRIED 0s")
}

func TestListZones(t *testing.T) {
	f := newFeed(t)
	m := mapping("US-CAL-CISO")
	m.Attribution = "EIA, public domain"
	f.mustImport(threeHours, m)
	marginal := mapping("DE")
	marginal.Signal = gridv1.Signal_SIGNAL_CARBON_MARGINAL
	f.mustImport(threeHours, marginal)

	var zones []*gridv1.Zone
	req := &gridv1.ListZonesRequest{PageSize: 100}
	pages := 0
	for {
		resp, err := f.ListZones(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, resp.GetZones()...)
		pages++
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if len(zones) != 209 || pages != 3 {
		t.Errorf("%d zones on %d pages, want 209 on 3", len(zones), pages)
	}
	if !slices.IsSortedFunc(zones, func(a, b *gridv1.Zone) int { return strings.Compare(a.GetZone(), b.GetZone()) }) {
		t.Error("the zones are not sorted")
	}
	resp, err := f.ListZones(t.Context(), &gridv1.ListZonesRequest{WithoutStatic: true})
	if err != nil {
		t.Fatal(err)
	}
	line := func(signal gridv1.Signal, attribution string) []*gridv1.Timeline {
		return []*gridv1.Timeline{{
			Signal: signal, Source: "import", Product: "observed", Revisions: 3, Attribution: attribution,
			StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T03:00:00Z")),
		}}
	}
	same(t, "imported zones", []*gridv1.Zone{
		{Zone: "DE", DisplayName: "Germany", Timelines: line(gridv1.Signal_SIGNAL_CARBON_MARGINAL, "")},
		{Zone: "US-CAL-CISO", DisplayName: "United States, CAL-CISO", Timelines: line(gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, "EIA, public domain")},
	}, resp.GetZones())
	for _, zone := range zones {
		if zone.GetZone() == "FR" && !strings.Contains(zone.GetTimelines()[0].GetAttribution(), "CC BY-SA 4.0") {
			t.Errorf("the table's licence is missing: %v", zone)
		}
	}
}

// TestRefusals: what is wrong is said with its place, and nothing of it is stored.
func TestRefusals(t *testing.T) {
	f := newFeed(t)
	for _, test := range []struct {
		name, file, want string
		edit             func(*gridv1.IntensityMapping)
	}{
		{name: "bad number", file: threeHours + "2022-01-01T03:00:00Z,much\n", want: "ci.csv:5: column \"v\""},
		{name: "no column", file: "time,v\n", want: "ci.csv:1: column \"t\""},
		{name: "two values", file: threeHours + "2022-01-01T02:00:00Z,5\n", want: "ci.csv:5: column \"v\": 5 for 2022-01-01T02:00:00Z, where line 4 has 102"},
		{name: "empty", file: "", want: "ci.csv:1: the file is empty"},
		{name: "unit", file: threeHours, want: "want g/kWh, kg/MWh, lb/MWh, t/MWh", edit: func(m *gridv1.IntensityMapping) { m.Unit = "furlong" }},
		{name: "zone", file: threeHours, want: "is not the name of a zone", edit: func(m *gridv1.IntensityMapping) { m.Zone = "D E" }},
		{name: "source", file: threeHours, want: "is not the name of a source", edit: func(m *gridv1.IntensityMapping) { m.Source = "*" }},
		{name: "step", file: threeHours, want: "301 is not a multiple of 300", edit: func(m *gridv1.IntensityMapping) { m.StepSeconds = 301 }},
		{name: "known twice", file: threeHours, want: "give one of them", edit: func(m *gridv1.IntensityMapping) {
			m.KnownAtColumn, m.KnownAt = "t", timestamppb.Now()
		}},
		{name: "format of nothing", file: threeHours, want: "no known_at_column", edit: func(m *gridv1.IntensityMapping) { m.KnownAtFormat = "unix" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := mapping("ZZ")
			if test.edit != nil {
				test.edit(m)
			}
			_, err := f.importFrom(strings.NewReader(test.file), m)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			fields := fault.FieldsOf(err)
			if len(fields) == 0 || !strings.Contains(fields[0].Message, strings.TrimPrefix(test.want, "mapping")) {
				t.Errorf("violations %v", fields)
			}
			if _, err := f.get("ZZ", "2022-01-01T00:00:00Z", nil); fault.ReasonOf(err) != "ZONE_UNKNOWN" {
				t.Errorf("something was stored: %v", err)
			}
		})
	}
	if _, err := f.importFrom(strings.NewReader(""), nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("without a mapping: %v", err)
	}
	for name, req := range map[string]*gridv1.ListIntensitiesRequest{
		"backwards": {Zone: "DE", StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2021-01-01T00:00:00Z"))},
		"no range":  {Zone: "DE"},
		"no zone":   {StartTime: timestamppb.New(at("2021-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T00:00:00Z"))},
		"token": {
			Zone: "DE", StartTime: timestamppb.New(at("2021-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T00:00:00Z")), PageToken: "eyJyIjoxLCJuIjoxfQ",
		},
	} {
		if _, err := f.ListIntensities(t.Context(), req); !fault.Is(rpc.FromStatus(err), fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPagesJoin(t *testing.T) {
	f := newFeed(t)
	var text strings.Builder
	text.WriteString("t,v\n")
	for i := range 300 {
		if i%7 != 3 { // holes, and neighbours that are equal
			fmt.Fprintf(&text, "%s,%d\n", at("2022-01-01T00:00:00Z").Add(time.Duration(i)*time.Hour).Format(time.RFC3339), 50+i/3%5)
		}
	}
	f.mustImport(text.String(), mapping("ZZ"))
	req := &gridv1.ListIntensitiesRequest{
		Zone: "ZZ", StartTime: timestamppb.New(at("2022-01-01T00:17:00Z")), EndTime: timestamppb.New(at("2022-01-12T00:00:00Z")),
	}
	whole := f.list(req)
	for i, in := range whole {
		if i > 0 && whole[i-1].GetDecimal() == in.GetDecimal() && whole[i-1].GetEndTime().AsTime().Equal(in.GetStartTime().AsTime()) {
			t.Errorf("neighbours %v and %v say the same", whole[i-1], in)
		}
	}
	for _, size := range []int32{1, 2, 7, 100, int32(len(whole)), 1000} { //nolint:gosec // some hundreds
		req.PageSize = size
		same(t, fmt.Sprintf("pages of %d", size), whole, f.list(req))
	}
}

func TestReopen(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	f := start(t, dir, c, gridfeed.Default(), gridfeed.Deps{})
	f.mustImport(threeHours, mapping("DE"))
	want := f.mustGet("DE", "2022-01-01T01:00:00Z", nil)
	cfg := gridfeed.Default()
	cfg.Dir = dir
	if _, err := gridfeed.New(slog.New(slog.DiscardHandler), cfg, gridfeed.Deps{}); err == nil {
		t.Error("two services share a directory")
	}
	f.stop()
	f = start(t, dir, c, gridfeed.Default(), gridfeed.Deps{})
	same(t, "after a restart", want, f.mustGet("DE", "2022-01-01T01:00:00Z", nil))
	same(t, "the table after a restart", int64(1), f.mustGet("FR", "2022-01-01T01:00:00Z", nil).GetRevision())
}

func TestAnnouncements(t *testing.T) {
	server := bustest.Start(t)
	listener := server.Connect("listener")
	sub, err := listener.SubscribeSync("wattfold.grid.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Flush(); err != nil {
		t.Fatal(err)
	}
	speaker := server.Connect("gridfeed")
	reader := sdkmetric.NewManualReader()
	f := start(t, t.TempDir(), newClock(), gridfeed.Default(), gridfeed.Deps{NATS: speaker, Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	next := func() (*nats.Msg, *gridv1.IntensityRevised) {
		t.Helper()
		msg, err := sub.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		revised := &gridv1.IntensityRevised{}
		if err := proto.Unmarshal(msg.Data, revised); err != nil {
			t.Fatal(err)
		}
		return msg, revised
	}
	for range 208 { // the yearly table of a fresh store
		if _, revised := next(); revised.GetSource() != "ember" {
			t.Fatalf("announced %v", revised)
		}
	}
	m := mapping("US.X")
	m.Source = "here"
	recorded := f.mustImport(threeHours, m).GetRecordedAt()
	f.mustImport(threeHours, m) // changes nothing and is not announced
	last := f.mustImport("t,v\n2022-01-01T01:00:00Z,5\n", m).GetRecordedAt()
	msg, revised := next()
	if msg.Subject != "wattfold.grid.US%2EX.CARBON_AVERAGE_LIFECYCLE" || msg.Subject != gridfeed.Subject("US.X", "CARBON_AVERAGE_LIFECYCLE") {
		t.Errorf("subject %s", msg.Subject)
	}
	want := &gridv1.IntensityRevised{
		Zone: "US.X", Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, Source: "here", RecordedAt: recorded,
		StartTime: timestamppb.New(at("2022-01-01T00:00:00Z")), EndTime: timestamppb.New(at("2022-01-01T03:00:00Z")),
	}
	same(t, "first", want, revised)
	want.StartTime, want.EndTime, want.RecordedAt = timestamppb.New(at("2022-01-01T01:00:00Z")), timestamppb.New(at("2022-01-01T02:00:00Z")), last
	_, revised = next()
	same(t, "last", want, revised)

	f.mustGet("FR", "2022-01-01T01:00:00Z", nil)
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	sums := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					sums[m.Name] += p.Value
				}
			case metricdata.Gauge[int64]:
				sums[m.Name] = d.DataPoints[0].Value
			}
		}
	}
	for name, want := range map[string]int64{
		"wattfold_gridfeed_answers": 1, "wattfold_gridfeed_imports": 3, "wattfold_gridfeed_rows": 7, "wattfold_gridfeed_loads": 1,
		"wattfold_gridfeed_announcements": 210, "wattfold_gridfeed_lanes": 1, "wattfold_gridfeed_zones": 209,
	} {
		if sums[name] != want {
			t.Errorf("%s is %d, want %d", name, sums[name], want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	cfg := gridfeed.Default()
	cfg.Dir = "d"
	entry := gridfeed.EntryConfig{Source: "ember", Product: "yearly"}
	cfg.Chains = []gridfeed.ChainConfig{
		{Zone: "DE", Signal: "average-lifecycle", Entries: []gridfeed.EntryConfig{entry}},
		{Zone: "DE", Entries: []gridfeed.EntryConfig{entry}},
		{Zone: "", Signal: "price"},
		{Zone: "FR", Signal: "marginal", Entries: []gridfeed.EntryConfig{entry, entry, {MaxAge: -time.Second}}},
	}
	cfg.CacheRecords = 1
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no mistakes found")
	}
	for _, want := range []string{
		"cache_records: 1", "chains[1]: DE CARBON_AVERAGE_LIFECYCLE is already in chains[0]", "chains[2].zone", "chains[2].signal: unknown signal",
		"chains[2].entries: empty", "chains[3].entries[1]: ember, yearly is already in this chain", "chains[3].entries[2].source",
		"chains[3].entries[2].product", "chains[3].entries[2].max_age",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if err := (gridfeed.Config{Dir: "d", CacheRecords: 10_000, Chains: cfg.Chains[:1]}).Validate(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
}

// poll is one row of a poll log.
type poll struct {
	hour, known int64 // Unix seconds
	value       string
}

func readPolls(t *testing.T, path string) []poll {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var polls []poll
	for _, row := range rows[1:] {
		var known int64
		if _, err := fmt.Sscan(row[0], &known); err != nil {
			t.Fatal(err)
		}
		polls = append(polls, poll{at(row[1]).Unix(), known, row[4]})
	}
	slices.SortStableFunc(polls, func(a, b poll) int { return int(a.known - b.known) })
	return polls
}

// TestPollLog imports fourteen months of polling a live API: revised, late, repeated
// and running backwards. Each view is compared with one that looks at every row.
func TestPollLog(t *testing.T) {
	path := filepath.Join(testdata.Shared(t), "grid", "emaps_polled_2021_2022", "DE.csv")
	polls := readPolls(t, path)
	f := newFeed(t)
	m := &gridv1.IntensityMapping{
		Zone: "DE", TimeColumn: "zone_datetime", ValueColumn: "carbon_intensity_avg", Unit: "gCO2eq/kWh", Source: "polled",
		KnownAtColumn: "timestamp", KnownAtFormat: "unix", File: "DE.csv",
	}
	open := func() io.Reader {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(data)
	}
	first, err := f.importFrom(open(), m)
	if err != nil {
		t.Fatal(err)
	}
	// 8,904 hours present of 16,977 rows; what is revised or unchanged follows.
	hours := map[int64][]poll{}
	stored := 0
	for _, p := range polls {
		if h := hours[p.hour]; len(h) == 0 || h[len(h)-1].value != p.value {
			stored++
		}
		hours[p.hour] = append(hours[p.hour], p)
	}
	if first.GetRows() != 16_977 || first.GetAdded() != 8904 || int(first.GetAdded()+first.GetRevised()) != stored ||
		first.GetAdded()+first.GetRevised()+first.GetUnchanged() != 16_977 {
		t.Errorf("import: %v, want %d stored", first, stored)
	}
	twice, err := f.importFrom(open(), m)
	if err != nil {
		t.Fatal(err)
	}
	if twice.GetUnchanged() != 16_977 {
		t.Errorf("imported once more: %v", twice)
	}
	revisedHours := 0
	for _, h := range hours {
		if slices.ContainsFunc(h, func(p poll) bool { return p.value != h[0].value }) {
			revisedHours++
		}
	}
	if revisedHours != 4079 {
		t.Errorf("%d hours revised, want 4079", revisedHours)
	}

	// newest is what the rows say of an hour by what was known at an instant.
	newest := func(hour, known int64) string {
		value := "342.06" // the table's
		for _, p := range hours[hour] {
			if p.known <= known {
				value = p.value
			}
		}
		return value
	}
	from, to := at("2021-10-08T00:00:00Z"), at("2022-12-07T00:00:00Z")
	for name, test := range map[string]struct {
		view  *gridv1.View
		known func(slot int64) int64
	}{
		"latest":        {nil, func(int64) int64 { return 1 << 40 }},
		"as known then": {asKnownThen(), func(slot int64) int64 { return slot }},
		"as known at":   {asKnownAt(at("2022-05-06T07:08:09Z")), func(int64) int64 { return at("2022-05-06T07:08:09Z").Unix() }},
	} {
		t.Run(name, func(t *testing.T) {
			answers := f.list(&gridv1.ListIntensitiesRequest{
				Zone: "DE", StartTime: timestamppb.New(from), EndTime: timestamppb.New(to), View: test.view, PageSize: 3000,
			})
			i := 0
			for slot := from.Unix(); slot < to.Unix(); slot += 300 {
				for i < len(answers) && answers[i].GetEndTime().GetSeconds() <= slot {
					i++
				}
				want := newest(slot-slot%3600, test.known(slot))
				if i == len(answers) || answers[i].GetStartTime().GetSeconds() > slot || answers[i].GetDecimal() != want {
					t.Fatalf("slot %s: want %s, at answer %d of %d", time.Unix(slot, 0).UTC(), want, i, len(answers))
				}
			}
			// Single answers agree with the list.
			for _, when := range []string{"2021-10-08T13:35:00Z", "2022-04-06T12:55:00Z", "2022-06-01T00:00:00Z", "2022-11-11T11:11:11Z"} {
				slot := at(when).Unix() / 300 * 300
				if got := f.mustGet("DE", when, test.view); got.GetDecimal() != newest(slot-slot%3600, test.known(slot)) {
					t.Errorf("at %s: %s, want %s", when, got.GetDecimal(), newest(slot-slot%3600, test.known(slot)))
				}
			}
		})
	}
}

// TestRealSeries imports public hourly series and compares every hour with the file.
func TestRealSeries(t *testing.T) {
	grid := filepath.Join(testdata.Shared(t), "grid")
	f := newFeed(t)
	for _, test := range []struct {
		path, zone, column, layout string
		signal                     gridv1.Signal
		scale                      string
		unit                       string
	}{
		{"carboncast/CISO_lifecycle_emissions.csv", "US-CAL-CISO", "carbon_intensity", "01/02/2006 15:04:05", gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, "1", ""},
		{"carboncast/CISO_direct_emissions.csv", "US-CAL-CISO", "carbon_intensity", "2006-01-02 15:04:05", gridv1.Signal_SIGNAL_CARBON_AVERAGE_DIRECT, "1", ""},
		{"emaps_2022_123zones/ci_lca_hourly_2022.csv", "DE", "DE", time.RFC3339, gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, "1", ""},
		{"emaps_2022_123zones/ci_lca_hourly_2022.csv", "FR", "FR", time.RFC3339, gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE, "1", "kg/MWh"},
		{"caiso_moer_5min_2023/watttime_example.csv", "US-CAL-CISO", "Caiso_North", "2006-01-02 15:04:05", gridv1.Signal_SIGNAL_CARBON_MARGINAL, "0.45359237", "lb/MWh"},
	} {
		t.Run(test.path+" "+test.column, func(t *testing.T) {
			file, err := os.Open(filepath.Join(grid, test.path))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			rows, err := csv.NewReader(file).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			timeAt := slices.IndexFunc(rows[0], func(name string) bool { return strings.Contains(name, "time") })
			valueAt := slices.Index(rows[0], test.column)
			m := &gridv1.IntensityMapping{
				Zone: test.zone, Signal: test.signal, TimeColumn: rows[0][timeAt], ValueColumn: test.column, Unit: test.unit,
				TimeFormat: test.layout,
			}
			resp, err := f.importFrom(file, m)
			if err != nil {
				t.Fatal(err)
			}
			if int(resp.GetAdded()) != len(rows)-1 || resp.GetEmpty()+resp.GetRevised()+resp.GetUnchanged() != 0 {
				t.Errorf("import: %v of %d rows", resp, len(rows)-1)
			}
			answers := f.list(&gridv1.ListIntensitiesRequest{Zone: test.zone, Signal: test.signal, StartTime: resp.GetStartTime(), EndTime: resp.GetEndTime()})
			scale, ok := new(big.Rat).SetString(test.scale)
			if !ok {
				t.Fatal(test.scale)
			}
			i := 0
			for _, row := range rows[1:] {
				when, err := time.Parse(test.layout, row[timeAt])
				if err != nil {
					t.Fatal(err)
				}
				for answers[i].GetEndTime().GetSeconds() <= when.Unix() {
					i++
				}
				want, _ := new(big.Rat).SetString(row[valueAt])
				got, _ := new(big.Rat).SetString(answers[i].GetDecimal())
				// A value of sixteen digits in pounds has more in grams than a decimal holds.
				off := new(big.Rat).Sub(got, want.Mul(want, scale))
				exact := test.scale == "1"
				if exact && off.Sign() != 0 || off.Abs(off).Cmp(new(big.Rat).Mul(want, big.NewRat(1, 1e17))) > 0 ||
					answers[i].GetStartTime().GetSeconds() > when.Unix() {
					t.Fatalf("%v: %s, answered %v", row[timeAt], row[valueAt], answers[i])
				}
			}
		})
	}
}
