package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Message is one batch on its way to the broker.
type Message struct {
	Subject string
	// Header is shared with other messages and not to be changed; it may be nil.
	Header nats.Header
	// Data is not touched by anyone until done was called.
	Data []byte
}

// Publisher hands messages to the broker.
type Publisher interface {
	// Publish sends m and does not wait for the broker. Done is called exactly
	// once, from any goroutine and maybe before Publish returns: with nil when
	// the broker has stored m, else with an error; then m may have been stored
	// all the same, and the caller sends it again.
	Publish(m *Message, done func(error))
}

// publishError is a publish that was not acked.
type publishError struct {
	reason string
	err    error
}

func (e *publishError) Error() string { return e.reason + ": " + e.err.Error() }
func (e *publishError) Unwrap() error { return e.err }

// reasonOf is the label of the error in the metrics.
func reasonOf(err error) string {
	if p, ok := errors.AsType[*publishError](err); ok {
		return p.reason
	}
	return "other"
}

var errNoAck = &publishError{reason: "timeout", err: errors.New("the broker did not ack in time")}

// natsPublisher publishes to JetStream and matches the acks itself: of the
// client library's futures each costs a timer, a map of headers and a JSON
// parser, which together is more than the rest of the path.
type natsPublisher struct {
	nc      *nats.Conn
	prefix  string
	timeout time.Duration

	mu      sync.Mutex
	waiting map[uint64]waitingAck
	last    uint64
}

type waitingAck struct {
	done     func(error)
	deadline time.Time
}

func newNATSPublisher(nc *nats.Conn, timeout time.Duration) *natsPublisher {
	return &natsPublisher{nc: nc, prefix: nc.NewInbox() + ".", timeout: timeout, waiting: make(map[uint64]waitingAck)}
}

// run takes acks until ctx ends. It must run before anything is published.
func (p *natsPublisher) run(ctx context.Context, ready func()) error {
	sub, err := p.nc.Subscribe(p.prefix+"*", p.acked)
	if err != nil {
		return fmt.Errorf("subscribe to acks: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a connection that is gone
	// An ack that is dropped costs a second publish, so none is.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return fmt.Errorf("subscribe to acks: %w", err)
	}
	ready()
	tick := time.NewTicker(max(p.timeout/8, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			for _, done := range p.expired(now) {
				done(errNoAck)
			}
		}
	}
}

func (p *natsPublisher) expired(now time.Time) []func(error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var late []func(error)
	for id, w := range p.waiting {
		if now.After(w.deadline) {
			late = append(late, w.done)
			delete(p.waiting, id)
		}
	}
	return late
}

func (p *natsPublisher) Publish(m *Message, done func(error)) {
	p.mu.Lock()
	p.last++
	id := p.last
	p.waiting[id] = waitingAck{done: done, deadline: time.Now().Add(p.timeout)}
	p.mu.Unlock()
	msg := nats.Msg{Subject: m.Subject, Reply: p.prefix + strconv.FormatUint(id, 36), Header: m.Header, Data: m.Data}
	if err := p.nc.PublishMsg(&msg); err != nil {
		p.settle(id, &publishError{reason: "connection", err: err})
	}
}

func (p *natsPublisher) acked(msg *nats.Msg) {
	if id, err := strconv.ParseUint(msg.Subject[len(p.prefix):], 36, 64); err == nil {
		p.settle(id, ackError(msg))
	}
}

func (p *natsPublisher) settle(id uint64, err error) {
	p.mu.Lock()
	w, ok := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if ok {
		w.done(err)
	}
}

// JetStream's numbers for what passes.
const (
	errCodeInsufficient = 10023
	errCodeStreamFull   = 10077
	statusTooMany       = 429
	statusUnavailable   = "503"
)

// ackError returns nil if msg is the ack of a stream.
func ackError(msg *nats.Msg) error {
	if len(msg.Data) == 0 && msg.Header.Get("Status") == statusUnavailable {
		return &publishError{reason: "no_stream", err: nats.ErrNoResponders}
	}
	// The acks of a healthy stream have one form; only the rest is parsed.
	if bytes.HasPrefix(msg.Data, []byte(`{"stream":"`)) && !bytes.Contains(msg.Data, []byte(`"error"`)) {
		return nil
	}
	var ack struct {
		Stream string `json:"stream"`
		Error  *struct {
			Code        int    `json:"code"`
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &ack); err != nil || ack.Error == nil && ack.Stream == "" {
		return &publishError{reason: "bad_ack", err: fmt.Errorf("the broker answered %.100q", msg.Data)}
	}
	if ack.Error == nil {
		return nil
	}
	err := &publishError{reason: "refused", err: fmt.Errorf("%s (%d)", ack.Error.Description, ack.Error.ErrCode)}
	switch {
	case ack.Error.ErrCode == errCodeStreamFull:
		err.reason = "stream_full"
	case ack.Error.ErrCode == errCodeInsufficient:
		err.reason = "insufficient_resources"
	case ack.Error.Code == statusTooMany:
		err.reason = "too_many_requests"
	}
	return err
}
