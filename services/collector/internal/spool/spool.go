package spool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wattfold/wattfold/services/collector/internal/durable"
)

// ErrClosed is returned by what is asked of a closed spool.
var ErrClosed = errors.New("spool is closed")

// groupCost is the least that a pending group counts towards MaxUncommitted: it
// bounds the index in memory, however small the groups are.
const groupCost = 1 << 10

// Options bound a spool.
type Options struct {
	// MaxUncommitted is how many bytes may be pending before Append waits.
	MaxUncommitted int64
	// KeepFor and KeepBytes bound what is kept of committed groups.
	KeepFor   time.Duration
	KeepBytes int64
	// SegmentBytes is the size at which a segment is closed; what is deleted is
	// whole segments.
	SegmentBytes int64
	// Now is the clock that groups are dated with; nil: time.Now.
	Now func() time.Time
}

// DefaultOptions are 1 GiB pending, 7 days or 256 MB committed.
func DefaultOptions() Options {
	return Options{
		MaxUncommitted: 1 << 30,
		KeepFor:        7 * 24 * time.Hour,
		KeepBytes:      256_000_000,
		SegmentBytes:   16 << 20,
	}
}

// ID is the place of a group. IDs rise in the order of appending, across
// restarts.
type ID struct {
	Segment uint64
	Index   uint32
}

// Compare orders IDs.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Segment, other.Segment), cmp.Compare(id.Index, other.Index))
}

// Spool is an open spool. Its methods may be called from any goroutine.
type Spool struct {
	log  *slog.Logger
	dir  string
	opts Options
	lock *os.File

	producer [16]byte
	epoch    uint64
	fresh    ID // the first group that this process may append

	mu       sync.Mutex
	closed   bool
	broken   error
	segments []*segment // ascending; the last is open if active is set
	active   *os.File
	buf      []byte
	next     map[Key]uint64 // the last number given
	keys     []*keyState
	byKey    map[Key]int
	cursors  map[string]cursor
	pending  int64 // cost of pending groups
	lost     int64
	changed  chan struct{}

	read struct {
		sync.Mutex
		segment uint64
		file    *os.File
		parsed  parsed
	}
}

type segment struct {
	number uint64
	path   string
	size   int64
	lastMS int64
	count  uint32  // groups
	groups []group // nil once committed and closed: see compact
	runs   []run   // of all groups, merged, when groups is nil
	broken bool    // holds damage that was reported
}

type group struct {
	offset int64
	size   int32 // header and payload
	timeMS int64
	runs   []run
	done   bool
}

func (g *group) cost() int64 { return max(int64(g.size), groupCost) }

type keyState struct {
	Floor
	known    bool // a floor was heard, or the key is of this process
	progress time.Time
}

type cursor struct {
	at        ID
	value     []byte
	transient bool
}

// Open opens or makes the spool in dir, which one process at a time may do.
func Open(log *slog.Logger, dir string, opts Options) (*Spool, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		log: log, dir: dir, opts: opts, lock: lock,
		next: make(map[Key]uint64), byKey: make(map[Key]int),
		cursors: make(map[string]cursor), changed: make(chan struct{}),
	}
	if err := s.load(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	return s, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock spool: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("spool %s is in use by another process: stop that or choose another directory: %w", dir, err)
	}
	return f, nil
}

func (s *Spool) load() error {
	if err := s.loadID(); err != nil {
		return err
	}
	for s.epoch == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		s.epoch = binary.LittleEndian.Uint64(b[:])
	}
	if err := s.loadCursors(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		var number uint64
		if _, err := fmt.Sscanf(name, "%016x", &number); err != nil || segmentName(number) != e.Name() {
			return fmt.Errorf("%s is no segment: move it away", e.Name())
		}
		s.segments = append(s.segments, &segment{number: number, path: filepath.Join(s.dir, e.Name())})
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	for i, seg := range s.segments {
		if err := s.scan(seg, i == len(s.segments)-1); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(seg.path), err)
		}
		for _, g := range seg.groups {
			s.pending += g.cost()
		}
	}
	number := uint64(1)
	if n := len(s.segments); n > 0 {
		number = s.segments[n-1].number + 1
	}
	for _, c := range s.cursors {
		number = max(number, c.at.Segment+1)
	}
	s.fresh = ID{Segment: number}
	return nil
}

const segmentSuffix = ".spool"

func segmentName(number uint64) string { return fmt.Sprintf("%016x%s", number, segmentSuffix) }

func (s *Spool) loadID() error {
	path := filepath.Join(s.dir, "id")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := rand.Read(s.producer[:]); err != nil {
			return err
		}
		return durable.WriteFile(s.dir, "id", []byte(hex.EncodeToString(s.producer[:])+"\n"))
	}
	if err != nil {
		return err
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != len(s.producer) {
		return fmt.Errorf("%s does not hold a producer id: restore it, or move the whole directory away to begin anew", path)
	}
	copy(s.producer[:], b)
	return nil
}

// scan indexes a segment. Newest says that its end may be a group that was
// being written when the process died.
func (s *Spool) scan(seg *segment, newest bool) error {
	data, err := os.ReadFile(seg.path)
	if err != nil {
		return err
	}
	seg.groups, seg.count, seg.lastMS, seg.size = nil, 0, 0, int64(len(data))
	var p parsed
	damaged := false
	for at := 0; at < len(data); {
		payload, ok := frame(data[at:])
		if ok {
			ok = p.parse(payload) == nil
		}
		if ok {
			s.index(seg, &p, int64(at), headerSize+len(payload))
			at += headerSize + len(payload)
			continue
		}
		more := resync(data[at+1:])
		if more < 0 && newest && torn(data[at:]) {
			s.log.Warn("dropped the end of a group that was being written when the collector stopped; it had not been published",
				"segment", filepath.Base(seg.path), "offset", at, "bytes", len(data)-at)
			seg.size = int64(at)
			return truncate(seg.path, int64(at))
		}
		skip := len(data) - at
		if more >= 0 {
			skip = more + 1
		}
		if !seg.broken {
			s.lost += int64(skip)
			s.log.Error("spool is damaged: batches are lost; what is whole around them is kept",
				"segment", filepath.Base(seg.path), "offset", at, "bytes", skip)
		}
		damaged = true
		at += skip
	}
	seg.broken = damaged
	return nil
}

// torn tells whether b, which is no whole group, is the beginning of one: all
// that the death of a process amid a write leaves. A group that has its whole
// length and fails its checksum may have been published. (A power cut may leave
// the like of one that was not: nobody can tell the two apart, so it is reported
// as well.)
func torn(b []byte) bool {
	if len(b) < headerSize {
		return bytes.HasPrefix(magic[:], b[:min(len(b), len(magic))])
	}
	size := int(binary.LittleEndian.Uint32(b[4:]))
	return [4]byte(b) == magic && size <= maxPayload && len(b)-headerSize < size
}

// resync returns where in b the next whole group begins, or -1.
func resync(b []byte) int {
	for from := 0; ; {
		i := bytes.Index(b[from:], magic[:])
		if i < 0 {
			return -1
		}
		if _, ok := frame(b[from+i:]); ok {
			return from + i
		}
		from += i + 1
	}
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// index adds a group to the end of a segment's index and remembers its cursor.
func (s *Spool) index(seg *segment, p *parsed, offset int64, size int) {
	g := group{offset: offset, size: int32(size), timeMS: p.timeMS}
	last, lastKey := Key{}, -1
	for i := range p.batches {
		b := &p.batches[i]
		if lastKey < 0 || b.Key != last {
			last, lastKey = b.Key, s.key(b.Key)
		}
		g.runs = addRun(g.runs, lastKey, b.Sequence)
	}
	g.done = s.covered(g.runs)
	if len(p.source) > 0 {
		s.remember(string(p.source), cursor{
			at: ID{Segment: seg.number, Index: seg.count}, value: slices.Clone(p.cursor), transient: p.transient,
		})
	}
	seg.groups = append(seg.groups, g)
	seg.count++
	seg.lastMS = max(seg.lastMS, g.timeMS)
}

func (s *Spool) remember(source string, c cursor) {
	if old, ok := s.cursors[source]; !ok || c.at.Compare(old.at) >= 0 {
		s.cursors[source] = c
	}
}

// key returns the place of k in the table.
func (s *Spool) key(k Key) int {
	i, ok := s.byKey[k]
	if !ok {
		i = len(s.keys)
		s.byKey[k] = i
		s.keys = append(s.keys, &keyState{Floor: Floor{Key: k}})
	}
	return i
}

func (s *Spool) covered(runs []run) bool {
	for _, r := range runs {
		if !s.keys[r.key].Covers(r.first, r.last) {
			return false
		}
	}
	return true
}

// Producer returns the spool's own id.
func (s *Spool) Producer() [16]byte { return s.producer }

// Epoch returns the epoch that was drawn when the spool was opened; never 0.
func (s *Spool) Epoch() uint64 { return s.epoch }

// ProducerOf returns the id under which a source of this spool numbers its
// batches: of the spool's partition, and the source's alone, so that two sources
// that read one meter are two producers to the ledger, which counts one.
func (s *Spool) ProducerOf(source string) [16]byte {
	sum := sha256.Sum256(append(s.producer[:], source...))
	sum[0] = s.producer[0]
	return [16]byte(sum[:16])
}

// Reserve numbers n batches of this epoch for a producer and a site and returns
// the first number. Whoever reserves must append: a number without a batch holds
// the ledger's floor down for the rest of the epoch.
func (s *Spool) Reserve(producer [16]byte, site string, n int) (key Key, first uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key = Key{Site: site, Producer: producer, Epoch: s.epoch}
	first = s.next[key] + 1
	s.next[key] += uint64(n)
	return key, first
}

// Cursor returns where the source stood after its last group.
func (s *Spool) Cursor(source string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cursors[source]
	return c.value, ok
}

// Changed returns a channel that is closed at the next Append, change of floors
// or Close. Take it before looking at what may change.
func (s *Spool) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Spool) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Append writes the group and returns when it is on the disk. While more than
// Options.MaxUncommitted is pending it waits. After an error of the disk the
// group is not in the spool, or (if even that is uncertain) the spool refuses
// everything further.
func (s *Spool) Append(ctx context.Context, g *Group) error {
	if len(g.Batches) == 0 {
		return errors.New("group has no batch")
	}
	if err := s.admit(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	timeMS := s.opts.Now().UnixMilli()
	var err error
	if s.buf, err = appendGroup(s.buf[:0], g, timeMS); err != nil {
		return err
	}
	seg, err := s.writable(int64(len(s.buf)))
	if err != nil {
		return err
	}
	if err := s.write(seg); err != nil {
		return err
	}
	p := parsed{
		timeMS: timeMS, transient: g.Transient,
		source: []byte(g.Source), cursor: g.Cursor, batches: g.Batches,
	}
	s.index(seg, &p, seg.size, len(s.buf))
	for _, r := range seg.groups[seg.count-1].runs {
		k := s.keys[r.key]
		if _, ours := s.next[k.Key]; ours {
			k.known = true
		}
	}
	if !seg.groups[seg.count-1].done {
		s.pending += seg.groups[seg.count-1].cost()
	}
	seg.size += int64(len(s.buf))
	if cap(s.buf) > 32<<20 {
		s.buf = nil
	}
	s.tell()
	return nil
}

// admit waits until there is room and returns with the lock held.
func (s *Spool) admit(ctx context.Context) error {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return ErrClosed
		case s.broken != nil:
			defer s.mu.Unlock()
			return s.broken
		case s.pending < s.opts.MaxUncommitted:
			if err := ctx.Err(); err != nil {
				s.mu.Unlock()
				return err
			}
			return nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// writable returns the open segment, a new one if that would get too large.
func (s *Spool) writable(size int64) (*segment, error) {
	if s.active != nil {
		seg := s.segments[len(s.segments)-1]
		if seg.count == 0 || seg.size+size <= s.opts.SegmentBytes {
			return seg, nil
		}
		if err := s.active.Close(); err != nil {
			return nil, fmt.Errorf("close segment: %w", err)
		}
		s.active = nil
		s.release()
	}
	number := s.fresh.Segment
	if n := len(s.segments); n > 0 {
		number = max(number, s.segments[n-1].number+1)
	}
	path := filepath.Join(s.dir, segmentName(number))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make segment: %w", err)
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("make segment: %w", err), f.Close(), os.Remove(path))
	}
	s.active = f
	seg := &segment{number: number, path: path}
	s.segments = append(s.segments, seg)
	return seg, nil
}

// write puts the buffer at the end of the open segment, for good.
func (s *Spool) write(seg *segment) error {
	_, err := s.active.WriteAt(s.buf, seg.size)
	if err != nil {
		err = fmt.Errorf("write to spool: %w", err)
		// A full disk leaves half a group, which the next write must not follow.
		if terr := s.active.Truncate(seg.size); terr != nil {
			s.broken = errors.Join(err, terr)
		}
		return err
	}
	if err := s.active.Sync(); err != nil {
		// What a failed fsync left on the disk cannot be known.
		s.broken = fmt.Errorf("sync spool: %w", err)
		return s.broken
	}
	return nil
}

// ApplyFloors takes over what a ledger says that it holds; the floors' ranges are
// the spool's from then on. Keys that the spool
// does not have are ignored; keys not named stay as they are. News tells that a
// key became known, fell that groups which were committed are pending again.
func (s *Spool) ApplyFloors(floors []Floor) (news, fell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	touched := make(map[int]bool)
	now := s.opts.Now()
	for _, f := range floors {
		i, ok := s.byKey[f.Key]
		if !ok {
			continue
		}
		k := s.keys[i]
		if news = news || !k.known; f.Floor == k.Floor.Floor && slices.Equal(f.Ranges, k.Ranges) {
			k.known = true
			continue
		}
		if f.Count() > k.Count() {
			k.progress = now
		}
		k.Floor, k.known = f, true
		touched[i] = true
	}
	if s.closed {
		return false, false
	}
	if len(touched) > 0 {
		for _, seg := range s.segments {
			fell = s.recount(seg, touched) || fell
		}
		s.release()
	}
	if news || len(touched) > 0 {
		s.tell()
	}
	return news, fell
}

// recount settles which groups of a segment are done after floors moved.
func (s *Spool) recount(seg *segment, touched map[int]bool) (fell bool) {
	if seg.groups == nil {
		if seg.count == 0 || s.covered(seg.runs) {
			return false
		}
		count := seg.count
		if err := s.scan(seg, false); err != nil || seg.count != count {
			seg.groups, seg.count = nil, count
			s.lost += seg.size
			s.log.Error("cannot read committed batches that the ledger asks for again: they are lost",
				"segment", filepath.Base(seg.path), "error", err)
			return false
		}
		seg.runs = nil
		for i := range seg.groups {
			if g := &seg.groups[i]; !g.done {
				s.pending += g.cost()
				fell = true
			}
		}
		return fell
	}
	for i := range seg.groups {
		g := &seg.groups[i]
		if !slices.ContainsFunc(g.runs, func(r run) bool { return touched[r.key] }) {
			continue
		}
		switch done := s.covered(g.runs); {
		case done && !g.done:
			s.pending -= g.cost()
			g.done = true
		case !done && g.done:
			s.pending += g.cost()
			g.done = false
			fell = true
		}
	}
	return fell
}

// Release deletes committed segments that need not be kept any longer. Append
// and ApplyFloors do so too; it is for time passing while nothing happens.
func (s *Spool) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.release()
	}
}

func (s *Spool) release() {
	closed := s.segments
	if s.active != nil {
		closed = closed[:len(closed)-1]
	}
	var committed int64
	for _, seg := range closed {
		s.compact(seg)
		if seg.groups == nil {
			committed += seg.size
		}
	}
	oldest := s.opts.Now().Add(-s.opts.KeepFor).UnixMilli()
	var deletable []*segment
	for _, seg := range closed {
		if seg.groups == nil && (committed > s.opts.KeepBytes || seg.lastMS < oldest) {
			committed -= seg.size
			deletable = append(deletable, seg)
		}
	}
	if len(deletable) == 0 {
		return
	}
	// The cursors must outlive their groups, or a replay would begin again.
	if err := s.saveCursors(deletable); err != nil {
		s.log.Error("cannot save the cursors of the spool: committed batches are kept", "error", err)
		return
	}
	gone := make(map[*segment]bool, len(deletable))
	for _, seg := range deletable {
		if err := os.Remove(seg.path); err != nil {
			s.log.Error("cannot delete a committed segment of the spool", "error", err)
			continue
		}
		gone[seg] = true
	}
	s.segments = slices.DeleteFunc(s.segments, func(seg *segment) bool { return gone[seg] })
}

// compact forgets the groups of a committed segment but for their sequences.
func (s *Spool) compact(seg *segment) {
	if seg.groups == nil || slices.ContainsFunc(seg.groups, func(g group) bool { return !g.done }) {
		return
	}
	var runs []run
	for _, g := range seg.groups {
		runs = append(runs, g.runs...)
	}
	seg.runs, seg.groups = mergeRuns(runs), nil
}

// Close closes the spool. It does not wait for anything.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.tell()
	var err error
	if s.active != nil {
		err = s.active.Close()
		s.active = nil
	}
	s.mu.Unlock()
	// Read takes its own lock first, so this one may not be held with ours.
	s.read.Lock()
	defer s.read.Unlock()
	if s.read.file != nil {
		err = errors.Join(err, s.read.file.Close())
		s.read.file = nil
	}
	return errors.Join(err, s.lock.Close())
}
