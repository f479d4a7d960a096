package rpc

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wattfold/wattfold/internal/fault"
)

// Domain is the domain of the reasons in ErrorInfo.
const Domain = "wattfold.dev"

// internalText is all that a caller learns of an error that nobody classified.
const internalText = "internal error"

// A status travels in headers, of which a peer takes [MaxHeaderList] bytes: the
// message twice, once with up to three bytes for one, and the details in base64.
// Beyond that the call would end without any reason.
const (
	maxMessage     = 1500
	maxViolations  = 20
	maxPath        = 100
	maxDescription = 150
)

// clip shortens text to about so many bytes and then says how long it was.
func clip(text string, size int) string {
	if len(text) <= size {
		return text
	}
	end := size
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes in all)", text[:end], len(text))
}

// kindCodes is the table of the package comment.
var kindCodes = map[fault.Kind]codes.Code{
	fault.Internal:    codes.Internal,
	fault.Invalid:     codes.InvalidArgument,
	fault.NotFound:    codes.NotFound,
	fault.Conflict:    codes.AlreadyExists,
	fault.NotYet:      codes.FailedPrecondition,
	fault.Denied:      codes.PermissionDenied,
	fault.Exhausted:   codes.ResourceExhausted,
	fault.Unavailable: codes.Unavailable,
}

// codeKinds is its inverse, with the codes that only others send. A code that is
// not here is Internal: it says that one of us is wrong.
var codeKinds = map[codes.Code]fault.Kind{
	codes.InvalidArgument:    fault.Invalid,
	codes.OutOfRange:         fault.Invalid,
	codes.NotFound:           fault.NotFound,
	codes.AlreadyExists:      fault.Conflict,
	codes.Aborted:            fault.Conflict,
	codes.FailedPrecondition: fault.NotYet,
	codes.PermissionDenied:   fault.Denied,
	codes.Unauthenticated:    fault.Denied,
	codes.ResourceExhausted:  fault.Exhausted,
	codes.Unavailable:        fault.Unavailable,
}

// Status returns the gRPC status of a handler's error, as an error; nil for nil.
// A status that the handler returned itself passes unaltered; one that is wrapped
// came from elsewhere and counts as unclassified unless a fault wraps it.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(grpcStatus); ok { //nolint:errorlint // only an unwrapped one
		return err
	}
	if !fault.Classified(err) {
		switch {
		case errors.Is(err, context.Canceled):
			return status.Error(codes.Canceled, "canceled")
		case errors.Is(err, context.DeadlineExceeded):
			return status.Error(codes.DeadlineExceeded, "deadline exceeded")
		}
	}
	kind := fault.KindOf(err)
	if kind == fault.Internal {
		return status.Error(codes.Internal, internalText)
	}
	var details []protoadapt.MessageV1
	if reason := fault.ReasonOf(err); reason != "" {
		details = append(details, &errdetails.ErrorInfo{Reason: reason, Domain: Domain})
	}
	if fields := fault.FieldsOf(err); len(fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range fields[:min(len(fields), maxViolations)] {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: clip(f.Path, maxPath), Description: clip(f.Message, maxDescription),
			})
		}
		details = append(details, bad)
	}
	if after := fault.RetryAfterOf(err); after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st := status.New(kindCodes[kind], clip(err.Error(), maxMessage))
	if len(details) > 0 {
		if detailed, derr := st.WithDetails(details...); derr == nil {
			st = detailed
		}
	}
	return st.Err()
}

// relayed is the answer of another server.
type relayed struct{ grpcStatus }

// Relayed marks the status of a call as the answer of another server, to be passed
// on as it is. That server has logged it, so a [Server] whose handler returns it
// does so at debug level only. Relayed returns nil for nil.
func Relayed(st *status.Status) error {
	if err, ok := st.Err().(grpcStatus); ok { //nolint:errorlint // an error of package status
		return &relayed{err}
	}
	return nil
}

// grpcStatus is what errors that carry a status have in common.
type grpcStatus interface {
	error
	GRPCStatus() *status.Status
}

// StatusOf returns the status that a call ended with, without the words that a
// client puts around it when it gives up retrying. An error that carries none is
// UNKNOWN.
func StatusOf(err error) *status.Status {
	if e, ok := errors.AsType[grpcStatus](err); ok {
		return e.GRPCStatus()
	}
	return status.Convert(err)
}

// FromStatus returns the fault that a call's error stands for: kind, message,
// reason, fields and the time to wait. CANCELED and DEADLINE_EXCEEDED become the
// errors of package context. An error without a status is returned as it is, and
// so is nil. The status stays in the chain, for status.FromError.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[grpcStatus](err); !ok {
		return err
	}
	st := StatusOf(err)
	received := &statusError{st: st}
	switch st.Code() {
	case codes.OK:
		return nil
	case codes.Canceled:
		received.is = context.Canceled
		return received
	case codes.DeadlineExceeded:
		received.is = context.DeadlineExceeded
		return received
	}
	out := fault.Wrap(codeKinds[st.Code()], received) // absent: Internal
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				out = fault.WithReason(out, d.GetReason())
			}
		case *errdetails.BadRequest:
			fields := make([]fault.Violation, len(d.GetFieldViolations()))
			for i, v := range d.GetFieldViolations() {
				fields[i] = fault.Field(v.GetField(), v.GetDescription())
			}
			out = fault.WithFields(out, fields...)
		case *errdetails.RetryInfo:
			out = fault.RetryAfter(out, max(0, d.GetRetryDelay().AsDuration()))
		}
	}
	return out
}

// statusError is a received status that reads as its message alone.
type statusError struct {
	st *status.Status
	is error
}

func (e *statusError) Error() string {
	if e.st.Message() == "" {
		return e.st.Code().String()
	}
	return e.st.Message()
}

func (e *statusError) Unwrap() error { return e.is }

// GRPCStatus lets status.FromError see what was received.
func (e *statusError) GRPCStatus() *status.Status { return e.st }
