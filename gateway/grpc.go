package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wattfold/wattfold/internal/rpc"
)

// hop is what a deadline is shortened by: what is left when the backend gives up
// is enough to say so to the caller.
const hop = 20 * time.Millisecond

// passedOn are the headers of a caller that reach a backend. Whatever is added
// must mean the same whoever sends it.
var passedOn = []string{"traceparent", "tracestate", "baggage", "x-request-id"}

// proxy forwards calls as bytes.
type proxy struct {
	methods  map[string]Method
	backends backends
	codec    codec
	draining <-chan struct{}
}

// handle is a [grpc.StreamHandler] of every method that the server itself does
// not have.
func (p *proxy) handle(_ any, ss grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(ss)
	method, ok := p.methods[name]
	if !ok {
		return p.unknown(name)
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	if deadline, ok := ctx.Deadline(); ok {
		deadline = deadline.Add(-hop)
		if !time.Now().Before(deadline) {
			return status.Errorf(codes.DeadlineExceeded, "less than %v left to reach %s", hop, method.Service)
		}
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline)
		defer stop()
	}
	ctx = metadata.NewOutgoingContext(ctx, request(ss.Context()))
	backend := p.backends[method.Service]
	switch {
	case method.ClientStreams:
		return p.both(ctx, ss, backend, method)
	case method.ServerStreams:
		return p.download(ctx, cancel, ss, backend, method)
	}
	return p.unary(ctx, ss, backend, method)
}

func (p *proxy) unknown(name string) error {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok {
		return status.Errorf(codes.Unimplemented, "malformed method name %q", name)
	}
	if p.backends[service] != nil {
		return status.Errorf(codes.Unimplemented, "unknown method %s for service %s", method, service)
	}
	return status.Errorf(codes.Unimplemented, "unknown service %s", service)
}

// unary forwards one message and brings one back.
func (p *proxy) unary(ctx context.Context, ss grpc.ServerStream, backend grpc.ClientConnInterface, method Method) error {
	var in, out frame
	if err := ss.RecvMsg(&in); err != nil {
		return received(err)
	}
	var header, trailer metadata.MD
	err := backend.Invoke(ctx, method.FullName(), &in, &out,
		grpc.ForceCodecV2(p.codec), grpc.Header(&header), grpc.Trailer(&trailer))
	in.drop() // if it was never sent
	if err != nil {
		_ = ss.SetHeader(response(header)) // fails only if the caller has left
		ss.SetTrailer(response(trailer))
		return answered(err, method, header, trailer)
	}
	defer out.drop()
	if err := ss.SetHeader(response(header)); err != nil {
		return err
	}
	ss.SetTrailer(response(trailer))
	return ss.SendMsg(&out)
}

// download forwards one message and brings back many. Such a call may have no end
// of its own, so it ends when the gateway does.
func (p *proxy) download(ctx context.Context, cancel context.CancelCauseFunc, ss grpc.ServerStream, backend grpc.ClientConnInterface, method Method) error {
	shut := status.Error(codes.Unavailable, "the server is shutting down")
	go func() {
		select {
		case <-p.draining:
			cancel(shut)
		case <-ctx.Done():
		}
	}()
	var in frame
	if err := ss.RecvMsg(&in); err != nil {
		return received(err)
	}
	cs, err := backend.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method.FullName(), grpc.ForceCodecV2(p.codec))
	if err != nil {
		in.drop()
		return answered(err, method, nil, nil)
	}
	err = cs.SendMsg(&in)
	in.drop()
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the answer says why
		return answered(err, method, nil, nil)
	}
	if err == nil {
		if err := cs.CloseSend(); err != nil {
			return answered(err, method, nil, nil)
		}
	}
	err = p.back(ss, cs, method)
	if context.Cause(ctx) == shut { //nolint:errorlint // this very error
		return shut
	}
	return err
}

// both forwards many messages and brings back one or many.
func (p *proxy) both(ctx context.Context, ss grpc.ServerStream, backend grpc.ClientConnInterface, method Method) error {
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: method.ServerStreams}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cs, err := backend.NewStream(ctx, desc, method.FullName(), grpc.ForceCodecV2(p.codec))
	if err != nil {
		return answered(err, method, nil, nil)
	}
	// The upload ends with the caller's last message, with the backend's status,
	// or, since RecvMsg ends with the call, when this function has returned.
	go func() {
		if err := forth(ss, cs); err != nil {
			cancel(err)
		}
	}()
	err = p.back(ss, cs, method)
	if cause := context.Cause(ctx); err != nil && cause != nil && ss.Context().Err() == nil {
		if st, ok := status.FromError(cause); ok {
			return st.Err() // the message that could not be forwarded
		}
	}
	return err
}

// forth sends the caller's messages to the backend, one in hand at a time: a
// backend that does not read holds the caller back.
func forth(ss grpc.ServerStream, cs grpc.ClientStream) error {
	for {
		var f frame
		if err := ss.RecvMsg(&f); errors.Is(err, io.EOF) {
			return cs.CloseSend()
		} else if err != nil {
			return err
		}
		err := cs.SendMsg(&f)
		f.drop()
		if errors.Is(err, io.EOF) {
			return nil // the backend has answered already
		}
		if err != nil {
			return err
		}
	}
}

// back sends the backend's headers, messages, trailers and status to the caller,
// one message in hand at a time.
func (p *proxy) back(ss grpc.ServerStream, cs grpc.ClientStream, method Method) error {
	header, err := cs.Header()
	if err == nil && header != nil {
		if err := ss.SendHeader(response(header)); err != nil {
			return err
		}
	}
	for {
		var f frame
		if err := cs.RecvMsg(&f); err != nil {
			trailer := cs.Trailer()
			ss.SetTrailer(response(trailer))
			if errors.Is(err, io.EOF) {
				return nil
			}
			return answered(err, method, header, trailer)
		}
		err := ss.SendMsg(&f)
		f.drop()
		if err != nil {
			return err
		}
	}
}

// received is the error of a caller that did not send what it should.
func received(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Internal, "the call ended without a message")
	}
	return err
}

// away is an answer of nobody: what the caller sees names the service and no
// address, what the log gets is the cause.
type away struct {
	service string
	cause   error
}

func (e *away) Error() string { return fmt.Sprintf("reach %s: %v", e.service, e.cause) }

// GRPCStatus is what the caller sees.
func (e *away) GRPCStatus() *status.Status {
	st := status.Newf(codes.Unavailable, "%s is not reachable now", e.service)
	if detailed, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}); err == nil {
		return detailed
	}
	return st
}

// answered returns the status of a backend unaltered, without what a client that
// retries says around it. The backend has logged it. If the backend sent nothing
// at all, an UNAVAILABLE says that it is away.
func answered(err error, method Method, header, trailer metadata.MD) error {
	st := rpc.StatusOf(err)
	if len(trailer) > 0 {
		return rpc.Relayed(st)
	}
	switch st.Code() {
	case codes.Unavailable:
		if len(header) == 0 {
			return &away{service: method.Service, cause: err}
		}
		return st.Err()
	case codes.Internal, codes.ResourceExhausted:
		// Trailers may be empty, so this may be the backend's word. It may as well be
		// that of our client, of a stream that broke: rather said twice than never.
		return st.Err()
	}
	return rpc.Relayed(st)
}

// request returns the headers that a backend gets.
func request(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	out := make(metadata.MD, len(passedOn))
	for _, key := range passedOn {
		if values := in[key]; len(values) > 0 {
			out[key] = values
		}
	}
	return out
}

// response returns what of a backend's headers or trailers the caller gets: all
// but those that belong to one connection.
func response(in metadata.MD) metadata.MD {
	out := make(metadata.MD, len(in))
	for key, values := range in {
		if strings.HasPrefix(key, ":") || strings.HasPrefix(key, "grpc-") {
			continue
		}
		switch key {
		case "content-type", "user-agent", "te", "connection", "date", "server", "trailer":
			continue
		}
		out[key] = values
	}
	return out
}
