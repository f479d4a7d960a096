package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/internal/fault"
)

// errDraining ends streams that only send when the server stops.
var errDraining = fault.New(fault.Unavailable, "the server is shutting down")

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := func() (_ any, err error) {
		defer recovered(&err)
		if err := validate(req); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}()
	if err != nil {
		return nil, s.failed(ctx, info.FullMethod, start, err)
	}
	return resp, nil
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	start := time.Now()
	stream := &checkedStream{ServerStream: ss, ctx: ss.Context()}
	if info.IsServerStream && !info.IsClientStream {
		// A watch has no end of its own.
		ctx, cancel := context.WithCancelCause(ss.Context())
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-s.draining:
				cancel(errDraining)
			case <-stop:
				cancel(nil)
			}
		}()
		stream.ctx = ctx
	}
	err := func() (err error) {
		defer recovered(&err)
		return handler(srv, stream)
	}()
	if err == nil {
		return nil
	}
	if cause := context.Cause(stream.ctx); errors.Is(cause, errDraining) {
		err = cause
	}
	return s.failed(ss.Context(), info.FullMethod, start, err)
}

// maxLogged bounds what the mistake of a caller writes into the log, in bytes: it
// is as long as the caller likes.
const maxLogged = 500

// failed says in the log what went wrong, once, and returns what the caller sees.
func (s *Server) failed(ctx context.Context, method string, start time.Time, err error) error {
	seen := Status(err)
	code := status.Code(seen)
	at := level(code)
	text := err.Error()
	if at < slog.LevelError {
		text = clip(text, maxLogged)
	}
	if _, ok := errors.AsType[*relayed](err); ok || code == codes.Unavailable && s.isDraining() {
		at = slog.LevelDebug
	}
	s.log.LogAttrs(ctx, at, "call failed",
		slog.String("method", method),
		slog.String("code", code.String()),
		slog.Duration("took", time.Since(start)),
		slog.String("err", text))
	return seen
}

// isDraining reports whether the end has begun. Calls that end with it are as they
// should be.
func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

func level(code codes.Code) slog.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated:
		return slog.LevelWarn
	case codes.Canceled, codes.DeadlineExceeded:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// recovered turns a panic into an unclassified error with the place it came from.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

// checkedStream validates every message that arrives.
type checkedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a ServerStream is asked for its context
}

func (s *checkedStream) Context() context.Context { return s.ctx }

func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return validate(m)
}

// validate holds a message against the rules in its proto.
func validate(m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil // raw bytes that are only passed on
	}
	err := protovalidate.Validate(msg)
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) {
		return err // nil, or a rule that does not compile: ours
	}
	fields := make([]fault.Violation, len(invalid.Violations))
	for i, v := range invalid.Violations {
		fields[i] = fault.Field(protovalidate.FieldPathString(v.Proto.GetField()), v.Proto.GetMessage())
	}
	return fault.Fields(fields...)
}
