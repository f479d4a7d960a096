package calculator

import (
	"context"

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
	// Commit applies all of a transaction or nothing. It returns the second it
	// was booked in and which batches of it were new; the others were in the
	// ledger before and their effects must not be part of tx: see [Tx].
	Commit(ctx context.Context, tx *Tx) (Committed, error)
	// Producers returns what the ledger holds of the producers asked for, every
	// epoch where the epoch asked for is 0. Unknown ones are left out.
	Producers(ctx context.Context, site string, keys []ProducerKey) ([]Producer, error)
	// Meters returns the spans of every device of a node.
	Meters(ctx context.Context, site, node string) ([]MeterSpan, error)
	// Incarnation names this ledger: drawn when it is made.
	Incarnation(ctx context.Context) (string, error)

	Reader
	Sites
}

// Reader answers queries. Every method sees one consistent commit; rows come in
// the order stated, and yield's error ends the walk and is returned.
type Reader interface {
	// Postings walks the postings of the filter by slot, then account.
	Postings(ctx context.Context, f Filter, yield func(PostingRow) error) error
	// Details walks the detail rows of the filter by id.
	Details(ctx context.Context, f DetailFilter, yield func(DetailRow) error) error
	// SeriesWindows returns the known windows of the series of the filter.
	SeriesWindows(ctx context.Context, f Filter) ([]SeriesWindow, error)
	// Extent returns the first and the last slot with a posting of the filter;
	// ok is false if there is none.
	Extent(ctx context.Context, f Filter) (first, last slot.Slot, ok bool, err error)
	// Rejected returns refused readings, series and batches by reason.
	Rejected(ctx context.Context, site string) (map[string]uint64, error)
	// Freshness returns the newest tick of the filter in ms (0: none) and the
	// second of the newest commit.
	Freshness(ctx context.Context, f Filter) (lastTickMS, committedAt int64, err error)
}

// Sites keeps the sites. What is said of zone and PUE holds since ever.
type Sites interface {
	// CreateSite stores a site, or returns the stored one with created false.
	// A site that was only heard of takes the words given.
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
	// Content is the content hash of an import; nil for a spool.
	Content []byte
	// Refused counts refused series and batches by reason.
	Refused map[string]uint64
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
// A device at an instant has one producer (docs/adr/0010).
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
	Owner     string
	Stream    string
	Fences    []Position
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
	SeriesKey
	Project  string
	Labels   map[string]string
	PeriodMS int64
	FirstMS  int64
	LastMS   int64
	Closed   bool
	// ClipStartMS and ClipEndMS are the run's declared window; 0: none.
	ClipStartMS, ClipEndMS int64
	Parts                  []DetailPart
}

// ProducerMove is a compare-and-set of what the ledger holds of a producer.
type ProducerMove struct {
	Site     string
	Old, New Producer
	// Import is set for the batches of an import.
	Import *ImportInfo
}

// ImportInfo tells when an import is complete and what it replaces.
type ImportInfo struct {
	ID      string
	Content []byte
	Last    uint64
	Replace bool
}

// TxMeter is a new or longer span of a device.
type TxMeter struct {
	Site, Node string
	MeterSpan
}

// Committed says what a commit did.
type Committed struct {
	// Booked is the second of the commit by the ledger's clock, rounded up and
	// never decreasing.
	Booked int64
	// LastDetail is the highest id of a detail row.
	LastDetail int64
}
