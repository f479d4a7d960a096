package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

const (
	askTimeout  = 3 * time.Second
	firstAskGap = 100 * time.Millisecond
	lastAskGap  = 10 * time.Second
	// askKeys bounds a request; its answer stays far below a megabyte.
	askKeys = 1024
)

// floors keeps the spool's floors up to date: it hears what the ledger says of
// its sites after every commit, and asks at the start, every FloorsEvery, and
// when another ledger speaks.
type floors struct {
	log   *slog.Logger
	nc    *nats.Conn
	spool *spool.Spool
	every time.Duration
	moved func(fell bool)

	mu           sync.Mutex
	incarnations map[string]string // by site
	ask          chan struct{}
}

func newFloors(log *slog.Logger, nc *nats.Conn, sp *spool.Spool, every time.Duration, moved func(fell bool)) *floors {
	return &floors{
		log: log, nc: nc, spool: sp, every: every, moved: moved,
		incarnations: make(map[string]string), ask: make(chan struct{}, 1),
	}
}

// run hears and asks until ctx ends.
func (f *floors) run(ctx context.Context) error {
	heard := make(map[string]*nats.Subscription)
	defer func() {
		for _, sub := range heard {
			_ = sub.Unsubscribe() // fails only on a connection that is gone
		}
	}()
	backoff := firstAskGap
	for {
		changed := f.spool.Changed()
		known := 0
		bySite := make(map[string][]spool.Key)
		for _, k := range f.spool.Keys() {
			bySite[k.Key.Site] = append(bySite[k.Key.Site], k.Key)
			known++
		}
		var failed error
		for site, keys := range bySite {
			if heard[site] == nil {
				sub, err := f.hear(site)
				if err != nil {
					return err
				}
				heard[site] = sub
			}
			if _, err := f.request(ctx, site, keys); err != nil {
				failed = err
			}
		}
		wait := f.every
		if failed != nil {
			f.log.DebugContext(ctx, "the ledger did not say what it holds; it is asked again", "error", failed)
			wait = backoff/2 + rand.N(backoff)
			backoff = min(2*backoff, lastAskGap)
		} else {
			backoff = firstAskGap
		}
		if err := f.rest(ctx, wait, changed, known); err != nil {
			return err
		}
	}
}

// rest waits until it is time to ask, or the spool has keys that were not asked
// for.
func (f *floors) rest(ctx context.Context, wait time.Duration, changed <-chan struct{}, known int) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-f.ask:
			return nil
		case <-changed:
			changed = f.spool.Changed()
			if f.spool.KeyCount() != known {
				return nil
			}
		}
	}
}

func (f *floors) hear(site string) (*nats.Subscription, error) {
	sub, err := f.nc.Subscribe("wattfold.committed."+bus.SubjectToken(site)+".*", func(msg *nats.Msg) {
		said, err := decodeFloors(site, msg.Data)
		if err != nil {
			f.log.Warn("ignored a message of floors", "subject", msg.Subject, "error", err)
			return
		}
		if f.another(site, said.incarnation) {
			select {
			case f.ask <- struct{}{}:
			default:
			}
		}
		f.apply(said.spoolFloors())
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to the floors of site %s: %w", site, err)
	}
	return sub, nil
}

// another tells whether the ledger is another one than spoke before.
func (f *floors) another(site, incarnation string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, ok := f.incarnations[site]
	f.incarnations[site] = incarnation
	return ok && old != incarnation
}

func (f *floors) apply(floors []spool.Floor) {
	news, fell := f.spool.ApplyFloors(floors)
	if fell {
		f.log.Warn("the ledger holds less than it did: the batches it lacks are sent again")
	}
	if news || fell {
		f.moved(fell)
	}
}

// request asks the ledger what it holds of the keys, all of one site, and
// applies it. An epoch of 0 asks for every epoch; what is asked for and not
// answered is unknown there. It returns what was answered.
func (f *floors) request(ctx context.Context, site string, keys []spool.Key) ([]ledgerFloor, error) {
	var all []ledgerFloor
	for len(keys) > 0 {
		some := keys[:min(len(keys), askKeys)]
		keys = keys[len(some):]
		said, err := f.requestSome(ctx, site, some)
		if err != nil {
			return nil, err
		}
		answered := make(map[spool.Key]bool, len(said.floors))
		for _, floor := range said.floors {
			answered[floor.Key] = true
		}
		applied := said.spoolFloors()
		for _, k := range some {
			if k.Epoch != 0 && !answered[k] {
				applied = append(applied, spool.Floor{Key: k})
			}
		}
		f.another(site, said.incarnation)
		f.apply(applied)
		all = append(all, said.floors...)
	}
	return all, nil
}

func (f *floors) requestSome(ctx context.Context, site string, keys []spool.Key) (ledgerFloors, error) {
	data, err := encodeFloorsRequest(keys)
	if err != nil {
		return ledgerFloors{}, err
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := f.nc.RequestWithContext(asking, "wattfold.floors."+bus.SubjectToken(site), data)
	if err != nil {
		return ledgerFloors{}, fault.Newf(fault.Unavailable, "ask the ledger of site %s what it holds: %w", site, err)
	}
	return decodeFloors(site, answer.Data)
}

// insist is request, again and again until patience ends.
func (f *floors) insist(ctx context.Context, site string, keys []spool.Key, patience time.Duration) ([]ledgerFloor, error) {
	end := time.Now().Add(patience)
	for gap := firstAskGap; ; gap = min(2*gap, time.Second) {
		floors, err := f.request(ctx, site, keys)
		if err == nil || ctx.Err() != nil || !time.Now().Add(gap).Before(end) {
			return floors, err
		}
		timer := time.NewTimer(gap)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(err, ctx.Err())
		case <-timer.C:
		}
	}
}
