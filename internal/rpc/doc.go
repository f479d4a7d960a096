// Package rpc is how gRPC is spoken here: servers with explicit limits,
// validation, one line in the log for every failed call, written where it failed,
// and errors that arrive as they left; clients that reconnect and retry; and the same over memory.
//
//	srv := rpc.NewServer(log, rpc.Options{})
//	gridv1.RegisterGridServiceServer(srv, grid)
//	err := rpc.Serve(ctx, log, srv, listener) // until ctx ends, then drains
//
//	conn, err := rpc.Dial("calculator:9090", rpc.ClientOptions{})
//
// A handler returns plain errors or faults (package fault). [Status] makes a
// gRPC status of them, with google.rpc details; what nobody classified leaves as
// INTERNAL with a fixed text and is logged in full. At the other end
// [FromStatus] makes the same fault again:
//
//	kind         code                 details
//	Invalid      INVALID_ARGUMENT     BadRequest
//	NotFound     NOT_FOUND
//	Conflict     ALREADY_EXISTS
//	NotYet       FAILED_PRECONDITION
//	Denied       PERMISSION_DENIED
//	Exhausted    RESOURCE_EXHAUSTED   RetryInfo
//	Unavailable  UNAVAILABLE          RetryInfo
//	Internal     INTERNAL
//
// ErrorInfo, with the reason and the domain wattfold.dev, goes with every one
// that has a reason.
package rpc
