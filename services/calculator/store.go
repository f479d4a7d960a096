package calculator

import "github.com/wattfold/wattfold/services/calculator/internal/ledger"

// The contract of the books, by the names that this package uses.
type (
	// Store keeps the books; see [ledger.Store].
	Store = ledger.Store
	// Reader answers queries; see [ledger.Reader].
	Reader = ledger.Reader
	// Sites keeps the sites; see [ledger.Sites].
	Sites = ledger.Sites
	// Site is a datacentre as the ledger knows it.
	Site = ledger.Site
	// Account is what postings are summed to.
	Account = ledger.Account
	// SeriesKey names a series.
	SeriesKey = ledger.SeriesKey
	// SeriesWindow is the time over which a series was read.
	SeriesWindow = ledger.SeriesWindow
	// Filter selects accounts and slots.
	Filter = ledger.Filter
	// PostingRow is the energy of an account in a slot, of one booking.
	PostingRow = ledger.PostingRow
	// DetailFilter selects detail rows.
	DetailFilter = ledger.DetailFilter
	// DetailRow is what one batch posted.
	DetailRow = ledger.DetailRow
	// DetailPart is what one series of a batch posted to one slot.
	DetailPart = ledger.DetailPart
)
