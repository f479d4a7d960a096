package samplewire

import (
	"encoding/binary"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// BatchView is a decoded batch. Its byte slices point into the message and its
// ticks into the decoder: both are valid until the next Decode.
type BatchView struct {
	Header
	Site, Node []byte
	Ticks      []int64
	Series     []SeriesView
	// Import is valid if HasImport is set.
	Import    ImportView
	HasImport bool
}

// ImportView is what a chunk says of its file.
type ImportView struct {
	ID, Content  []byte
	LastSequence uint64
	Replace      bool
}

// SeriesView is one series of a decoded batch.
type SeriesView struct {
	// Descriptor holds the descriptor's bytes: equal bytes are equal
	// descriptors, so that a reader parses each but once ([ParseDescriptor]).
	Descriptor                []byte
	HasPrevious               bool
	PreviousMS, PreviousValue int64
	Closed                    bool
	raw                       []byte
}

// Decoder decodes batches one after another and reuses its memory. The zero
// value is ready; it serves one goroutine.
type Decoder struct {
	view    BatchView
	deltas  []uint64
	times   []int64
	values  []int64
	indexes []uint64
}

// DecodeHeader reads only the batch's name.
func DecodeHeader(msg []byte) (Header, error) {
	var h Header
	err := walk(msg, func(f field) error {
		switch f.number {
		case 1:
			return f.producer(&h.Producer)
		case 2:
			return f.fixed64(&h.Epoch)
		case 3:
			return f.varint(&h.Sequence)
		}
		return nil
	})
	if err == nil && h.Sequence == 0 {
		err = malformed("no sequence")
	}
	return h, err
}

// Decode walks a batch. What it returns is valid until the next Decode; errors
// wrap [ErrMalformed].
func (d *Decoder) Decode(msg []byte) (*BatchView, error) {
	v := &d.view
	*v = BatchView{Ticks: v.Ticks[:0], Series: v.Series[:0]}
	d.deltas = d.deltas[:0]
	var column []byte
	var first int64
	var ticks uint64
	producers := 0
	for len(msg) > 0 {
		f, rest, err := next(msg)
		if err != nil {
			return nil, err
		}
		msg = rest
		switch f.number {
		case 1:
			producers++
			err = f.producer(&v.Producer)
		case 2:
			err = f.fixed64(&v.Epoch)
		case 3:
			err = f.varint(&v.Sequence)
		case 4:
			err = f.bytes(&v.Site)
		case 5:
			err = f.bytes(&v.Node)
		case 6:
			err = f.int64(&first)
		case 7:
			d.deltas, err = f.appendVarints(d.deltas, MaxTicks)
		case 8:
			err = d.appendSeriesView(&f)
		case 9:
			v.HasImport = true
			err = f.importView(&v.Import)
		case 10:
			err = f.bytes(&column)
		case 11:
			err = f.varint(&ticks)
		}
		if err != nil {
			return nil, err
		}
	}
	if producers == 0 || v.Sequence == 0 {
		return nil, malformed("no producer or no sequence")
	}
	if err := d.setTicks(first, column, ticks); err != nil {
		return nil, err
	}
	for i := range v.Series {
		if s := &v.Series[i]; s.HasPrevious {
			s.PreviousMS = v.Ticks[0] - s.PreviousMS
		}
	}
	if len(v.Ticks)*len(v.Series) > MaxReadings {
		return nil, malformed("%d ticks × %d series", len(v.Ticks), len(v.Series))
	}
	return v, nil
}

func (d *Decoder) setTicks(first int64, column []byte, n uint64) error {
	if first <= -maxTimeMS || first >= maxTimeMS || len(d.deltas) >= MaxTicks || n > MaxTicks {
		return malformed("first tick %d ms and %d or %d in all", first, len(d.deltas), n)
	}
	if len(column) > 0 {
		return d.unpackTicks(first, column, int(n))
	}
	ticks := append(d.view.Ticks, first)
	for _, delta := range d.deltas {
		if delta > 1<<32-1 {
			return malformed("%d ms between two ticks", delta)
		}
		first += int64(delta)
		ticks = append(ticks, first)
	}
	d.view.Ticks = ticks
	return nil
}

// unpackTicks reads the column of ticks and refuses one that falls.
func (d *Decoder) unpackTicks(first int64, column []byte, n int) error {
	ticks, err := unpack(d.view.Ticks, column, n)
	if err != nil {
		return err
	}
	if column[0] != modeDifferences || ticks[0] != 0 {
		return malformed("the first tick of the column is not the batch's")
	}
	last := first
	for i, t := range ticks {
		t += first
		if d := t - last; d < 0 || d > 1<<32-1 {
			return malformed("tick %d ms after tick %d ms", t, last)
		}
		ticks[i], last = t, t
	}
	d.view.Ticks = ticks
	return nil
}

func (d *Decoder) appendSeriesView(f *field) error {
	s := SeriesView{}
	if err := f.bytes(&s.raw); err != nil {
		return err
	}
	for raw := s.raw; len(raw) > 0; {
		f, rest, err := next(raw)
		if err != nil {
			return err
		}
		raw = rest
		switch f.number {
		case 1:
			err = f.bytes(&s.Descriptor)
		case 2:
			s.HasPrevious = true
			// Its age, until the batch's first tick is known.
			err = f.previous(&s.PreviousMS, &s.PreviousValue)
		case 6:
			var closed uint64
			err = f.varint(&closed)
			s.Closed = closed != 0
		}
		if err != nil {
			return err
		}
	}
	d.view.Series = append(d.view.Series, s)
	return nil
}

// Readings returns the times in ms and the values in mW or µJ of series i of
// the batch decoded last, scaled by 10^scale. Both slices are valid until the
// next call of Readings or Decode; times may be the batch's own ticks.
func (d *Decoder) Readings(i int, scale uint8) (times, values []int64, err error) {
	if scale > MaxScale {
		return nil, nil, malformed("scale %d", scale)
	}
	var column []byte
	d.values, d.indexes = d.values[:0], d.indexes[:0]
	for raw := d.view.Series[i].raw; len(raw) > 0; {
		f, rest, err := next(raw)
		if err != nil {
			return nil, nil, err
		}
		raw = rest
		switch f.number {
		case 3:
			err = f.appendDifferences(&d.values)
		case 4:
			err = f.bytes(&column)
		case 5:
			d.indexes, err = f.appendVarints(d.indexes, MaxTicks)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	times = d.view.Ticks
	if len(d.indexes) > 0 {
		if times, err = d.pickTimes(); err != nil {
			return nil, nil, err
		}
	}
	if len(column) > 0 {
		if len(d.values) > 0 {
			return nil, nil, malformed("both a column and plain values")
		}
		if d.values, err = unpack(d.values, column, len(times)); err != nil {
			return nil, nil, err
		}
	}
	if len(d.values) != len(times) {
		return nil, nil, malformed("%d readings for %d ticks", len(d.values), len(times))
	}
	if scale > 0 {
		if err := rescale(d.values, scale); err != nil {
			return nil, nil, err
		}
	}
	return times, d.values, nil
}

// Scaled returns a value of a series as mW or µJ.
func Scaled(value int64, scale uint8) (int64, error) {
	one := [1]int64{value}
	if scale > MaxScale {
		return 0, malformed("scale %d", scale)
	}
	err := rescale(one[:], scale)
	return one[0], err
}

var powersOfTen = [MaxScale + 1]int64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}

func rescale(values []int64, scale uint8) error {
	factor := powersOfTen[scale]
	limit := int64(1<<63-1) / factor
	for i, v := range values {
		if v > limit || v < -limit {
			return malformed("reading %d · 10^%d does not fit", v, scale)
		}
		values[i] = v * factor
	}
	return nil
}

func (d *Decoder) pickTimes() ([]int64, error) {
	d.times = d.times[:0]
	at := uint64(0)
	for i, delta := range d.indexes {
		if delta > MaxTicks || i > 0 && delta == 0 {
			return nil, malformed("tick indexes do not rise")
		}
		at += delta
		if at >= uint64(len(d.view.Ticks)) {
			return nil, malformed("tick index %d of %d ticks", at, len(d.view.Ticks))
		}
		d.times = append(d.times, d.view.Ticks[at])
	}
	return d.times, nil
}

// unpack appends the n numbers of a column to dst.
func unpack(dst []int64, column []byte, n int) ([]int64, error) {
	if len(column) < 3 || n == 0 {
		return dst, malformed("column of %d bytes for %d ticks", len(column), n)
	}
	mode, width := column[0], uint(column[1])
	column = column[2:]
	if width > maxWidth || mode != modeValues && mode != modeDifferences {
		return dst, malformed("column of mode %d and width %d", mode, width)
	}
	packed, first := n, int64(0)
	if mode == modeDifferences {
		zigzag, size := protowire.ConsumeVarint(column)
		if size < 0 {
			return dst, malformed("column without a first number")
		}
		first, column, packed = protowire.DecodeZigZag(zigzag), column[size:], n-1
		dst = append(dst, first)
	}
	zigzag, size := protowire.ConsumeVarint(column)
	if size < 0 {
		return dst, malformed("column without a base")
	}
	base, column := protowire.DecodeZigZag(zigzag), column[size:]
	if want := (packed*int(width) + 7) / 8; len(column) != want {
		return dst, malformed("column of %d packed bytes, want %d", len(column), want)
	}
	if mode == modeValues {
		return unpackValues(dst, column, packed, width, base), nil
	}
	return unpackDifferences(dst, column, packed, width, base, first), nil
}

func unpackValues(dst []int64, packed []byte, n int, width uint, base int64) []int64 {
	mask := uint64(1)<<width - 1
	whole := wholeLoads(packed, n, width)
	start := len(dst)
	dst = grow(dst, n)
	out := dst[start:]
	bit := uint(0)
	for i := range out[:whole] {
		out[i] = base + int64(binary.LittleEndian.Uint64(packed[bit>>3:])>>(bit&7)&mask)
		bit += width
	}
	for i := whole; i < n; i++ {
		out[i] = base + int64(tailLoad(packed, bit)>>(bit&7)&mask)
		bit += width
	}
	return dst
}

func unpackDifferences(dst []int64, packed []byte, n int, width uint, base, value int64) []int64 {
	mask := uint64(1)<<width - 1
	whole := wholeLoads(packed, n, width)
	start := len(dst)
	dst = grow(dst, n)
	out := dst[start:]
	bit := uint(0)
	for i := range out[:whole] {
		value += base + int64(binary.LittleEndian.Uint64(packed[bit>>3:])>>(bit&7)&mask)
		out[i] = value
		bit += width
	}
	for i := whole; i < n; i++ {
		value += base + int64(tailLoad(packed, bit)>>(bit&7)&mask)
		out[i] = value
		bit += width
	}
	return dst
}

// wholeLoads is how many of the n numbers can be read by loads of 8 bytes that
// stay inside packed.
func wholeLoads(packed []byte, n int, width uint) int {
	if len(packed) < 8 {
		return 0
	}
	if width == 0 {
		return n
	}
	// Number i is loaded from byte i·width/8, which must be at most len−8.
	return min(n, ((len(packed)-8)*8+7)/int(width)+1)
}

func tailLoad(packed []byte, bit uint) uint64 {
	var word [8]byte
	copy(word[:], packed[min(int(bit>>3), len(packed)):])
	return binary.LittleEndian.Uint64(word[:])
}

func grow(dst []int64, n int) []int64 {
	need := len(dst) + n
	if cap(dst) < need {
		larger := make([]int64, len(dst), 1<<bits.Len(uint(need)))
		copy(larger, dst)
		dst = larger
	}
	return dst[:need]
}

// ParseDescriptor parses a descriptor's bytes.
func ParseDescriptor(raw []byte) (Descriptor, error) {
	var d Descriptor
	var kind, provenance, scale, period, maxGap uint64
	err := walk(raw, func(f field) error {
		switch f.number {
		case 1:
			return f.string(&d.Device)
		case 2:
			return f.string(&d.Component)
		case 3:
			return f.string(&d.Workload)
		case 4:
			return f.string(&d.Run)
		case 5:
			return f.string(&d.Project)
		case 6:
			return f.label(&d)
		case 7:
			return f.varint(&kind)
		case 8:
			return f.varint(&provenance)
		case 9:
			return f.varint(&period)
		case 10:
			return f.varint(&maxGap)
		case 11:
			return f.varint(&d.Range)
		case 12:
			return f.varint(&d.MaxPower)
		case 13:
			d.HasClipStart = true
			return f.int64(&d.ClipStartMS)
		case 14:
			d.HasClipEnd = true
			return f.int64(&d.ClipEndMS)
		case 15:
			return f.varint(&scale)
		}
		return nil
	})
	switch {
	case err != nil:
		return d, err
	case kind < 1 || kind > 3:
		return d, malformed("reading kind %d", kind)
	case provenance < 1 || provenance > 2:
		return d, malformed("provenance %d", provenance)
	case scale > MaxScale:
		return d, malformed("scale %d", scale)
	case period > 1<<32-1 || maxGap > 1<<32-1:
		return d, malformed("period %d ms, greatest gap %d ms", period, maxGap)
	}
	if d.Component == "" {
		d.Component = componentOf(d.Device)
	}
	d.Kind, d.Provenance, d.Scale = uint8(kind), uint8(provenance), uint8(scale)
	d.PeriodMS, d.MaxGapMS = uint32(period), uint32(maxGap)
	return d, nil
}
