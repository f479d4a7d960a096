package collector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/proto/samplewire"
	"github.com/wattfold/wattfold/services/collector/internal/batch"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

const (
	// chunkTicks and maxOpen say where an import is cut. The sequences of an
	// import are derived from its content, so a change here changes what a file
	// imported before means: chunkVersion must change with it.
	chunkTicks   = 600
	maxOpen      = 1 << 22
	chunkVersion = 1

	// importGroupBytes is how large a group of an import gets.
	importGroupBytes = 4 << 20
	// ledgerPatience is how long an import waits for a ledger to answer at all.
	ledgerPatience = 15 * time.Second
	// committingAsk is how often the ledger is asked while an import waits.
	committingAsk = time.Second
	// maxImportID bounds the id that a user gives.
	maxImportID = 253
)

// The phases of an import, as in telemetry.v1.ImportProgress.
const (
	phaseReceiving  = "receiving"
	phaseValidating = "validating"
	phaseSpooling   = "spooling"
	phaseCommitting = "committing"
)

// progress is told how far an import is; what it returns ends the import.
type progress func(phase string, done, total uint64) error

// importRequest is a whole file with its mapping.
type importRequest struct {
	mapping csvfile.Mapping
	id      string
	replace bool
	file    *upload
}

// importResult is what telemetry.v1.ImportResult says.
type importResult struct {
	id              string
	key             spool.Key
	sum             *csvfile.Summary
	batches         uint64
	startMS, endMS  int64
	alreadyImported bool
	refused         map[string]uint64
}

// run validates the whole file, spools it, and waits until the ledger has it.
// Once the file was found right the rest follows even if ctx ends, or the
// collector does and comes back.
func (im *importer) run(ctx context.Context, req importRequest, tell progress) (*importResult, error) {
	if len(req.id) > maxImportID {
		return nil, fault.Fields(fault.Fieldf("mapping.import_id", "is longer than %d bytes", maxImportID))
	}
	c, err := im.validate(ctx, req, tell)
	if err != nil {
		return nil, err
	}
	if err := im.begin(ctx, c.key.Producer); err != nil {
		return nil, err
	}
	result := &importResult{
		id: c.id, sum: c.sum, batches: c.cutter.cuts,
		startMS: c.sum.EarliestMS + c.shiftMS, endMS: c.sum.LatestMS + c.shiftMS,
	}
	have, added, err := im.take(ctx, req, c, tell)
	if err != nil {
		return nil, err
	}
	result.key, result.alreadyImported = c.key, !added
	if have.ledger.Covers(1, c.cutter.cuts) {
		result.refused = have.refused
		return result, nil
	}
	result.refused, err = im.wait(ctx, c, tell)
	return result, err
}

// take spools what of a checked import neither the ledger nor the spool has. It
// returns what they had, and whether there was anything to add. It ends what
// begin began.
func (im *importer) take(ctx context.Context, req importRequest, c *checked, tell progress) (have holdings, added bool, err error) {
	ended := true
	defer func() {
		if ended {
			im.end(c.key.Producer)
		}
	}()
	ctx, cancel := im.lasting(ctx)
	defer cancel()
	have, err = im.chooseEpoch(ctx, req, c)
	if err != nil || have.all(c.cutter.cuts) {
		return have, false, err
	}
	if err := im.at(stepValidated); err != nil {
		return have, false, err
	}
	a := &accepted{ID: c.id, Epoch: c.key.Epoch, Content: c.content[:], Batches: c.cutter.cuts, Mapping: req.mapping}
	if err := im.store.accept(req.file, a); err != nil {
		return have, false, fault.Wrap(fault.Exhausted, err)
	}
	if err := im.finish(ctx, req.file, a, c, have, tell); err != nil {
		ended = false
		im.postpone(a)
		select {
		case im.wake <- struct{}{}:
		default:
		}
		return have, false, fault.Newf(fault.Unavailable, "import %s is stored and goes on by itself; ask again to hear how it ends: %w", c.id, err)
	}
	return have, true, nil
}

// finish spools an accepted import and forgets it.
func (im *importer) finish(ctx context.Context, file io.ReadSeeker, a *accepted, c *checked, have holdings, tell progress) error {
	if err := im.at(stepAccepted); err != nil {
		return err
	}
	if err := im.spoolAll(ctx, file, &a.Mapping, c, have, tell); err != nil {
		return err
	}
	if err := im.at(stepSpooled); err != nil {
		return err
	}
	im.metrics.rows(ctx, sourceImport, c.sum.Duplicates, c.sum.Rounded)
	im.store.forget(a)
	return nil
}

// holdings are the sequences of an import that need not be spooled.
type holdings struct {
	ledger, spool spool.Floor
	refused       map[string]uint64 // of the ledger's, by reason
}

func (h *holdings) has(sequence uint64) bool {
	return h.ledger.Covers(sequence, sequence) || h.spool.Covers(sequence, sequence)
}

func (h *holdings) all(last uint64) bool {
	for s := h.ledger.Floor + 1; s <= last; s++ {
		if !h.has(s) {
			return false
		}
	}
	return true
}

// checked is a file that was found to be right.
type checked struct {
	sum     *csvfile.Summary
	shiftMS int64
	content [16]byte
	id      string
	key     spool.Key // the epoch is chosen later
	cutter  *cutter   // of pass 1, whose cuts are all there will be
}

// validate is pass 1.
func (im *importer) validate(ctx context.Context, req importRequest, tell progress) (*checked, error) {
	m := &req.mapping
	if vs := m.Validate(); len(vs) > 0 {
		for i := range vs {
			vs[i].Path = "mapping." + vs[i].Path
		}
		return nil, fault.Fields(vs...)
	}
	info, err := req.file.Stat()
	if err != nil {
		return nil, err
	}
	scanning, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := check(scanning, req.file, m, csvfile.Options{
		NowMS: time.Now().UnixMilli(),
		Progress: func(done int64) {
			if err := tell(phaseValidating, uint64(done), uint64(info.Size())); err != nil {
				cancel(err)
			}
		},
	})
	if err != nil {
		if cause := context.Cause(scanning); cause != nil {
			err = cause
		}
		return nil, classify(err)
	}
	c.id = req.id
	if c.id == "" {
		c.id = hex.EncodeToString(c.content[:])
	}
	c.key = spool.Key{Site: m.Site, Producer: importProducer(m.Site, c.id)}
	return c, nil
}

// check scans a file and learns what pass 2 needs. Id and key are the caller's.
func check(ctx context.Context, file io.ReadSeeker, m *csvfile.Mapping, o csvfile.Options) (*checked, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	c := &checked{cutter: &cutter{}}
	o.Visit = func(node int, ms int64) { c.cutter.add(node, ms, nil) }
	var err error
	if c.sum, err = csvfile.Scan(ctx, file, m, o); err != nil {
		return nil, err
	}
	c.cutter.rest(nil)
	c.shiftMS = c.sum.ShiftMS(m.StartAtMS)
	h := sha256.New()
	h.Write([]byte{chunkVersion})
	h.Write(c.sum.Content[:])
	m.Hash(h)
	c.content = [16]byte(h.Sum(nil))
	return c, nil
}

// classify makes the mistakes of a file violations that name their lines.
func classify(err error) error {
	var problems csvfile.Problems
	if !errors.As(err, &problems) {
		return err
	}
	vs := make([]fault.Violation, len(problems))
	for i, p := range problems {
		vs[i] = fault.Field("chunk", p.Error())
	}
	return fault.WithFields(fault.Wrap(fault.Invalid, problems), vs...)
}

// importProducer is the producer of an import, the same wherever it is run.
func importProducer(site, id string) [16]byte {
	b := binary.AppendUvarint(nil, uint64(len(site)))
	b = append(append(b, site...), id...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// chooseEpoch asks the ledger what it holds of the import and sets the epoch:
// that of the same content, or a new one. It returns what is held of it.
func (im *importer) chooseEpoch(ctx context.Context, req importRequest, c *checked) (holdings, error) {
	floors, err := im.floors.insist(ctx, c.key.Site, []spool.Key{{Site: c.key.Site, Producer: c.key.Producer}}, ledgerPatience)
	if err != nil {
		return holdings{}, err
	}
	var newest ledgerFloor
	for _, f := range floors {
		if f.Key.Producer == c.key.Producer && len(f.content) > 0 && f.Key.Epoch > newest.Key.Epoch {
			newest = f
		}
	}
	// What is in the spool and not yet in the ledger counts as well.
	if saved, ok := im.spool.Cursor(importSource(c.key)); ok && len(saved) == 24 {
		if epoch := binary.LittleEndian.Uint64(saved); epoch > newest.Key.Epoch {
			newest = ledgerFloor{content: saved[8:]}
			newest.Key.Epoch = epoch
		}
	}
	switch {
	case newest.Key.Epoch == 0:
		c.key.Epoch = 1
	case bytes.Equal(newest.content, c.content[:]):
		c.key.Epoch = newest.Key.Epoch
		return holdings{ledger: newest.Floor, spool: im.spool.PendingOf(c.key), refused: newest.refused}, nil
	case req.replace:
		c.key.Epoch = newest.Key.Epoch + 1
	default:
		return holdings{}, fault.WithReason(fault.Newf(fault.Conflict,
			"import %s of site %s holds another file or mapping: give --replace to put this one in its place, or another --import-id to keep both",
			c.id, c.key.Site), "IMPORT_DIFFERS")
	}
	return holdings{}, nil
}

// importSource names the import in the spool, whose cursor is the newest epoch
// and its content.
func importSource(k spool.Key) string {
	return "import/" + k.Site + "/" + hex.EncodeToString(k.Producer[:])
}

// spoolAll is pass 2: it makes the batches that are not held.
func (im *importer) spoolAll(ctx context.Context, file io.ReadSeeker, m *csvfile.Mapping, c *checked, have holdings, tell progress) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	reader, err := csvfile.NewReader(file, m)
	if err != nil {
		return err
	}
	p := &pass2{
		im: im, ctx: ctx, c: c, have: have, series: make([]*batch.Series, len(c.sum.Nodes)),
		chunk: samplewire.Import{ID: c.id, Content: c.content[:], LastSequence: c.cutter.cuts, Replace: c.key.Epoch > 1},
		group: spool.Group{
			Source:    importSource(c.key),
			Cursor:    append(binary.LittleEndian.AppendUint64(nil, c.key.Epoch), c.content[:]...),
			Transient: true,
		},
	}
	index := make(map[string]int, len(c.sum.Nodes))
	for i, n := range c.sum.Nodes {
		index[n.Name] = i
		d := m.Descriptor(c.shiftMS)
		d.Scale = n.Scale
		p.series[i] = batch.New(n.Name, d)
	}
	var row csvfile.Row
	again := &cutter{}
	told := int64(0)
	for {
		err := reader.Next(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		node, ok := index[row.Node]
		if !ok {
			return fmt.Errorf("line %d: %w", row.Line, errFileChanged)
		}
		s, tick := p.series[node], row.TimeMS+c.shiftMS
		if last, ok := s.Last(); ok && last.TimeMS == tick {
			continue
		}
		again.add(node, tick, p.cut)
		if _, err := s.Add(batch.Reading{TimeMS: tick, Value: row.Value}); err != nil {
			return err
		}
		if p.err != nil {
			return p.err
		}
		if done := reader.Position().Offset; done-told >= 1<<20 {
			told = done
			if err := ctx.Err(); err != nil {
				return err
			}
			// The client may leave; what has begun is ended all the same.
			_ = tell(phaseSpooling, uint64(done), uint64(c.sum.Size))
		}
	}
	again.rest(p.cut)
	p.flush()
	if p.err == nil && again.cuts != c.cutter.cuts {
		return fmt.Errorf("%d batches in the second pass, %d in the first: %w", again.cuts, c.cutter.cuts, errFileChanged)
	}
	return p.err
}

// pass2 holds what is open while the batches of an import are made.
type pass2 struct {
	im     *importer
	ctx    context.Context
	c      *checked
	have   holdings
	series []*batch.Series
	chunk  samplewire.Import
	group  spool.Group
	bytes  int
	err    error
}

// cut makes the batch of a node; sequence numbers it.
func (p *pass2) cut(node int, sequence uint64) {
	if p.err != nil {
		return
	}
	s := p.series[node]
	last, _ := s.Last()
	samples := s.Open()
	closed := last.TimeMS == p.c.sum.Nodes[node].LastMS+p.c.shiftMS
	data, err := s.Cut(nil, batch.Identity{
		Producer: p.c.key.Producer, Epoch: p.c.key.Epoch, Sequence: sequence, Site: p.c.key.Site, Import: &p.chunk,
	}, closed)
	if err != nil {
		p.err = err
		return
	}
	if p.have.has(sequence) {
		return
	}
	p.group.Batches = append(p.group.Batches, spool.Batch{Key: p.c.key, Sequence: sequence, Samples: uint32(samples), Data: data})
	if p.bytes += len(data); p.bytes >= p.im.groupBytes {
		p.flush()
	}
}

func (p *pass2) flush() {
	if p.err != nil || len(p.group.Batches) == 0 {
		return
	}
	if p.err = p.im.at(stepGroup); p.err == nil {
		p.err = p.im.append(p.ctx, &p.group)
	}
	clear(p.group.Batches)
	p.group.Batches, p.bytes = p.group.Batches[:0], 0
}

// wait waits until the ledger has every batch and returns what it refused.
func (im *importer) wait(ctx context.Context, c *checked, tell progress) (map[string]uint64, error) {
	tick := time.NewTicker(committingAsk)
	defer tick.Stop()
	told := uint64(0)
	for {
		changed := im.spool.Changed()
		state, _ := im.spool.KeyState(c.key)
		if n := state.Count(); n > told || told == 0 {
			told = max(n, 1)
			if err := tell(phaseCommitting, n, c.cutter.cuts); err != nil {
				return nil, err
			}
		}
		if state.Covers(1, c.cutter.cuts) {
			return im.refused(ctx, c)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-im.stopping:
			return nil, fault.Newf(fault.Unavailable, "the collector stops; import %s is in its spool and goes on with it", c.id)
		case <-changed:
		case <-tick.C:
			// A broadcast may be missed; an answer that fails is asked for again.
			if _, err := im.floors.request(ctx, c.key.Site, []spool.Key{c.key}); err != nil && ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
}

func (im *importer) refused(ctx context.Context, c *checked) (map[string]uint64, error) {
	floors, err := im.floors.insist(ctx, c.key.Site, []spool.Key{c.key}, ledgerPatience)
	if err != nil {
		return nil, err
	}
	for _, f := range floors {
		if f.Key == c.key {
			return f.refused, nil
		}
	}
	return nil, nil
}

// cutter says where the batches of an import end, by what it is told of its
// readings alone, so that two passes over a file cut alike.
type cutter struct {
	open  []int
	last  []int64
	total int
	cuts  uint64
}

// add is told of a reading before it is added to its node's open batch; cut is
// called for every batch that ends before it.
func (c *cutter) add(node int, ms int64, cut func(node int, sequence uint64)) {
	for node >= len(c.open) {
		c.open, c.last = append(c.open, 0), append(c.last, 0)
	}
	if c.open[node] == chunkTicks || c.open[node] > 0 && ms-c.last[node] > 1<<32-1 {
		c.cut(node, cut)
	}
	if c.total == maxOpen {
		c.rest(cut)
	}
	c.open[node]++
	c.total++
	c.last[node] = ms
}

// rest ends every open batch.
func (c *cutter) rest(cut func(node int, sequence uint64)) {
	for node := range c.open {
		if c.open[node] > 0 {
			c.cut(node, cut)
		}
	}
}

func (c *cutter) cut(node int, cut func(node int, sequence uint64)) {
	c.total -= c.open[node]
	c.open[node] = 0
	c.cuts++
	if cut != nil {
		cut(node, c.cuts)
	}
}
