package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/internal/bus/embedded"
)

func js(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func power(maxBytes int64) bus.StreamConfig {
	return bus.StreamConfig{Name: "WATTFOLD_POWER_0", Subjects: []string{"wattfold.power.*.*"}, MaxBytes: maxBytes}
}

func TestStreamOutlivesTheServer(t *testing.T) {
	server := bustest.Start(t)
	if server.URL() != "" {
		t.Errorf("a server without an address listens on %s", server.URL())
	}
	if err := server.Healthy(); err != nil {
		t.Error(err)
	}
	stream := js(t, server.Connect("publisher"))
	if _, err := bus.EnsureStream(t.Context(), stream, power(1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Publish(t.Context(), "wattfold.power.p007.a", []byte("batch")); err != nil {
		t.Fatal(err)
	}

	server.Restart()
	again, err := bus.EnsureStream(t.Context(), js(t, server.Connect("reader")), power(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	msg, err := again.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "batch" {
		t.Errorf("got %v, %v", msg, err)
	}
}

func TestStreamSettings(t *testing.T) {
	server := bustest.Start(t)
	js := js(t, server.Connect("owner"))
	stream, err := bus.EnsureStream(t.Context(), js, power(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if cfg.Storage != jetstream.FileStorage || cfg.Discard != jetstream.DiscardNew || cfg.MaxAge != 0 ||
		cfg.Compression != jetstream.NoCompression || cfg.AllowDirect || cfg.Duplicates != 100*time.Millisecond {
		t.Errorf("settings: %+v", cfg)
	}

	_, err = bus.EnsureStream(t.Context(), js, power(2<<20))
	if err == nil || !strings.Contains(err.Error(), "max_bytes is 1048576, not 2097152") {
		t.Errorf("another size: got %v", err)
	}
	cfg.AllowDirect, cfg.MaxAge = true, time.Hour
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err = bus.EnsureStream(t.Context(), js, power(1<<20))
	if err == nil || !strings.Contains(err.Error(), "max_age is 1h0m0s, not 0s") || !strings.Contains(err.Error(), "allow_direct is true, not false") {
		t.Errorf("altered by another hand: got %v", err)
	}
	if _, err := bus.EnsureStream(t.Context(), js, power(0)); err == nil {
		t.Error("a stream without a limit was made")
	}
}

func TestFullStreamPushesBack(t *testing.T) {
	server := bustest.Start(t)
	js := js(t, server.Connect("publisher"))
	stream, err := bus.EnsureStream(t.Context(), js, power(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 10<<10)
	stored := uint64(0)
	for ; err == nil; stored++ {
		_, err = js.Publish(t.Context(), "wattfold.power.p000.a", message)
	}
	stored--
	if apiErr, ok := errors.AsType[*jetstream.APIError](err); !ok || apiErr.ErrorCode != 10077 {
		t.Errorf("a full stream: got %v", err)
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.FirstSeq != 1 || info.State.Msgs != stored {
		t.Errorf("%d stored, %+v, %v: something was forgotten", stored, info.State, err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "wattfold.power.p000.a", message); err != nil {
		t.Errorf("after a purge: %v", err)
	}
}

func TestRemoteConnection(t *testing.T) {
	server := bustest.Listen(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	nc, err := bus.Connect(t.Context(), server.URL(), "remote", log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	back := make(chan struct{}, 1)
	nc.SetReconnectHandler(func(*nats.Conn) { back <- struct{}{} })
	server.Restart()
	<-back
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestRemoteConnectionWaits(t *testing.T) {
	server := bustest.Listen(t)
	url := server.URL()
	server.Shutdown()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := bus.Connect(ctx, url, "impatient", log); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), url) {
		t.Errorf("got %v", err)
	}

	connected := make(chan error, 1)
	waiting := make(chan struct{})
	go func() {
		nc, err := bus.Connect(t.Context(), url, "patient", slog.New(onWarn{log.Handler(), func() { close(waiting) }}))
		if err == nil {
			nc.Close()
		}
		connected <- err
	}()
	<-waiting
	bustest.StartWith(t, embedded.Config{Listen: strings.TrimPrefix(url, "nats://")})
	if err := <-connected; err != nil {
		t.Errorf("a server that came later: %v", err)
	}
}

// onWarn calls a function at the first warning.
type onWarn struct {
	slog.Handler
	call func()
}

func (h onWarn) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "waiting for nats" {
		h.call()
	}
	return h.Handler.Handle(ctx, r)
}

func TestServerConfig(t *testing.T) {
	for want, cfg := range map[string]embedded.Config{
		"store_dir is empty":   {},
		"must not be negative": {StoreDir: t.TempDir(), MaxStore: -1},
		`listen "4222"`:        {StoreDir: t.TempDir(), Listen: "4222"},
		`listen "a:b"`:         {StoreDir: t.TempDir(), Listen: "a:b"},
	} {
		server, err := embedded.Start(cfg)
		if err == nil {
			server.Shutdown()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", cfg, err, want)
		}
	}
}

func TestPortTaken(t *testing.T) {
	server := bustest.Listen(t)
	other, err := embedded.Start(embedded.Config{StoreDir: t.TempDir(), Listen: strings.TrimPrefix(server.URL(), "nats://")})
	if err == nil {
		other.Shutdown()
	}
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestSubjectToken(t *testing.T) {
	for name, want := range map[string]string{
		"paris-1": "paris-1", "eu.west": "eu%2Ewest", "a b": "a%20b", "*": "%2A", ">": "%3E", "": "%", "%": "%25", "é": "%C3%A9",
	} {
		if got := bus.SubjectToken(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	if err := quick.Check(func(name string) bool {
		token := bus.SubjectToken(name)
		back, err := bus.ParseSubjectToken(token)
		return err == nil && back == name && !strings.ContainsAny(token, ".*> \t\r\n")
	}, nil); err != nil {
		t.Error(err)
	}
	for _, token := range []string{"", "a.b", "%2e", "%41", "%2", "a%", "é"} {
		if name, err := bus.ParseSubjectToken(token); err == nil {
			t.Errorf("%q was read as %q: a name has one token", token, name)
		}
	}
}

func TestTraceCrossesTheBus(t *testing.T) {
	nc := bustest.Start(t).Connect("both")
	sub, err := nc.SubscribeSync("wattfold.grid.FR.PRICE")
	if err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	msg := nats.NewMsg("wattfold.grid.FR.PRICE")
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(t.Context(), span), bus.HeaderCarrier(msg.Header))
	if err := nc.PublishMsg(msg); err != nil {
		t.Fatal(err)
	}
	got, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx := propagation.TraceContext{}.Extract(t.Context(), bus.HeaderCarrier(got.Header))
	if received := trace.SpanContextFromContext(ctx); received.TraceID() != span.TraceID() || received.SpanID() != span.SpanID() {
		t.Errorf("got %v, want %v", received, span)
	}
}
