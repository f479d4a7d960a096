package collector

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

const (
	// firstAgain doubles up to lastAgain while an accepted import cannot go on.
	firstAgain = 500 * time.Millisecond
	lastAgain  = 30 * time.Second
)

var (
	errStopping = fault.New(fault.Unavailable, "the collector stops: ask again once it runs")
	// errFileChanged is of a stored file that is not what was accepted.
	errFileChanged = errors.New("the stored file is not what was accepted")
)

// importStep is where a test can stop an import.
type importStep string

// The steps: before an import is accepted, behind that, before each group, and
// behind the last.
const (
	stepValidated importStep = "validated"
	stepAccepted  importStep = "accepted"
	stepGroup     importStep = "group"
	stepSpooled   importStep = "spooled"
)

// importer takes whole files through the spool. Of a producer one import runs at
// a time; one that was accepted runs until it is in the spool, if need be in
// another process (see resume).
type importer struct {
	log        *slog.Logger
	spool      *spool.Spool
	store      *importStore
	append     func(ctx context.Context, g *spool.Group) error
	floors     *floors
	metrics    *metrics
	groupBytes int
	at         func(importStep) error

	stopping chan struct{} // closed by close
	drained  chan struct{} // closed once what was unfinished at the start has ended
	wake     chan struct{}

	mu      sync.Mutex
	closed  bool
	working sync.WaitGroup             // imports at work on the store and the spool
	running map[[16]byte]chan struct{} // by producer; closed when it has ended
	backlog []*accepted                // running, with nobody at work on them
}

func newImporter(s *Service, st *importStore, unfinished []*accepted, o *options) *importer {
	im := &importer{
		log: s.log, spool: s.spool, store: st, append: s.append, floors: s.floors, metrics: s.metrics,
		groupBytes: o.importGroupBytes, at: o.importStep,
		stopping: make(chan struct{}), drained: make(chan struct{}), wake: make(chan struct{}, 1),
		running: make(map[[16]byte]chan struct{}), backlog: unfinished,
	}
	for _, a := range unfinished {
		im.running[a.key().Producer] = make(chan struct{})
	}
	if len(unfinished) == 0 {
		close(im.drained)
	}
	return im
}

// begin counts an import of the producer in, once no other is running.
func (im *importer) begin(ctx context.Context, producer [16]byte) error {
	for {
		im.mu.Lock()
		busy, closed := im.running[producer], im.closed
		if busy == nil && !closed {
			im.running[producer] = make(chan struct{})
			im.working.Add(1)
		}
		im.mu.Unlock()
		switch {
		case closed:
			return errStopping
		case busy == nil:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-im.stopping:
			return errStopping
		case <-busy:
		}
	}
}

// end counts it out.
func (im *importer) end(producer [16]byte) {
	im.mu.Lock()
	close(im.running[producer])
	delete(im.running, producer)
	im.mu.Unlock()
	im.working.Done()
}

// postpone leaves an accepted import to resume. It goes on to be running, so
// that no other of the producer begins before it has ended.
func (im *importer) postpone(a *accepted) {
	im.mu.Lock()
	im.backlog = append(im.backlog, a)
	im.mu.Unlock()
	im.working.Done()
}

// pick takes the first import of the backlog.
func (im *importer) pick() *accepted {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed || len(im.backlog) == 0 {
		return nil
	}
	a := im.backlog[0]
	im.backlog = im.backlog[1:]
	im.working.Add(1)
	return a
}

func (im *importer) left() int {
	im.mu.Lock()
	defer im.mu.Unlock()
	return len(im.backlog)
}

// close ends all work, and with it every use of the store and the spool.
func (im *importer) close() {
	im.mu.Lock()
	im.closed = true
	im.mu.Unlock()
	close(im.stopping)
	im.working.Wait()
}

// lasting returns a context that does not end with ctx but when the collector
// does.
func (im *importer) lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-im.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// resume spools what was accepted and has not ended, be it that the process
// before this one did not get there, or that the disk or the ledger failed.
func (im *importer) resume(ctx context.Context) error {
	first := im.left() > 0
	gap := firstAgain
	for {
		for range im.left() {
			a := im.pick()
			if a == nil {
				break
			}
			if err := im.resumeOne(ctx, a); err != nil {
				im.postpone(a)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				im.log.Warn("an accepted import cannot go on; it is tried again", "import", a.ID, "error", err)
			}
		}
		var again <-chan time.Time
		switch left := im.left(); {
		case left > 0:
			again = time.After(gap)
			gap = min(2*gap, lastAgain)
		case first:
			first = false
			close(im.drained)
			fallthrough
		default:
			gap = firstAgain
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-im.wake:
		}
	}
}

// resumeOne spools the rest of an accepted import and ends it.
func (im *importer) resumeOne(ctx context.Context, a *accepted) error {
	err := im.finishStored(ctx, a)
	var problems csvfile.Problems
	switch {
	case errors.Is(err, errFileChanged), errors.Is(err, os.ErrNotExist), errors.As(err, &problems):
		im.log.Error("the file of an accepted import was damaged on the disk and cannot be imported as a whole: import it again",
			"import", a.ID, "site", a.Mapping.Site, "error", err)
		im.store.forget(a)
	case err != nil:
		return err
	default:
		im.log.Info("an accepted import that had not ended is in the spool", "import", a.ID, "site", a.Mapping.Site, "batches", a.Batches)
	}
	im.end(a.key().Producer)
	return nil
}

func (im *importer) finishStored(ctx context.Context, a *accepted) error {
	file, err := im.store.open(a)
	if err != nil {
		return err
	}
	defer file.Close()
	// It was validated by the clock of when it came.
	c, err := check(ctx, file, &a.Mapping, csvfile.Options{AnyYear: true})
	if err != nil {
		return err
	}
	if !bytes.Equal(c.content[:], a.Content) || c.cutter.cuts != a.Batches {
		return errFileChanged
	}
	c.id, c.key = a.ID, a.key()
	floors, err := im.floors.insist(ctx, c.key.Site, []spool.Key{c.key}, ledgerPatience)
	if err != nil {
		return err
	}
	have := holdings{spool: im.spool.PendingOf(c.key)}
	for _, f := range floors {
		if f.Key == c.key {
			have.ledger = f.Floor
		}
	}
	return im.finish(ctx, file, a, c, have, func(string, uint64, uint64) error { return nil })
}
