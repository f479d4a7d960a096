package samplewire

import "google.golang.org/protobuf/encoding/protowire"

// field is one field of a message: its number, and either a number or bytes.
type field struct {
	number protowire.Number
	kind   protowire.Type
	num    uint64
	data   []byte
}

// next cuts the first field off a message. Groups are skipped whole.
func next(msg []byte) (field, []byte, error) {
	number, kind, n := protowire.ConsumeTag(msg)
	if n < 0 {
		return field{}, nil, malformed("tag: %v", protowire.ParseError(n))
	}
	f := field{number: number, kind: kind}
	msg = msg[n:]
	switch kind {
	case protowire.VarintType:
		f.num, n = protowire.ConsumeVarint(msg)
	case protowire.Fixed64Type:
		f.num, n = protowire.ConsumeFixed64(msg)
	case protowire.BytesType:
		f.data, n = protowire.ConsumeBytes(msg)
	default:
		n = protowire.ConsumeFieldValue(number, kind, msg)
	}
	if n < 0 {
		return field{}, nil, malformed("field %d: %v", number, protowire.ParseError(n))
	}
	return f, msg[n:], nil
}

// walk calls visit for every field of a message.
func walk(msg []byte, visit func(field) error) error {
	for len(msg) > 0 {
		f, rest, err := next(msg)
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
		msg = rest
	}
	return nil
}

func (f *field) want(kind protowire.Type) error {
	if f.kind != kind {
		return malformed("field %d has wire type %d", f.number, f.kind)
	}
	return nil
}

func (f *field) varint(v *uint64) error {
	*v = f.num
	return f.want(protowire.VarintType)
}

func (f *field) int64(v *int64) error {
	*v = int64(f.num)
	return f.want(protowire.VarintType)
}

func (f *field) fixed64(v *uint64) error {
	*v = f.num
	return f.want(protowire.Fixed64Type)
}

func (f *field) bytes(v *[]byte) error {
	*v = f.data
	return f.want(protowire.BytesType)
}

func (f *field) string(v *string) error {
	*v = string(f.data)
	return f.want(protowire.BytesType)
}

func (f *field) producer(v *[16]byte) error {
	if f.kind != protowire.BytesType || len(f.data) != len(v) {
		return malformed("producer of %d bytes, want %d", len(f.data), len(v))
	}
	copy(v[:], f.data)
	return nil
}

// appendVarints reads a repeated field in either of its two forms, packed or
// one by one.
func (f *field) appendVarints(dst []uint64, limit int) ([]uint64, error) {
	if f.kind == protowire.VarintType {
		dst = append(dst, f.num)
	} else if err := f.want(protowire.BytesType); err != nil {
		return dst, err
	}
	for data := f.data; len(data) > 0; {
		// One-byte numbers are the rule: ticks a tenth of a second apart.
		if data[0] < 0x80 {
			dst, data = append(dst, uint64(data[0])), data[1:]
			continue
		}
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return dst, malformed("field %d: %v", f.number, protowire.ParseError(n))
		}
		dst, data = append(dst, v), data[n:]
	}
	if len(dst) > limit {
		return dst, malformed("field %d has over %d numbers", f.number, limit)
	}
	return dst, nil
}

// appendDifferences reads zig-zag differences in either form, each to the
// reading before.
func (f *field) appendDifferences(dst *[]int64) error {
	last := int64(0)
	if n := len(*dst); n > 0 {
		last = (*dst)[n-1]
	}
	if f.kind == protowire.VarintType {
		*dst = append(*dst, last+protowire.DecodeZigZag(f.num))
		return nil
	}
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	for data := f.data; len(data) > 0; {
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return malformed("field %d: %v", f.number, protowire.ParseError(n))
		}
		last += protowire.DecodeZigZag(v)
		*dst, data = append(*dst, last), data[n:]
	}
	return nil
}

func (f *field) zigzag(v *int64) error {
	*v = protowire.DecodeZigZag(f.num)
	return f.want(protowire.VarintType)
}

func (f *field) previous(ageMS, value *int64) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return walk(f.data, func(f field) error {
		switch f.number {
		case 1:
			return f.zigzag(ageMS)
		case 2:
			return f.zigzag(value)
		}
		return nil
	})
}

func (f *field) importView(v *ImportView) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return walk(f.data, func(f field) error {
		switch f.number {
		case 1:
			return f.bytes(&v.ID)
		case 2:
			return f.bytes(&v.Content)
		case 3:
			return f.varint(&v.LastSequence)
		case 4:
			v.Replace = f.num != 0
			return f.want(protowire.VarintType)
		}
		return nil
	})
}

func (f *field) label(d *Descriptor) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	var key, value string
	err := walk(f.data, func(f field) error {
		switch f.number {
		case 1:
			return f.string(&key)
		case 2:
			return f.string(&value)
		}
		return nil
	})
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	d.Labels[key] = value
	return err
}
