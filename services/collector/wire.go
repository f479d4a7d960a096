package collector

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/carbon/segment"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

// ledgerFloors is what a ledger says of a site's producers.
type ledgerFloors struct {
	incarnation string
	floors      []ledgerFloor
}

// ledgerFloor is what it says of one of them.
type ledgerFloor struct {
	spool.Floor
	// content names the import, if the producer is one.
	content []byte
	// refused counts batches and series by reason.
	refused map[string]uint64
}

func (f *ledgerFloors) spoolFloors() []spool.Floor {
	floors := make([]spool.Floor, len(f.floors))
	for i := range f.floors {
		floors[i] = f.floors[i].Floor
	}
	return floors
}

func encodeFloorsRequest(keys []spool.Key) ([]byte, error) {
	req := &telemetryv1.FloorsRequest{}
	for i := range keys {
		req.Producers = append(req.Producers, &telemetryv1.Floor{Producer: keys[i].Producer[:], Epoch: keys[i].Epoch})
	}
	return proto.Marshal(req)
}

// decodeFloors refuses what cannot be: a floor taken at its word deletes data.
func decodeFloors(site string, data []byte) (ledgerFloors, error) {
	var msg telemetryv1.Floors
	if err := proto.Unmarshal(data, &msg); err != nil {
		return ledgerFloors{}, fmt.Errorf("floors: %w", err)
	}
	f := ledgerFloors{incarnation: msg.GetIncarnation(), floors: make([]ledgerFloor, 0, len(msg.GetFloors()))}
	for _, m := range msg.GetFloors() {
		if len(m.GetProducer()) != 16 {
			return ledgerFloors{}, fmt.Errorf("floors: a producer of %d bytes", len(m.GetProducer()))
		}
		lf := ledgerFloor{
			Floor: spool.Floor{
				Key:   spool.Key{Site: site, Producer: [16]byte(m.GetProducer()), Epoch: m.GetEpoch()},
				Floor: m.GetFloor(),
			},
			content: m.GetContent(), refused: m.GetRefused(),
		}
		last := m.GetFloor()
		for _, r := range m.GetRanges() {
			if r.GetFirst() <= last || r.GetLast() < r.GetFirst() {
				return ledgerFloors{}, fmt.Errorf("floors: range %d to %d behind %d", r.GetFirst(), r.GetLast(), last)
			}
			last = r.GetLast()
			lf.Ranges = append(lf.Ranges, spool.Range{First: r.GetFirst(), Last: r.GetLast()})
		}
		f.floors = append(f.floors, lf)
	}
	return f, nil
}

// mappingOf reads the mapping of an import; instants finer than a millisecond
// are cut off to it.
func mappingOf(m *telemetryv1.SampleMapping) csvfile.Mapping {
	file := m.GetFile()
	if file == "" {
		file = "file"
	}
	return csvfile.Mapping{
		File: file, Site: m.GetSite(), Project: m.GetProject(), Run: m.GetRun(),
		Component: m.GetComponent(), Device: m.GetDevice(),
		Kind: segment.Kind(m.GetKind()), Provenance: csvfile.Provenance(m.GetProvenance()),
		NodeColumn: m.GetNodeColumn(), Node: m.GetNode(),
		TimeColumn: m.GetTimeColumn(), TimeFormat: m.GetTimeFormat(),
		ValueColumn: m.GetValueColumn(), Unit: m.GetUnit(),
		StartAtMS: instantOf(m.GetStartAt()), RunStartMS: instantOf(m.GetRunStart()), RunStopMS: instantOf(m.GetRunStop()),
		PeriodMS: m.GetPeriodMs(), MaxGapMS: m.GetMaxGapMs(),
		CounterRange: m.GetCounterRange(), MaxPowerWatts: m.GetMaxPowerWatts(),
	}
}

func instantOf(t *timestamppb.Timestamp) *int64 {
	if t == nil {
		return nil
	}
	ms := t.AsTime().UnixMilli()
	return &ms
}
