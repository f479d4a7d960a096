// Package gateway is the one public door: it takes native gRPC calls and passes
// them on to the service that answers them, as bytes.
//
// Nothing here knows a message. What may be called is read from the descriptors
// of the packages wattfold.* that are linked in ([Methods]); a method without a
// required scope stops the gateway from being made. A call is forwarded with its
// messages unread, at the pace of the slower side, with its deadline shortened by
// what the hop costs, and with the few headers that callers may set; headers,
// trailers and the status, details included, come back unaltered. Validation is
// the backend's, where the message is read anyway.
//
// A second port serves /metrics, /livez and /readyz.
//
// There is no authentication yet. Therefore the gateway listens on loopback
// alone unless its configuration says that it may be insecure.
package gateway
