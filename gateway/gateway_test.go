package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

const (
	gridService      = "wattfold.grid.v1.GridService"
	ledgerService    = "wattfold.ledger.v1.LedgerService"
	telemetryService = "wattfold.telemetry.v1.TelemetryService"
)

// fake is a backend whose calls do what the test says.
type fake struct {
	gridv1.UnimplementedGridServiceServer
	ledgerv1.UnimplementedLedgerServiceServer
	telemetryv1.UnimplementedTelemetryServiceServer

	get    func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error)
	load   func(grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error
	watch  func(*ledgerv1.WatchEmissionsRequest, grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error
	sample func(grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error
}

func (f *fake) GetIntensity(ctx context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
	return f.get(ctx, req)
}

func (f *fake) ImportIntensities(s grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
	return f.load(s)
}

func (f *fake) WatchEmissions(req *ledgerv1.WatchEmissionsRequest, s grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
	return f.watch(req, s)
}

func (f *fake) ImportSamples(s grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
	return f.sample(s)
}

// setup is a backend, a gateway before it and a client of each.
type setup struct {
	direct, through *grpc.ClientConn
	gateway         *gateway.Gateway
	// log holds what both have logged; each line says at=backend or at=gateway.
	log *journal
	// stopBackend and stop end one and the other and wait for it.
	stopBackend, stop func()
}

// journal is a log that is read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

// take returns the lines since it was last called.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.buf.Reset()
	return j.buf.String()
}

func start(t testing.TB, f *fake, change ...func(*gateway.Config)) *setup {
	t.Helper()
	s := &setup{log: &journal{}}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), s.log), nil))
	if _, ok := t.(*testing.B); ok {
		log = slog.New(slog.DiscardHandler)
	}
	srv := rpc.NewServer(log.With("at", "backend"), rpc.Options{Drain: time.Second})
	gridv1.RegisterGridServiceServer(srv, f)
	ledgerv1.RegisterLedgerServiceServer(srv, f)
	telemetryv1.RegisterTelemetryServiceServer(srv, f)
	mem := rpc.Memory()
	s.stopBackend = run(t, func(ctx context.Context) error { return rpc.Serve(ctx, log, srv, mem) })
	s.direct = dial(t, "backend", rpc.ClientOptions{Memory: mem, NoRetry: true})

	cfg := gateway.Default()
	cfg.GRPC, cfg.HTTP, cfg.Drain = "127.0.0.1:0", "127.0.0.1:0", 5*time.Second
	for _, c := range change {
		c(&cfg)
	}
	g, err := gateway.New(log.With("at", "gateway"), cfg, map[string]grpc.ClientConnInterface{
		gridService: s.direct, ledgerService: s.direct, telemetryService: s.direct,
	}, gateway.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.gateway = g
	s.stop = run(t, g.Run)
	s.through = dial(t, g.GRPCAddr().String(), rpc.ClientOptions{NoRetry: true})
	return s
}

// run starts fn and returns what ends it and waits for it; the test does so too.
func run(t testing.TB, fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := fn(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func dial(t testing.TB, target string, o rpc.ClientOptions) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close %s: %v", target, err)
		}
	})
	return conn
}

func france() *gridv1.GetIntensityRequest { return &gridv1.GetIntensityRequest{Zone: "FR"} }

func TestEveryMethodNamesItsScope(t *testing.T) {
	methods, err := gateway.Methods()
	if err != nil {
		t.Error(err)
	}
	if len(methods) < 13 {
		t.Errorf("%d methods are linked in; the services are missing", len(methods))
	}
}

func TestUnary(t *testing.T) {
	var got metadata.MD
	s := start(t, &fake{get: func(ctx context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		if err := grpc.SetHeader(ctx, metadata.Pairs("x-header", "h1", "x-header", "h2")); err != nil {
			return nil, err
		}
		if err := grpc.SetTrailer(ctx, metadata.Pairs("x-trailer-bin", "\x00\xff")); err != nil {
			return nil, err
		}
		return &gridv1.GetIntensityResponse{Intensity: &gridv1.Intensity{Zone: req.GetZone(), Value: 56}}, nil
	}})
	traceparent := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		"traceparent", traceparent, "x-request-id", "r1", "authorization", "Bearer s", "x-wattfold-principal", "root")
	var header, trailer metadata.MD
	resp, err := gridv1.NewGridServiceClient(s.through).GetIntensity(ctx, france(), grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	want := &gridv1.GetIntensityResponse{Intensity: &gridv1.Intensity{Zone: "FR", Value: 56}}
	if diff := cmp.Diff(want, resp, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"h1", "h2"}, header["x-header"]); diff != "" {
		t.Errorf("header: %s", diff)
	}
	if diff := cmp.Diff([]string{"\x00\xff"}, trailer["x-trailer-bin"]); diff != "" {
		t.Errorf("trailer: %s", diff)
	}
	for key, want := range map[string][]string{
		"traceparent": {traceparent}, "x-request-id": {"r1"}, "authorization": nil, "x-wattfold-principal": nil,
	} {
		if diff := cmp.Diff(want, got[key]); diff != "" {
			t.Errorf("the backend's header %s: %s", key, diff)
		}
	}
}

func TestErrorsPassUnaltered(t *testing.T) {
	reasons := map[string]error{
		"NotFound": fault.WithReason(fault.New(fault.NotFound, "no zone XX"), "ZONE_UNKNOWN"),
		"Invalid":  fault.Fields(fault.Field("time", "must not be in the future"), fault.Field("zone", "is too long")),
		"Busy":     fault.RetryAfter(fault.New(fault.Exhausted, "too many watchers"), 1500*time.Millisecond),
		"Away":     fault.New(fault.Unavailable, "the ledger is away"),
		"Ours":     errors.New("nil map in the resolver"),
	}
	s := start(t, &fake{get: func(_ context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return nil, reasons[req.GetZone()]
	}})
	for name := range reasons {
		t.Run(name, func(t *testing.T) {
			req := &gridv1.GetIntensityRequest{Zone: name}
			_, direct := gridv1.NewGridServiceClient(s.direct).GetIntensity(t.Context(), req)
			_, through := gridv1.NewGridServiceClient(s.through).GetIntensity(t.Context(), req)
			if direct == nil {
				t.Fatal("the backend answered")
			}
			if diff := cmp.Diff(status.Convert(direct).Proto(), status.Convert(through).Proto(), protocmp.Transform()); diff != "" {
				t.Errorf("-direct +through the gateway\n%s", diff)
			}
		})
	}
	t.Run("rules of the proto", func(t *testing.T) {
		_, err := gridv1.NewGridServiceClient(s.through).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{})
		err = rpc.FromStatus(err)
		if !fault.Is(err, fault.Invalid) || len(fault.FieldsOf(err)) != 1 || fault.FieldsOf(err)[0].Path != "zone" {
			t.Errorf("got %v with fields %v, want a violation of zone", err, fault.FieldsOf(err))
		}
	})
}

// TestFailuresAreLoggedOnce: by the backend what the backend refused, by the
// gateway what never got there.
func TestFailuresAreLoggedOnce(t *testing.T) {
	s := start(t, &fake{
		get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
			return nil, fault.New(fault.NotFound, "no zone XX")
		},
		watch: func(_ *ledgerv1.WatchEmissionsRequest, ss grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
			if err := ss.Send(&ledgerv1.WatchEmissionsResponse{}); err != nil {
				return err
			}
			return fault.New(fault.NotYet, "no more")
		},
		sample: func(grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
			return errors.New("nil map in the spool")
		},
	})
	grid := gridv1.NewGridServiceClient(s.through)
	get := func() error {
		_, err := grid.GetIntensity(t.Context(), france())
		return err
	}
	logged := func(name, at string, call func() error) {
		t.Helper()
		s.log.take()
		if call() == nil {
			t.Errorf("%s: the call does not fail", name)
		}
		lines := s.log.take()
		if strings.Count(lines, "call failed") != 1 || !strings.Contains(lines, "at="+at) {
			t.Errorf("%s: want one line, of the %s, got\n%s", name, at, lines)
		}
	}
	logged("not found", "backend", get)
	logged("a stream that ends badly", "backend", func() error {
		watch, err := ledgerv1.NewLedgerServiceClient(s.through).WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{})
		for err == nil {
			_, err = watch.Recv()
		}
		return err
	})
	logged("a defect of the backend", "backend", func() error {
		both, err := telemetryv1.NewTelemetryServiceClient(s.through).ImportSamples(t.Context())
		if err == nil {
			_, err = both.Recv()
		}
		return err
	})
	logged("no such method", "gateway", func() error {
		return s.through.Invoke(t.Context(), "/acme.v1.Acme/Get", france(), &gridv1.GetIntensityResponse{})
	})
	s.stopBackend()
	logged("nobody there", "gateway", get)
}

// TestManyViolationsArrive: a status that would not fit into headers is shortened
// and still says what is wrong.
func TestManyViolationsArrive(t *testing.T) {
	var violations []fault.Violation
	for i := range 1000 {
		violations = append(violations, fault.Fieldf(fmt.Sprintf("rows[%d].%s", i, strings.Repeat("p", 100)), "is wrong: %s", strings.Repeat("ü", 100)))
	}
	s := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return nil, fault.Fields(violations...)
	}})
	_, err := gridv1.NewGridServiceClient(s.through).GetIntensity(t.Context(), france())
	err = rpc.FromStatus(err)
	if fields := fault.FieldsOf(err); !fault.Is(err, fault.Invalid) || len(fields) != 20 || !strings.HasPrefix(fields[19].Path, "rows[19].pp") {
		t.Errorf("got %v with %d violations, want Invalid with the first 20", err, len(fields))
	}
	if lines := s.log.take(); len(lines) > 1000 {
		t.Errorf("%d bytes are logged", len(lines))
	}
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	s := start(t, &fake{})
	for method, want := range map[string]string{
		"/wattfold.grid.v1.GridService/GetForecast": "unknown method GetForecast for service wattfold.grid.v1.GridService",
		"/wattfold.fleet.v1.FleetService/ListSites": "unknown service wattfold.fleet.v1.FleetService", // linked, no backend
		"/acme.v1.Acme/Get":                         "unknown service acme.v1.Acme",
	} {
		err := s.through.Invoke(t.Context(), method, france(), &gridv1.GetIntensityResponse{})
		if st := status.Convert(err); st.Code() != codes.Unimplemented || st.Message() != want {
			t.Errorf("%s: got %v, want Unimplemented: %s", method, err, want)
		}
	}
}

func TestDeadlineLosesTheHop(t *testing.T) {
	var left time.Duration
	s := start(t, &fake{get: func(ctx context.Context, _ *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return &gridv1.GetIntensityResponse{}, nil
	}})
	client := gridv1.NewGridServiceClient(s.through)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := client.GetIntensity(ctx, france()); err != nil {
		t.Fatal(err)
	}
	if left > time.Minute-20*time.Millisecond || left < 30*time.Second {
		t.Errorf("the backend had %v left of a minute", left)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 15*time.Millisecond)
	defer cancel()
	if _, err := client.GetIntensity(ctx, france()); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

func TestCancelReachesTheBackend(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	wait := func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	}
	s := start(t, &fake{
		get: func(ctx context.Context, _ *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
			return nil, wait(ctx)
		},
		watch: func(_ *ledgerv1.WatchEmissionsRequest, ss grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
			return wait(ss.Context())
		},
		sample: func(ss grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
			return wait(ss.Context())
		},
		load: func(ss grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
			return wait(ss.Context())
		},
	})
	for name, call := range map[string]func(context.Context) error{
		"unary": func(ctx context.Context) error {
			_, err := gridv1.NewGridServiceClient(s.through).GetIntensity(ctx, france())
			return err
		},
		"server stream": func(ctx context.Context) error {
			watch, err := ledgerv1.NewLedgerServiceClient(s.through).WatchEmissions(ctx, &ledgerv1.WatchEmissionsRequest{})
			if err == nil {
				_, err = watch.Recv()
			}
			return err
		},
		"client stream": func(ctx context.Context) error {
			load, err := gridv1.NewGridServiceClient(s.through).ImportIntensities(ctx)
			if err == nil {
				_, err = load.CloseAndRecv()
			}
			return err
		},
		"both": func(ctx context.Context) error {
			both, err := telemetryv1.NewTelemetryServiceClient(s.through).ImportSamples(ctx)
			if err == nil {
				_, err = both.Recv()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- call(ctx) }()
			<-began
			cancel()
			<-ended
			if err := <-result; status.Code(err) != codes.Canceled {
				t.Errorf("got %v, want Canceled", err)
			}
		})
	}
}

func chunk(data []byte) *telemetryv1.ImportSamplesRequest {
	return &telemetryv1.ImportSamplesRequest{Part: &telemetryv1.ImportSamplesRequest_Chunk{Chunk: data}}
}

func TestStreams(t *testing.T) {
	s := start(t, &fake{
		load: func(ss grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
			var bytes uint64
			for {
				req, err := ss.Recv()
				if errors.Is(err, io.EOF) {
					return ss.SendAndClose(&gridv1.ImportIntensitiesResponse{Rows: bytes})
				} else if err != nil {
					return err
				}
				bytes += uint64(len(req.GetChunk()))
			}
		},
		watch: func(req *ledgerv1.WatchEmissionsRequest, ss grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
			ss.SetTrailer(metadata.Pairs("x-last", "3"))
			for _, token := range []string{"1", "2", "3"} {
				if err := ss.Send(&ledgerv1.WatchEmissionsResponse{ResumeToken: req.GetResumeToken() + token}); err != nil {
					return err
				}
			}
			return fault.WithReason(fault.New(fault.NotYet, "no more"), "THE_END")
		},
		sample: func(ss grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
			if err := ss.SendHeader(metadata.Pairs("x-early", "yes")); err != nil {
				return err
			}
			for {
				req, err := ss.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				echo := &telemetryv1.ImportSamplesResponse{}
				echo.ProtoReflect().SetUnknown(append([]byte{0xfa, 0x7f, byte(len(req.GetChunk()))}, req.GetChunk()...))
				if err := ss.Send(echo); err != nil {
					return err
				}
			}
		},
	})

	t.Run("client stream", func(t *testing.T) {
		load, err := gridv1.NewGridServiceClient(s.through).ImportIntensities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := load.Send(&gridv1.ImportIntensitiesRequest{
				Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: make([]byte, 1<<16)},
			}); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := load.CloseAndRecv()
		if err != nil || resp.GetRows() != 100<<16 {
			t.Errorf("got %v, %v, want %d bytes", resp, err, 100<<16)
		}
	})
	t.Run("server stream", func(t *testing.T) {
		watch, err := ledgerv1.NewLedgerServiceClient(s.through).WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{ResumeToken: "t"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"t1", "t2", "t3"} {
			if resp, err := watch.Recv(); err != nil || resp.GetResumeToken() != want {
				t.Errorf("got %v, %v, want %s", resp, err, want)
			}
		}
		_, err = watch.Recv()
		if err = rpc.FromStatus(err); fault.ReasonOf(err) != "THE_END" || !fault.Is(err, fault.NotYet) {
			t.Errorf("got %v, want THE_END", err)
		}
		if diff := cmp.Diff([]string{"3"}, watch.Trailer()["x-last"]); diff != "" {
			t.Errorf("trailer: %s", diff)
		}
	})
	t.Run("both", func(t *testing.T) {
		both, err := telemetryv1.NewTelemetryServiceClient(s.through).ImportSamples(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		header, err := both.Header() // before the first message
		if err != nil || len(header["x-early"]) != 1 {
			t.Errorf("header %v, %v", header, err)
		}
		for i := range byte(100) {
			data := []byte{i, i + 1, i + 2}
			if err := both.Send(chunk(data)); err != nil {
				t.Fatal(err)
			}
			resp, err := both.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.ProtoReflect().GetUnknown(); string(got[3:]) != string(data) {
				t.Fatalf("echo %d: got %x, want %x", i, got, data)
			}
		}
		if err := both.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := both.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the end", err)
		}
	})
	t.Run("a message against the rules", func(t *testing.T) {
		both, err := telemetryv1.NewTelemetryServiceClient(s.through).ImportSamples(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Send(&telemetryv1.ImportSamplesRequest{}); err != nil {
			t.Fatal(err)
		}
		_, err = both.Recv()
		if err = rpc.FromStatus(err); len(fault.FieldsOf(err)) != 1 {
			t.Errorf("got %v with fields %v, want one violation", err, fault.FieldsOf(err))
		}
	})
}

func TestLimits(t *testing.T) {
	s := start(t, &fake{
		get: func(_ context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
			size := 10 << 20
			if req.GetZone() == "large" {
				size = 17 << 20
			}
			return &gridv1.GetIntensityResponse{Intensity: &gridv1.Intensity{Unit: strings.Repeat("u", size)}}, nil
		},
		sample: func(ss grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
			_, err := ss.Recv()
			return err
		},
	})
	client := gridv1.NewGridServiceClient(s.through)
	if resp, err := client.GetIntensity(t.Context(), france()); err != nil || len(resp.GetIntensity().GetUnit()) != 10<<20 {
		t.Errorf("a response of 10 MiB: %v", err)
	}
	if _, err := client.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "large"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a response of 17 MiB: got %v, want ResourceExhausted", err)
	}

	// A client without limits of its own.
	raw, err := grpc.NewClient(s.gateway.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	large := &gridv1.GetIntensityRequest{Zone: strings.Repeat("Z", 5<<20)}
	if _, err := gridv1.NewGridServiceClient(raw).GetIntensity(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of 5 MiB: got %v, want ResourceExhausted", err)
	}
	both, err := telemetryv1.NewTelemetryServiceClient(raw).ImportSamples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := both.Send(chunk(make([]byte, 5<<20))); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := both.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 5 MiB in a stream: got %v, want ResourceExhausted", err)
	}
}

// What may be on its way between two ends: both windows of both hops, the buffers
// of three transports and the messages in hand. 1 MiB a stream and hop.
const mayBeUnderway = 4 << 20

func TestSlowCallerHoldsTheBackendBack(t *testing.T) {
	const message, messages = 64 << 10, 1024 // 64 MiB
	var sent atomic.Int64
	token := strings.Repeat("t", message)
	s := start(t, &fake{watch: func(_ *ledgerv1.WatchEmissionsRequest, ss grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
		for range messages {
			if err := ss.Send(&ledgerv1.WatchEmissionsResponse{ResumeToken: token}); err != nil {
				return err
			}
			sent.Add(message)
		}
		return nil
	}})
	watch, err := ledgerv1.NewLedgerServiceClient(s.through).WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var ahead int64
	for read := int64(message); ; read += message {
		if _, err := watch.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		ahead = max(ahead, sent.Load()-read)
	}
	if sent.Load() != message*messages {
		t.Errorf("%d bytes sent, want all", sent.Load())
	}
	if ahead > mayBeUnderway {
		t.Errorf("the backend was %d bytes ahead of the caller, want at most %d", ahead, mayBeUnderway)
	}
}

func TestSlowBackendHoldsTheCallerBack(t *testing.T) {
	const message, messages = 64 << 10, 1024
	var sent, ahead atomic.Int64
	s := start(t, &fake{load: func(ss grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
		for read := int64(message); ; read += message {
			if _, err := ss.Recv(); errors.Is(err, io.EOF) {
				return ss.SendAndClose(&gridv1.ImportIntensitiesResponse{})
			} else if err != nil {
				return err
			}
			ahead.Store(max(ahead.Load(), sent.Load()-read))
		}
	}})
	load, err := gridv1.NewGridServiceClient(s.through).ImportIntensities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data := &gridv1.ImportIntensitiesRequest{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: make([]byte, message)}}
	for range messages {
		if err := load.Send(data); err != nil {
			t.Fatal(err)
		}
		sent.Add(message)
	}
	if _, err := load.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	if ahead.Load() > mayBeUnderway {
		t.Errorf("the caller was %d bytes ahead of the backend, want at most %d", ahead.Load(), mayBeUnderway)
	}
}

func TestEndOfTheGateway(t *testing.T) {
	inFlight, finish := make(chan struct{}), make(chan struct{})
	s := start(t, &fake{
		get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
			close(inFlight)
			<-finish
			return &gridv1.GetIntensityResponse{}, nil
		},
		watch: func(_ *ledgerv1.WatchEmissionsRequest, ss grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
			if err := ss.Send(&ledgerv1.WatchEmissionsResponse{}); err != nil {
				return err
			}
			<-ss.Context().Done()
			return context.Cause(ss.Context())
		},
	})
	watch, err := ledgerv1.NewLedgerServiceClient(s.through).WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := gridv1.NewGridServiceClient(s.through).GetIntensity(t.Context(), france())
		got <- err
	}()
	<-inFlight
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.stop() }()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a watch ended with %v, want Unavailable", err)
	}
	close(finish) // only after the watch has seen the end
	if err := <-got; err != nil {
		t.Errorf("a call in flight ended with %v", err)
	}
	<-stopped
}

func TestHealth(t *testing.T) {
	s := start(t, &fake{})
	health := healthv1.NewHealthClient(s.through)
	state := func(service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
		resp, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		return resp.GetStatus(), err
	}
	ready := func() (int, string) {
		resp, err := http.Get("http://" + s.gateway.HTTPAddr().String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, service := range []string{"", gridService} {
		if got, err := state(service); err != nil || got != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: got %v, %v", service, got, err)
		}
	}
	if _, err := state("wattfold.fleet.v1.FleetService"); status.Code(err) != codes.NotFound {
		t.Errorf("a service without a backend: got %v, want NotFound", err)
	}
	if code, body := ready(); code != http.StatusOK || !strings.Contains(body, gridService+": SERVING") {
		t.Errorf("/readyz: %d %s", code, body)
	}

	s.stopBackend()
	if got, err := state(gridService); err != nil || got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a stopped backend: got %v, %v", got, err)
	}
	if got, err := state(""); err != nil || got != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("the gateway before a stopped backend: got %v, %v", got, err)
	}
	if code, body := ready(); code != http.StatusServiceUnavailable || !strings.Contains(body, gridService+": NOT_SERVING") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	_, err := gridv1.NewGridServiceClient(s.through).GetIntensity(t.Context(), france())
	if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != gridService+" is not reachable now" {
		t.Errorf("a call to a stopped backend: %v", err)
	}
	if fault.RetryAfterOf(rpc.FromStatus(err)) != time.Second {
		t.Errorf("a call to a stopped backend says nothing about when to retry: %v", err)
	}
}

func TestReflection(t *testing.T) {
	for _, on := range []bool{true, false} {
		s := start(t, &fake{}, func(c *gateway.Config) { c.Reflection = on })
		stream, err := reflectionv1.NewServerReflectionClient(s.through).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: gridService},
		}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		switch {
		case on && len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0:
			t.Errorf("reflection on: %v, %v", resp, err)
		case !on && status.Code(err) != codes.Unimplemented:
			t.Errorf("reflection off: %v, %v", resp, err)
		}
		if on {
			if err := stream.Send(&reflectionv1.ServerReflectionRequest{
				MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
			}); err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			listed := map[string]bool{}
			for _, service := range resp.GetListServicesResponse().GetService() {
				listed[service.GetName()] = true
			}
			if !listed[gridService] || !listed["grpc.health.v1.Health"] || listed["wattfold.fleet.v1.FleetService"] {
				t.Errorf("listed: %v", listed)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		s.stop()
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		grpc     string
		insecure bool
		want     string
	}{
		{grpc: "127.0.0.1:9090"},
		{grpc: "[::1]:0"},
		{grpc: "localhost:9090"},
		{grpc: "127.9.9.9:9090"},
		{grpc: ":9090", want: "no authentication yet"},
		{grpc: "0.0.0.0:9090", want: "no authentication yet"},
		{grpc: "[::]:9090", want: "no authentication yet"},
		{grpc: "10.0.0.5:9090", want: "no authentication yet"},
		{grpc: "gateway.example.com:9090", want: "no authentication yet"},
		{grpc: "0.0.0.0:9090", insecure: true},
		{grpc: "9090", insecure: true, want: "not host:port"},
	} {
		cfg := gateway.Default()
		cfg.GRPC, cfg.Insecure = test.grpc, test.insecure
		err := cfg.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s insecure=%v: got %v, want %q", test.grpc, test.insecure, err, test.want)
		}
	}
	cfg := gateway.Config{GRPC: ":1", HTTP: ":2"}
	if err := cfg.Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v, want four mistakes", err)
	}
}

func TestABackendOfNoService(t *testing.T) {
	_, err := gateway.New(slog.New(slog.DiscardHandler), gateway.Default(),
		map[string]grpc.ClientConnInterface{"wattfold.grid.v1.Gird": nil}, gateway.Deps{})
	if err == nil || !strings.Contains(err.Error(), "wattfold.grid.v1.Gird: no such service") {
		t.Errorf("got %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	cfg := gateway.Default()
	cfg.GRPC, cfg.HTTP = "127.0.0.1:0", lis.Addr().String()
	g, err := gateway.New(slog.New(slog.DiscardHandler), cfg, nil, gateway.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "gateway: http: ") {
		t.Errorf("got %v, want an error of the http port", err)
	}
}
