package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/collector/internal/batch"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

var quiet = slog.New(slog.DiscardHandler)

// memory is a spool that keeps groups in a list and may die at one of them.
type memory struct {
	groups  []spool.Group
	epoch   uint64
	next    uint64
	dieAt   int // groups until an Append fails; negative: never
	stopped func()
}

var errDied = errors.New("killed")

func (m *memory) Reserve(_, site string, n int) (spool.Key, uint64) {
	first := m.next + 1
	m.next += uint64(n)
	return spool.Key{Site: site, Epoch: m.epoch}, first
}

func (m *memory) Append(_ context.Context, g *spool.Group) error {
	if m.dieAt == 0 {
		return errDied
	}
	m.dieAt--
	kept := spool.Group{Source: g.Source, Cursor: bytes.Clone(g.Cursor)}
	kept.Batches = append(kept.Batches, g.Batches...)
	m.groups = append(m.groups, kept)
	if m.stopped != nil {
		m.stopped()
	}
	return nil
}

func (m *memory) Cursor(source string) ([]byte, bool) {
	for _, g := range slices.Backward(m.groups) {
		if g.Source == source {
			return g.Cursor, true
		}
	}
	return nil, false
}

// readings returns each node's readings, having checked that every batch opens
// where the one before ended.
func (m *memory) readings(t *testing.T) map[string][]batch.Reading {
	t.Helper()
	all := map[string][]batch.Reading{}
	closed := map[string]bool{}
	var d samplewire.Decoder
	for _, g := range m.groups {
		for _, b := range g.Batches {
			v, err := d.Decode(b.Data)
			if err != nil {
				t.Fatal(err)
			}
			s := v.Series[0]
			node := string(v.Node)
			desc, err := samplewire.ParseDescriptor(s.Descriptor)
			if err != nil {
				t.Fatal(err)
			}
			scale := int64(1)
			for range desc.Scale {
				scale *= 10
			}
			times, values, err := d.Readings(0, desc.Scale)
			if err != nil {
				t.Fatal(err)
			}
			if had := all[node]; s.HasPrevious != (len(had) > 0) ||
				s.HasPrevious && had[len(had)-1] != (batch.Reading{TimeMS: s.PreviousMS, Value: s.PreviousValue * scale}) {
				t.Fatalf("node %s: a batch opens with %v %d %d after %v", node, s.HasPrevious, s.PreviousMS, s.PreviousValue, had)
			}
			if closed[node] {
				t.Fatalf("node %s: a batch after the closed one", node)
			}
			closed[node] = s.Closed
			for i := range times {
				all[node] = append(all[node], batch.Reading{TimeMS: times[i], Value: values[i]})
			}
		}
	}
	return all
}

func file(text string) func() (io.ReadSeekCloser, error) {
	return func() (io.ReadSeekCloser, error) { return nopCloser{strings.NewReader(text)}, nil }
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func config(text string) Config {
	return Config{
		Open: file(text), Ticks: 60, Interval: 5 * time.Second,
		Mapping: csvfile.Mapping{
			File: "t.csv", Site: "s", Component: "chassis", Kind: segment.InstantPower,
			NodeColumn: "node", TimeColumn: "ms", TimeFormat: csvfile.UnixMS, ValueColumn: "watts", Unit: "W",
		},
	}
}

const start = int64(1_700_000_000_000)

// trace makes a file of several nodes and what it holds.
func trace(rng *rand.Rand, nodes, ticks int) (string, map[string][]batch.Reading) {
	var b strings.Builder
	b.WriteString("node,ms,watts\n")
	want := map[string][]batch.Reading{}
	for tick := range ticks {
		for n := range nodes {
			node := fmt.Sprintf("n%d", n)
			r := batch.Reading{TimeMS: start + int64(tick)*1000 + int64(n), Value: rng.Int64N(1000) * 1000}
			fmt.Fprintf(&b, "%s,%d,%d\n", node, r.TimeMS, r.Value/1000)
			if rng.IntN(50) == 0 {
				fmt.Fprintf(&b, "%s,%d,%d\n", node, r.TimeMS, r.Value/1000+1)
			}
			want[node] = append(want[node], r)
		}
	}
	return b.String(), want
}

func TestOnce(t *testing.T) {
	text, want := trace(rand.New(rand.NewPCG(1, 1)), 3, 200)
	for _, ticks := range []int{1, 7, 60, 600} {
		m := &memory{epoch: 1, dieAt: -1}
		cfg := config(text)
		cfg.Ticks = ticks
		if err := New(quiet, cfg, m).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, m.readings(t)); diff != "" {
			t.Fatalf("%d ticks: %s", ticks, diff)
		}
		last := m.groups[len(m.groups)-1].Batches
		var d samplewire.Decoder
		if v, err := d.Decode(last[len(last)-1].Data); err != nil || !v.Series[0].Closed {
			t.Errorf("%d ticks: the last batch does not close its series (%v)", ticks, err)
		}
		// Once more: there is nothing left to do.
		n := len(m.groups)
		if err := New(quiet, cfg, m).Run(t.Context()); err != nil || len(m.groups) != n {
			t.Errorf("%d ticks: a replay that ended made %d more groups (%v)", ticks, len(m.groups)-n, err)
		}
	}
}

// TestKilled stops replays at random groups, after they are durable, before, and
// by their context, and lets them go on.
func TestKilled(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		text, want := trace(rng, 1+rng.IntN(4), 300)
		m := &memory{}
		cfg := config(text)
		cfg.Ticks = 1 + rng.IntN(80)
		cfg.Speed = 200_000
		cfg.Interval = 100 * time.Microsecond
		for {
			m.epoch++
			m.next = 0
			m.dieAt = rng.IntN(8)
			ctx, cancel := context.WithCancel(t.Context())
			m.stopped = nil
			if rng.IntN(3) == 0 {
				m.stopped = cancel
			}
			err := New(quiet, cfg, m).Run(ctx)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, errDied) && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, m.readings(t)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func TestShiftIsFixedAtTheFirstStart(t *testing.T) {
	text, want := trace(rand.New(rand.NewPCG(1, 3)), 2, 100)
	m := &memory{dieAt: 2}
	cfg := config(text)
	cfg.StartNow = true
	cfg.Speed = 50_000
	cfg.Interval = 100 * time.Microsecond
	before := time.Now().UnixMilli()
	if err := New(quiet, cfg, m).Run(t.Context()); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	after := time.Now().UnixMilli()
	m.dieAt = -1
	if err := New(quiet, cfg, m).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := m.readings(t)
	shift := got["n0"][0].TimeMS - want["n0"][0].TimeMS
	if at := start + shift; at < before || at > after {
		t.Errorf("the earliest row is at %d, want within the first start, %d to %d", at, before, after)
	}
	for node := range want {
		for i := range want[node] {
			want[node][i].TimeMS += shift
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoopMovesByTheSpanAndOneStep(t *testing.T) {
	text := fmt.Sprintf("node,ms,watts\na,%d,1\na,%d,2\na,%d,3\n", start, start+2000, start+4000)
	ctx, cancel := context.WithCancel(t.Context())
	m := &memory{dieAt: -1}
	m.stopped = func() {
		if len(m.groups) >= 3 {
			cancel()
		}
	}
	cfg := config(text)
	cfg.Loop, cfg.Speed, cfg.Interval = true, 1e6, 50*time.Microsecond
	if err := New(quiet, cfg, m).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for i, r := range m.readings(t)["a"] {
		if want := (batch.Reading{TimeMS: start + int64(i)*2000, Value: int64(i%3+1) * 1000}); r != want {
			t.Fatalf("reading %d is %v, want %v", i, r, want)
		}
	}
}

func TestLiveGoesOnAtNow(t *testing.T) {
	now := time.Now().UnixMilli()
	var b strings.Builder
	b.WriteString("node,ms,watts\n")
	for i := range 4000 {
		fmt.Fprintf(&b, "a,%d,%d\n", start+int64(i)*5, i)
	}
	m := &memory{dieAt: -1}
	cfg := config(b.String())
	cfg.Live, cfg.Loop, cfg.StartNow, cfg.Speed, cfg.Interval = true, true, true, 1, 20*time.Millisecond
	run := func(groups int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := len(m.groups)
		m.stopped = func() {
			if len(m.groups) >= n+groups {
				cancel()
			}
		}
		if err := New(quiet, cfg, m).Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	run(3)
	// It was away for an hour: as if it had first started then.
	for i := range m.groups {
		var c cursor
		if err := c.parse(m.groups[i].Cursor); err != nil {
			t.Fatal(err)
		}
		c.shiftMS -= 3_600_000
		for j := range c.last {
			c.last[j].reading.TimeMS -= 3_600_000
		}
		m.groups[i].Cursor = c.append(nil)
	}
	away := len(m.groups)
	run(3)
	var d samplewire.Decoder
	v, err := d.Decode(m.groups[away].Batches[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if first := v.Ticks[0]; first < now || first > time.Now().UnixMilli() {
		t.Errorf("it goes on at %d, want now", first)
	}
	if s := v.Series[0]; !s.HasPrevious || v.Ticks[0]-s.PreviousMS < 3_500_000 {
		t.Errorf("the gap is not shown: previous %v at %d", s.HasPrevious, s.PreviousMS)
	}
}

func TestChangedFileIsRefused(t *testing.T) {
	text, _ := trace(rand.New(rand.NewPCG(1, 4)), 1, 50)
	m := &memory{dieAt: -1}
	cfg := config(text)
	cfg.Name = "mine"
	if err := New(quiet, cfg, m).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Open = file(text + fmt.Sprintf("n0,%d,1\n", start+1_000_000))
	if err := New(quiet, cfg, m).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("got %v", err)
	}
}

func TestPacedFileMustBeInOrder(t *testing.T) {
	cfg := config(fmt.Sprintf("node,ms,watts\na,%d,1\nb,%d,1\n", start+1000, start))
	cfg.Speed = 1
	if err := New(quiet, cfg, &memory{}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in order of time") {
		t.Errorf("got %v", err)
	}
}

func FuzzCursor(f *testing.F) {
	c := cursor{at: csvfile.Position{Offset: 5, Line: 2}, loops: 1, shiftMS: -7, last: []nodeReading{{"a", batch.Reading{TimeMS: 1, Value: 2}}}}
	f.Add(c.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again cursor
		if c.parse(b) != nil {
			return
		}
		if err := again.parse(c.append(nil)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again, cmp.AllowUnexported(cursor{}, nodeReading{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
