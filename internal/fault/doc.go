// Package fault sorts errors into the few kinds that a caller can act on.
//
// A kind is given once, where the error is understood, and translated once, at
// the edge: package rpc turns it into a gRPC status and back. The zero kind is
// [Internal], so that an error nobody classified is ours, is logged in full
// and is not shown to the caller.
//
//	return fault.WithReason(fault.Newf(fault.NotFound, "no zone %s", zone), "ZONE_UNKNOWN")
//	return fault.Fields(fault.Field("pue", "must be at least 1"))
//
// Faults are ordinary errors: they wrap, and [KindOf], [ReasonOf], [FieldsOf]
// and [RetryAfterOf] read through wrapping. The outermost classification wins.
package fault
