package ingest

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// marshalFloors encodes what the ledger holds of producers.
func marshalFloors(incarnation string, producers []ledger.Producer) ([]byte, error) {
	floors := &telemetryv1.Floors{Incarnation: incarnation}
	for i := range producers {
		p := &producers[i]
		f := &telemetryv1.Floor{Producer: p.Producer[:], Epoch: p.Epoch, Floor: p.Floor, Refused: p.Refused}
		for _, r := range p.Ranges {
			f.Ranges = append(f.Ranges, &telemetryv1.SequenceRange{First: r.First, Last: r.Last})
		}
		if p.Import != nil {
			f.Content = p.Import.Content
		}
		floors.Floors = append(floors.Floors, f)
	}
	return proto.Marshal(floors)
}

// parseFloorsRequest decodes whom a spool asks for.
func parseFloorsRequest(msg []byte) ([]ledger.ProducerKey, error) {
	var request telemetryv1.FloorsRequest
	if err := proto.Unmarshal(msg, &request); err != nil {
		return nil, fmt.Errorf("floors request: %w", err)
	}
	keys := make([]ledger.ProducerKey, 0, len(request.GetProducers()))
	for _, f := range request.GetProducers() {
		key := ledger.ProducerKey{Epoch: f.GetEpoch()}
		if len(f.GetProducer()) != len(key.Producer) {
			return nil, fmt.Errorf("floors request: producer of %d bytes, want %d", len(f.GetProducer()), len(key.Producer))
		}
		key.Producer = [16]byte(f.GetProducer())
		keys = append(keys, key)
	}
	return keys, nil
}
