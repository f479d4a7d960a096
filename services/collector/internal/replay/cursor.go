package replay

import (
	"encoding/binary"
	"errors"

	"github.com/wattfold/wattfold/services/collector/internal/batch"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
)

const cursorVersion = 1

// cursor is where a replay stands after a group.
type cursor struct {
	// fingerprint is of content and mapping: a cursor means nothing in another
	// file.
	fingerprint [16]byte
	at          csvfile.Position
	// loops is how often the file was gone through, shiftMS by how much its
	// clock is moved the first time.
	loops   int64
	shiftMS int64
	// last holds each node's last reading, as sent.
	last []nodeReading
}

type nodeReading struct {
	node    string
	reading batch.Reading
}

func (c *cursor) append(dst []byte) []byte {
	dst = append(dst, cursorVersion)
	dst = append(dst, c.fingerprint[:]...)
	for _, v := range []int64{c.at.Offset, c.at.Line, c.loops, c.shiftMS} {
		dst = binary.AppendVarint(dst, v)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.last)))
	for _, n := range c.last {
		dst = binary.AppendUvarint(dst, uint64(len(n.node)))
		dst = append(dst, n.node...)
		dst = binary.AppendVarint(dst, n.reading.TimeMS)
		dst = binary.AppendVarint(dst, n.reading.Value)
	}
	return dst
}

var errCursor = errors.New("cursor is of another version: give the replay another name to begin anew")

func (c *cursor) parse(b []byte) error {
	if len(b) < 17 || b[0] != cursorVersion {
		return errCursor
	}
	copy(c.fingerprint[:], b[1:])
	b = b[17:]
	ok := true
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	c.at.Offset, c.at.Line, c.loops, c.shiftMS = varint(), varint(), varint(), varint()
	for n := uvarint(); ok && n > 0; n-- {
		size := uvarint()
		if !ok || size > uint64(len(b)) {
			return errCursor
		}
		name := string(b[:size])
		b = b[size:]
		c.last = append(c.last, nodeReading{node: name, reading: batch.Reading{TimeMS: varint(), Value: varint()}})
	}
	if !ok || len(b) > 0 {
		return errCursor
	}
	return nil
}
