package ingest_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/calculator/internal/ingest"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
	"github.com/wattfold/wattfold/services/calculator/internal/memstore"
	"github.com/wattfold/wattfold/services/calculator/internal/sqlitestore"
)

// desk feeds batches to a ledger, each in a round of its own or all in one.
type desk struct {
	t     *testing.T
	store ledger.Store
	feed  ingest.Feed
	read  []ingest.Message
}

func newDesk(t *testing.T, store ledger.Store, every int) *desk {
	t.Helper()
	return &desk{t: t, store: store, feed: ingest.Feed{Store: store, Every: every}}
}

// bothStores runs a test with the twin and with SQLite, and with transactions of
// one batch and of many.
func bothStores(t *testing.T, test func(t *testing.T, d *desk)) {
	for _, every := range []int{1, 100} {
		t.Run(fmt.Sprintf("memory, every %d", every), func(t *testing.T) {
			test(t, newDesk(t, memstore.New(time.Now), every))
		})
		t.Run(fmt.Sprintf("sqlite, every %d", every), func(t *testing.T) {
			store, err := sqlitestore.Open(t.Context(), t.TempDir(), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			test(t, newDesk(t, store, every))
		})
	}
}

func encode(t testing.TB, b *samplewire.Batch) ingest.Message {
	t.Helper()
	data, err := samplewire.Append(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	return ingest.Message{Subject: subject(b.Producer, b.Site), Data: data}
}

// send reads messages on top of those read before.
func (d *desk) send(messages ...ingest.Message) {
	d.t.Helper()
	d.read = append(d.read, messages...)
	if err := d.feed.Read(d.t.Context(), d.read); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) batches(batches ...*samplewire.Batch) {
	d.t.Helper()
	var messages []ingest.Message
	for _, b := range batches {
		messages = append(messages, encode(d.t, b))
	}
	d.send(messages...)
}

func (d *desk) want(f ledger.Filter, want unit.Energy) {
	d.t.Helper()
	var postings, details unit.Sum
	if err := d.store.Postings(d.t.Context(), f, func(p ledger.PostingRow) error {
		postings.Add(p.Energy)
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	if err := d.store.Details(d.t.Context(), ledger.DetailFilter{Filter: f}, func(row ledger.DetailRow) error {
		for _, p := range row.Parts {
			details.Add(p.Energy)
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	if postings != unit.SumOf(want) || details != postings {
		d.t.Errorf("%+v: postings %v, details %v, want %v", f, postings, details, want)
	}
}

func (d *desk) wantRejected(want map[string]uint64) {
	d.t.Helper()
	got, err := d.store.Rejected(d.t.Context(), "")
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
		d.t.Errorf("rejected: %v (-want +got):\n%s", err, diff)
	}
}

func (d *desk) producer(key ledger.ProducerKey) ledger.Producer {
	d.t.Helper()
	known, err := d.store.Producers(d.t.Context(), "s", []ledger.ProducerKey{key})
	if err != nil || len(known) != 1 {
		d.t.Fatalf("producers %+v, %v", known, err)
	}
	return known[0]
}

// steady is a batch of one meter at 1 mW from one second to another: so each ms
// is 2 half-µJ.
func steady(producer byte, epoch, sequence uint64, from, to int64) *samplewire.Batch {
	b := &samplewire.Batch{
		Producer: [16]byte{37, producer}, Epoch: epoch, Sequence: sequence, Site: "s", Node: "n",
		Series: []samplewire.Series{{Descriptor: samplewire.Descriptor{
			Device: "gpu/0", Component: "gpu", Kind: 1, Provenance: 1, PeriodMS: 1000,
		}}},
	}
	for at := from; at <= to; at++ {
		b.Ticks = append(b.Ticks, at*1000)
		b.Series[0].Values = append(b.Series[0].Values, 1)
	}
	return b
}

func (d *desk) wantSpans(want ...ledger.MeterSpan) {
	d.t.Helper()
	got, err := d.store.Meters(d.t.Context(), "s", "n")
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
		d.t.Errorf("meters: %v (-want +got):\n%s", err, diff)
	}
}

func span(producer byte, from, to int64) ledger.MeterSpan {
	return ledger.MeterSpan{Device: "gpu/0", Producer: [16]byte{37, producer}, FirstMS: from * 1000, LastMS: to * 1000}
}

// TestMeterSpans is ADR-0010: a device at an instant has one producer.
func TestMeterSpans(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		// A collector from 100 to 200, with its second batch still under way.
		d.batches(steady(1, 5, 1, 100, 130), steady(1, 5, 3, 160, 200))
		d.want(ledger.Filter{}, 70*2000)
		d.wantSpans(span(1, 100, 200))
		// A file from 50 to 250: what lies outside of the collector's span is history.
		d.batches(steady(2, 1, 1, 50, 250))
		d.want(ledger.Filter{}, 170*2000)
		d.wantSpans(span(1, 100, 200), span(2, 50, 100), span(2, 200, 250))
		d.wantRejected(map[string]uint64{"duplicate_meter": 1})
		if p := d.producer(ledger.ProducerKey{Producer: [16]byte{37, 2}, Epoch: 1}); p.Floor != 1 || p.Refused["duplicate_meter"] != 1 {
			t.Errorf("the file's producer: %+v", p)
		}
		// What the collector sends late is in its span; what it goes on with is not.
		d.batches(steady(1, 5, 2, 130, 160))
		d.want(ledger.Filter{}, 200*2000)
		late := steady(1, 5, 4, 201, 300)
		late.Series[0].HasPrevious, late.Series[0].PreviousMS, late.Series[0].PreviousValue = true, 200_000, 1
		d.batches(late)
		d.want(ledger.Filter{}, 250*2000)
		d.wantSpans(span(1, 100, 200), span(1, 250, 300), span(2, 50, 100), span(2, 200, 250))
		d.wantRejected(map[string]uint64{"duplicate_meter": 2})
		// Another meter of the node has nothing to do with it.
		other := steady(2, 1, 2, 100, 200)
		other.Series[0].Descriptor.Device = "gpu/1"
		d.batches(other)
		d.want(ledger.Filter{}, 350*2000)
		// A single reading inside, and one at the very edge.
		d.batches(steady(3, 1, 1, 150, 150), steady(3, 1, 2, 300, 300))
		d.wantRejected(map[string]uint64{"duplicate_meter": 3})
		d.want(ledger.Filter{}, 350*2000)
	})
}

// Names that no answer could tell are refused, each batch and series for itself.
func TestNamesAreText(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		const bad = "n\xff"
		node, site := steady(1, 1, 1, 0, 10), steady(1, 1, 1, 0, 10)
		node.Node, site.Site = bad, bad
		d.batches(node, site)
		b := steady(1, 1, 2, 0, 10)
		for i, name := range []func(*samplewire.Descriptor) *string{
			func(x *samplewire.Descriptor) *string { return &x.Component },
			func(x *samplewire.Descriptor) *string { return &x.Workload },
			func(x *samplewire.Descriptor) *string { return &x.Run },
			func(x *samplewire.Descriptor) *string { return &x.Project },
			func(x *samplewire.Descriptor) *string { return &x.Device },
		} {
			s := b.Series[0]
			s.Descriptor.Device = fmt.Sprint("gpu/", i+1)
			*name(&s.Descriptor) = bad
			b.Series = append(b.Series, s)
		}
		d.batches(b)
		d.want(ledger.Filter{}, 10*2000)
		d.wantRejected(map[string]uint64{"malformed": 6})
		if p := d.producer(ledger.ProducerKey{Producer: [16]byte{37, 1}, Epoch: 1}); p.Floor != 2 {
			t.Errorf("floor %d", p.Floor)
		}
	})
}

// Ticks that no timestamp can tell are refused.
func TestYearsAreOfTimestamps(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		const first, last = -62_135_596_800, 253_402_300_500
		d.batches(
			steady(1, 1, 1, first, first+10), steady(1, 1, 2, last-9, last+1), steady(1, 1, 3, 1<<42, 1<<42+10),
			steady(1, 1, 4, last-10, last), steady(1, 1, 5, first+400*86400, first+400*86400+10),
		)
		d.want(ledger.Filter{}, 2*10*2000)
		d.wantRejected(map[string]uint64{"out_of_range": 3})
		if p := d.producer(ledger.ProducerKey{Producer: [16]byte{37, 1}, Epoch: 1}); p.Floor != 5 {
			t.Errorf("floor %d", p.Floor)
		}
	})
}

func TestWorkloadsOfOneMeter(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		b := steady(1, 1, 1, 0, 10)
		second := b.Series[0]
		second.Descriptor.Workload = "slurm/1"
		b.Series = append(b.Series, second)
		d.batches(b)
		d.want(ledger.Filter{}, 2*10*2000)
		d.wantRejected(nil)
	})
}

func imported(b *samplewire.Batch, content byte, last uint64, replace bool) *samplewire.Batch {
	b.Import = &samplewire.Import{ID: "i", Content: []byte{content}, LastSequence: last, Replace: replace}
	return b
}

func TestReplace(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		d.batches(imported(steady(1, 1, 1, 0, 100), 1, 3, false), imported(steady(1, 1, 2, 100, 200), 1, 3, false))
		d.want(ledger.Filter{}, 200*2000)
		// The newer epoch reads the meter at the same times: no conflict with itself.
		d.batches(imported(steady(1, 2, 2, 50, 90), 2, 2, true))
		d.want(ledger.Filter{}, 240*2000)
		d.batches(imported(steady(1, 2, 1, 10, 50), 2, 2, true))
		d.want(ledger.Filter{}, 80*2000)
		d.wantSpans(span(1, 10, 90))
		// Late ones of the older epoch, one known and one not.
		d.batches(imported(steady(1, 1, 2, 100, 200), 1, 3, false), imported(steady(1, 1, 3, 200, 300), 1, 3, false))
		d.want(ledger.Filter{}, 80*2000)
		d.wantRejected(map[string]uint64{"superseded": 1})
		// Now the time is free for others.
		d.batches(steady(2, 1, 1, 90, 100))
		d.want(ledger.Filter{}, 90*2000)
		// Another file under the same name and epoch is not that file.
		d.batches(imported(steady(1, 3, 1, 0, 10), 3, 2, true), imported(steady(1, 3, 2, 10, 20), 4, 2, true))
		if p := d.producer(ledger.ProducerKey{Producer: [16]byte{37, 1}, Epoch: 3}); p.Floor != 1 || p.Complete() {
			t.Errorf("another file counted: %+v", p)
		}
		d.wantRejected(map[string]uint64{"superseded": 1, "content_mismatch": 1})
	})
}

func TestRefusals(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		good := encode(t, steady(1, 1, 1, 0, 10))
		elsewhere := encode(t, steady(1, 1, 2, 10, 20))
		elsewhere.Subject = subject([16]byte{37}, "other")
		partition := encode(t, steady(1, 1, 3, 20, 30))
		partition.Subject = "wattfold.power.p038.s"
		broken := encode(t, steady(1, 1, 4, 30, 40))
		broken.Data = append(broken.Data, 0x3a, 0x05, 0xff) // a field that is cut off
		cut := encode(t, steady(1, 1, 5, 40, 50))
		cut.Data = cut.Data[:20]
		kindless := steady(1, 1, 2, 10, 20)
		kindless.Series[0].Descriptor.Kind = 0
		long := steady(1, 1, 3, 0, 1)
		long.Ticks[1] = math.MaxUint32
		for range 100 {
			long.Series = append(long.Series, long.Series[0])
		}
		negative := steady(1, 1, 4, 30, 33)
		negative.Series[0].Values[1] = -1
		d.send(good, elsewhere, partition, broken, cut, encode(t, kindless), encode(t, long), encode(t, negative),
			ingest.Message{Subject: "wattfold.power.p037.bad%zz", Data: good.Data},
			ingest.Message{Subject: "wattfold.power.p999.s", Data: good.Data},
			ingest.Message{Subject: "wattfold.power.x", Data: good.Data})
		// 30 to 32 without 31, to 33.
		d.want(ledger.Filter{}, 10*2000+3*2000)
		d.wantRejected(map[string]uint64{
			"site_mismatch": 1, "partition_mismatch": 1, "malformed": 3, "span_too_long": 1, "negative_power": 1,
		})
		if p := d.producer(ledger.ProducerKey{Producer: [16]byte{37, 1}, Epoch: 1}); p.Floor != 4 {
			t.Errorf("floor %d", p.Floor)
		}
	})
}

// TestOverflow: a meter that claims more than a slot can hold is refused, and
// nothing else suffers.
func TestOverflow(t *testing.T) {
	bothStores(t, func(t *testing.T, d *desk) {
		claims := func(sequence uint64, device string) *samplewire.Batch {
			b := steady(1, 1, sequence, 0, 1)
			b.Ticks = []int64{0, slot.Millis}
			s := &b.Series[0]
			s.Descriptor.Device, s.Descriptor.MaxGapMS = device, slot.Millis
			s.Values = []int64{math.MaxInt64 / (2 * slot.Millis), math.MaxInt64 / (2 * slot.Millis)}
			return b
		}
		d.batches(claims(1, "a/0"), steady(2, 1, 1, 0, 10), claims(2, "a/1"), steady(2, 1, 2, 10, 20))
		d.wantRejected(map[string]uint64{"posting_overflow": 1})
		d.want(ledger.Filter{Component: "gpu"}, math.MaxInt64/(2*slot.Millis)*(2*slot.Millis)+20*2000)
	})
}

// FuzzMessages feeds what is not a batch: nothing may panic, claim energy without
// bound or stop what comes after.
func FuzzMessages(f *testing.F) {
	good := encode(f, steady(1, 1, 1, 0, 10))
	f.Add(good.Subject, good.Data)
	f.Add(good.Subject, encode(f, imported(steady(1, 1, 1, 0, 10), 1, 1, true)).Data)
	f.Add("wattfold.power.p037.", []byte{})
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		d := newDesk(t, memstore.New(time.Now), 1)
		d.send(ingest.Message{Subject: subject, Data: data})
		after := steady(200, 77, 1, 0, 10)
		after.Site, after.Node = "after", "after"
		d.send(encode(t, after))
		d.want(ledger.Filter{Site: "after", Node: "after"}, 10*2000)
	})
}
