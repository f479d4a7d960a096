package samplewire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/proto/samplewire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// example has every field of the message set at least once.
func example() *samplewire.Batch {
	return &samplewire.Batch{
		Producer: [16]byte{37, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		Epoch:    0x0123456789abcdef, Sequence: 42, Site: "sc-01", Node: "n17",
		Ticks: []int64{1715960307185, 1715960309190, 1715960309190, 1715960311001},
		Series: []samplewire.Series{
			{
				Descriptor: samplewire.Descriptor{
					Device: "chassis/0", Component: "chassis", Run: "gpt3", Project: "mlperf",
					Labels: map[string]string{"b": "2", "a": "1"},
					Kind:   1, Provenance: 1, PeriodMS: 2000, MaxGapMS: 30000, Scale: 3,
					HasClipStart: true, ClipStartMS: 1715960307022, HasClipEnd: true, ClipEndMS: 1715963719692,
				},
				HasPrevious: true, PreviousMS: 1715960305180, PreviousValue: 5570,
				Values: []int64{5572, 6333, 5571, 6220},
			},
			{
				Descriptor: samplewire.Descriptor{
					Device: "cpu-package/1", Component: "cpu", Workload: "slurm/88", Kind: 3, Provenance: 2,
					Range: 262143328850, MaxPower: 350000,
				},
				TickIndexes: []uint32{1, 3}, Values: []int64{262143000000, 271150}, Closed: true,
			},
			{
				Descriptor: samplewire.Descriptor{Device: "gpu/0", Component: "gpu", Kind: 2, Provenance: 1},
				Values:     []int64{math.MinInt64, math.MaxInt64, 0, -1},
			},
		},
		Import: &samplewire.Import{ID: "mlperf-gpt3", Content: bytes.Repeat([]byte{7}, 16), LastSequence: 64, Replace: true},
	}
}

func TestGoldenWireBytes(t *testing.T) {
	msg, err := samplewire.Append(nil, example())
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/sample_batch.hex"
	got := strings.Join(chunk(hex.EncodeToString(msg), 64), "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("wire bytes changed; every spool and stream holds the old ones\ngot\n%swant\n%s", got, want)
	}
	old, err := hex.DecodeString(strings.ReplaceAll(string(want), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, old); !reflect.DeepEqual(got, example()) {
		t.Errorf("golden bytes decode to\n%+v\nwant\n%+v", got, example())
	}
}

func chunk(s string, n int) []string {
	var out []string
	for len(s) > n {
		out, s = append(out, s[:n]), s[n:]
	}
	return append(out, s)
}

// decode reads a batch back into the form that is sent.
func decode(t *testing.T, msg []byte) *samplewire.Batch {
	t.Helper()
	var d samplewire.Decoder
	v, err := d.Decode(msg)
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	b := &samplewire.Batch{
		Producer: v.Producer, Epoch: v.Epoch, Sequence: v.Sequence,
		Site: string(v.Site), Node: string(v.Node), Ticks: append([]int64(nil), v.Ticks...),
	}
	if v.HasImport {
		b.Import = &samplewire.Import{
			ID: string(v.Import.ID), Content: bytes.Clone(v.Import.Content),
			LastSequence: v.Import.LastSequence, Replace: v.Import.Replace,
		}
	}
	for i, s := range v.Series {
		descriptor, err := samplewire.ParseDescriptor(s.Descriptor)
		if err != nil {
			t.Fatalf("ParseDescriptor: %v", err)
		}
		times, values, err := d.Readings(i, 0)
		if err != nil {
			t.Fatalf("Readings(%d): %v", i, err)
		}
		series := samplewire.Series{
			Descriptor: descriptor, HasPrevious: s.HasPrevious, PreviousMS: s.PreviousMS, PreviousValue: s.PreviousValue,
			Values: append([]int64(nil), values...), Closed: s.Closed,
		}
		if len(times) != len(v.Ticks) {
			at := 0
			for _, time := range times {
				for v.Ticks[at] != time {
					at++
				}
				series.TickIndexes = append(series.TickIndexes, uint32(at))
				at++
			}
		}
		b.Series = append(b.Series, series)
	}
	return b
}

// TestPlainProtobufReadsAndWrites holds the claim that any protobuf library will
// do: the generated code reads what Append wrote, and what the generated code
// writes with plain differences decodes to the same readings.
func TestPlainProtobufReadsAndWrites(t *testing.T) {
	want := example()
	msg, err := samplewire.Append(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	var pb telemetryv1.SampleBatch
	if err := proto.Unmarshal(msg, &pb); err != nil {
		t.Fatal(err)
	}
	if len(pb.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("unknown fields in %x", msg)
	}
	for i, s := range pb.GetSeries() {
		s.Column = nil
		s.Values = nil
		last := int64(0)
		for _, v := range want.Series[i].Values {
			s.Values = append(s.Values, v-last)
			last = v
		}
	}
	plain, err := proto.Marshal(&pb)
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, plain)
	// The generated code leaves out an empty Labels map as Append does.
	if !reflect.DeepEqual(got, want) {
		t.Errorf("plain protobuf decodes to\n%+v\nwant\n%+v", got, want)
	}
}

// TestColumnsRoundTrip packs readings of every width, kind and count.
func TestColumnsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		n, spread := 1+r.IntN(130), uint(r.IntN(65))
		values := make([]int64, n)
		start := int64(r.Uint64())
		for i := range values {
			values[i] = start + int64(r.Uint64()>>(64-spread))
			if spread == 0 {
				values[i] = start
			}
		}
		b := &samplewire.Batch{Sequence: 1, Site: "s", Node: "n"}
		for i := range n {
			b.Ticks = append(b.Ticks, int64(i)*1003)
		}
		b.Series = []samplewire.Series{{
			Descriptor: samplewire.Descriptor{Device: "d", Component: "gpu", Kind: uint8(1 + r.IntN(3)), Provenance: 1},
			Values:     values,
		}}
		msg, err := samplewire.Append(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, msg); !reflect.DeepEqual(got, b) {
			t.Fatalf("n=%d spread=%d: got %v, want %v", n, spread, got.Series[0].Values, values)
		}
	}
}

func TestReadingsAreScaled(t *testing.T) {
	b := example()
	b.Series = b.Series[:1]
	msg, err := samplewire.Append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	var d samplewire.Decoder
	if _, err := d.Decode(msg); err != nil {
		t.Fatal(err)
	}
	_, values, err := d.Readings(0, 3)
	if want := []int64{5572000, 6333000, 5571000, 6220000}; err != nil || !reflect.DeepEqual(values, want) {
		t.Errorf("Readings = %v, %v, want %v", values, err, want)
	}
	if _, _, err := d.Readings(0, 13); err == nil {
		t.Error("Readings(scale 13) succeeded")
	}
	if got, err := samplewire.Scaled(math.MaxInt64/10, 2); err == nil {
		t.Errorf("Scaled of a number too large = %d", got)
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*samplewire.Batch){
		"no ticks":             func(b *samplewire.Batch) { b.Ticks = nil },
		"no sequence":          func(b *samplewire.Batch) { b.Sequence = 0 },
		"falling ticks":        func(b *samplewire.Batch) { b.Ticks[1] = b.Ticks[0] - 1 },
		"ticks far apart":      func(b *samplewire.Batch) { b.Ticks[3] += 1 << 33 },
		"a reading too few":    func(b *samplewire.Batch) { b.Series[0].Values = b.Series[0].Values[1:] },
		"an index too high":    func(b *samplewire.Batch) { b.Series[1].TickIndexes[1] = 4 },
		"an index twice":       func(b *samplewire.Batch) { b.Series[1].TickIndexes[0] = 3 },
		"a scale out of range": func(b *samplewire.Batch) { b.Series[0].Descriptor.Scale = 13 },
	} {
		b := example()
		spoil(b)
		if _, err := samplewire.Append(nil, b); err == nil {
			t.Errorf("%s: Append succeeded", name)
		}
	}
}

// TestDecodeAllocatesNothing guards the walk.
func TestDecodeAllocatesNothing(t *testing.T) {
	msg := nodeBatch(60)
	var d samplewire.Decoder
	drain(t, &d, msg)
	if n := testing.AllocsPerRun(100, func() { drain(t, &d, msg) }); n > 0 {
		t.Errorf("decoding a batch allocates %v times", n)
	}
}

func drain(tb testing.TB, d *samplewire.Decoder, msg []byte) {
	v, err := d.Decode(msg)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range v.Series {
		if _, _, err := d.Readings(i, 0); err != nil {
			tb.Fatal(err)
		}
	}
}

// nodeBatch is a node of 8 GPUs, 2 packages, 2 DRAM domains and a chassis at
// 1 Hz: gauges of a few hundred watts with 10 W of noise, counters of RAPL.
func nodeBatch(ticks int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := &samplewire.Batch{Epoch: 1, Sequence: 1, Site: "sc-01", Node: "node-0017"}
	for i := range ticks {
		b.Ticks = append(b.Ticks, 1_700_000_000_000+int64(i)*1000)
	}
	for i := range 13 {
		s := samplewire.Series{
			Descriptor: samplewire.Descriptor{
				Device: fmt.Sprintf("gpu/%d", i), Component: "gpu", Kind: 1, Provenance: 1, PeriodMS: 1000,
			},
			HasPrevious: true, PreviousMS: b.Ticks[0] - 1000, PreviousValue: 600_000,
		}
		if i >= 9 {
			s.Descriptor.Device, s.Descriptor.Component = fmt.Sprintf("cpu/%d", i-9), "cpu"
			s.Descriptor.Kind, s.Descriptor.Range = 3, 262143328850
		}
		counter, level := int64(40_000_000_000), 0.0
		for range ticks {
			// An AR(1) of 10 W for a GPU; packages and DRAM draw and vary less.
			level = 0.7*level + r.NormFloat64()*7_000
			watts := 600_000 + int64(level)
			if s.Descriptor.Kind == 3 {
				watts = 180_000 + int64(level)/10
			}
			counter += watts * 1000
			if s.Descriptor.Kind == 3 {
				s.Values = append(s.Values, counter)
			} else {
				s.Values = append(s.Values, watts)
			}
		}
		b.Series = append(b.Series, s)
	}
	msg, err := samplewire.Append(nil, b)
	if err != nil {
		panic(err)
	}
	return msg
}

// TestWireSize bounds the bytes of a sample at 60 ticks and 13 series. The
// readings here are in mW with 10 W of noise, about 15 bits of entropy: more than
// a real trace has (whole watts, or a slow gauge).
func TestWireSize(t *testing.T) {
	if got := float64(len(nodeBatch(60))) / (60 * 13); got > 3 {
		t.Errorf("%.2f bytes a sample at 60 ticks and 13 series, want at most 3", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, ticks := range []int{10, 60, 600} {
		b.Run(fmt.Sprintf("%d_ticks", ticks), func(b *testing.B) {
			msg := nodeBatch(ticks)
			var d samplewire.Decoder
			for b.Loop() {
				drain(b, &d, msg)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*ticks*13), "ns/sample")
			b.ReportMetric(float64(len(msg))/float64(ticks*13), "B/sample")
		})
	}
}

// BenchmarkDecodePlain is the same batch with plain differences through the
// generated code, to be read beside BenchmarkDecode.
func BenchmarkDecodePlain(b *testing.B) {
	var d samplewire.Decoder
	var pb telemetryv1.SampleBatch
	msg := nodeBatch(60)
	if err := proto.Unmarshal(msg, &pb); err != nil {
		b.Fatal(err)
	}
	if _, err := d.Decode(msg); err != nil {
		b.Fatal(err)
	}
	for i, s := range pb.GetSeries() {
		_, values, err := d.Readings(i, 0)
		if err != nil {
			b.Fatal(err)
		}
		last := int64(0)
		for _, v := range values {
			s.Values = append(s.Values, v-last)
			last = v
		}
		s.Column = nil
	}
	plain, err := proto.Marshal(&pb)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var out telemetryv1.SampleBatch
		if err := proto.Unmarshal(plain, &out); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*60*13), "ns/sample")
	b.ReportMetric(float64(len(plain))/(60*13), "B/sample")
}

// FuzzDecode: no bytes make the decoder panic, and what it accepts it accepts
// whole.
func FuzzDecode(f *testing.F) {
	msg, err := samplewire.Append(nil, example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(nodeBatch(7))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		var d samplewire.Decoder
		header, headerErr := samplewire.DecodeHeader(msg)
		v, err := d.Decode(msg)
		if err != nil {
			return
		}
		if headerErr != nil || header != v.Header {
			t.Errorf("DecodeHeader = %+v, %v, Decode has %+v", header, headerErr, v.Header)
		}
		for i, s := range v.Series {
			descriptor, err := samplewire.ParseDescriptor(s.Descriptor)
			if err != nil {
				continue
			}
			if times, values, err := d.Readings(i, descriptor.Scale); err == nil && len(times) != len(values) {
				t.Errorf("%d readings for %d ticks", len(values), len(times))
			}
		}
	})
}
