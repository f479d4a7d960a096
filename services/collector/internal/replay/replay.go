package replay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/wattfold/wattfold/services/collector/internal/batch"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

const (
	// groupBytes is when a group is flushed however young it is.
	groupBytes = 4 << 20
	// rushInterval is how old a group gets at full speed.
	rushInterval = 200 * time.Millisecond
	// farAhead is how far in the future a replay may be told to end.
	farAhead = 10 * 365 * 24 * time.Hour
	// lastWords is how long a stopped replay may take to spool what is open.
	lastWords = 2 * time.Second
)

// Sink is the spool as a replay sees it.
type Sink interface {
	// Reserve numbers a batch of a source and a site.
	Reserve(source, site string, n int) (key spool.Key, first uint64)
	// Append returns when the group is on the disk; it waits while there is no
	// room.
	Append(ctx context.Context, g *spool.Group) error
	// Cursor returns the cursor of the source's last group.
	Cursor(source string) ([]byte, bool)
}

// Config says what is replayed, and how.
type Config struct {
	// Name is what the cursor is kept under; empty: derived from content and
	// mapping.
	Name string
	// Open opens the file.
	Open func() (io.ReadSeekCloser, error)
	// Mapping is valid.
	Mapping csvfile.Mapping
	// Speed is by how much faster than it was the file is played; 0: as fast as
	// it goes.
	Speed float64
	// Loop begins again at the end, moved on by the file's span and one step. The
	// mapping has no run_start or run_stop then.
	Loop bool
	// Live plays on the wall clock; Speed is 1 then.
	Live bool
	// StartNow moves the earliest row to when the replay first starts.
	StartNow bool
	// Ticks is how many readings a batch has at most.
	Ticks int
	// Interval is how old a group gets.
	Interval time.Duration
	// Count, if not nil, is told with every flush how many rows were duplicates
	// and how many were rounded since the one before.
	Count func(ctx context.Context, duplicates, rounded uint64)
}

// Replay plays one file. Make it with [New] and call Run once.
type Replay struct {
	log  *slog.Logger
	cfg  Config
	sink Sink

	source  string
	sum     *csvfile.Summary
	cur     cursor
	series  map[string]*batch.Series
	order   []*batch.Series // of nodes with a reading, as first seen
	last    map[string]int64
	stepMS  int64
	group   spool.Group
	bytes   int
	flushBy time.Time // when the open rows are to be flushed; zero: none are open
	newest  int64
	dropped struct{ duplicates, rounded uint64 } // since the last flush
	anchor  struct {
		wall time.Time
		ms   int64
		set  bool
	}
}

// New returns a replay of a valid config.
func New(log *slog.Logger, cfg Config, sink Sink) *Replay {
	return &Replay{log: log, cfg: cfg, sink: sink, series: make(map[string]*batch.Series), last: make(map[string]int64)}
}

// Run plays until the file ends (never, if it loops) or ctx does; then it spools
// what is open. It returns nil if the file ended.
func (r *Replay) Run(ctx context.Context) error {
	f, err := r.cfg.Open()
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer f.Close()
	if err := r.prepare(ctx, f); err != nil {
		return fmt.Errorf("replay %s: %w", r.cfg.Mapping.File, err)
	}
	reader, err := r.begin(f)
	if err != nil {
		return fmt.Errorf("replay %s: %w", r.cfg.Mapping.File, err)
	}
	err = r.play(ctx, f, reader)
	if err != nil && ctx.Err() != nil {
		// Stopped, not failed: what was read goes into the spool if that is quick.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		if ferr := r.flush(last); ferr != nil {
			r.log.Warn("replay stopped with an open group; it goes on at the last whole one", "source", r.source, "error", ferr)
		}
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("replay %s: %w", r.cfg.Mapping.File, err)
	}
	r.log.Info("replay has ended", "source", r.source)
	return nil
}

// prepare checks the file as a whole and finds where to go on.
func (r *Replay) prepare(ctx context.Context, f io.ReadSeeker) error {
	m := &r.cfg.Mapping
	opts := csvfile.Options{NowMS: time.Now().UnixMilli(), AnyYear: r.cfg.StartNow}
	if m.StartAtMS != nil {
		// Ticks of the future wait for their time; see due.
		opts.NowMS += farAhead.Milliseconds()
	}
	sum, err := csvfile.Scan(ctx, f, m, opts)
	if err != nil {
		return err
	}
	r.sum = sum
	if r.paced() && !sum.InOrder {
		return errors.New("the rows are not in order of time: sort the whole file by time, or replay it at speed max")
	}
	h := sha256.New()
	h.Write(sum.Content[:])
	m.Hash(h)
	r.cur.fingerprint = [16]byte(h.Sum(nil))
	name := r.cfg.Name
	if name == "" {
		name = hex.EncodeToString(r.cur.fingerprint[:])
	}
	r.source = "replay/" + name
	r.stepMS = int64(m.PeriodMS)
	if r.stepMS == 0 {
		r.stepMS = max(sum.MedianStepMS, 1)
	}
	for _, n := range sum.Nodes {
		r.last[n.Name] = n.LastMS
	}
	resumed, err := r.resume()
	if err != nil {
		return err
	}
	for _, n := range sum.Nodes {
		d := m.Descriptor(r.cur.shiftMS)
		d.Scale = n.Scale
		r.series[n.Name] = batch.New(n.Name, d)
	}
	for _, n := range r.cur.last {
		s := r.series[n.node]
		if s == nil {
			return errCursor
		}
		s.Resume(n.reading)
		r.order = append(r.order, s)
		r.newest = max(r.newest, n.reading.TimeMS)
	}
	r.log.Info("replaying", "source", r.source, "file", m.File, "nodes", len(sum.Nodes), "rows", sum.Rows,
		"duplicate_rows", sum.Duplicates, "rounded", sum.Rounded, "shift_ms", r.cur.shiftMS,
		"resumed", resumed, "line", r.cur.at.Line, "loops", r.cur.loops)
	return nil
}

// resume takes over the cursor of the last whole group, or fixes the shift.
func (r *Replay) resume() (bool, error) {
	saved, ok := r.sink.Cursor(r.source)
	if !ok {
		switch {
		case r.cfg.StartNow:
			r.cur.shiftMS = time.Now().UnixMilli() - r.sum.EarliestMS
		default:
			r.cur.shiftMS = r.sum.ShiftMS(r.cfg.Mapping.StartAtMS)
		}
		return false, nil
	}
	fingerprint := r.cur.fingerprint
	if err := r.cur.parse(saved); err != nil {
		return false, err
	}
	if r.cur.fingerprint != fingerprint {
		return false, fmt.Errorf("file or mapping changed since the replay %q began: give it another name to begin anew", r.cfg.Name)
	}
	return true, nil
}

// begin opens the file where the replay goes on.
func (r *Replay) begin(f io.ReadSeeker) (*csvfile.Reader, error) {
	reader, err := r.rewind(f)
	if err != nil {
		return nil, err
	}
	switch {
	case r.cfg.Live:
		now := max(time.Now().UnixMilli(), r.newest+1)
		if r.cfg.Loop {
			r.cur.loops = max(0, (now-r.sum.EarliestMS-r.cur.shiftMS)/r.cycle())
		}
		return reader, r.skipTo(reader, now)
	case r.cur.at.Offset > 0:
		return reader, reader.Seek(r.cur.at)
	}
	return reader, nil
}

func (r *Replay) rewind(f io.ReadSeeker) (*csvfile.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return csvfile.NewReader(f, &r.cfg.Mapping)
}

// skipTo leaves the reader before the first row at or after an instant.
func (r *Replay) skipTo(reader *csvfile.Reader, ms int64) error {
	var row csvfile.Row
	for {
		at := reader.Position()
		switch err := reader.Next(&row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case row.TimeMS+r.shift() >= ms:
			return reader.Seek(at)
		}
	}
}

// cycle is by how much each time through is moved against the one before.
func (r *Replay) cycle() int64 { return r.sum.LatestMS - r.sum.EarliestMS + r.stepMS }

// shift is by how much the clock of this time through is moved.
func (r *Replay) shift() int64 { return r.cur.shiftMS + r.cur.loops*r.cycle() }

func (r *Replay) paced() bool { return r.cfg.Live || r.cfg.Speed > 0 }

func (r *Replay) interval() time.Duration {
	if r.paced() {
		return r.cfg.Interval
	}
	return min(r.cfg.Interval, rushInterval)
}

func (r *Replay) play(ctx context.Context, f io.ReadSeeker, reader *csvfile.Reader) error {
	var row csvfile.Row
	for n := 0; ; {
		switch err := reader.Next(&row); {
		case errors.Is(err, io.EOF):
			if !r.cfg.Loop {
				return r.flush(ctx)
			}
			r.cur.loops++
			if reader, err = r.rewind(f); err != nil {
				return err
			}
			r.cur.at = reader.Position()
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		n++
		tick := row.TimeMS + r.shift()
		if err := r.pace(ctx, tick); err != nil {
			return err
		}
		if err := r.add(&row, tick); err != nil {
			return err
		}
		r.cur.at = reader.Position()
		if r.bytes >= groupBytes || n%256 == 0 && !r.paced() && !r.flushBy.IsZero() && !time.Now().Before(r.flushBy) {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		if n%256 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
}

// pace waits until the tick's turn has come, and meanwhile flushes what gets old.
func (r *Replay) pace(ctx context.Context, tick int64) error {
	due, wait := r.due(tick)
	for wait {
		now := time.Now()
		old := !r.flushBy.IsZero() && !now.Before(r.flushBy)
		if old {
			if err := r.flush(ctx); err != nil {
				return err
			}
			continue
		}
		if !now.Before(due) {
			return nil
		}
		until := due
		if !r.flushBy.IsZero() && r.flushBy.Before(until) {
			until = r.flushBy
		}
		timer := time.NewTimer(until.Sub(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
	return nil
}

// due says when a tick may be played; wait is false if at once.
func (r *Replay) due(tick int64) (due time.Time, wait bool) {
	if !r.anchor.set {
		r.anchor.wall, r.anchor.ms, r.anchor.set = time.Now(), tick, true
	}
	switch {
	case r.cfg.Live:
		return time.UnixMilli(tick), true
	case r.cfg.Speed > 0:
		ahead := float64(tick-r.anchor.ms) / r.cfg.Speed * float64(time.Millisecond)
		due = r.anchor.wall.Add(time.Duration(min(ahead, math.MaxInt64/2)))
		wait = true
	}
	// Nobody sends ticks of the future, and a loop at full speed gets there.
	if door := time.UnixMilli(tick).Add(-csvfile.MaxAhead); door.After(r.anchor.wall) && door.After(due) {
		return door, true
	}
	return due, wait
}

func (r *Replay) add(row *csvfile.Row, tick int64) error {
	s := r.series[row.Node]
	if s == nil {
		return fmt.Errorf("%s:%d: node %s: the file changed since it was checked", r.cfg.Mapping.File, row.Line, row.Node)
	}
	if !s.Fits(tick) {
		if err := r.cut(s, false); err != nil {
			return err
		}
	}
	_, seen := s.Last()
	added, err := s.Add(batch.Reading{TimeMS: tick, Value: row.Value})
	if err != nil {
		return err
	}
	if row.Rounded {
		r.dropped.rounded++
	}
	if !added {
		r.dropped.duplicates++
		return nil
	}
	if !seen {
		r.order = append(r.order, s)
	}
	if r.flushBy.IsZero() {
		r.flushBy = time.Now().Add(r.interval())
	}
	if closed := r.closes(s); closed || s.Open() >= r.cfg.Ticks {
		return r.cut(s, closed)
	}
	return nil
}

// closes tells whether the last reading is the node's last for ever.
func (r *Replay) closes(s *batch.Series) bool {
	last, _ := s.Last()
	return !r.cfg.Loop && last.TimeMS == r.last[s.Node()]+r.cur.shiftMS
}

// cut puts the open batch of a series into the group.
func (r *Replay) cut(s *batch.Series, closed bool) error {
	if s.Open() == 0 {
		return nil
	}
	key, sequence := r.sink.Reserve(r.source, r.cfg.Mapping.Site, 1)
	samples := s.Open()
	data, err := s.Cut(nil, batch.Identity{Producer: key.Producer, Epoch: key.Epoch, Sequence: sequence, Site: key.Site}, closed)
	if err != nil {
		return err
	}
	r.group.Batches = append(r.group.Batches, spool.Batch{Key: key, Sequence: sequence, Samples: uint32(samples), Data: data})
	r.bytes += len(data)
	return nil
}

// flush makes everything read so far durable, as one group with its cursor.
func (r *Replay) flush(ctx context.Context) error {
	for _, s := range r.order {
		if err := r.cut(s, false); err != nil {
			return err
		}
	}
	if len(r.group.Batches) == 0 {
		r.flushBy = time.Time{}
		r.count(ctx)
		return nil
	}
	r.cur.last = r.cur.last[:0]
	for _, s := range r.order {
		last, _ := s.Last()
		r.cur.last = append(r.cur.last, nodeReading{node: s.Node(), reading: last})
	}
	r.group.Source, r.group.Cursor = r.source, r.cur.append(r.group.Cursor[:0])
	if err := r.sink.Append(ctx, &r.group); err != nil {
		return err
	}
	clear(r.group.Batches)
	r.group.Batches = r.group.Batches[:0]
	r.bytes, r.flushBy = 0, time.Time{}
	r.count(ctx)
	return nil
}

func (r *Replay) count(ctx context.Context) {
	if r.cfg.Count != nil {
		r.cfg.Count(ctx, r.dropped.duplicates, r.dropped.rounded)
	}
	r.dropped.duplicates, r.dropped.rounded = 0, 0
}
