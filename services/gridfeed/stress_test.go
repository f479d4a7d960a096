package gridfeed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/services/gridfeed/internal/csvfile"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store/storetest"
)

// newTestService returns a service on a store in memory that fails when told to.
func newTestService(t testing.TB, cfg Config) (*Service, *storetest.Faulty) {
	t.Helper()
	cfg.Dir = "unused"
	faulty := &storetest.Faulty{Store: store.NewMemory(time.Now)}
	s, err := newService(slog.New(slog.DiscardHandler), cfg, Deps{}, faulty)
	if err != nil {
		t.Fatal(err)
	}
	return s, faulty
}

func hours(values ...int) string {
	var text strings.Builder
	text.WriteString("t,v\n")
	for i, v := range values {
		fmt.Fprintf(&text, "%s,%d\n", time.Date(2022, 1, 1, i, 0, 0, 0, time.UTC).Format(time.RFC3339), v)
	}
	return text.String()
}

func (s *Service) importHours(zone string, values ...int) (imported, error) {
	return s.importCSV(context.Background(), strings.NewReader(hours(values...)), importFile{
		key:     store.Key{Subject: zone, Signal: store.AverageLifecycle, Source: "import"},
		quality: timeline.Measured,
		mapping: csvfile.Mapping{File: "f.csv", TimeColumn: "t", ValueColumn: "v", Step: time.Hour},
	})
}

// valueAt reads the hour of 2022-01-01 that starts at h; "" is no data.
func (s *Service) valueAt(t testing.TB, zone string, h int, v view) string {
	t.Helper()
	ms := time.Date(2022, 1, 1, h, 0, 0, 0, time.UTC).UnixMilli()
	_, step, err := s.intensity(t.Context(), zone, store.AverageLifecycle, ms, v)
	if fault.Is(err, fault.NotFound) {
		return ""
	}
	if err != nil {
		t.Error(err)
	}
	return step.Value.String()
}

// TestFailedImports: whichever way the store failed, readers see what it holds, and the
// import may be made once more.
func TestFailedImports(t *testing.T) {
	for fault, want := range map[storetest.Fault]string{storetest.NotApplied: "1", storetest.Applied: "2"} {
		s, faulty := newTestService(t, Default())
		if _, err := s.importHours("ZZ", 1, 1); err != nil {
			t.Fatal(err)
		}
		if got := s.valueAt(t, "ZZ", 0, view{}); got != "1" {
			t.Fatalf("value %s", got)
		}
		faulty.Break(fault)
		if _, err := s.importHours("ZZ", 2, 3); !errors.Is(err, storetest.ErrBroken) {
			t.Fatalf("error %v", err)
		}
		if got := s.valueAt(t, "ZZ", 0, view{}); got != want {
			t.Errorf("after failure %d the value is %s, want %s", fault, got, want)
		}
		again, err := s.importHours("ZZ", 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		if total := again.change.Revised + again.change.Unchanged; total != 2 {
			t.Errorf("once more: %+v", again.change)
		}
		if got := s.valueAt(t, "ZZ", 1, view{}); got != "3" {
			t.Errorf("once more the value is %s", got)
		}
	}
}

// TestReadersDuringImports: a reader never sees half of an import, an answer as of now
// never changes, and what was imported is there when the import returns.
func TestReadersDuringImports(t *testing.T) {
	cfg := Default()
	cfg.CacheRecords = minCacheRecords
	s, _ := newTestService(t, cfg)
	if _, err := s.importHours("ZZ", 0, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				now := view{by: asOf, at: time.Now().UnixMilli()}
				l, answers, _, err := s.intensities(t.Context(), "ZZ", store.AverageLifecycle, slot.Of(hourMS(0)), slot.Of(hourMS(2)), now, 10)
				if err != nil || len(answers) == 2 && answers[0].Value != answers[1].Value || l == nil {
					t.Errorf("%+v, %v", answers, err)
					return
				}
				// Imports of less than a millisecond are recorded ahead of the wall clock,
				// so that the first may not be seen as of now.
				first := ""
				if len(answers) > 0 {
					first = answers[0].Value.String()
				}
				if again := s.valueAt(t, "ZZ", 1, now); again != first {
					t.Errorf("as of one moment: %s, then %s", first, again)
					return
				}
			}
		})
	}
	for i := range 200 {
		if _, err := s.importHours("ZZ", i+1, i+1); err != nil {
			t.Fatal(err)
		}
		if got, want := s.valueAt(t, "ZZ", 1, view{}), fmt.Sprint(i+1); got != want {
			t.Fatalf("value %s after %s was imported", got, want)
		}
	}
	close(done)
	readers.Wait()
}

func hourMS(h int) int64 { return time.Date(2022, 1, 1, h, 0, 0, 0, time.UTC).UnixMilli() }

// TestCacheIsBounded: zones that nobody asks for make room, and come back right.
func TestCacheIsBounded(t *testing.T) {
	cfg := Default()
	cfg.CacheRecords = minCacheRecords
	s, _ := newTestService(t, cfg)
	many := make([]int, 600)
	for i := range 20 {
		for j := range many {
			many[j] = i + 1
		}
		if _, err := s.importHours(fmt.Sprintf("Z%d", i), many...); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		for i := range 20 {
			if got, want := s.valueAt(t, fmt.Sprintf("Z%d", i), round, view{}), fmt.Sprint(i+1); got != want {
				t.Errorf("zone %d: %s, want %s", i, got, want)
			}
			if lanes, records := s.cache.len(); records > minCacheRecords || lanes < 1 {
				t.Fatalf("%d lanes with %d records are kept", lanes, records)
			}
		}
	}
}

// TestTableOfANewerProgram: a changed value is a revision from now on, for the country
// and its parts, and the past stays.
func TestTableOfANewerProgram(t *testing.T) {
	s, _ := newTestService(t, Default())
	for _, zone := range []string{"SE", "SE-SE1"} {
		if got := s.valueAt(t, zone, 0, view{}); got != "35.89" {
			t.Errorf("%s: %s", zone, got)
		}
	}
	then := view{by: asOf, at: time.Now().UnixMilli()}
	if got := s.valueAt(t, "SE-SE1", 0, then); got != "35.89" {
		t.Errorf("as of now: %s", got)
	}
	value, err := unit.ParseDecimal("30.1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.write(t.Context(), []store.Batch{{
		Key:       store.Key{Subject: "SE", Signal: store.AverageLifecycle, Source: "ember", Product: "yearly"},
		SinceEver: true, Intervals: []store.Interval{{Start: allTimeStart, End: allTimeEnd, Value: value, Quality: timeline.Static}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, zone := range []string{"SE", "SE-SE1"} {
		if got := s.valueAt(t, zone, 0, view{}); got != "30.1" {
			t.Errorf("%s is still %s", zone, got)
		}
		if got := s.valueAt(t, zone, 0, then); got != "35.89" {
			t.Errorf("%s as of then: %s", zone, got)
		}
	}
}

// TestViewsAgree compares answers at single slots with resolving all of time, for
// views that are asked for the first time.
func TestViewsAgree(t *testing.T) {
	s, _ := newTestService(t, Default())
	var moments []int64
	for i := range 6 {
		result, err := s.importHours("DE", i, 2*i, 3*i, i%2)
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, result.recordedMS, result.recordedMS-1)
	}
	l, err := s.lane(t.Context(), getIntensity, "DE", store.AverageLifecycle)
	if err != nil {
		t.Fatal(err)
	}
	var views []view
	for _, ms := range moments {
		views = append(views, view{by: asOf, at: ms}, view{by: asKnownAt, at: ms})
	}
	views = append(views, view{by: asKnownThen}, view{by: asOf, at: timeline.SinceEver}, view{by: asOf, at: timeline.SinceEver + 1})
	for _, v := range views {
		whole := timeline.Resolve(l.chain(v), l.series, allTimeStart, allTimeEnd, v.timelineView())
		for at := slot.Of(hourMS(0)) - 20; at < slot.Of(hourMS(5)); at += 3 {
			want, wantOK := find(whole, at)
			got, ok := l.at(at, v)
			if diff := cmp.Diff(want, got); diff != "" || ok != wantOK {
				t.Errorf("view %+v at %s (-want +got)\n%s", v, at, diff)
			}
		}
	}
}

// TestStopped: after Run has ended, what would need the store is unavailable.
func TestStopped(t *testing.T) {
	s, _ := newTestService(t, Default())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.importHours("ZZ", 1); !fault.Is(err, fault.Unavailable) {
		t.Errorf("import: %v", err)
	}
	if _, _, err := s.intensity(t.Context(), "DE", store.AverageLifecycle, 0, view{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("read: %v", err)
	}
}
