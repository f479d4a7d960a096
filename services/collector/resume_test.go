package collector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/wattfold/wattfold/internal/bus/bustest"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/services/collector"
)

var errKilled = errors.New("killed")

// killer lets the collector die at the nth time that an import comes to a step:
// what the disk holds then is copied, and nothing is done any more.
type killer struct {
	t      *testing.T
	dir    string
	step   string
	nth    int
	mu     sync.Mutex
	seen   int
	died   chan struct{}
	corpse string
}

func newKiller(t *testing.T, dir, step string, nth int) *killer {
	return &killer{t: t, dir: dir, step: step, nth: nth, died: make(chan struct{}), corpse: t.TempDir()}
}

func (k *killer) at(step string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if step == k.step {
		k.seen++
	}
	if k.seen < k.nth {
		return nil
	}
	select {
	case <-k.died:
	default:
		if err := os.CopyFS(filepath.Join(k.corpse, "spool"), os.DirFS(k.dir)); err != nil {
			k.t.Error(err)
		}
		close(k.died)
	}
	return errKilled
}

func content(t *testing.T, nodes, ticks int) ([]byte, map[string][]reading) {
	t.Helper()
	file, want := trace(t, nodes, ticks)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text, want
}

func filesOfImports(t *testing.T, cfg collector.Config) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cfg.Dir, "imports"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestKilledImport kills the collector at every step of an import. What was
// accepted is whole after the next start, and in the ledger once; of what was
// not there is nothing.
func TestKilledImport(t *testing.T) {
	text, want := content(t, 4, 1800) // 12 batches, each a group
	for _, c := range []struct {
		step string
		nth  int
	}{
		{collector.StepValidated, 1}, {collector.StepAccepted, 1}, {collector.StepGroup, 1}, {collector.StepGroup, 2},
		{collector.StepGroup, 7}, {collector.StepGroup, 12}, {collector.StepSpooled, 1},
	} {
		t.Run(fmt.Sprintf("%s %d", c.step, c.nth), func(t *testing.T) {
			server := bustest.Start(t)
			cfg := config(t, "")
			k := newKiller(t, cfg.Dir, c.step, c.nth)
			im := serve(t, newLedger(t, server), service(t, server, cfg, collector.WithImportSteps(1, k.at)))
			if _, _, err := im.run(im.mapping(), text); err == nil {
				t.Fatal("the import of a killed collector ended well")
			}
			<-k.died
			im.stop()

			cfg.Dir = filepath.Join(k.corpse, "spool")
			im = serve(t, im.ledger, service(t, server, cfg))
			if err := im.service.WaitCommitted(deadline(t)); err != nil {
				t.Fatal(err)
			}
			expected := want
			if c.step == collector.StepValidated {
				expected = map[string][]reading{}
			}
			if diff := cmp.Diff(expected, im.ledger.all(), cmp.AllowUnexported(reading{})); diff != "" {
				t.Fatal(diff)
			}
			if names := filesOfImports(t, cfg); len(names) > 0 {
				t.Errorf("files stayed: %v", names)
			}
			again, _, err := im.run(im.mapping(), text)
			if err != nil || again.GetAlreadyImported() != (c.step != collector.StepValidated) {
				t.Errorf("the same again: %v, %v", again, err)
			}
			if diff := cmp.Diff(want, im.ledger.all(), cmp.AllowUnexported(reading{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKilledTwice kills the collector while it resumes.
func TestKilledTwice(t *testing.T) {
	text, want := content(t, 4, 1800)
	server := bustest.Start(t)
	l := newLedger(t, server)
	cfg := config(t, "")
	k := newKiller(t, cfg.Dir, collector.StepGroup, 3)
	im := serve(t, l, service(t, server, cfg, collector.WithImportSteps(1, k.at)))
	if _, _, err := im.run(im.mapping(), text); err == nil {
		t.Fatal("the import of a killed collector ended well")
	}
	im.stop()
	cfg.Dir = filepath.Join(k.corpse, "spool")
	k = newKiller(t, cfg.Dir, collector.StepGroup, 4)
	im = serve(t, l, service(t, server, cfg, collector.WithImportSteps(1, k.at)))
	<-k.died
	im.stop()
	cfg.Dir = filepath.Join(k.corpse, "spool")
	im = serve(t, l, service(t, server, cfg))
	if err := im.service.WaitCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
}

// TestFailedImportGoesOn lets the disk fail once: the import goes on by itself.
func TestFailedImportGoesOn(t *testing.T) {
	text, want := content(t, 2, 1200)
	server := bustest.Start(t)
	cfg := config(t, "")
	var once sync.Once
	im := serve(t, newLedger(t, server), service(t, server, cfg, collector.WithImportSteps(1, func(step string) (err error) {
		if step == collector.StepSpooled {
			once.Do(func() { err = errKilled })
		}
		return err
	})))
	if _, _, err := im.run(im.mapping(), text); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
	// The second call waits for the first's import to end.
	again, _, err := im.run(im.mapping(), text)
	if err != nil || !again.GetAlreadyImported() {
		t.Fatalf("got %v, %v", again, err)
	}
	if diff := cmp.Diff(want, im.ledger.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
}

// TestClientLeaves lets the client go while its import is spooled, and another
// come with the same file meanwhile.
func TestClientLeaves(t *testing.T) {
	text, want := content(t, 2, 1200)
	server := bustest.Start(t)
	cfg := config(t, "")
	accepted, left := make(chan struct{}), make(chan struct{})
	im := serve(t, newLedger(t, server), service(t, server, cfg, collector.WithImportSteps(1, func(step string) error {
		if step == collector.StepAccepted {
			close(accepted)
			<-left
		}
		return nil
	})))
	leaving, leave := context.WithCancel(deadline(t))
	gone := make(chan error, 1)
	go func() {
		_, _, err := im.runIn(leaving, im.mapping(), text)
		gone <- err
	}()
	<-accepted
	second := make(chan error, 1)
	go func() {
		got, _, err := im.run(im.mapping(), text)
		if err == nil && !got.GetAlreadyImported() {
			err = fmt.Errorf("got %v", got)
		}
		second <- err
	}()
	leave()
	if err := <-gone; err == nil {
		t.Error("the client that left heard of a success")
	}
	close(left)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, im.ledger.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
	if im.ledger.duplicates > 0 {
		t.Errorf("%d batches were sent twice", im.ledger.duplicates)
	}
}

// TestDamagedAcceptedFile has a file of an accepted import rot: it is given up,
// and the same file can be imported again.
func TestDamagedAcceptedFile(t *testing.T) {
	text, want := content(t, 2, 1200)
	server := bustest.Start(t)
	l := newLedger(t, server)
	cfg := config(t, "")
	k := newKiller(t, cfg.Dir, collector.StepGroup, 2)
	im := serve(t, l, service(t, server, cfg, collector.WithImportSteps(1, k.at)))
	if _, _, err := im.run(im.mapping(), text); err == nil {
		t.Fatal("the import of a killed collector ended well")
	}
	im.stop()
	cfg.Dir = filepath.Join(k.corpse, "spool")
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "imports", "*.csv"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	rotten := bytes.Clone(text)
	rotten[len(rotten)-2] ^= 1
	if err := os.WriteFile(files[0], rotten, 0o600); err != nil {
		t.Fatal(err)
	}
	im = serve(t, l, service(t, server, cfg))
	if err := im.service.WaitCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if names := filesOfImports(t, cfg); len(names) > 0 {
		t.Errorf("files stayed: %v", names)
	}
	if got, _, err := im.run(im.mapping(), text); err != nil || got.GetAlreadyImported() {
		t.Fatalf("the same again: %v, %v", got, err)
	}
	if diff := cmp.Diff(want, l.all(), cmp.AllowUnexported(reading{})); diff != "" {
		t.Fatal(diff)
	}
}

// TestImportsDirectoryIsCleared has a crash leave what was not accepted, and the
// disk damage what was.
func TestImportsDirectoryIsCleared(t *testing.T) {
	server := bustest.Start(t)
	cfg := config(t, "")
	dir := filepath.Join(cfg.Dir, "imports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"123.upload": "node,ms", "aa.csv": "node,ms", "bb.import.tmp": "{", "cc.csv": "node,ms", "cc.import": "{",
		"dd.csv": "node,ms", "dd.import": `{"ID":"x","Epoch":1,"Content":"AAAAAAAAAAAAAAAAAAAAAA==","Batches":1,"Mapping":{}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	im := serve(t, newLedger(t, server), service(t, server, cfg))
	if err := im.service.WaitCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if names := filesOfImports(t, cfg); len(names) > 0 {
		t.Errorf("files stayed: %v", names)
	}
}

// rowCounts reads the counters of rows by source.
func rowCounts(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "wattfold_collector_duplicate_rows_total" && m.Name != "wattfold_collector_rounded_total" {
				continue
			}
			sum, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				t.Fatalf("%s is %T", m.Name, m.Data)
			}
			for _, p := range sum.DataPoints {
				source, _ := p.Attributes.Value(attribute.Key("source"))
				counts[m.Name+" "+source.AsString()] = p.Value
			}
		}
	}
	return counts
}

func TestRowsAreCounted(t *testing.T) {
	text := fmt.Appendf(nil, "node,ms,watts\na,%d,1.0005\na,%d,2\na,%d,3\na,%d.25,4\n", start, start, start+1000, start+2000)
	file := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	server := bustest.Start(t)
	cfg := config(t, file)
	reader := sdkmetric.NewManualReader()
	s, err := collector.New(quiet, cfg, collector.Deps{
		NATS: server.Connect("collector"), Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	})
	if err != nil {
		t.Fatal(err)
	}
	im := serve(t, newLedger(t, server), s)
	if err := im.service.WaitCommitted(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is imported
		if _, _, err := im.run(im.mapping(), text); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int64{}
	for _, source := range []string{"replay", "import"} {
		want["wattfold_collector_duplicate_rows_total "+source] = 1
		want["wattfold_collector_rounded_total "+source] = 2
	}
	if diff := cmp.Diff(want, rowCounts(t, reader)); diff != "" {
		t.Error(diff)
	}
}
