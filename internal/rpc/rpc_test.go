package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// fake is a service whose calls do what the test says.
type fake struct {
	gridv1.UnimplementedGridServiceServer
	ledgerv1.UnimplementedLedgerServiceServer

	get   func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error)
	load  func(grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error
	watch func(grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error
}

func (f *fake) GetIntensity(ctx context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
	return f.get(ctx, req)
}

func (f *fake) ImportIntensities(s grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
	return f.load(s)
}

func (f *fake) WatchEmissions(_ *ledgerv1.WatchEmissionsRequest, s grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
	return f.watch(s)
}

// journal is what a server logged.
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

// start serves f over memory and returns a client that does not retry.
func start(t *testing.T, f *fake, o rpc.Options, c rpc.ClientOptions) (conn *grpc.ClientConn, log *journal, stop func()) {
	t.Helper()
	log = &journal{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := rpc.NewServer(logger, o)
	gridv1.RegisterGridServiceServer(srv, f)
	ledgerv1.RegisterLedgerServiceServer(srv, f)
	mem := rpc.Memory()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rpc.Serve(ctx, logger, srv, mem); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	c.Memory = mem
	conn, err := rpc.Dial("test", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, log, stop
}

func TestFaultsArriveAsTheyLeft(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		code  codes.Code
		level string
	}{
		"invalid":     {fault.Fields(fault.Field("a.b", "is wrong"), fault.Field("c", "is missing")), codes.InvalidArgument, "INFO"},
		"not found":   {fault.WithReason(fault.New(fault.NotFound, "no zone XX"), "ZONE_UNKNOWN"), codes.NotFound, "INFO"},
		"conflict":    {fmt.Errorf("site a: %w", fault.New(fault.Conflict, "exists with other words")), codes.AlreadyExists, "INFO"},
		"not yet":     {fault.New(fault.NotYet, "timelines end at noon"), codes.FailedPrecondition, "INFO"},
		"denied":      {fault.New(fault.Denied, "not yours"), codes.PermissionDenied, "WARN"},
		"exhausted":   {fault.RetryAfter(fault.New(fault.Exhausted, "full"), 90*time.Second), codes.ResourceExhausted, "WARN"},
		"unavailable": {fault.Newf(fault.Unavailable, "the ledger is away: %w", io.ErrUnexpectedEOF), codes.Unavailable, "WARN"},
		"everything": {fault.RetryAfter(fault.WithReason(fault.Fields(fault.Field("x", "y")), "R"), time.Second),
			codes.InvalidArgument, "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, log, stop := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
				return nil, test.err
			}}, rpc.Options{}, rpc.ClientOptions{NoRetry: true})
			_, err := gridv1.NewGridServiceClient(conn).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
			if status.Code(err) != test.code {
				t.Errorf("got %v, want %v", err, test.code)
			}
			type seen struct {
				Text, Reason string
				Kind         fault.Kind
				After        time.Duration
				Fields       []fault.Violation
			}
			see := func(err error) seen {
				return seen{err.Error(), fault.ReasonOf(err), fault.KindOf(err), fault.RetryAfterOf(err), fault.FieldsOf(err)}
			}
			if diff := cmp.Diff(see(test.err), see(rpc.FromStatus(err))); diff != "" {
				t.Errorf("-sent +received\n%s", diff)
			}
			stop()
			lines := log.take()
			if strings.Count(lines, "\n") != 1 || !strings.Contains(lines, "level="+test.level+" msg=\"call failed\"") {
				t.Errorf("want one line of level %s, got\n%s", test.level, lines)
			}
		})
	}
}

func TestOursIsNotShown(t *testing.T) {
	var next func() error
	conn, log, _ := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return nil, next()
	}}, rpc.Options{}, rpc.ClientOptions{})
	for name, test := range map[string]struct {
		next   func() error
		logged string
	}{
		"unclassified":         {func() error { return errors.New("secret of the resolver") }, "secret of the resolver"},
		"a panic":              {func() error { panic("out of range") }, "rpc_test.go"},
		"a wrapped status":     {func() error { return fmt.Errorf("zone: %w", status.Error(codes.NotFound, "secret")) }, "secret"},
		"internal on purpose":  {func() error { return fault.Wrap(fault.Internal, fault.New(fault.NotFound, "secret")) }, "secret"},
		"a reason and no kind": {func() error { return fault.WithReason(errors.New("secret"), "X") }, "secret"},
	} {
		next = test.next
		_, err := gridv1.NewGridServiceClient(conn).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
		if st := status.Convert(err); st.Code() != codes.Internal || st.Message() != "internal error" || len(st.Details()) > 0 {
			t.Errorf("%s: got %v", name, err)
		}
		if lines := log.take(); strings.Count(lines, "level=ERROR") != 1 || !strings.Contains(lines, test.logged) {
			t.Errorf("%s: want one line of level ERROR with %s, got\n%s", name, test.logged, lines)
		}
	}
}

// TestLongMistakesAreShortInTheLog: of a caller's mistake a little, of ours all.
func TestLongMistakesAreShortInTheLog(t *testing.T) {
	long := strings.Repeat("naïve ", 1000)
	var next error
	conn, log, _ := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return nil, next
	}}, rpc.Options{}, rpc.ClientOptions{})
	for _, test := range []struct {
		err      error
		min, max int
	}{
		{fault.New(fault.Invalid, long), 500, 800},
		{errors.New(long), len(long), len(long) + 300},
		{rpc.Relayed(status.New(codes.Internal, long)), len(long), len(long) + 300},
	} {
		next = test.err
		_, err := gridv1.NewGridServiceClient(conn).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
		if err == nil {
			t.Error("the call does not fail")
		}
		if line := log.take(); len(line) < test.min || len(line) > test.max || !utf8.ValidString(line) {
			t.Errorf("%d bytes are logged, want %d to %d:\n%s", len(line), test.min, test.max, line)
		}
	}
}

// TestRelayedIsLoggedElsewhere: the answer of another server passes as it is, and
// the log says so only when one looks closely.
func TestRelayedIsLoggedElsewhere(t *testing.T) {
	if rpc.Relayed(status.New(codes.OK, "")) != nil || rpc.Relayed(nil) != nil {
		t.Error("what is no error became one")
	}
	answer := status.Convert(rpc.Status(fault.WithReason(fault.New(fault.NotFound, "no zone XX"), "ZONE_UNKNOWN")))
	conn, log, _ := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		return nil, rpc.Relayed(answer)
	}}, rpc.Options{}, rpc.ClientOptions{})
	_, err := gridv1.NewGridServiceClient(conn).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
	if diff := cmp.Diff(answer.Proto(), status.Convert(err).Proto(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if lines := log.take(); strings.Count(lines, "level=DEBUG") != 1 || strings.Count(lines, "\n") != 1 {
		t.Errorf("want one line of level DEBUG, got\n%s", lines)
	}
}

func TestFromStatus(t *testing.T) {
	if rpc.FromStatus(nil) != nil || rpc.Status(nil) != nil {
		t.Error("nil is an error")
	}
	if err := rpc.FromStatus(io.EOF); err != io.EOF { //nolint:errorlint // this very error
		t.Errorf("an error without a status: got %v", err)
	}
	for code, want := range map[codes.Code]error{codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded} {
		if err := rpc.FromStatus(status.Error(code, "x")); !errors.Is(err, want) || status.Code(err) != code {
			t.Errorf("%v: got %v", code, err)
		}
		if got := status.Code(rpc.Status(fmt.Errorf("read: %w", want))); got != code {
			t.Errorf("%v: got %v", want, got)
		}
	}
	for code, want := range map[codes.Code]fault.Kind{
		codes.Unknown: fault.Internal, codes.Unimplemented: fault.Internal, codes.Unauthenticated: fault.Denied,
		codes.Aborted: fault.Conflict, codes.OutOfRange: fault.Invalid, codes.DataLoss: fault.Internal,
	} {
		if got := fault.KindOf(rpc.FromStatus(status.Error(code, "x"))); got != want {
			t.Errorf("%v: got %v, want %v", code, got, want)
		}
	}
	// A fault of a call, classified anew by the one who made it, leaves as that.
	err := fault.Wrap(fault.Unavailable, rpc.FromStatus(status.Error(codes.NotFound, "no zone")))
	if got := status.Convert(rpc.Status(err)); got.Code() != codes.Unavailable || got.Message() != "no zone" {
		t.Errorf("got %v", got)
	}
}

func TestRulesOfTheProto(t *testing.T) {
	called := 0
	conn, _, _ := start(t, &fake{
		get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
			called++
			return &gridv1.GetIntensityResponse{}, nil
		},
		load: func(s grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
			for {
				if _, err := s.Recv(); err != nil {
					return err
				}
				called++
			}
		},
	}, rpc.Options{}, rpc.ClientOptions{})
	client := gridv1.NewGridServiceClient(conn)
	_, err := client.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Signal: 99})
	err = rpc.FromStatus(err)
	paths := []string{}
	for _, f := range fault.FieldsOf(err) {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"zone", "signal"}, paths); diff != "" || !fault.Is(err, fault.Invalid) || called != 0 {
		t.Errorf("%v, called %d times: %s", err, called, diff)
	}

	load, err := client.ImportIntensities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []*gridv1.ImportIntensitiesRequest{
		{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: []byte("a")}},
		{Part: &gridv1.ImportIntensitiesRequest_Mapping{Mapping: &gridv1.IntensityMapping{Zone: "FR"}}},
	} {
		if err := load.Send(part); err != nil {
			t.Fatal(err)
		}
	}
	_, err = load.CloseAndRecv()
	err = rpc.FromStatus(err)
	if !fault.Is(err, fault.Invalid) || called != 1 || fault.FieldsOf(err)[0].Path != "mapping.time_column" {
		t.Errorf("the second message of a stream: %v, %v, called %d times", err, fault.FieldsOf(err), called)
	}
}

func TestClientRetriesWhatWasUnavailable(t *testing.T) {
	calls := 0
	conn, _, _ := start(t, &fake{get: func(context.Context, *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		if calls++; calls < 4 {
			return nil, fault.New(fault.Unavailable, "starting")
		}
		return &gridv1.GetIntensityResponse{}, nil
	}}, rpc.Options{}, rpc.ClientOptions{})
	client := gridv1.NewGridServiceClient(conn)
	if _, err := client.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"}); err != nil || calls != 4 {
		t.Errorf("got %v after %d calls, want success after 4", err, calls)
	}
	calls = -100
	_, err := client.GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
	if err = rpc.FromStatus(err); !fault.Is(err, fault.Unavailable) || err.Error() != "starting" {
		t.Errorf("got %v, want the server's words alone", err)
	}
}

func TestHealthAndDrain(t *testing.T) {
	conn, log, stop := start(t, &fake{watch: func(s grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse]) error {
		if err := s.Send(&ledgerv1.WatchEmissionsResponse{}); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}}, rpc.Options{}, rpc.ClientOptions{})
	health := healthv1.NewHealthClient(conn)
	for service, want := range map[string]codes.Code{
		"": codes.OK, "wattfold.grid.v1.GridService": codes.OK, "wattfold.ledger.v1.LedgerService": codes.OK,
		fleetv1.FleetService_ServiceDesc.ServiceName: codes.NotFound,
	} {
		resp, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if status.Code(err) != want || err == nil && resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: got %v, %v", service, resp, err)
		}
	}
	list, err := health.List(t.Context(), &healthv1.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 4 { // "", the two and health itself
		t.Errorf("list: %v, %v", list, err)
	}
	state, err := health.Watch(t.Context(), &healthv1.HealthCheckRequest{Service: "wattfold.grid.v1.GridService"})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := state.Recv(); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("before the end: %v, %v", resp, err)
	}
	watch, err := ledgerv1.NewLedgerServiceClient(conn).WatchEmissions(t.Context(), &ledgerv1.WatchEmissionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	log.take()
	stop() // returns, though both streams are open

	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("a watch ended with %v", err)
	}
	if resp, err := state.Recv(); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("at the end: %v, %v", resp, err)
	}
	if lines := log.take(); strings.Contains(lines, "cut off") {
		t.Errorf("calls were cut off:\n%s", lines)
	} else if strings.Contains(lines, "level=WARN") || strings.Contains(lines, "level=ERROR") {
		t.Errorf("an ordinary end is worth a warning:\n%s", lines)
	}
}

func TestDrainIsBounded(t *testing.T) {
	entered := make(chan struct{})
	conn, log, stop := start(t, &fake{get: func(ctx context.Context, _ *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}}, rpc.Options{Drain: time.Millisecond}, rpc.ClientOptions{NoRetry: true})
	failed := make(chan error, 1)
	go func() {
		_, err := gridv1.NewGridServiceClient(conn).GetIntensity(t.Context(), &gridv1.GetIntensityRequest{Zone: "FR"})
		failed <- err
	}()
	<-entered
	stop()
	if err := <-failed; err == nil {
		t.Error("a call without an end succeeded")
	}
	if !strings.Contains(log.take(), "calls cut off at the end") {
		t.Error("nothing in the log about it")
	}
}

func TestServeReportsItsListener(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if err := rpc.Serve(t.Context(), log, rpc.NewServer(log, rpc.Options{}), lis); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestTraceIsPassedOn(t *testing.T) {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	var got trace.SpanContext
	tracer := noop.NewTracerProvider()
	conn, _, _ := start(t, &fake{get: func(ctx context.Context, _ *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
		got = trace.SpanContextFromContext(ctx)
		return &gridv1.GetIntensityResponse{}, nil
	}}, rpc.Options{Tracer: tracer}, rpc.ClientOptions{Tracer: tracer})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	if _, err := gridv1.NewGridServiceClient(conn).GetIntensity(ctx, &gridv1.GetIntensityRequest{Zone: "FR"}); err != nil {
		t.Fatal(err)
	}
	if got.TraceID() != span.TraceID() {
		t.Errorf("got %v, want %v", got.TraceID(), span.TraceID())
	}
}
