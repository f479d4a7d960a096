package collector_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	"github.com/wattfold/wattfold/internal/testdata"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/services/collector"
)

var quiet = slog.New(slog.DiscardHandler)

const start = int64(1_700_000_000_000)

// trace writes a file of several nodes and returns what it holds.
func trace(t *testing.T, nodes, ticks int) (path string, want map[string][]reading) {
	t.Helper()
	var b strings.Builder
	b.WriteString("node,ms,watts\n")
	want = map[string][]reading{}
	rng := rand.New(rand.NewPCG(uint64(nodes), uint64(ticks)))
	for tick := range ticks {
		for n := range nodes {
			r := reading{start + int64(tick)*1000 + int64(n), rng.Int64N(1_000_000)}
			node := fmt.Sprintf("n%d", n)
			fmt.Fprintf(&b, "%s,%d,%d.%03d\n", node, r.ms, r.value/1000, r.value%1000)
			want[node] = append(want[node], r)
		}
	}
	path = filepath.Join(t.TempDir(), "trace.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func config(t *testing.T, file string) collector.Config {
	cfg := collector.Default()
	cfg.Dir = t.TempDir()
	cfg.Publish.ResendAfter, cfg.Publish.MaxResendAfter = 100*time.Millisecond, 200*time.Millisecond
	cfg.Publish.AckTimeout = 300 * time.Millisecond
	if file != "" {
		cfg.Replays = []collector.ReplayConfig{{
			File: file, Site: "site-1.a", Component: "chassis", Kind: "INSTANT_POWER",
			NodeColumn: "node", TimeColumn: "ms", TimeFormat: "unix_ms", ValueColumn: "watts", Unit: "W", Speed: "max",
		}}
	}
	return cfg
}

func service(t *testing.T, server *bustest.Server, cfg collector.Config, opts ...collector.Option) *collector.Service {
	t.Helper()
	s, err := collector.New(quiet, cfg, collector.Deps{NATS: server.Connect("collector"), Tracer: sdktrace.NewTracerProvider()}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestReplayUntilCommitted(t *testing.T) {
	server := bustest.Start(t)
	l := newLedger(t, server)
	file, want := trace(t, 5, 700)
	cfg := config(t, file)
	if err := service(t, server, cfg).RunUntilCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
	if l.traced == 0 || !l.closed["n0"] {
		t.Errorf("%d batches with a trace, closed %v", l.traced, l.closed)
	}
	// Again in the same directory: there is nothing to do.
	if err := service(t, server, cfg).RunUntilCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
}

// unreliable loses, repeats and shuffles, and now and then acks what it lost.
type unreliable struct {
	next collector.Publisher
	mu   sync.Mutex
	rng  *rand.Rand
	held []func()
}

var errLost = errors.New("lost")

func (u *unreliable) Publish(m *collector.Message, done func(error)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.rng.IntN(6) {
	case 0:
		done(errLost)
	case 1:
		done(nil) // stored, says the broker, and forgets
	case 2:
		u.next.Publish(m, func(error) {})
		u.next.Publish(m, done)
	case 3:
		data := *m
		data.Data = append([]byte(nil), m.Data...)
		u.held = append(u.held, func() { u.next.Publish(&data, func(error) {}) })
		done(nil)
	default:
		u.next.Publish(m, done)
	}
	if len(u.held) > 8 {
		u.rng.Shuffle(len(u.held), func(i, j int) { u.held[i], u.held[j] = u.held[j], u.held[i] })
		for _, late := range u.held {
			late()
		}
		u.held = nil
	}
}

func TestUnreliableBroker(t *testing.T) {
	server := bustest.Start(t)
	l := newLedger(t, server)
	file, want := trace(t, 3, 400)
	cfg := config(t, file)
	cfg.Replays[0].BatchTicks = 7
	s := service(t, server, cfg, collector.WithPublisher(func(p collector.Publisher) collector.Publisher {
		return &unreliable{next: p, rng: rand.New(rand.NewPCG(1, 1))}
	}))
	if err := s.RunUntilCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
	if l.duplicates == 0 {
		t.Error("nothing came twice")
	}
}

// silent takes everything and stores nothing.
type silent struct{}

func (silent) Publish(_ *collector.Message, done func(error)) { done(nil) }

func TestOlderEpochsAreResentAfterARestart(t *testing.T) {
	server := bustest.Start(t)
	l := newLedger(t, server)
	file, want := trace(t, 2, 200)
	cfg := config(t, file)
	cfg.Publish.ResendAfter, cfg.Publish.MaxResendAfter = time.Hour, time.Hour
	s := service(t, server, cfg, collector.WithPublisher(func(collector.Publisher) collector.Publisher { return silent{} }))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := s.RunUntilCommitted(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nothing can be committed, but: %v", err)
	}
	if got := l.all(); len(got) > 0 {
		t.Fatalf("%d nodes in the ledger", len(got))
	}
	if err := service(t, server, cfg).RunUntilCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
}

func TestRestoredLedgerIsSentEverythingAgain(t *testing.T) {
	server := bustest.Start(t)
	l := newLedger(t, server)
	file, want := trace(t, 2, 300)
	s := service(t, server, config(t, file))
	ctx, cancel := context.WithCancel(deadline(t))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	if err := s.WaitCommitted(ctx); err != nil {
		t.Fatal(err)
	}
	l.forget("site-1%2Ea")
	l.until(ctx, func() bool { return len(l.readings["n0"]) == 300 && len(l.readings["n1"]) == 300 })
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
}

func TestFailedReplayEndsTheCollector(t *testing.T) {
	server := bustest.Start(t)
	newLedger(t, server)
	cfg := config(t, filepath.Join(t.TempDir(), "none.csv"))
	if err := service(t, server, cfg).RunUntilCommitted(deadline(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// importer is a collector behind gRPC.
type importer struct {
	t       *testing.T
	service *collector.Service
	client  telemetryv1.TelemetryServiceClient
	ledger  *ledger
	stop    func()
}

func newImporter(t *testing.T) *importer {
	t.Helper()
	server := bustest.Start(t)
	return serve(t, newLedger(t, server), service(t, server, config(t, "")))
}

// serve runs a collector until stop or the end of the test.
func serve(t *testing.T, l *ledger, s *collector.Service) *importer {
	t.Helper()
	lis := rpc.Memory()
	srv := rpc.NewServer(quiet, rpc.Options{})
	s.Register(srv)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := rpc.Serve(ctx, quiet, srv, lis); err != nil {
			t.Error(err)
		}
	})
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	conn, err := rpc.Dial("memory", rpc.ClientOptions{Memory: lis})
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = conn.Close()
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return &importer{t: t, service: s, client: telemetryv1.NewTelemetryServiceClient(conn), ledger: l, stop: stop}
}

func (im *importer) mapping() *telemetryv1.SampleMapping {
	return &telemetryv1.SampleMapping{
		Site: "s", Component: "chassis", Kind: telemetryv1.ReadingKind_READING_KIND_INSTANT_POWER,
		NodeColumn: "node", TimeColumn: "ms", TimeFormat: "unix_ms", ValueColumn: "watts", Unit: "W", File: "trace.csv",
	}
}

// run imports and returns the result and the phases gone through.
func (im *importer) run(m *telemetryv1.SampleMapping, content []byte) (*telemetryv1.ImportResult, []string, error) {
	im.t.Helper()
	return im.runIn(deadline(im.t), m, content)
}

func (im *importer) runIn(ctx context.Context, m *telemetryv1.SampleMapping, content []byte) (*telemetryv1.ImportResult, []string, error) {
	stream, err := im.client.ImportSamples(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, nil, err
	}
	send := func(req *telemetryv1.ImportSamplesRequest) {
		if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
			im.t.Error(err)
		}
	}
	send(&telemetryv1.ImportSamplesRequest{Part: &telemetryv1.ImportSamplesRequest_Mapping{Mapping: m}})
	for len(content) > 0 {
		n := min(len(content), 64<<10)
		send(&telemetryv1.ImportSamplesRequest{Part: &telemetryv1.ImportSamplesRequest_Chunk{Chunk: content[:n]}})
		content = content[n:]
	}
	if err := stream.CloseSend(); err != nil {
		return nil, nil, err
	}
	var phases []string
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, phases, rpc.FromStatus(err)
		}
		if r := resp.GetResult(); r != nil {
			return r, phases, nil
		}
		if p := resp.GetProgress().GetPhase(); len(phases) == 0 || phases[len(phases)-1] != p {
			phases = append(phases, p)
		}
	}
}

func TestImport(t *testing.T) {
	im := newImporter(t)
	file, want := trace(t, 4, 1500)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, fmt.Appendf(nil, "n0,%d,1\n", start+1499*1000)...)
	got, phases, err := im.run(im.mapping(), content)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, im.ledger.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
	if got.GetRows() != 6001 || got.GetSamples() != 6000 || got.GetDuplicateRows() != 1 || got.GetNodes() != 4 ||
		got.GetBatches() != 12 || got.GetEpoch() != 1 || got.GetAlreadyImported() || got.GetStartTime().AsTime().UnixMilli() != start {
		t.Errorf("got %v", got)
	}
	if phases[0] != "receiving" || phases[len(phases)-1] != "committing" {
		t.Errorf("phases %v", phases)
	}
	again, _, err := im.run(im.mapping(), content)
	if err != nil || !again.GetAlreadyImported() || again.GetImportId() != got.GetImportId() {
		t.Errorf("the same again: %v, %v", again, err)
	}
	if im.ledger.duplicates > 0 {
		t.Errorf("the same again sent %d batches", im.ledger.duplicates)
	}
}

func TestImportReplace(t *testing.T) {
	im := newImporter(t)
	m := im.mapping()
	m.ImportId = "mine"
	one := fmt.Appendf(nil, "node,ms,watts\na,%d,1\na,%d,2\n", start, start+1000)
	two := fmt.Appendf(nil, "node,ms,watts\na,%d,1\na,%d,3\n", start, start+1000)
	first, _, err := im.run(m, one)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := im.run(m, two); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "--replace") {
		t.Fatalf("other content under the same id: %v", err)
	}
	m.Replace = true
	second, _, err := im.run(m, two)
	if err != nil || second.GetEpoch() != 2 {
		t.Fatalf("got %v, %v", second, err)
	}
	if again, _, err := im.run(m, two); err != nil || !again.GetAlreadyImported() || again.GetEpoch() != 2 {
		t.Errorf("the same again: %v, %v", again, err)
	}
	if back, _, err := im.run(m, one); err != nil || back.GetEpoch() != 3 {
		t.Errorf("the first file again replaces the second: %v, %v", back, err)
	}
	if got := im.ledger.epochs(hex.EncodeToString(first.GetProducer())); !cmp.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("epochs %v", got)
	}
}

func TestBadFilesImportNothing(t *testing.T) {
	im := newImporter(t)
	for _, c := range []struct {
		change  func(*telemetryv1.SampleMapping)
		content string
		want    string
	}{
		{nil, "", "the file is empty"},
		{nil, "node,ms,watts\n", "no row"},
		{nil, fmt.Sprintf("node,ms,watts\na,%d,1\na,%d,x\n", start, start+1000), "trace.csv:3: column watts"},
		{func(m *telemetryv1.SampleMapping) { m.ValueColumn = "power" }, "node,ms,watts\na,1,1\n", "the columns are node, ms, watts"},
		{func(m *telemetryv1.SampleMapping) { m.Unit = "kWh" }, "x", "mapping.unit: kWh is a unit of energy"},
	} {
		m, ok := proto.Clone(im.mapping()).(*telemetryv1.SampleMapping)
		if !ok {
			t.Fatal("no mapping")
		}
		if c.change != nil {
			c.change(m)
		}
		_, _, err := im.run(m, []byte(c.content))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || len(fault.FieldsOf(err)) == 0 {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if got := im.ledger.all(); len(got) > 0 {
		t.Errorf("%d nodes in the ledger", len(got))
	}
}

// llama2 turns the log of a node into a CSV file.
func llama2(t *testing.T) (content []byte, want []reading) {
	t.Helper()
	dir := filepath.Join(testdata.Shared(t), "power", "mlperf_train_v4.0_smc_h100", "llama2_70b_lora_1node_ac")
	field := func(line, name string) string {
		_, rest, _ := strings.Cut(line, `"`+name+`":`)
		value, _, _ := strings.Cut(strings.TrimSpace(rest), ",")
		return strings.Trim(value, `"}`)
	}
	read := func(name string) []string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	content = []byte("time_ms,value\n")
	for _, line := range read("result_4951-240509201759121728742_1.node_0.txt") {
		if field(line, "key") != "power_reading" {
			continue
		}
		r := reading{number(field(line, "time_ms")), number(field(line, "value")) * 1000}
		content = fmt.Appendf(content, "%d,%d\n", r.ms, r.value/1000)
		if n := len(want); n == 0 || want[n-1].ms != r.ms {
			want = append(want, r)
		}
	}
	return content, want
}

// TestLlama2 imports a trace with a gap of 20 s and an instant that comes twice.
func TestLlama2(t *testing.T) {
	content, want := llama2(t)
	im := newImporter(t)
	m := im.mapping()
	m.NodeColumn, m.Node, m.TimeColumn, m.ValueColumn = "", "node-0", "time_ms", "value"
	got, _, err := im.run(m, content)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetRows() != 847 || got.GetDuplicateRows() != 1 || got.GetSamples() != 846 {
		t.Errorf("got %v", got)
	}
	if diff := cmp.Diff(want, im.ledger.all()["node-0"], cmp.AllowUnexported(reading{})); diff != "" {
		t.Error(diff)
	}
}

func TestValidate(t *testing.T) {
	cfg := config(t, "x.csv")
	if err := cfg.Validate(); err != nil {
		t.Errorf("a right configuration: %v", err)
	}
	cfg.Dir = ""
	cfg.Publish.MaxOutstanding = 0
	cfg.Replays[0].Unit = "kWh"
	cfg.Replays[0].Speed = "fast"
	cfg.Replays = append(cfg.Replays, cfg.Replays[0])
	cfg.Replays[0].Name, cfg.Replays[1].Name = "a", "a"
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no mistake was found")
	}
	for _, want := range []string{
		"dir: is empty", "publish.max_outstanding: must be above 0", "replays[0].unit: kWh is a unit of energy",
		`replays[0].speed: "fast"`, `replays[1].name: "a" is that of replays[0] too`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}
