package scenarios_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/test/harness"
	"github.com/wattfold/wattfold/test/oracle"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// TestStories runs every file of testdata. They share one server, so each has
// sites, runs and zones of its own.
func TestStories(t *testing.T) {
	harness.Long(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	up := harness.Up(t, t.TempDir())
	conn := harness.Dial(t, up.GRPC)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := story{
				t: t, file: file, marks: map[string]time.Time{},
				fleet: fleetv1.NewFleetServiceClient(conn), grid: gridv1.NewGridServiceClient(conn),
				ledger: ledgerv1.NewLedgerServiceClient(conn), telemetry: telemetryv1.NewTelemetryServiceClient(conn),
			}
			for _, c := range s.parse(string(text)) {
				s.run(c)
			}
		})
	}
}

// command is one command of a story and the lines below it.
type command struct {
	line  int
	words []string
	body  []command
}

// story is a story being told.
type story struct {
	t         *testing.T
	file      string
	fleet     fleetv1.FleetServiceClient
	grid      gridv1.GridServiceClient
	ledger    ledgerv1.LedgerServiceClient
	telemetry telemetryv1.TelemetryServiceClient
	marks     map[string]time.Time
	recorded  time.Time // the newest record of an intensity
	last      func()    // the last import of samples
}

// fatalf fails at a line of the story.
func (s *story) fatalf(line int, format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s:%d: %s", s.file, line, fmt.Sprintf(format, args...))
}

// errorf fails at a line of the story and goes on.
func (s *story) errorf(line int, format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s:%d: %s", s.file, line, fmt.Sprintf(format, args...))
}

func (s *story) parse(text string) []command {
	var commands []command
	for i, line := range strings.Split(text, "\n") {
		code, _, _ := strings.Cut(line, "#")
		c := command{line: i + 1, words: strings.Fields(code)}
		switch {
		case len(c.words) == 0:
		case strings.HasPrefix(line, " "):
			if len(commands) == 0 {
				s.fatalf(i+1, "nothing stands above this line")
			}
			above := &commands[len(commands)-1]
			above.body = append(above.body, c)
		default:
			commands = append(commands, c)
		}
	}
	return commands
}

// options reads the words of the form name=value, and bare ones as name=true.
func options(words []string) map[string]string {
	out := map[string]string{}
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			value = "true"
		}
		out[name] = value
	}
	return out
}

func (s *story) run(c command) {
	s.t.Helper()
	switch c.words[0] {
	case "site":
		o := options(c.words[2:])
		if _, err := s.fleet.CreateSite(s.t.Context(), &fleetv1.CreateSiteRequest{
			Site: &fleetv1.Site{Site: c.words[1], Zone: o["zone"], Pue: o["pue"]},
		}); err != nil {
			s.fatalf(c.line, "%v", err)
		}
	case "intensity":
		s.intensity(c)
	case "samples":
		s.last = func() { s.samples(c) }
		s.last()
	case "again":
		s.last()
	case "mark":
		s.mark(c)
	case "statement":
		s.statement(c)
	default:
		s.fatalf(c.line, "there is no command %q", c.words[0])
	}
}

func (s *story) intensity(c command) {
	s.t.Helper()
	o := options(c.words[2:])
	step := time.Hour
	if text, ok := o["step"]; ok {
		step = s.duration(c.line, text)
	}
	mapping := &gridv1.IntensityMapping{
		Zone: c.words[1], TimeColumn: "time", TimeFormat: "rfc3339", ValueColumn: "value", Source: o["source"],
		StepSeconds: int64(step / time.Second), File: s.file,
	}
	csv := "time,value,known\n"
	for _, row := range c.body {
		known := options(row.words[2:])["known"]
		if known != "" {
			mapping.KnownAtColumn, mapping.KnownAtFormat = "known", "rfc3339"
		}
		csv += row.words[0] + "," + row.words[1] + "," + known + "\n"
	}
	stream, err := s.grid.ImportIntensities(s.t.Context())
	if err != nil {
		s.fatalf(c.line, "%v", err)
	}
	for _, m := range []*gridv1.ImportIntensitiesRequest{
		{Part: &gridv1.ImportIntensitiesRequest_Mapping{Mapping: mapping}},
		{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: []byte(csv)}},
	} {
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			s.fatalf(c.line, "%v", err)
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		s.fatalf(c.line, "%v", err)
	}
	s.recorded = answer.GetRecordedAt().AsTime()
}

func (s *story) samples(c command) {
	s.t.Helper()
	o := options(c.words[2:])
	kind := telemetryv1.ReadingKind_value["READING_KIND_"+o["kind"]]
	m := &telemetryv1.SampleMapping{
		Site: c.words[1], Project: o["project"], Run: o["run"], Component: "chassis", Device: o["device"],
		Kind: telemetryv1.ReadingKind(kind), Node: o["node"], TimeColumn: "time", TimeFormat: "rfc3339", ValueColumn: "value",
		Unit: o["unit"], CounterRange: o["range"], ImportId: o["id"], Replace: o["replace"] == "true", File: s.file,
		RunStart: s.time(c.line, o["start"]), RunStop: s.time(c.line, o["stop"]),
	}
	if v, ok := o["component"]; ok {
		m.Component = v
	}
	if v, ok := o["max-gap"]; ok {
		m.MaxGapMs = uint32(s.duration(c.line, v).Milliseconds())
	}
	if v, ok := o["max-power"]; ok {
		watts, err := strconv.ParseFloat(v, 64)
		if err != nil {
			s.fatalf(c.line, "%v", err)
		}
		m.MaxPowerWatts = watts
	}
	err := s.importSamples(m, s.readings(c))
	if refused, ok := o["refused"]; ok {
		if err == nil || !strings.Contains(err.Error(), refused) {
			s.errorf(c.line, "the samples should be refused with %q, not with %v", refused, err)
		}
		return
	}
	if err != nil {
		s.fatalf(c.line, "%v", err)
	}
}

// readings writes the lines below a command as CSV.
func (s *story) readings(c command) string {
	s.t.Helper()
	var csv strings.Builder
	csv.WriteString("time,value\n")
	for _, row := range c.body {
		at, err := time.Parse(time.RFC3339Nano, row.words[0])
		if err != nil {
			s.fatalf(row.line, "%v", err)
		}
		n, every := 1, time.Second
		for _, w := range row.words[2:] {
			if count, ok := strings.CutPrefix(w, "x"); ok {
				if n, err = strconv.Atoi(count); err != nil {
					s.fatalf(row.line, "%v", err)
				}
			} else if d, ok := strings.CutPrefix(w, "every="); ok {
				every = s.duration(row.line, d)
			} else {
				s.fatalf(row.line, "what is %q?", w)
			}
		}
		for i := range n {
			fmt.Fprintf(&csv, "%s,%s\n", at.Add(time.Duration(i)*every).Format(time.RFC3339Nano), row.words[1])
		}
	}
	return csv.String()
}

// importSamples returns when the ledger has the samples.
func (s *story) importSamples(m *telemetryv1.SampleMapping, csv string) error {
	stream, err := s.telemetry.ImportSamples(s.t.Context())
	if err != nil {
		return err
	}
	for _, r := range []*telemetryv1.ImportSamplesRequest{
		{Part: &telemetryv1.ImportSamplesRequest_Mapping{Mapping: m}},
		{Part: &telemetryv1.ImportSamplesRequest_Chunk{Chunk: []byte(csv)}},
	} {
		if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	done := false
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !done {
				return errors.New("the import ended without a result")
			}
			return nil
		}
		if err != nil {
			return err
		}
		done = answer.GetResult() != nil
	}
}

// mark notes an instant after everything that has been done, and before
// everything that will be.
func (s *story) mark(c command) {
	s.t.Helper()
	after := s.recorded
	answer, err := s.ledger.GetStatement(s.t.Context(), &ledgerv1.GetStatementRequest{})
	if err == nil {
		if committed := answer.GetFreshness().GetCommittedAt().AsTime(); committed.After(after) {
			after = committed
		}
	} else if status.Code(err) != codes.NotFound {
		s.fatalf(c.line, "%v", err)
	}
	harness.Eventually(s.t, 10*time.Second, "the clock passes the last commit", func() bool { return time.Now().After(after) })
	mark := time.Now().Truncate(time.Millisecond)
	s.marks[c.words[1]] = mark
	harness.Eventually(s.t, time.Second, "the clock passes the mark", func() bool { return time.Since(mark) > 2*time.Millisecond })
}

func (s *story) statement(c command) {
	s.t.Helper()
	o := options(c.words[1:])
	request := &ledgerv1.GetStatementRequest{
		Selection: &ledgerv1.Selection{Site: o["site"], Run: o["run"], Node: o["node"], Project: o["project"], Component: o["component"]},
	}
	if o["from"] != "" {
		request.Interval = &ledgerv1.Interval{StartTime: s.time(c.line, o["from"]), EndTime: s.time(c.line, o["to"])}
	}
	if name, ok := o["as-of"]; ok {
		mark, ok := s.marks[name]
		if !ok {
			s.fatalf(c.line, "there is no mark %q", name)
		}
		request.Pricing = &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: timestamppb.New(mark)}}
	}
	if o["as-known-then"] != "" {
		request.Pricing = &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	answer, err := s.ledger.GetStatement(ctx, request)
	if len(c.body) == 1 && strings.Join(c.body[0].words, " ") == "no data" {
		if status.Code(err) != codes.NotFound {
			s.errorf(c.line, "want NOT_FOUND, got %v, %v", answer, err)
		}
		return
	}
	if err != nil {
		s.fatalf(c.line, "%v", err)
	}
	for _, want := range c.body {
		s.expect(want, answer.GetStatement())
	}
}

func (s *story) expect(want command, got *ledgerv1.Statement) {
	s.t.Helper()
	word := want.words[1]
	emissions := got.GetEmissions()[0]
	is := func(what, value string) {
		s.t.Helper()
		if value != word {
			s.errorf(want.line, "%s is %s, want %s", what, value, word)
		}
	}
	near := func(what string, value float64) {
		s.t.Helper()
		if !oracle.Near(value, harness.Rat(s.t, word)) {
			s.errorf(want.line, "%s is %v, want %s", what, value, word)
		}
	}
	length := func(what string, ms int64) {
		s.t.Helper()
		if d := s.duration(want.line, word); d.Milliseconds() != ms {
			s.errorf(want.line, "%s is %v, want %v", what, time.Duration(ms)*time.Millisecond, d)
		}
	}
	switch want.words[0] {
	case "energy":
		is("energy", got.GetEnergy().GetItMicrojoules())
	case "grams":
		near("grams", emissions.GetGrams())
	case "unpriced":
		near("unpriced", emissions.GetUnpricedKwh())
	case "mean":
		near("mean", emissions.GetMeanGramsPerKwh())
	case "observed":
		length("observed", got.GetCoverage().GetObservedMs())
	case "interpolated":
		length("interpolated", got.GetCoverage().GetInterpolatedMs())
	case "missing":
		length("missing", got.GetCoverage().GetMissingMs())
	case "silent":
		length("silent", got.GetCoverage().GetSilentMs())
	case "rejected":
		if n := strconv.FormatUint(got.GetRejected()[word], 10); n != want.words[2] {
			s.errorf(want.line, "rejected as %s are %s, want %s, of %v", word, n, want.words[2], got.GetRejected())
		}
	default:
		s.fatalf(want.line, "there is nothing called %q in a statement", want.words[0])
	}
}

func (s *story) duration(line int, text string) time.Duration {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		s.fatalf(line, "%v", err)
	}
	return d
}

func (s *story) time(line int, text string) *timestamppb.Timestamp {
	s.t.Helper()
	if text == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		s.fatalf(line, "%v", err)
	}
	return timestamppb.New(at)
}
