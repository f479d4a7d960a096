package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/wattfold/wattfold/test/harness"
)

// receiver takes spans in over OTLP.
type receiver struct {
	collectortrace.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	spans []*tracev1.Span
}

// receive starts a receiver, until the test ends.
func receive(t *testing.T) *receiver {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{addr: lis.Addr().String()}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("receiver: %v", err)
		}
	})
	return r
}

func (r *receiver) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			r.spans = append(r.spans, scope.GetSpans()...)
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

// find returns the spans that is holds for.
func (r *receiver) find(is func(*tracev1.Span) bool) []*tracev1.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []*tracev1.Span
	for _, s := range r.spans {
		if is(s) {
			found = append(found, s)
		}
	}
	return found
}

// String lists what came, for the message of a test that misses something.
func (r *receiver) String() string {
	var b strings.Builder
	for _, s := range r.find(func(*tracev1.Span) bool { return true }) {
		fmt.Fprintf(&b, "%x %x ← %x %v %s %v, %d links\n",
			s.GetTraceId(), s.GetSpanId(), s.GetParentSpanId(), s.GetKind(), s.GetName(), attributes(s), len(s.GetLinks()))
	}
	return b.String()
}

// attributes are those of a span as text.
func attributes(s *tracev1.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.GetAttributes() {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[a.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonv1.AnyValue_BoolValue:
			out[a.GetKey()] = fmt.Sprint(v.BoolValue)
		}
	}
	return out
}

// check compares some of a span's attributes.
func check(t *testing.T, s *tracev1.Span, want map[string]string) {
	t.Helper()
	got := attributes(s)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("span %q: %s is %q, want %q; there are %v", s.GetName(), key, got[key], value, got)
		}
	}
}

// named returns what tells spans of a name apart.
func named(name string) func(*tracev1.Span) bool {
	return func(s *tracev1.Span) bool { return s.GetName() == name }
}

// One trace follows a batch from the call that brings it, through the spool's
// flush and the bus, and the transaction that it is committed in links to it.
func TestTraceFollowsABatchToTheLedger(t *testing.T) {
	harness.Long(t)
	otlp := receive(t)
	up := harness.UpIn(t, []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + otlp.addr, "OTEL_METRICS_EXPORTER=none", "OTEL_BSP_SCHEDULE_DELAY=50",
	}, t.TempDir())
	up.CreateSite("s", "FR", "1.10")
	small(t, up)
	up.Statement("--site", "s")

	const subjects = "wattfold.power.{partition}.{site}"
	var flushes, sent, commits []*tracev1.Span
	harness.Eventually(t, 20*time.Second, "spans of a flush, its sending and a commit", func() bool {
		flushes = otlp.find(named("flush"))
		sent = otlp.find(named("publish " + subjects))
		commits = otlp.find(named("commit " + subjects))
		return len(flushes) > 0 && len(sent) > 0 && len(commits) > 0
	})
	defer func() {
		if t.Failed() {
			t.Logf("spans:\n%s", otlp)
		}
	}()

	calls := otlp.find(func(s *tracev1.Span) bool {
		return s.GetKind() == tracev1.Span_SPAN_KIND_SERVER && strings.HasSuffix(s.GetName(), "/ImportSamples")
	})
	flush := flushes[0]
	if !inTrace(calls, flush) {
		t.Error("the flush is in no trace of a call to ImportSamples")
	}
	check(t, flush, map[string]string{"wattfold.batches": "1", "wattfold.samples": "11"})

	publish := sent[0]
	if string(publish.GetTraceId()) != string(flush.GetTraceId()) || string(publish.GetParentSpanId()) != string(flush.GetSpanId()) {
		t.Error("the sending is no child of the flush")
	}
	if got := publish.GetKind(); got != tracev1.Span_SPAN_KIND_PRODUCER {
		t.Errorf("the sending is of kind %v", got)
	}
	check(t, publish, map[string]string{
		"messaging.system": "nats", "messaging.operation.type": "send", "messaging.operation.name": "publish",
		"messaging.destination.template": subjects, "messaging.batch.message_count": "1", "wattfold.resent": "false",
	})
	if got := attributes(publish)["messaging.destination.name"]; !strings.HasPrefix(got, "wattfold.power.p") || !strings.HasSuffix(got, ".s") {
		t.Errorf("the sending went to %q", got)
	}

	commit := commits[0]
	if got := commit.GetKind(); got != tracev1.Span_SPAN_KIND_CONSUMER {
		t.Errorf("the commit is of kind %v", got)
	}
	check(t, commit, map[string]string{
		"messaging.system": "nats", "messaging.operation.type": "process", "messaging.operation.name": "commit",
		"messaging.destination.name": "WATTFOLD_POWER_0", "messaging.destination.template": subjects,
		"messaging.batch.message_count": "1", "wattfold.batches": "1", "wattfold.samples": "11",
	})
	if links := commit.GetLinks(); len(links) != 1 ||
		string(links[0].GetTraceId()) != string(flush.GetTraceId()) || string(links[0].GetSpanId()) != string(flush.GetSpanId()) {
		t.Errorf("the commit links to %v, want to the flush, %s", links, hex.EncodeToString(flush.GetSpanId()))
	}

	// The gateway forwards a call as its own child: server, client, server.
	harness.Eventually(t, 20*time.Second, "a call through the gateway in one trace", func() bool {
		for _, s := range otlp.find(func(s *tracev1.Span) bool { return strings.HasSuffix(s.GetName(), "/GetStatement") }) {
			if len(s.GetParentSpanId()) != 0 || s.GetKind() != tracev1.Span_SPAN_KIND_SERVER {
				continue
			}
			forwarded := childOf(otlp, s, tracev1.Span_SPAN_KIND_CLIENT)
			if forwarded != nil && childOf(otlp, forwarded, tracev1.Span_SPAN_KIND_SERVER) != nil {
				return true
			}
		}
		return false
	})
}

// inTrace tells whether a span is in the trace of one of the others.
func inTrace(others []*tracev1.Span, s *tracev1.Span) bool {
	for _, o := range others {
		if string(o.GetTraceId()) == string(s.GetTraceId()) {
			return true
		}
	}
	return false
}

// childOf returns a child of a span, of a kind; nil if there is none.
func childOf(r *receiver, parent *tracev1.Span, kind tracev1.Span_SpanKind) *tracev1.Span {
	found := r.find(func(s *tracev1.Span) bool {
		return s.GetKind() == kind && string(s.GetTraceId()) == string(parent.GetTraceId()) &&
			string(s.GetParentSpanId()) == string(parent.GetSpanId())
	})
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// What operators watch on /metrics is there before anything goes wrong, so that an
// alert sees the first time that something does.
func TestMetricsThatOperatorsWatch(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.10")
	small(t, up)
	metrics := up.Metrics()
	for name, want := range map[string]func(float64) bool{
		"wattfold_collector_samples_total":              exactly(11),
		"wattfold_collector_published_batches_total":    exactly(1),
		"wattfold_collector_resent_batches_total":       exactly(0),
		"wattfold_collector_oldest_pending_seconds":     exactly(0),
		"wattfold_collector_spool_pending_bytes":        exactly(0),
		"wattfold_calculator_committed_batches_total":   exactly(1),
		"wattfold_calculator_committed_samples_total":   exactly(11),
		"wattfold_calculator_duplicate_batches_total":   exactly(0),
		"wattfold_calculator_rejected_total":            exactly(0),
		"wattfold_calculator_lag_messages":              exactly(0),
		"wattfold_calculator_freshness_seconds":         func(v float64) bool { return v > 1e6 }, // the file is of 2022
		"wattfold_calculator_commit_seconds_count":      func(v float64) bool { return v >= 1 },
		"wattfold_calculator_commit_seconds_sum":        func(v float64) bool { return v > 0 && v < 10 },
		"wattfold_calculator_transactions_total":        func(v float64) bool { return v >= 1 },
		`wattfold_calculator_rejected_total{reason="`:   nil,
		`wattfold_calculator_lag_messages{stream="WATT`: nil,
	} {
		if want == nil {
			if !anyWithPrefix(metrics, name) {
				t.Errorf("there is no series %s…", name)
			}
			continue
		}
		if v, ok := metrics[name]; !ok || !want(v) {
			t.Errorf("%s is %v (there: %v)", name, v, ok)
		}
	}
}

func exactly(want float64) func(float64) bool { return func(v float64) bool { return v == want } }

func anyWithPrefix(metrics map[string]float64, prefix string) bool {
	for name := range metrics {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
