package samplewire

import (
	"maps"
	"math/bits"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	modeValues      = 1
	modeDifferences = 2
	// maxWidth lets one unaligned load of 64 bits hold any packed number.
	maxWidth = 56
)

// kindCumulativeEnergy is telemetry.v1.READING_KIND_CUMULATIVE_ENERGY.
const kindCumulativeEnergy = 3

// Append appends the batch's wire bytes to dst. Equal batches give equal bytes.
// It fails if the batch breaks the limits, if ticks fall or are over 49 days
// apart, or if a series' readings do not match its ticks.
func Append(dst []byte, b *Batch) ([]byte, error) {
	if len(b.Ticks) == 0 || len(b.Ticks) > MaxTicks || len(b.Ticks)*len(b.Series) > MaxReadings {
		return dst, malformed("%d ticks × %d series", len(b.Ticks), len(b.Series))
	}
	if b.Sequence == 0 {
		return dst, malformed("sequence 0")
	}
	dst = appendBytes(dst, 1, b.Producer[:])
	dst = protowire.AppendTag(dst, 2, protowire.Fixed64Type)
	dst = protowire.AppendFixed64(dst, b.Epoch)
	dst = appendVarint(dst, 3, b.Sequence)
	dst = appendString(dst, 4, b.Site)
	dst = appendString(dst, 5, b.Node)
	dst = appendVarint(dst, 6, uint64(b.Ticks[0]))
	dst, err := appendTicks(dst, b.Ticks)
	if err != nil {
		return dst, err
	}
	var scratch []byte
	for i := range b.Series {
		if scratch, err = appendSeries(scratch[:0], &b.Series[i], b.Ticks); err != nil {
			return dst, err
		}
		dst = appendBytes(dst, 8, scratch)
	}
	if b.Import != nil {
		scratch = appendImport(scratch[:0], b.Import)
		dst = appendBytes(dst, 9, scratch)
	}
	return dst, nil
}

func appendTicks(dst []byte, ticks []int64) ([]byte, error) {
	if t := ticks[0]; t <= -maxTimeMS || t >= maxTimeMS {
		return dst, malformed("tick %d ms", t)
	}
	if len(ticks) == 1 {
		return dst, nil
	}
	size := 0
	for i := 1; i < len(ticks); i++ {
		d := ticks[i] - ticks[i-1]
		if d < 0 || d > 1<<32-1 {
			return dst, malformed("tick %d ms after tick %d ms", ticks[i], ticks[i-1])
		}
		size += protowire.SizeVarint(uint64(d))
	}
	if column, ok := differenceColumn(ticks, ticks[0]); ok && len(column) < size {
		return appendVarint(appendBytes(dst, 10, column), 11, uint64(len(ticks))), nil
	}
	dst = protowire.AppendTag(dst, 7, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	for i := 1; i < len(ticks); i++ {
		dst = protowire.AppendVarint(dst, uint64(ticks[i]-ticks[i-1]))
	}
	return dst, nil
}

func appendSeries(dst []byte, s *Series, ticks []int64) ([]byte, error) {
	n := len(ticks)
	if s.TickIndexes != nil {
		n = len(s.TickIndexes)
	}
	if len(s.Values) != n {
		return dst, malformed("series %s has %d readings for %d ticks", s.Descriptor.Device, len(s.Values), n)
	}
	if s.Descriptor.Scale > MaxScale {
		return dst, malformed("series %s has scale %d", s.Descriptor.Device, s.Descriptor.Scale)
	}
	dst = appendBytes(dst, 1, appendDescriptor(nil, &s.Descriptor))
	if s.HasPrevious {
		var reading []byte
		reading = appendVarint(reading, 1, protowire.EncodeZigZag(ticks[0]-s.PreviousMS))
		reading = appendVarint(reading, 2, protowire.EncodeZigZag(s.PreviousValue))
		dst = appendBytes(dst, 2, reading)
	}
	dst = appendReadings(dst, s)
	if len(s.TickIndexes) > 0 {
		var packed []byte
		last := uint32(0)
		for i, at := range s.TickIndexes {
			if int(at) >= len(ticks) || i > 0 && at <= last {
				return dst, malformed("series %s has tick index %d", s.Descriptor.Device, at)
			}
			packed = protowire.AppendVarint(packed, uint64(at-last))
			last = at
		}
		dst = appendBytes(dst, 5, packed)
	}
	if s.Closed {
		dst = appendVarint(dst, 6, 1)
	}
	return dst, nil
}

// appendReadings packs the readings, or writes plain differences where they
// spread too far to be packed.
func appendReadings(dst []byte, s *Series) []byte {
	if len(s.Values) == 0 {
		return dst
	}
	column, ok := differenceColumn(s.Values, 0)
	if s.Descriptor.Kind != kindCumulativeEnergy {
		// A gauge that moves slowly has small differences; one that jumps has not.
		if values, fits := valueColumn(s.Values); fits && (!ok || len(values) <= len(column)) {
			column, ok = values, true
		}
	}
	if ok {
		return appendBytes(dst, 4, column)
	}
	var plain []byte
	last := int64(0)
	for _, v := range s.Values {
		plain = protowire.AppendVarint(plain, protowire.EncodeZigZag(v-last))
		last = v
	}
	return appendBytes(dst, 3, plain)
}

func valueColumn(values []int64) ([]byte, bool) {
	low, high := slices.Min(values), slices.Max(values)
	width := bits.Len64(uint64(high - low))
	if width > maxWidth {
		return nil, false
	}
	column := protowire.AppendVarint([]byte{modeValues, byte(width)}, protowire.EncodeZigZag(low))
	p := packer{dst: column, width: uint(width)}
	for _, v := range values {
		p.put(uint64(v - low))
	}
	return p.flush(), true
}

// differenceColumn packs differences. The first value is written less origin.
func differenceColumn(values []int64, origin int64) ([]byte, bool) {
	low, high := int64(0), int64(0)
	for i := 1; i < len(values); i++ {
		d := values[i] - values[i-1]
		if i == 1 {
			low, high = d, d
		}
		low, high = min(low, d), max(high, d)
	}
	width := bits.Len64(uint64(high - low))
	if width > maxWidth {
		return nil, false
	}
	column := protowire.AppendVarint([]byte{modeDifferences, byte(width)}, protowire.EncodeZigZag(values[0]-origin))
	column = protowire.AppendVarint(column, protowire.EncodeZigZag(low))
	p := packer{dst: column, width: uint(width)}
	for i := 1; i < len(values); i++ {
		p.put(uint64(values[i] - values[i-1] - low))
	}
	return p.flush(), true
}

// packer writes numbers of width bits, lowest bit first. It holds fewer than 8
// bits between two puts, so that a number of 56 bits always fits.
type packer struct {
	dst   []byte
	width uint
	held  uint64
	bits  uint
}

func (p *packer) put(v uint64) {
	p.held |= v << p.bits
	p.bits += p.width
	for p.bits >= 8 {
		p.dst = append(p.dst, byte(p.held))
		p.held >>= 8
		p.bits -= 8
	}
}

func (p *packer) flush() []byte {
	if p.bits > 0 {
		p.dst = append(p.dst, byte(p.held))
	}
	return p.dst
}

// componentOf is the component that a device's name implies.
func componentOf(device string) string {
	component, _, _ := strings.Cut(device, "/")
	return component
}

func appendDescriptor(dst []byte, d *Descriptor) []byte {
	dst = appendString(dst, 1, d.Device)
	if d.Component != componentOf(d.Device) {
		dst = appendString(dst, 2, d.Component)
	}
	dst = appendString(dst, 3, d.Workload)
	dst = appendString(dst, 4, d.Run)
	dst = appendString(dst, 5, d.Project)
	for _, key := range slices.Sorted(maps.Keys(d.Labels)) {
		var entry []byte
		entry = appendString(entry, 1, key)
		entry = appendString(entry, 2, d.Labels[key])
		dst = appendBytes(dst, 6, entry)
	}
	dst = appendVarint(dst, 7, uint64(d.Kind))
	dst = appendVarint(dst, 8, uint64(d.Provenance))
	dst = appendVarint(dst, 9, uint64(d.PeriodMS))
	dst = appendVarint(dst, 10, uint64(d.MaxGapMS))
	dst = appendVarint(dst, 11, d.Range)
	dst = appendVarint(dst, 12, d.MaxPower)
	if d.HasClipStart {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 13, protowire.VarintType), uint64(d.ClipStartMS))
	}
	if d.HasClipEnd {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 14, protowire.VarintType), uint64(d.ClipEndMS))
	}
	return appendVarint(dst, 15, uint64(d.Scale))
}

func appendImport(dst []byte, im *Import) []byte {
	dst = appendString(dst, 1, im.ID)
	if len(im.Content) > 0 {
		dst = appendBytes(dst, 2, im.Content)
	}
	dst = appendVarint(dst, 3, im.LastSequence)
	if im.Replace {
		dst = appendVarint(dst, 4, 1)
	}
	return dst
}

func appendBytes(dst []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), v)
}

// appendString writes nothing for an empty string, as proto3 does.
func appendString(dst []byte, field protowire.Number, v string) []byte {
	if v == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), v)
}

// appendVarint writes nothing for 0, as proto3 does.
func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}
