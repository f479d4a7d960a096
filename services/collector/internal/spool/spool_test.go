package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, dir string, opts Options) *Spool {
	t.Helper()
	s, err := Open(quiet, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// put appends a group of n own batches.
func put(t *testing.T, s *Spool, source string, n int) []Batch {
	t.Helper()
	key, first := s.Reserve(s.Producer(), "site", n)
	g := &Group{Source: source, Cursor: fmt.Appendf(nil, "%s@%d", source, first), Trace: "trace"}
	for i := range n {
		sequence := first + uint64(i)
		g.Batches = append(g.Batches, Batch{Key: key, Sequence: sequence, Samples: 7, Data: fmt.Appendf(nil, "batch %d", sequence)})
	}
	if err := s.Append(context.Background(), g); err != nil {
		t.Fatal(err)
	}
	return g.Batches
}

// pending reads everything pending.
func pending(t *testing.T, s *Spool) []Batch {
	t.Helper()
	var all []Batch
	for p, ok := s.Next(ID{}); ok; p, ok = s.Next(p.ID) {
		trace, _, batches, err := s.Read(p.ID, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if trace != "trace" || len(batches) == 0 {
			t.Fatalf("group %v has trace %q and %d batches", p.ID, trace, len(batches))
		}
		all = append(all, batches...)
		p.ID.Index++
	}
	return all
}

func own(s *Spool, floor uint64, ranges ...Range) Floor {
	return Floor{Key: Key{Site: "site", Producer: s.Producer(), Epoch: s.Epoch()}, Floor: floor, Ranges: ranges}
}

func TestPendingUntilCovered(t *testing.T) {
	s := open(t, t.TempDir(), DefaultOptions())
	want := append(put(t, s, "a", 3), put(t, s, "b", 2)...)
	if diff := cmp.Diff(want, pending(t, s)); diff != "" {
		t.Fatal(diff)
	}
	s.ApplyFloors([]Floor{own(s, 1, Range{3, 4})})
	if diff := cmp.Diff([]Batch{want[1], want[4]}, pending(t, s)); diff != "" {
		t.Fatal(diff)
	}
	s.ApplyFloors([]Floor{own(s, 5)})
	if left := pending(t, s); len(left) > 0 {
		t.Fatalf("%d batches pending", len(left))
	}
	if st := s.Stats(); st.PendingBytes != 0 || !st.Oldest.IsZero() {
		t.Errorf("got %+v", st)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	want := append(put(t, s, "a", 3), put(t, s, "b", 2)...)
	key := own(s, 4)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, DefaultOptions())
	if again.Producer() != s.Producer() || again.Epoch() == s.Epoch() {
		t.Error("a restart keeps the producer and draws a new epoch")
	}
	if diff := cmp.Diff(want, pending(t, again)); diff != "" {
		t.Fatal(diff)
	}
	if p, _ := again.Next(ID{}); p.Known {
		t.Error("nobody knows yet what the ledger holds of an older epoch")
	}
	if c, ok := again.Cursor("b"); !ok || string(c) != "b@4" {
		t.Errorf("cursor %q, %v", c, ok)
	}
	if news, fell := again.ApplyFloors([]Floor{key}); !news || fell {
		t.Errorf("news %v fell %v", news, fell)
	}
	if diff := cmp.Diff(want[4:], pending(t, again)); diff != "" {
		t.Fatal(diff)
	}
	fresh := put(t, again, "a", 1)
	if fresh[0].Sequence != 1 {
		t.Errorf("a new epoch begins at %d", fresh[0].Sequence)
	}
	if p, ok := again.Next(again.Fresh()); !ok || !p.Known {
		t.Errorf("a group of this epoch is known: %+v, %v", p, ok)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, DefaultOptions())
	if _, err := Open(quiet, dir, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestFloorsFall(t *testing.T) {
	opts := DefaultOptions()
	opts.SegmentBytes = 200
	dir := t.TempDir()
	s := open(t, dir, opts)
	var all []Batch
	for range 10 {
		all = append(all, put(t, s, "a", 2)...)
	}
	if _, fell := s.ApplyFloors([]Floor{own(s, 20)}); fell {
		t.Error("a floor that rises is no fall")
	}
	if _, fell := s.ApplyFloors([]Floor{own(s, 7)}); !fell {
		t.Error("a floor that falls is a fall")
	}
	if diff := cmp.Diff(all[7:], pending(t, s)); diff != "" {
		t.Error(diff)
	}
	if _, fell := s.ApplyFloors([]Floor{own(s, 0)}); !fell {
		t.Error("a ledger that knows nothing is a fall")
	}
	if diff := cmp.Diff(all, pending(t, s)); diff != "" {
		t.Error(diff)
	}
	s.ApplyFloors([]Floor{own(s, 20)})
	if st := s.Stats(); st.PendingBytes != 0 {
		t.Errorf("%d bytes pending", st.PendingBytes)
	}
}

// TestTornTail cuts the newest segment at every byte.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	var ends []int64
	var all [][]Batch
	for i := range 3 {
		all = append(all, put(t, s, "a", i+1))
		ends = append(ends, s.segments[0].size)
	}
	path := s.segments[0].path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Open(quiet, dir, DefaultOptions())
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		var want []Batch
		size := int64(0)
		for i, end := range ends {
			if int64(cut) >= end {
				want = append(want, all[i]...)
				size = end
			}
		}
		if diff := cmp.Diff(want, pending(t, again)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		if again.Stats().LostBytes != 0 {
			t.Fatalf("cut at %d: what was never published is not lost", cut)
		}
		_ = again.Close()
		if info, err := os.Stat(path); err != nil || info.Size() != size {
			t.Fatalf("cut at %d: file of %d bytes, want %d (%v)", cut, info.Size(), size, err)
		}
	}
}

// TestDamage flips every byte of a group that others follow.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	first := put(t, s, "a", 1)
	start := s.segments[0].size
	put(t, s, "a", 1)
	end := s.segments[0].size
	last := put(t, s, "a", 1)
	path := s.segments[0].path
	_ = s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := start; at < end; at++ {
		bad := slices.Clone(whole)
		bad[at] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Open(quiet, dir, DefaultOptions())
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		if diff := cmp.Diff(append(slices.Clone(first), last...), pending(t, again)); diff != "" {
			t.Fatalf("flip at %d: %s", at, diff)
		}
		if got := again.Stats().LostBytes; got != end-start {
			t.Fatalf("flip at %d: %d bytes lost, want %d", at, got, end-start)
		}
		_ = again.Close()
	}
}

// TestDamagedTail flips every bit of the newest group, which was whole: that is
// damage and no torn tail, and never passed over.
func TestDamagedTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	first := put(t, s, "a", 2)
	at := s.segments[0].size
	put(t, s, "a", 1)
	path := s.segments[0].path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	for bit := 8 * int(at); bit < 8*len(whole); bit++ {
		damaged := bytes.Clone(whole)
		damaged[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		var logged bytes.Buffer
		again, err := Open(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError})), dir, DefaultOptions())
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if diff := cmp.Diff(first, pending(t, again)); diff != "" {
			t.Fatalf("bit %d: %s", bit, diff)
		}
		want := int64(len(whole)) - at
		if torn(damaged[at:]) {
			// Of a length that grew nobody can tell that it was less.
			want = 0
		}
		if got := again.Stats().LostBytes; got != want || (logged.Len() > 0) != (want > 0) {
			t.Fatalf("bit %d: %d bytes lost, want %d; logged %q", bit, got, want, logged.String())
		}
		put(t, again, "a", 1)
		_ = again.Close()
		if err := os.Remove(again.segments[1].path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageWhileOpen(t *testing.T) {
	s := open(t, t.TempDir(), DefaultOptions())
	put(t, s, "a", 1)
	f, err := os.OpenFile(s.segments[0].path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, s.segments[0].size-1); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	p, _ := s.Next(ID{})
	if _, _, batches, err := s.Read(p.ID, nil, nil); err != nil || len(batches) > 0 {
		t.Fatalf("got %d batches, %v", len(batches), err)
	}
	if st := s.Stats(); st.LostBytes == 0 || st.PendingBytes != 0 {
		t.Errorf("got %+v", st)
	}
}

func TestBackPressure(t *testing.T) {
	opts := DefaultOptions()
	opts.MaxUncommitted = groupCost
	s := open(t, t.TempDir(), opts)
	put(t, s, "a", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	key, first := s.Reserve(s.Producer(), "site", 1)
	g := &Group{Batches: []Batch{{Key: key, Sequence: first, Data: []byte("x")}}}
	if err := s.Append(ctx, g); !errors.Is(err, context.Canceled) {
		t.Fatalf("a full spool waits: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Append(context.Background(), g) }()
	s.ApplyFloors([]Floor{own(s, 1)})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRelease(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	opts := Options{MaxUncommitted: 1 << 30, KeepFor: 7 * 24 * time.Hour, KeepBytes: 1000, SegmentBytes: 150, Now: func() time.Time { return at }}
	dir := t.TempDir()
	s := open(t, dir, opts)
	put(t, s, "early", 2)
	for range 30 {
		put(t, s, "late", 2)
	}
	before := s.Stats().Bytes
	s.Release()
	if got := s.Stats().Bytes; got != before {
		t.Errorf("what is pending is kept: %d of %d bytes", got, before)
	}
	s.ApplyFloors([]Floor{own(s, 31*2-2)}) // all but the last group
	active := s.segments[len(s.segments)-1].size
	if got := s.Stats().Bytes; got-active > 1000 || got-active < 700 {
		t.Errorf("%d bytes committed are kept, want up to 1000", got-active)
	}
	at = at.Add(7 * 24 * time.Hour)
	s.Release()
	if got := len(s.segments); got < 2 {
		t.Errorf("%d segments after exactly seven days", got)
	}
	at = at.Add(time.Millisecond)
	s.Release()
	if got := s.Stats().Bytes; got != active {
		t.Errorf("%d bytes are kept after seven days, want the open segment of %d", got, active)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix)); len(files) != 1 {
		t.Errorf("%d files are left", len(files))
	}
	_ = s.Close()
	again := open(t, dir, opts)
	for source, want := range map[string]string{"early": "early@1", "late": "late@61"} {
		if c, _ := again.Cursor(source); string(c) != want {
			t.Errorf("cursor of %s is %q, want %q", source, c, want)
		}
	}
}

func TestDamagedCursorsAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	_ = s.Close()
	if err := os.WriteFile(filepath.Join(dir, cursorsFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(quiet, dir, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %v", err)
	}
}

func TestLagging(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	opts := DefaultOptions()
	opts.Now = func() time.Time { return at }
	s := open(t, t.TempDir(), opts)
	put(t, s, "a", 1)
	put(t, s, "a", 1)
	put(t, s, "a", 1)
	second := ID{Segment: 1, Index: 1}
	if s.Lagging(second, at.Add(-time.Second)) {
		t.Error("nothing was ever committed")
	}
	s.ApplyFloors([]Floor{own(s, 1)})
	if !s.Lagging(second, at.Add(-time.Second)) {
		t.Error("the ledger moves and has not come to it")
	}
	if s.Lagging(second, at) {
		t.Error("the ledger has stood still since")
	}
	s.ApplyFloors([]Floor{own(s, 1, Range{3, 3})})
	if s.Lagging(second, at.Add(-time.Second)) {
		t.Error("the ledger has what came after it")
	}
}

// TestAgainstModel plays random lives of a spool against a list.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			opts := DefaultOptions()
			opts.SegmentBytes = 1 + rng.Int64N(600)
			dir := t.TempDir()
			s := open(t, dir, opts)
			var model []Batch
			cursors := map[string]string{}
			held := map[Key]map[uint64]bool{}
			for range 60 {
				switch rng.IntN(10) {
				case 0:
					_ = s.Close()
					s = open(t, dir, opts)
					// An old epoch is as the ledger says, and it has not spoken yet.
					var floors []Floor
					for key, set := range held {
						floors = append(floors, floorOf(key, set))
					}
					s.ApplyFloors(floors)
				case 1, 2, 3, 4:
					source := string(rune('a' + rng.IntN(3)))
					batches := put(t, s, source, 1+rng.IntN(4))
					cursors[source] = fmt.Sprintf("%s@%d", source, batches[0].Sequence)
					model = append(model, batches...)
				case 5, 6, 7, 8:
					for _, b := range model {
						if rng.IntN(3) == 0 {
							if held[b.Key] == nil {
								held[b.Key] = map[uint64]bool{}
							}
							held[b.Key][b.Sequence] = true
						}
					}
					for key, set := range held {
						s.ApplyFloors([]Floor{floorOf(key, set)})
					}
				case 9: // restored from a back-up
					for key, set := range held {
						for sequence := range set {
							if rng.IntN(2) == 0 {
								delete(set, sequence)
							}
						}
						s.ApplyFloors([]Floor{floorOf(key, set)})
					}
				}
				var want []Batch
				for _, b := range model {
					if !held[b.Key][b.Sequence] {
						want = append(want, b)
					}
				}
				if diff := cmp.Diff(want, pending(t, s)); diff != "" {
					t.Fatal(diff)
				}
				for _, b := range want {
					if of := s.PendingOf(b.Key); !of.Covers(b.Sequence, b.Sequence) {
						t.Fatalf("%d is pending and not among %v", b.Sequence, of.Ranges)
					}
				}
				for source, want := range cursors {
					if c, _ := s.Cursor(source); string(c) != want {
						t.Fatalf("cursor of %s is %q, want %q", source, c, want)
					}
				}
				if (s.Stats().PendingBytes == 0) != (len(want) == 0) {
					t.Fatalf("%d bytes pending for %d batches", s.Stats().PendingBytes, len(want))
				}
			}
		})
	}
}

func floorOf(key Key, set map[uint64]bool) Floor {
	f := Floor{Key: key}
	for set[f.Floor+1] {
		f.Floor++
	}
	for s := f.Floor + 1; s < 1000; s++ {
		if !set[s] {
			continue
		}
		if n := len(f.Ranges); n > 0 && f.Ranges[n-1].Last == s-1 {
			f.Ranges[n-1].Last = s
		} else {
			f.Ranges = append(f.Ranges, Range{s, s})
		}
	}
	return f
}

func TestCovers(t *testing.T) {
	f := Floor{Floor: 5, Ranges: []Range{{8, 9}, {12, 20}}}
	for first := uint64(1); first < 23; first++ {
		for last := first; last < 23; last++ {
			want := true
			for s := first; s <= last; s++ {
				want = want && (s <= 5 || s >= 8 && s <= 9 || s >= 12 && s <= 20)
			}
			if got := f.Covers(first, last); got != want {
				t.Errorf("Covers(%d, %d) = %v", first, last, got)
			}
		}
	}
	if f.Count() != 16 || f.Highest() != 20 {
		t.Errorf("count %d, highest %d", f.Count(), f.Highest())
	}
}

func FuzzGroup(f *testing.F) {
	g := &Group{Source: "s", Cursor: []byte("c"), Trace: "t", Transient: true, Batches: []Batch{
		{Key: Key{Site: "x", Epoch: 1}, Sequence: 1, Samples: 2, Data: []byte("abc")},
		{Key: Key{Site: "y", Epoch: 2}, Sequence: 9, Data: nil},
	}}
	whole, err := appendGroup(nil, g, 123)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[headerSize:])
	f.Add([]byte{version, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var p parsed
		if p.parse(payload) != nil {
			return
		}
		again, err := appendGroup(nil, &Group{
			Source: string(p.source), Cursor: p.cursor, Trace: string(p.trace), Transient: p.transient, Batches: p.batches,
		}, p.timeMS)
		if err != nil {
			t.Fatal(err)
		}
		framed, ok := frame(again)
		var q parsed
		if !ok || q.parse(framed) != nil {
			t.Fatalf("%x does not come back", payload)
		}
		if diff := cmp.Diff(p.batches, q.batches); diff != "" || p.timeMS != q.timeMS || string(p.cursor) != string(q.cursor) {
			t.Fatal(diff)
		}
	})
}

// Two sources of a spool are two producers of one partition, the same ones after
// a restart, and each numbers by itself.
func TestSourcesAreProducers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, DefaultOptions())
	a, b := s.ProducerOf("a"), s.ProducerOf("b")
	if a == b || a == s.Producer() || a[0] != s.Producer()[0] || b[0] != a[0] {
		t.Errorf("spool %x has the sources %x and %x", s.Producer(), a, b)
	}
	for _, producer := range [][16]byte{a, b, a} {
		key, first := s.Reserve(producer, "site", 2)
		want := uint64(1)
		if producer == a && len(s.Keys()) > 1 {
			want = 3
		}
		if first != want || key.Producer != producer || key.Epoch != s.Epoch() {
			t.Errorf("reserved %d of %+v, want %d", first, key, want)
		}
		if err := s.Append(t.Context(), &Group{Batches: []Batch{{Key: key, Sequence: first, Data: []byte("x")}}}); err != nil {
			t.Fatal(err)
		}
		if k, ok := s.KeyState(key); !ok || !k.Known {
			t.Errorf("%+v of this process is not known", key)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := open(t, dir, DefaultOptions()); again.ProducerOf("a") != a {
		t.Error("a source is another producer after a restart")
	}
}
