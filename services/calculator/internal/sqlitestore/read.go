package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

// conditions are what a WHERE asks for.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	c.terms = append(c.terms, term)
	c.args = append(c.args, args...)
}

func (c *conditions) text(column, value string) {
	if value != "" {
		c.add(column+" = ?", value)
	}
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// slots bounds a column of slots.
func (c *conditions) slots(column string, f ledger.Filter) {
	if f.From != 0 {
		c.add(column+" >= ?", int64(f.From))
	}
	if f.To != 0 {
		c.add(column+" < ?", int64(f.To))
	}
}

// accounts selects accounts a of sites s and runs r.
func accounts(f ledger.Filter) *conditions {
	c := new(conditions)
	c.text("s.name", f.Site)
	c.text("r.name", f.Run)
	c.text("r.project", f.Project)
	c.text("a.component", f.Component)
	return c
}

const fromAccounts = ` FROM account a JOIN run r ON r.id = a.run JOIN site s ON s.id = a.site`

// Postings implements [ledger.Reader].
func (s *Store) Postings(ctx context.Context, f ledger.Filter, yield func(ledger.PostingRow) error) error {
	return s.read(ctx, "postings", func(tx *sql.Tx) error {
		selected := accounts(f)
		names := map[int64]ledger.Account{}
		if err := each(ctx, tx, `SELECT a.id, s.name, r.name, r.project, a.component, a.modelled`+fromAccounts+selected.where(),
			selected.args, func(rows *sql.Rows) error {
				var id int64
				var a ledger.Account
				err := rows.Scan(&id, &a.Site, &a.Run, &a.Project, &a.Component, &a.Modelled)
				names[id] = a
				return err
			}); err != nil {
			return err
		}
		if len(names) == 0 {
			return nil
		}
		bounds := &conditions{terms: []string{"p.account = selected.id"}, args: selected.args}
		bounds.slots("p.slot", f)
		if f.BookedBy != 0 {
			bounds.add("p.booked <= ?", f.BookedBy)
		}
		return each(ctx, tx, `WITH selected AS MATERIALIZED (SELECT a.id`+fromAccounts+selected.where()+`)
			SELECT p.account, p.slot, p.booked, p.energy, p.observed_ms, p.interpolated_ms, p.missing_ms
			FROM selected CROSS JOIN posting p`+bounds.where()+` ORDER BY p.slot, p.account, p.booked`,
			bounds.args, func(rows *sql.Rows) error {
				var account int64
				var p ledger.PostingRow
				if err := rows.Scan(&account, &p.Slot, &p.Booked, &p.Energy, &p.ObservedMS, &p.InterpolatedMS, &p.MissingMS); err != nil {
					return err
				}
				p.Account = names[account]
				return yield(p)
			})
	})
}

// LastDetail implements [ledger.Reader].
func (s *Store) LastDetail(ctx context.Context) (int64, error) {
	var id int64
	if err := s.db.Read.QueryRowContext(ctx, `SELECT last_detail FROM ledger`).Scan(&id); err != nil {
		return 0, fmt.Errorf("ledger: last detail: %w", err)
	}
	return id, nil
}

// errEnough ends a walk that has reached its limit.
var errEnough = errors.New("enough")

// Details implements [ledger.Reader].
func (s *Store) Details(ctx context.Context, f ledger.DetailFilter, yield func(ledger.DetailRow) error) error {
	return s.read(ctx, "details", func(tx *sql.Tx) error {
		c := new(conditions)
		c.text("s.name", f.Site)
		c.text("n.name", f.Node)
		if f.To != 0 {
			c.add("d.first_slot < ?", int64(f.To))
		}
		if f.From != 0 {
			c.add("d.last_slot >= ?", int64(f.From))
			c.add("d.first_slot >= ? - n.span", int64(f.From))
		}
		// A tail is read in its order; anything else by node, and sorted.
		tables := ` FROM site s CROSS JOIN node n ON n.site = s.id CROSS JOIN detail d ON d.node = n.id`
		if f.AfterID != 0 || f.Limit != 0 || f.Node == "" && f.From == 0 && f.To == 0 {
			c.add("d.id > ?", f.AfterID)
			tables = ` FROM detail d CROSS JOIN node n ON n.id = d.node CROSS JOIN site s ON s.id = n.site`
		}
		cache := detailNames{tx: tx, nodes: map[int64]map[int64]seriesName{}}
		yielded := 0
		err := each(ctx, tx, `SELECT d.id, d.booked, d.sign, d.first_slot, d.parts, n.id, n.name, s.name`+
			tables+c.where()+` ORDER BY d.id`, c.args, func(rows *sql.Rows) error {
			row, err := cache.scan(ctx, rows, f.Filter)
			if err != nil || len(row.Parts) == 0 {
				return err
			}
			if err := yield(row); err != nil {
				return err
			}
			if yielded++; yielded == f.Limit {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
}

// detailNames are the names of the series of the nodes that a walk has met.
type detailNames struct {
	tx    *sql.Tx
	nodes map[int64]map[int64]seriesName
	parts []ledger.DetailPart
	raw   []byte
}

type seriesName struct {
	ledger.SeriesKey
	project string
}

func (c *detailNames) scan(ctx context.Context, rows *sql.Rows, f ledger.Filter) (ledger.DetailRow, error) {
	var (
		row               ledger.DetailRow
		sign, first, node int64
		nodeName, site    string
	)
	if err := rows.Scan(&row.ID, &row.Booked, &sign, &first, &c.raw, &node, &nodeName, &site); err != nil {
		return row, err
	}
	series := c.nodes[node]
	if series == nil {
		series = map[int64]seriesName{}
		if err := each(ctx, c.tx, `SELECT e.id, e.device, e.component, e.workload, e.modelled, r.name, r.project
			FROM series e JOIN run r ON r.id = e.run WHERE e.node = ?`, []any{node}, func(rows *sql.Rows) error {
			var id int64
			n := seriesName{SeriesKey: ledger.SeriesKey{Site: site, Node: nodeName}}
			err := rows.Scan(&id, &n.Device, &n.Component, &n.Workload, &n.Modelled, &n.Run, &n.project)
			series[id] = n
			return err
		}); err != nil {
			return row, err
		}
		c.nodes[node] = series
	}
	c.parts = c.parts[:0]
	err := decodeDetail(first, c.raw, func(d *detailSeries) error {
		n, known := series[d.id]
		if !known {
			return fmt.Errorf("series %d of a detail row: %w", d.id, errCorrupt)
		}
		if f.Run != "" && n.Run != f.Run || f.Project != "" && n.project != f.Project ||
			f.Component != "" && n.Component != f.Component {
			return nil
		}
		for i := range d.parts {
			p := &d.parts[i]
			booked := ledger.BookedOf(p.Slot, row.Booked)
			if f.From != 0 && p.Slot < f.From || f.To != 0 && p.Slot >= f.To || f.BookedBy != 0 && booked > f.BookedBy {
				continue
			}
			c.parts = append(c.parts, ledger.DetailPart{
				SeriesKey: n.SeriesKey, Project: n.project, Slot: p.Slot, StartMS: p.StartMS, EndMS: p.EndMS,
				Energy: unit.Energy(sign) * p.Energy, ObservedMS: sign * p.ObservedMS,
				InterpolatedMS: sign * p.InterpolatedMS, MissingMS: sign * p.MissingMS, Booked: booked,
			})
		}
		return nil
	})
	row.Parts = c.parts
	return row, err
}

// windowed selects series e of accounts a with their windows w, of nodes n.
func windowed(f ledger.Filter) *conditions {
	c := accounts(f)
	c.text("n.name", f.Node)
	if f.To != 0 {
		c.add("w.first_ms < ?", f.To.StartMS())
	}
	if f.BookedBy != 0 {
		c.add("w.booked <= ?", f.BookedBy)
	}
	return c
}

const fromWindows = fromAccounts + ` JOIN series e ON e.account = a.id JOIN node n ON n.id = e.node
	JOIN series_window w ON w.series = e.id`

// SeriesWindows implements [ledger.Reader].
func (s *Store) SeriesWindows(ctx context.Context, f ledger.Filter) ([]ledger.SeriesWindow, error) {
	var found []ledger.SeriesWindow
	c := windowed(f)
	err := s.read(ctx, "windows", func(tx *sql.Tx) error {
		return each(ctx, tx, `SELECT s.name, n.name, e.device, e.component, e.workload, r.name, r.project, e.modelled,
			w.period_ms, w.first_ms, w.last_ms, w.closed_ms, w.clip_start_ms, w.clip_end_ms, w.booked`+
			fromWindows+c.where()+` ORDER BY 1, 2, 3, 4, 5, 6, 7, 8`, c.args, func(rows *sql.Rows) error {
			var w ledger.SeriesWindow
			err := rows.Scan(&w.Site, &w.Node, &w.Device, &w.Component, &w.Workload, &w.Run, &w.Project, &w.Modelled,
				&w.PeriodMS, &w.FirstMS, &w.LastMS, &w.ClosedMS, &w.ClipStartMS, &w.ClipEndMS, &w.Booked)
			if w.ClosedMS < w.LastMS {
				w.ClosedMS = 0 // it went on
			}
			found = append(found, w)
			return err
		})
	})
	return found, err
}

// Extent implements [ledger.Reader].
func (s *Store) Extent(ctx context.Context, f ledger.Filter) (first, last slot.Slot, ok bool, err error) {
	if f.Node != "" { // the details alone know of nodes
		return ledger.ExtentOf(ctx, s, f)
	}
	inner := &conditions{terms: []string{"p.account = a.id"}}
	inner.slots("p.slot", f)
	if f.BookedBy != 0 {
		inner.add("p.booked <= ?", f.BookedBy)
	}
	outer := accounts(f)
	// The rows of a slot lie side by side, so only those are read that count.
	one := func(order string) string {
		return `(SELECT p.slot FROM posting p` + inner.where() + ` GROUP BY p.slot
			HAVING sum(p.observed_ms) <> 0 OR sum(p.missing_ms) <> 0 ORDER BY p.slot ` + order + ` LIMIT 1)`
	}
	args := append(append(append(append([]any{}, inner.args...), inner.args...), inner.args...), outer.args...)
	var low, high sql.NullInt64
	var known sql.NullBool
	err = s.db.Read.QueryRowContext(ctx, `SELECT min(low), max(high), max(known) FROM (
		SELECT `+one("ASC")+` AS low, `+one("DESC")+` AS high,
			EXISTS (SELECT 1 FROM posting p`+inner.where()+`) AS known`+fromAccounts+outer.where()+`)`, args...).
		Scan(&low, &high, &known)
	switch {
	case err != nil:
		return 0, 0, false, fmt.Errorf("ledger: extent: %w", err)
	case known.Bool && !low.Valid:
		return 0, -1, true, nil
	default:
		return slot.Slot(low.Int64), slot.Slot(high.Int64), known.Bool, nil
	}
}

// Rejected implements [ledger.Reader].
func (s *Store) Rejected(ctx context.Context, site string) (map[string]uint64, error) {
	counts := map[string]uint64{}
	c := new(conditions)
	c.text("s.name", site)
	err := s.read(ctx, "rejected", func(tx *sql.Tx) error {
		return each(ctx, tx, `SELECT x.reason, x.count FROM rejected x JOIN site s ON s.id = x.site`+c.where(), c.args,
			func(rows *sql.Rows) error {
				var reason string
				var count int64
				err := rows.Scan(&reason, &count)
				counts[reason] += uint64(count)
				return err
			})
	})
	return counts, err
}

// Freshness implements [ledger.Reader].
func (s *Store) Freshness(ctx context.Context, f ledger.Filter) (lastTickMS, committedAt int64, err error) {
	c := windowed(f)
	err = s.read(ctx, "freshness", func(tx *sql.Tx) error {
		var last sql.NullInt64
		if err := tx.QueryRowContext(ctx, `SELECT max(w.last_ms)`+fromWindows+c.where(), c.args...).Scan(&last); err != nil {
			return err
		}
		lastTickMS = last.Int64
		return tx.QueryRowContext(ctx, `SELECT last_booked FROM ledger`).Scan(&committedAt)
	})
	return lastTickMS, committedAt, err
}
