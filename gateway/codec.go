package gateway

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec "proto"
	"google.golang.org/grpc/mem"
)

// frame is one message on its way through, never decoded. It owns a reference to
// the buffers that it was received in until it is sent.
type frame struct {
	data mem.BufferSlice
}

// drop gives up a frame that is not going to be sent.
func (f *frame) drop() {
	f.data.Free()
	f.data = nil
}

// codec passes frames as they are and everything else (health, reflection) as
// protobuf. It goes by the name of protobuf, for that is what the bytes are.
type codec struct{ proto encoding.CodecV2 }

func newCodec() codec { return codec{proto: encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		data := f.data
		f.data = nil // the reference is the transport's now
		return data, nil
	}
	return c.proto.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		data.Ref()
		f.data = data
		return nil
	}
	return c.proto.Unmarshal(data, v)
}

func (codec) Name() string { return "proto" }
