package samplewire

import (
	"errors"
	"fmt"
)

// Limits of a batch, which bound what a small message can make a reader do.
const (
	// MaxTicks bounds the ticks of a batch.
	MaxTicks = 1 << 16
	// MaxReadings bounds ticks × series of a batch.
	MaxReadings = 1 << 21
	// MaxScale bounds the decimal scale of a series.
	MaxScale = 12
	// maxTimeMS keeps times far from where sums of them overflow.
	maxTimeMS = 1 << 52
)

// ErrMalformed is wrapped by every error about bytes that are not a batch.
var ErrMalformed = errors.New("malformed sample batch")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Batch is a SampleBatch to be sent.
type Batch struct {
	Producer        [16]byte
	Epoch, Sequence uint64
	Site, Node      string
	// Ticks in ms since the Unix epoch, never falling.
	Ticks  []int64
	Series []Series
	// Import is nil unless the batch is a chunk of a file.
	Import *Import
}

// Import is what a chunk says of its file.
type Import struct {
	ID           string
	Content      []byte
	LastSequence uint64
	Replace      bool
}

// Series is a series to be sent.
type Series struct {
	Descriptor Descriptor
	// HasPrevious tells that Previous… hold the reading before the first.
	HasPrevious               bool
	PreviousMS, PreviousValue int64
	// TickIndexes are the ticks with a reading, rising; nil means all of them.
	TickIndexes []uint32
	// Values are in 10^Scale mW or µJ, one for each tick with a reading.
	Values []int64
	// Closed tells that no later reading is to be expected.
	Closed bool
}

// Descriptor says what a series is; see telemetry.v1.Descriptor for the fields.
type Descriptor struct {
	Device, Component, Workload, Run, Project string
	Labels                                    map[string]string
	Kind, Provenance                          uint8
	PeriodMS, MaxGapMS                        uint32
	Range, MaxPower                           uint64
	HasClipStart, HasClipEnd                  bool
	ClipStartMS, ClipEndMS                    int64
	Scale                                     uint8
}

// Header is the name of a batch.
type Header struct {
	Producer        [16]byte
	Epoch, Sequence uint64
}
