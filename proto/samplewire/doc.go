// Package samplewire is the codec of telemetry.v1.SampleBatch for those who
// send or count many samples: it writes each series' readings as one bit-packed
// column and reads a batch by walking its bytes, without allocating.
//
// Any protobuf library reads and writes the same message; only the column needs
// this description:
//
//	column  = mode width [first] base packed
//	mode    = 0x01 (values) | 0x02 (differences)     one byte
//	width   = bits of a packed number, 0 to 56       one byte
//	first   = zig-zag varint, the first reading      with mode 0x02 only
//	base    = zig-zag varint
//	packed  = numbers of width bits, the lowest bit first, no gap between
//	          them, the last byte filled with zero bits
//
// SampleBatch.tick_column holds the ticks in the same form, mode 0x02, less
// first_tick_ms.
//
// In mode 0x01 reading i is base + packed[i]. In mode 0x02 reading 0 is first,
// and reading i is reading i−1 + base + packed[i−1]: counters are packed so. How
// many readings there are is said by the ticks. A column with bytes too many or
// too few is malformed. A series whose numbers spread over more than 56 bits is
// written as plain zig-zag differences (Series.values) instead.
//
// Frame-of-reference packing was chosen over varints because noisy power does
// not compress, and a decoder of varints is bound by mispredicted branches
// (docs/adr/0008).
package samplewire
