package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Key names a sequence of batches: newness is per site, producer and epoch.
type Key struct {
	Site     string
	Producer [16]byte
	Epoch    uint64
}

// Batch is one batch of a group.
type Batch struct {
	Key      Key
	Sequence uint64
	// Samples is how many readings the batch has, for the figures.
	Samples uint32
	// Data is the batch's wire bytes, opaque here.
	Data []byte
}

// Group is the batches of one flush.
type Group struct {
	// Source names who made the group; with Cursor it says where the source
	// stood after the group. Empty: there is nothing to go on from.
	Source string
	Cursor []byte
	// Transient says that the cursor may be forgotten with its segment.
	Transient bool
	// Trace is the W3C traceparent of the flush, or empty.
	Trace   string
	Batches []Batch
}

const (
	headerSize = 12
	// maxPayload bounds what a flipped length can make a reader allocate.
	maxPayload = 256 << 20
	version    = 1
)

var (
	magic      = [4]byte{'W', 'F', 'G', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errMalformed = errors.New("malformed group")
)

// appendGroup appends the group with its header.
func appendGroup(dst []byte, g *Group, timeMS int64) ([]byte, error) {
	start := len(dst)
	dst = append(dst, make([]byte, headerSize)...)
	dst = append(dst, version, 0)
	if g.Transient {
		dst[len(dst)-1] = 1
	}
	dst = binary.AppendVarint(dst, timeMS)
	dst = appendText(dst, g.Source)
	dst = appendText(dst, string(g.Cursor))
	dst = appendText(dst, g.Trace)
	keys := make(map[Key]uint64, 1)
	var order []Key
	for i := range g.Batches {
		if k := g.Batches[i].Key; len(order) == 0 || order[len(order)-1] != k {
			if _, ok := keys[k]; !ok {
				keys[k] = uint64(len(order))
				order = append(order, k)
			}
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(order)))
	for _, k := range order {
		dst = appendText(dst, k.Site)
		dst = append(dst, k.Producer[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, k.Epoch)
	}
	dst = binary.AppendUvarint(dst, uint64(len(g.Batches)))
	for i := range g.Batches {
		b := &g.Batches[i]
		dst = binary.AppendUvarint(dst, keys[b.Key])
		dst = binary.AppendUvarint(dst, b.Sequence)
		dst = binary.AppendUvarint(dst, uint64(b.Samples))
		dst = binary.AppendUvarint(dst, uint64(len(b.Data)))
		dst = append(dst, b.Data...)
	}
	size := len(dst) - start - headerSize
	if size > maxPayload {
		return dst[:start], fmt.Errorf("group of %d bytes is larger than %d", size, maxPayload)
	}
	h := dst[start:]
	copy(h, magic[:])
	binary.LittleEndian.PutUint32(h[4:], uint32(size))
	binary.LittleEndian.PutUint32(h[8:], checksum(h[4:8], h[headerSize:]))
	return dst, nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, payload)
}

// frame returns the payload of the group that b begins with.
func frame(b []byte) (payload []byte, ok bool) {
	if len(b) < headerSize || [4]byte(b) != magic {
		return nil, false
	}
	size := int(binary.LittleEndian.Uint32(b[4:]))
	if size > maxPayload || len(b)-headerSize < size {
		return nil, false
	}
	payload = b[headerSize : headerSize+size]
	return payload, checksum(b[4:8], payload) == binary.LittleEndian.Uint32(b[8:])
}

// parsed is a decoded group. Its byte slices point into the payload; keys and
// batches are reused by the next parse.
type parsed struct {
	timeMS    int64
	transient bool
	source    []byte
	cursor    []byte
	trace     []byte
	keys      []Key
	batches   []Batch
}

// parse decodes a payload. Site names are made anew only where they differ from
// those of the parse before.
func (p *parsed) parse(payload []byte) error {
	r := walker{b: payload}
	p.keys, p.batches = p.keys[:0], p.batches[:0]
	if r.byte() != version {
		return fmt.Errorf("%w: unknown version", errMalformed)
	}
	p.transient = r.byte()&1 != 0
	p.timeMS = r.varint()
	p.source, p.cursor, p.trace = r.text(), r.text(), r.text()
	for n := r.count(); n > 0 && r.ok(); n-- {
		site, rest := r.text(), r.take(24)
		if !r.ok() {
			break
		}
		k := Key{Producer: [16]byte(rest), Epoch: binary.LittleEndian.Uint64(rest[16:])}
		if at := len(p.keys); at < cap(p.keys) && p.keys[:at+1][at].Site == string(site) {
			k.Site = p.keys[:at+1][at].Site
		} else {
			k.Site = string(site)
		}
		p.keys = append(p.keys, k)
	}
	for n := r.count(); n > 0 && r.ok(); n-- {
		key, sequence, samples := r.uvarint(), r.uvarint(), r.uvarint()
		data := r.text()
		if !r.ok() || key >= uint64(len(p.keys)) || sequence == 0 || samples > 1<<32-1 {
			return fmt.Errorf("%w: bad batch", errMalformed)
		}
		p.batches = append(p.batches, Batch{Key: p.keys[key], Sequence: sequence, Samples: uint32(samples), Data: data})
	}
	if !r.ok() || len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes left", errMalformed, len(r.b))
	}
	return nil
}

// walker reads a payload; after the first thing that is not there it reads
// nothing more.
type walker struct {
	b      []byte
	failed bool
}

func (w *walker) ok() bool { return !w.failed }

func (w *walker) take(n uint64) []byte {
	if w.failed || n > uint64(len(w.b)) {
		w.failed = true
		return nil
	}
	v := w.b[:n:n]
	w.b = w.b[n:]
	return v
}

func (w *walker) byte() byte {
	if v := w.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (w *walker) uvarint() uint64 {
	v, n := binary.Uvarint(w.b)
	if w.failed || n <= 0 {
		w.failed = true
		return 0
	}
	w.b = w.b[n:]
	return v
}

func (w *walker) varint() int64 {
	v, n := binary.Varint(w.b)
	if w.failed || n <= 0 {
		w.failed = true
		return 0
	}
	w.b = w.b[n:]
	return v
}

// count reads how many things follow, each of which takes a byte at least.
func (w *walker) count() uint64 {
	v := w.uvarint()
	if v > uint64(len(w.b)) {
		w.failed = true
		return 0
	}
	return v
}

func (w *walker) text() []byte { return w.take(w.uvarint()) }
