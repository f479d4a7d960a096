package ingest_test

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/internal/testdata"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// site is the one that all traces are of.
const site = "s"

// powerTrace is what nodes read, from their first tick to their last.
type powerTrace struct {
	name  string
	nodes []nodeTrace
}

// nodeTrace is a node whose series are read at the same ticks, some of which a
// series may miss.
type nodeTrace struct {
	name   string
	ticks  []int64
	series []seriesTrace
}

type seriesTrace struct {
	descriptor samplewire.Descriptor
	values     []int64
	missed     []bool // by tick; nil: none
}

func (s *seriesTrace) has(i int) bool { return s.missed == nil || !s.missed[i] }

func (s *seriesTrace) spec() segment.Spec {
	d := &s.descriptor
	spec := segment.Spec{
		Kind: segment.Kind(d.Kind), PeriodMS: int64(d.PeriodMS), MaxGapMS: int64(d.MaxGapMS), Range: d.Range, MaxPower: d.MaxPower,
		ClipStart: segment.NoClipStart, ClipEnd: segment.NoClipEnd,
	}
	if d.HasClipStart {
		spec.ClipStart = d.ClipStartMS
	}
	if d.HasClipEnd {
		spec.ClipEnd = d.ClipEndMS
	}
	return spec
}

// key names a sum of a trace.
type sumKey struct {
	account ledger.Account
	node    string
	slot    slot.Slot
}

type sums struct {
	energy                          unit.Sum
	observed, interpolated, missing int64
}

// total integrates the trace in one piece.
func (tr *powerTrace) total() map[sumKey]sums {
	total := map[sumKey]sums{}
	for i := range tr.nodes {
		n := &tr.nodes[i]
		for j := range n.series {
			s := &n.series[j]
			var ticks, values []int64
			for k, t := range n.ticks {
				if s.has(k) {
					ticks, values = append(ticks, t), append(values, s.values[k])
				}
			}
			spec := s.spec()
			var out segment.Result
			segment.Fold(&spec, nil, ticks, values, &out)
			d := &s.descriptor
			for _, p := range out.Parts {
				key := sumKey{ledger.Account{
					Site: site, Run: d.Run, Project: d.Project, Component: d.Component, Modelled: d.Provenance == 2,
				}, n.name, p.Slot}
				sum := total[key]
				sum.energy.Add(p.Energy)
				sum.observed += p.ObservedMS
				sum.interpolated += p.InterpolatedMS
				sum.missing += p.MissingMS
				total[key] = sum
			}
		}
	}
	return total
}

// batches cuts the trace into batches of so many ticks, numbered by one producer
// node after node and tick after tick, as a spool does.
func (tr *powerTrace) batches(t testing.TB, producer [16]byte, ticks int) []ingest.Message {
	t.Helper()
	var messages []ingest.Message
	longest := 0
	for i := range tr.nodes {
		longest = max(longest, len(tr.nodes[i].ticks))
	}
	type last struct {
		at, value int64
		ok        bool
	}
	lasts := map[[2]int]*last{}
	for from := 0; from < longest; from += ticks {
		for i := range tr.nodes {
			n := &tr.nodes[i]
			if from >= len(n.ticks) {
				continue
			}
			to := min(from+ticks, len(n.ticks))
			b := samplewire.Batch{
				Producer: producer, Epoch: 9, Sequence: uint64(len(messages) + 1), Site: site, Node: n.name, Ticks: n.ticks[from:to],
			}
			for j := range n.series {
				s := &n.series[j]
				prev := lasts[[2]int{i, j}]
				if prev == nil {
					prev = new(last)
					lasts[[2]int{i, j}] = prev
				}
				x := samplewire.Series{
					Descriptor: s.descriptor, HasPrevious: prev.ok, PreviousMS: prev.at, PreviousValue: prev.value, Closed: to == len(n.ticks),
				}
				spec := s.spec()
				for k := from; k < to; k++ {
					if !s.has(k) {
						continue
					}
					x.TickIndexes = append(x.TickIndexes, uint32(k-from))
					x.Values = append(x.Values, s.values[k])
					r := segment.Reading{TimeMS: n.ticks[k], Value: s.values[k]}
					if _, ok := spec.Accepts(r); ok && (!prev.ok || r.TimeMS > prev.at) {
						*prev = last{r.TimeMS, r.Value, true}
					}
				}
				if len(x.Values) == to-from {
					x.TickIndexes = nil
				}
				if len(x.Values) > 0 {
					b.Series = append(b.Series, x)
				}
			}
			data, err := samplewire.Append(nil, &b)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, ingest.Message{Subject: subject(producer, site), Data: data})
		}
	}
	return messages
}

func subject(producer [16]byte, site string) string {
	n := strconv.Itoa(int(producer[0]))
	return "wattfold.power.p" + strings.Repeat("0", 3-len(n)) + n + "." + site
}

// check compares what a ledger holds of a site with a trace: postings, details
// by node, and series windows.
func (tr *powerTrace) check(t *testing.T, s ledger.Store) {
	t.Helper()
	want := tr.total()
	byAccount := map[sumKey]sums{}
	for key, sum := range want {
		key.node = ""
		all := byAccount[key]
		all.energy.AddSum(sum.energy)
		all.observed += sum.observed
		all.interpolated += sum.interpolated
		all.missing += sum.missing
		byAccount[key] = all
	}
	got := map[sumKey]sums{}
	if err := s.Postings(t.Context(), ledger.Filter{Site: site}, func(p ledger.PostingRow) error {
		key := sumKey{p.Account, "", p.Slot}
		sum := got[key]
		sum.energy.Add(p.Energy)
		sum.observed += p.ObservedMS
		sum.interpolated += p.InterpolatedMS
		sum.missing += p.MissingMS
		got[key] = sum
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	compare := cmp.AllowUnexported(sumKey{}, sums{}, unit.Sum{})
	if diff := cmp.Diff(byAccount, got, compare); diff != "" {
		t.Fatalf("postings (-trace +ledger):\n%s", diff)
	}
	got = map[sumKey]sums{}
	if err := s.Details(t.Context(), ledger.DetailFilter{Filter: ledger.Filter{Site: site}}, func(d ledger.DetailRow) error {
		for _, p := range d.Parts {
			account := p.Account()
			account.Project = p.Project
			key := sumKey{account, p.Node, p.Slot}
			sum := got[key]
			sum.energy.Add(p.Energy)
			sum.observed += p.ObservedMS
			sum.interpolated += p.InterpolatedMS
			sum.missing += p.MissingMS
			got[key] = sum
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Fatalf("details (-trace +ledger):\n%s", diff)
	}
	windows, err := s.SeriesWindows(t.Context(), ledger.Filter{Site: site})
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, n := range tr.nodes {
		for range n.series {
			if i >= len(windows) {
				t.Fatalf("%d windows", len(windows))
			}
			i++
		}
	}
	if len(windows) != i {
		t.Errorf("%d windows, want %d", len(windows), i)
	}
	for _, w := range windows {
		n := &tr.nodes[slices.IndexFunc(tr.nodes, func(n nodeTrace) bool { return n.name == w.Node })]
		if w.FirstMS != n.ticks[0] || w.LastMS != n.ticks[len(n.ticks)-1] || w.ClosedMS != w.LastMS {
			t.Errorf("window %+v, want [%d, %d], closed", w, n.ticks[0], n.ticks[len(n.ticks)-1])
		}
	}
}

// synthetic is a trace with what real ones have: odd milliseconds and milliwatts,
// gaps, counters that wrap and reset, ticks missed, and a clip.
func synthetic() *powerTrace {
	const nodes, ticks = 3, 1300
	rng := rand.New(rand.NewPCG(1, 7))
	tr := &powerTrace{name: "synthetic"}
	for i := range nodes {
		n := nodeTrace{name: "n" + strconv.Itoa(i)}
		at := int64(1_715_960_307_022) + rng.Int64N(5000)
		for range ticks {
			n.ticks = append(n.ticks, at)
			at += 900 + rng.Int64N(217)
			if rng.IntN(200) == 0 {
				at += 10_000 + rng.Int64N(60_000)
			}
		}
		for kind := range uint8(3) {
			s := seriesTrace{values: make([]int64, ticks), descriptor: samplewire.Descriptor{
				Device: "d/" + strconv.Itoa(int(kind)), Component: []string{"gpu", "cpu", "dram"}[kind], Kind: kind + 1,
				Provenance: 1 + kind%2, PeriodMS: 1000, Run: []string{"r", "r", ""}[kind], Project: []string{"p", "p", ""}[kind],
			}}
			if kind == 1 {
				s.missed = make([]bool, ticks)
				d := &s.descriptor
				d.HasClipStart, d.ClipStartMS = true, n.ticks[ticks/10]+137
				d.HasClipEnd, d.ClipEndMS = true, n.ticks[ticks-ticks/10]+291
			}
			if kind == 2 {
				s.descriptor.Range, s.descriptor.MaxPower = 262_143_328_850, 700_000
			}
			counter := int64(262_000_000_000)
			for k := range s.values {
				if kind == 2 {
					counter += rng.Int64N(400_000_000)
					if k > 0 && n.ticks[k]-n.ticks[k-1] > 30_000 && rng.IntN(3) == 0 {
						counter = rng.Int64N(1000) // a reset
					}
					counter %= 262_143_328_850
					s.values[k] = counter
					continue
				}
				s.values[k] = 300_000 + rng.Int64N(400_000)
				if kind == 1 && k > 0 && k < ticks-1 {
					s.missed[k] = rng.IntN(20) == 0
				}
			}
			n.series = append(n.series, s)
		}
		tr.nodes = append(tr.nodes, n)
	}
	return tr
}

// real reads the first nodes of the GPT-3 run and a LLaMA-2 run, which has gaps, bursts
// and a duplicate timestamp, clipped to its run.
func real(t *testing.T, nodes int) *powerTrace {
	t.Helper()
	dir := filepath.Join(testdata.Shared(t), "power", "mlperf_train_v4.0_smc_h100")
	tr := &powerTrace{name: "mlperf"}
	chassis := samplewire.Descriptor{Device: "chassis/0", Component: "chassis", Run: "gpt3", Project: "mlperf", Kind: 1, Provenance: 1}
	f, err := os.Open(filepath.Join(dir, "gpt3_64node_ac_5848_2.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := csv.NewReader(f)
	if _, err := rows.Read(); err != nil {
		t.Fatal(err)
	}
	byNode := map[string]*nodeTrace{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if at, err := strconv.Atoi(row[0]); err != nil || at > nodes {
			continue
		}
		n := byNode[row[0]]
		if n == nil {
			n = &nodeTrace{name: "gpt3-" + row[0], series: []seriesTrace{{descriptor: chassis}}}
			byNode[row[0]] = n
		}
		n.add(t, row[1], row[2])
	}
	for _, n := range byNode {
		tr.nodes = append(tr.nodes, *n)
	}
	llama := nodeTrace{name: "llama2", series: []seriesTrace{{descriptor: chassis}}}
	d := &llama.series[0].descriptor
	d.Run = "llama2"
	run := "result_5027-240510020224961918558_1"
	file := filepath.Join(dir, "llama2_70b_lora_1node_ac", run)
	for _, line := range mlLog(t, file+".run.txt") {
		switch line.Key {
		case "run_start":
			d.HasClipStart, d.ClipStartMS = true, line.Time
		case "run_stop":
			d.HasClipEnd, d.ClipEndMS = true, line.Time
		}
	}
	for _, line := range mlLog(t, file+".node_0.txt") {
		if line.Key == "power_reading" {
			llama.add(t, strconv.FormatInt(line.Time, 10), string(line.Value))
		}
	}
	tr.nodes = append(tr.nodes, llama)
	return tr
}

func (n *nodeTrace) add(t *testing.T, ms, watts string) {
	t.Helper()
	at, err := strconv.ParseInt(ms, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	w, err := unit.ParseDecimal(watts)
	if err != nil {
		t.Fatal(err)
	}
	n.ticks = append(n.ticks, at)
	n.series[0].values = append(n.series[0].values, int64(w.Float64()*1000+0.5))
}

type mlLine struct {
	Time  int64           `json:"time_ms"`
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

func mlLog(t *testing.T, file string) []mlLine {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []mlLine
	for in := bufio.NewScanner(f); in.Scan(); {
		text, ok := strings.CutPrefix(in.Text(), ":::MLLOG ")
		if !ok {
			continue
		}
		var line mlLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return lines
}

// odd counts what is to be counted of the trace as refused.
func (tr *powerTrace) odd() map[string]uint64 {
	counts := map[string]uint64{}
	for i := range tr.nodes {
		n := &tr.nodes[i]
		for j := range n.series {
			s := &n.series[j]
			spec := s.spec()
			var ticks, values []int64
			for k, t := range n.ticks {
				if s.has(k) {
					ticks, values = append(ticks, t), append(values, s.values[k])
				}
			}
			var out segment.Result
			segment.Fold(&spec, nil, ticks, values, &out)
			for reason, count := range out.Counts {
				if r := segment.Reason(reason); count > 0 && r != segment.Duplicate && r != segment.Wrap {
					counts[r.String()] += uint64(count)
				}
			}
		}
	}
	return counts
}
