package ledger

import (
	"context"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

// Store keeps the ledger. One process at a time writes to it; it holds a fence
// for every partition that it owns, and a commit whose fence is stale changes
// nothing and returns [ErrFenced].
//
// Every method that returns an error other than those named may have been cut
// off anywhere: a read is asked again; after a failed Commit the caller drops
// what it had in flight, reads the floors again and goes on from there, because
// the transaction may or may not have been applied.
type Store interface {
	// Acquire takes the partitions of the stream for owner with a new fence each
	// and returns where each was left off.
	Acquire(ctx context.Context, owner, stream string, partitions []int) ([]Position, error)
	// Commit applies all of a transaction or nothing. It retains nothing of tx,
	// but may leave notes in the [Series] of it. One Commit runs at a time.
	//
	// ErrFenced, ErrConflict and ErrOverflow change nothing.
	Commit(ctx context.Context, tx *Tx) (Committed, error)
	// Producers returns what the ledger holds of the producers asked for, every
	// epoch where the epoch asked for is 0. Unknown ones are left out.
	Producers(ctx context.Context, site string, keys []ProducerKey) ([]Producer, error)
	// Meters returns the spans of every device of a node.
	Meters(ctx context.Context, site, node string) ([]MeterSpan, error)
	// Incarnation names this ledger: drawn when it is made.
	Incarnation(ctx context.Context) (string, error)
	// Hold promises that whatever is committed after it returns is booked later
	// than the second given, or than now if that is earlier. It waits for a
	// commit that is under way. So what is read as of that second is final.
	Hold(ctx context.Context, second int64) error
	// Close ends the use of the store; no other method may be running.
	Close() error

	Reader
	Sites
}

// Reader answers queries. Every method sees one consistent commit; rows come in
// the order stated, and yield's error ends the walk and is returned.
type Reader interface {
	// Postings walks the postings of the filter by slot, those of an account
	// together. An account and slot has a row or more a booking; their sum counts. The
	// filter's node is not heeded: energy by node is read from the details.
	Postings(ctx context.Context, f Filter, yield func(PostingRow) error) error
	// Details walks the detail rows of the filter by id. A row has the parts that
	// the filter selects, and a row without any is left out. Ids are given in the
	// order of commits. The row and its parts are valid until yield returns.
	Details(ctx context.Context, f DetailFilter, yield func(DetailRow) error) error
	// LastDetail returns the newest id of a detail row; 0: there is none.
	LastDetail(ctx context.Context) (int64, error)
	// SeriesWindows returns the windows of the series of the filter that start
	// before its To, by key.
	SeriesWindows(ctx context.Context, f Filter) ([]SeriesWindow, error)
	// Extent returns the first and the last slot of which the postings of the
	// filter leave anything; ok is false if there never was a posting. If all were
	// taken back, last is before first.
	Extent(ctx context.Context, f Filter) (first, last slot.Slot, ok bool, err error)
	// Rejected returns refused readings, series and batches of a site, or of all
	// if it is empty, by reason.
	Rejected(ctx context.Context, site string) (map[string]uint64, error)
	// Freshness returns the newest tick of the filter in ms (0: none) and the
	// second of the newest commit.
	Freshness(ctx context.Context, f Filter) (lastTickMS, committedAt int64, err error)
}

// Sites keeps the sites. What is said of zone and PUE holds since ever.
type Sites interface {
	// CreateSite stores a site, or returns the one declared before with created
	// false. A site that was only heard of takes the words given.
	CreateSite(ctx context.Context, s Site) (stored Site, created bool, err error)
	// ListSites returns up to limit sites with names above after, by name.
	ListSites(ctx context.Context, after string, limit int) ([]Site, error)
}

// Site is a datacentre as the ledger knows it.
type Site struct {
	Name string
	// Zone is empty while it is not known.
	Zone string
	// PUE is nil while it is not known.
	PUE *unit.Decimal
	// CreatedMS is when it was created or first heard of.
	CreatedMS int64
	// Declared is false for a site only heard of through its samples.
	Declared bool
}

// ProducerKey names who numbers batches.
type ProducerKey struct {
	Producer [16]byte
	Epoch    uint64
}

// Producer is what the ledger holds of one (site, producer, epoch).
type Producer struct {
	ProducerKey
	// Floor: every sequence up to it is committed.
	Floor uint64
	// Ranges above the floor: closed, ascending, disjoint, at most [MaxRanges].
	Ranges []Range
	// Import is what the producer's batches say of their file; nil for a spool.
	Import *ImportInfo
	// Refused counts refused series and batches by reason.
	Refused map[string]uint64
}

// Complete reports whether the producer is an import that is wholly committed.
func (p *Producer) Complete() bool {
	return p.Import != nil && p.Floor >= p.Import.Last
}

// Range is a closed range of sequences.
type Range struct{ First, Last uint64 }

// MaxRanges bounds the ranges kept above a floor. A batch that would need one
// more is left to be resent.
const MaxRanges = 32

// Position is where a partition was left off in its stream.
type Position struct {
	Partition int
	Fence     int64
	// Stream names the stream that Sequence counts in; when asked for, the one
	// that it was left off in.
	Stream string
	// Sequence of the stream up to which everything is committed.
	Sequence uint64
}

// Account is what postings are summed to. Project is looked up through the run
// when it is read, because it may be corrected.
type Account struct {
	Site, Run, Project, Component string
	Modelled                      bool
}

// SeriesKey names a series: one meter, or one workload on it, for one run.
type SeriesKey struct {
	Site, Node, Device, Component, Workload, Run string
	Modelled                                     bool
}

// Account returns the account that the series posts to, without its project.
func (k SeriesKey) Account() Account {
	return Account{Site: k.Site, Run: k.Run, Component: k.Component, Modelled: k.Modelled}
}

// SeriesWindow is the time over which a series was, or should have been, read.
type SeriesWindow struct {
	SeriesKey
	// Project as in [Account]: looked up through the run when it is read.
	Project  string
	PeriodMS int64
	// FirstMS and LastMS are the first and last tick committed.
	FirstMS, LastMS int64
	// ClosedMS is the last tick of a series that said it ends; 0: it is open.
	ClosedMS int64
	// ClipStartMS and ClipEndMS are the run's declared window; 0: none.
	ClipStartMS, ClipEndMS int64
	// Booked is the second in which it was first committed.
	Booked int64
}

// Filter selects accounts and slots. Empty strings and zero bounds select all.
type Filter struct {
	Site, Run, Project, Component, Node string
	// From and To bound the slots, half-open; To 0 is no bound.
	From, To slot.Slot
	// BookedBy excludes rows booked later than this second; 0 is no bound.
	BookedBy int64
}

// PostingRow is the energy of an account in a slot, of one booking. The query's
// node is not part of it: energy by node is read from the details.
type PostingRow struct {
	Account
	Slot       slot.Slot
	Booked     int64
	Energy     unit.Energy
	ObservedMS int64
	// InterpolatedMS is part of ObservedMS.
	InterpolatedMS int64
	MissingMS      int64
}

// DetailFilter selects detail rows.
type DetailFilter struct {
	Filter
	// AfterID excludes rows up to it.
	AfterID int64
	// Limit bounds the rows; 0 is no bound.
	Limit int
}

// DetailRow is what one batch posted.
type DetailRow struct {
	ID     int64
	Booked int64
	Parts  []DetailPart
}

// DetailPart is what one series of a batch posted to one slot.
type DetailPart struct {
	SeriesKey
	Project        string
	Slot           slot.Slot
	StartMS, EndMS int64
	Energy         unit.Energy
	ObservedMS     int64
	InterpolatedMS int64
	MissingMS      int64
	// Booked as in the postings: 0 if by an hour after the slot's end.
	Booked int64
}

// MeterSpan says that a producer read a device from its first to its last tick.
// A device at an instant has one producer (docs/adr/0010). A producer has several
// spans of a device if another one's lie between them.
type MeterSpan struct {
	Device          string
	Producer        [16]byte
	FirstMS, LastMS int64
}

// Tx is everything of one interval: decoded, integrated and checked for
// newness against what the caller last read. Commit checks the newness again
// (compare and set on every producer's floor and ranges) and returns
// [ErrConflict] without a change if another one moved them.
type Tx struct {
	Owner string
	// Fences are the partitions, with the fences given by Acquire and the
	// positions to which they move, which may lie before the stored ones.
	Fences []Position
	// Batches that are new. Their parts are in the order of slots.
	Batches   []TxBatch
	Producers []ProducerMove
	Meters    []TxMeter
	// Sites that samples named; stored as heard of if not known.
	Sites []string
	// Rejected counts by site and reason.
	Rejected map[string]map[string]uint64
	// CommitMS is the caller's clock, for the second of booking.
	CommitMS int64
}

// TxBatch is what one new batch adds.
type TxBatch struct {
	Site, Node string
	ProducerKey
	Sequence uint64
	Series   []TxSeries
}

// TxSeries is what one series of a batch adds.
type TxSeries struct {
	*Series
	// FirstMS and LastMS are its first and last tick.
	FirstMS, LastMS int64
	Closed          bool
	Parts           []segment.Part
}

// Series is a series of a node as its descriptor has it: what does not change
// from batch to batch. The caller keeps one for as long as it likes.
type Series struct {
	Device, Component, Workload string
	// Run is what the series is attributed to; nil: nothing.
	Run      *Run
	PeriodMS uint32
	Modelled bool
	// Memo belongs to the store, which finds the series again by it after a
	// commit. The caller leaves it as it is, shares no Series between two nodes
	// or two stores and, after a failed commit, goes on with new ones.
	Memo Memo
}

// Key returns the series' key at a site and node.
func (s *Series) Key(site, node string) SeriesKey {
	k := SeriesKey{
		Site: site, Node: node, Device: s.Device, Component: s.Component, Workload: s.Workload,
		Modelled: s.Modelled,
	}
	if s.Run != nil {
		k.Run = s.Run.Name
	}
	return k
}

// Memo is a store's note about a series; the zero value says nothing.
type Memo struct{ Series, Account int64 }

// Run is a run as the descriptors of its series have it. A project that has
// energy without a run has it in a Run without a name.
type Run struct {
	Name, Project string
	Labels        map[string]string
	// ClipStartMS and ClipEndMS are the declared window; 0: none.
	ClipStartMS, ClipEndMS int64
}

// ProducerMove is a compare-and-set of what the ledger holds of a producer. The
// zero Producer, but for its key, is one that the ledger does not know.
//
// When the move completes an import that replaces, Commit posts the negation of
// what the producer's older epochs posted, in details too, and withdraws their
// windows and spans. The caller then reads the node's [Store.Meters] again.
type ProducerMove struct {
	Site     string
	Old, New Producer
}

// Replaces reports whether the move completes an import that replaces its older
// epochs.
func (m *ProducerMove) Replaces() bool {
	return m.New.Import != nil && m.New.Import.Replace && m.New.Complete() && !m.Old.Complete()
}

// ImportInfo tells when an import is complete and whether it replaces.
type ImportInfo struct {
	ID      string
	Content []byte
	Last    uint64
	Replace bool
}

// TxMeter is all spans that a producer has on a node, in place of those it had.
type TxMeter struct {
	Site, Node string
	Producer   [16]byte
	Spans      []MeterSpan
}

// Committed says what a commit did.
type Committed struct {
	// Booked is the second of the commit by the ledger's clock, rounded up and
	// never decreasing.
	Booked int64
	// LastDetail is the highest id of a detail row.
	LastDetail int64
}

// BookedLateMS is how long after a slot's end a posting is still on time.
const BookedLateMS = 3_600_000

// BookedOf returns the booking of a posting to the slot by a commit in the
// second: 0 if it is on time.
func BookedOf(s slot.Slot, second int64) int64 {
	if second*1000 <= s.EndMS()+BookedLateMS {
		return 0
	}
	return second
}
