package calculator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/internal/fault"
)

// Reasons of errors, for programs.
const (
	reasonSiteUnknown      = "SITE_UNKNOWN"
	reasonRunUnknown       = "RUN_UNKNOWN"
	reasonProjectUnknown   = "PROJECT_UNKNOWN"
	reasonNodeUnknown      = "NODE_UNKNOWN"
	reasonComponentUnknown = "COMPONENT_UNKNOWN"
	reasonSiteDiffers      = "SITE_DIFFERS"
	reasonTooLarge         = "ANSWER_TOO_LARGE"
	reasonTokenStale       = "RESUME_TOKEN_STALE"
)

// envelope is the component that is shown beside the others, never added.
const envelope = "envelope"

// minSlot and maxSlot bound what can be asked for: what the timestamps of the API
// can name the start and the end of.
const (
	minSlot slot.Slot = -62_135_596_800 / 300
	maxSlot slot.Slot = 253_402_300_500 / 300
)

const (
	// maxGroups bounds the groups of one bucket, and the points of a series.
	maxGroups = 50_000
	// maxNodeRows bounds the sums by slot and account that an answer by node
	// holds, at some 250 bytes each.
	maxNodeRows = 1_000_000
	// provisionalMS is how long after its end a slot may still grow on time.
	provisionalMS = 3_600_000
	// minSilenceMS is how long a tick may be on its way before its absence counts:
	// collectors flush every few seconds, workloads are shipped every 10 to 30 s
	// (docs/adr/0017).
	minSilenceMS = 30_000
	// pageOfSites is how many sites are read at once.
	pageOfSites = 1000
)

// books is what queries read.
type books interface {
	Reader
	Sites
	// Incarnation and Hold are as in [Store].
	Incarnation(ctx context.Context) (string, error)
	Hold(ctx context.Context, second int64) error
}

// queries answers from the books. It writes nothing but sites.
type queries struct {
	log    *slog.Logger
	books  books
	prices *pricer
	signal *commitSignal
	now    func() time.Time
}

// newQueries makes the services that answer: register them with
// [queries.Register]. signal tells of commits.
func newQueries(log *slog.Logger, store books, grid gridClient, signal *commitSignal, now func() time.Time) *queries {
	return &queries{log: log, books: store, prices: newPricer(gridReader{grid}, now), signal: signal, now: now}
}

// dimension is what statements can be grouped by. The numbers are those of
// wattfold.ledger.v1.Dimension.
type dimension uint8

const (
	bySite      dimension = 1
	byRun       dimension = 2
	byProject   dimension = 3
	byComponent dimension = 4
	byNode      dimension = 5
)

func (d dimension) String() string {
	switch d {
	case bySite:
		return "site"
	case byRun:
		return "run"
	case byProject:
		return "project"
	case byComponent:
		return "component"
	case byNode:
		return "node"
	default:
		return fmt.Sprintf("dimension(%d)", uint8(d))
	}
}

// selection says whose energy; what is not empty must hold.
type selection struct {
	site, run, project, component, node string
}

func (s selection) filter() Filter {
	return Filter{Site: s.site, Run: s.run, Project: s.project, Component: s.component, Node: s.node}
}

// selects reports whether a component is part of the selection.
func (s selection) selects(component string) bool {
	return component != envelope || s.component == envelope
}

// span is a range of time in ms, half-open.
type span struct{ start, end int64 }

// overlap is the time that two spans share.
func (s span) overlap(o span) int64 { return max(0, min(s.end, o.end)-max(s.start, o.start)) }

// question is what is asked for.
type question struct {
	selection
	// start and end bound the range in ms; nil: the extent of the selection.
	start, end *int64
	pricing
	signals []signal
	groupBy []dimension
	buckets bucketing
}

// plan is a question of which all is known but the rows.
type plan struct {
	question
	filter Filter
	// asked is the range asked for, or the extent; from and to are the slots that
	// are summed.
	asked    span
	from, to slot.Slot
	// chunk is how many slots are read at first by who wants a page and not all,
	// then twice as many; 0: all of them in one read, of one commit.
	chunk slot.Slot
	// nowMS is the clock, or the moment as of which is asked.
	nowMS    int64
	sites    map[string]Site
	windows  []SeriesWindow
	session  *session
	rates    map[string]*rates
	rejected map[string]map[string]uint64
}

// byNodes reports whether the answer needs the details.
func (p *plan) byNodes() bool { return p.node != "" || slices.Contains(p.groupBy, byNode) }

// resolve finds out what a question is about. Of a question that goes on, at is the
// slot from which; 0: from the start.
func (q *queries) resolve(ctx context.Context, ask question, nowMS int64, at slot.Slot) (*plan, error) {
	p := &plan{question: ask, filter: ask.filter(), nowMS: nowMS, session: q.prices.open()}
	if ask.by == pricedAsOf {
		if ask.atMS > nowMS {
			return nil, fault.Fields(fault.Fieldf("pricing.as_of", "lies in the future; here it is %s",
				time.UnixMilli(nowMS).UTC().Format(time.RFC3339)))
		}
		p.nowMS = ask.atMS
		second := floorDiv(ask.atMS, 1000)
		p.filter.BookedBy = max(1, second) // 0 is no bound
		if err := q.books.Hold(ctx, second); err != nil {
			return nil, err
		}
	}
	var err error
	if p.sites, err = q.sites(ctx); err != nil {
		return nil, err
	}
	// The windows are read before the rows: what is committed in between is
	// observed twice as long for a moment, and not silent.
	if p.windows, err = q.windows(ctx, p.selection, p.filter); err != nil {
		return nil, err
	}
	if len(p.windows) == 0 {
		if err := q.known(ctx, p.selection, p.sites); err != nil {
			return nil, err
		}
	}
	if err := q.bound(ctx, p); err != nil {
		return nil, err
	}
	p.filter.From, p.filter.To = max(p.from, at), p.to
	if p.from == p.to {
		return p, nil
	}
	return p, q.price(ctx, p)
}

// windows reads the series of a selection.
func (q *queries) windows(ctx context.Context, of selection, f Filter) ([]SeriesWindow, error) {
	windows, err := q.books.SeriesWindows(ctx, f)
	return slices.DeleteFunc(windows, func(w SeriesWindow) bool { return !of.selects(w.Component) }), err
}

// bound works the range out: what is asked for, widened to slots, and for a bound
// that is not given the extent of the selection.
func (q *queries) bound(ctx context.Context, p *plan) error {
	if p.start == nil || p.end == nil {
		first, last, ok, err := q.books.Extent(ctx, p.filter)
		switch {
		case err != nil:
			return err
		case ok && first <= last:
			p.from, p.to = first, last+1
		case p.start != nil:
			p.to = minSlot // before all that may be asked for
		case p.end != nil:
			p.from = maxSlot
		}
	}
	if p.start != nil {
		p.from = max(slot.Of(*p.start), minSlot)
	}
	if p.end != nil {
		p.to = min(slot.Ceil(*p.end), maxSlot)
	}
	if p.to < p.from { // nothing on this side of the bound given
		if p.start == nil {
			p.from = p.to
		}
		p.to = p.from
	}
	p.asked = span{p.from.StartMS(), p.to.StartMS()}
	if p.start != nil {
		p.asked.start = *p.start
	}
	if p.end != nil {
		p.asked.end = *p.end
	}
	if p.by == pricedAsOf {
		p.to = max(p.from, min(p.to, slot.Of(p.atMS)))
	}
	return nil
}

// price asks for the factors of the sites that have series in the selection.
// Others, whose series were withdrawn, are asked for when their rows are met.
func (q *queries) price(ctx context.Context, p *plan) error {
	names := map[string]bool{}
	for i := range p.windows {
		names[p.windows[i].Site] = true
	}
	sites := make([]Site, 0, len(names))
	for name := range names {
		sites = append(sites, p.siteOf(name))
	}
	var err error
	p.rates, err = p.session.newRates(ctx, sites, p.signals, p.pricing, p.filter.From, p.to)
	return err
}

// siteOf returns a site as it is known; one that is not has no zone.
func (p *plan) siteOf(name string) Site {
	if s, ok := p.sites[name]; ok {
		return s
	}
	return Site{Name: name}
}

// ratesOf returns the factors of a site.
func (p *plan) ratesOf(ctx context.Context, site string) (*rates, error) {
	if r := p.rates[site]; r != nil {
		return r, nil
	}
	more, err := p.session.newRates(ctx, []Site{p.siteOf(site)}, p.signals, p.pricing, p.filter.From, p.to)
	if err != nil {
		return nil, err
	}
	if p.rates == nil {
		p.rates = map[string]*rates{}
	}
	p.rates[site] = more[site]
	return more[site], nil
}

// sites reads all sites.
func (q *queries) sites(ctx context.Context) (map[string]Site, error) {
	all := map[string]Site{}
	after := ""
	for {
		page, err := q.books.ListSites(ctx, after, pageOfSites)
		if err != nil {
			return nil, err
		}
		for _, s := range page {
			all[s.Name] = s
		}
		if len(page) < pageOfSites {
			return all, nil
		}
		after = page[len(page)-1].Name
	}
}

// known returns an error that names what of a selection the ledger has never heard
// of, so that a slip of the pen does not read as zero.
func (q *queries) known(ctx context.Context, s selection, sites map[string]Site) error {
	if _, ok := sites[s.site]; s.site != "" && !ok {
		return fault.WithReason(fault.Newf(fault.NotFound,
			"no site %q%s; it is known once it is created or its samples arrive", s.site, nearSite(sites, s.site)), reasonSiteUnknown)
	}
	for _, c := range []struct {
		word, value, reason string
		filter              Filter
	}{
		{"run", s.run, reasonRunUnknown, Filter{Run: s.run}},
		{"project", s.project, reasonProjectUnknown, Filter{Project: s.project}},
		{"node", s.node, reasonNodeUnknown, Filter{Node: s.node}},
		{"component", s.component, reasonComponentUnknown, Filter{Component: s.component}},
	} {
		if c.value == "" {
			continue
		}
		windows, err := q.books.SeriesWindows(ctx, c.filter)
		if err != nil {
			return err
		}
		if len(windows) > 0 {
			continue
		}
		_, _, ok, err := q.books.Extent(ctx, c.filter) // its series may all be withdrawn
		if err != nil {
			return err
		}
		if !ok {
			return fault.WithReason(fault.Newf(fault.NotFound,
				"no %s %q: the ledger has no samples of it", c.word, c.value), c.reason)
		}
	}
	return nil
}

// nearSite names the site that was probably meant.
func nearSite(sites map[string]Site, name string) string {
	for known := range sites {
		if strings.EqualFold(known, name) {
			return fmt.Sprintf("; did you mean %s?", known)
		}
	}
	return ""
}

// rejectedOf returns what was refused at a site, or with an empty name at all of
// them. It is read once a question: every bucket tells the same.
func (q *queries) rejectedOf(ctx context.Context, p *plan, site string) (map[string]uint64, error) {
	if counts, ok := p.rejected[site]; ok {
		return counts, nil
	}
	counts, err := q.books.Rejected(ctx, site)
	if err != nil {
		return nil, err
	}
	if p.rejected == nil {
		p.rejected = map[string]map[string]uint64{}
	}
	p.rejected[site] = counts
	return counts, nil
}

// freshness is how far the ledger is.
type freshness struct {
	lastTickMS  int64 // 0: none
	committedAt int64 // Unix seconds; 0: never
}

func (q *queries) freshness(ctx context.Context, s selection) (freshness, error) {
	tick, committed, err := q.books.Freshness(ctx, s.filter())
	return freshness{tick, committed}, err
}

// entry is a row of the ledger, of a node if the answer is by nodes.
type entry struct {
	PostingRow
	Node string
}

// errEnough ends a walk whose reader has what it wants.
var errEnough = errors.New("enough")

// walk yields the rows of a plan by slot, those of an account together. What it
// yields is valid until yield returns.
func (q *queries) walk(ctx context.Context, p *plan, yield func(*entry) error) error {
	read, chunk := q.walkAccounts, p.chunk
	if p.byNodes() {
		read = q.walkNodes
	}
	for from := p.filter.From; from < p.to; {
		part := slots{from, p.to}
		if chunk > 0 {
			part.to = min(p.to, from+chunk)
			chunk *= 2
		}
		if err := read(ctx, p, part, yield); err != nil {
			return err
		}
		from = part.to
	}
	return nil
}

// within returns the plan's filter of some of its slots. The filter cannot say slot
// 0, so what it selects is to be held against the slots again.
func (p *plan) within(part slots) Filter {
	f := p.filter
	f.From, f.To = part.from, part.to
	return f
}

func (s slots) hold(at slot.Slot) bool { return at >= s.from && at < s.to }

func (q *queries) walkAccounts(ctx context.Context, p *plan, part slots, yield func(*entry) error) error {
	var e entry
	return q.books.Postings(ctx, p.within(part), func(row PostingRow) error {
		if !part.hold(row.Slot) || !p.selects(row.Component) {
			return nil
		}
		e.PostingRow = row
		return yield(&e)
	})
}

// walkNodes sums the details, which come in the order of their commits.
func (q *queries) walkNodes(ctx context.Context, p *plan, part slots, yield func(*entry) error) error {
	type name struct {
		Account
		node string
	}
	type key struct {
		slot   slot.Slot
		booked int64
		name   int32
	}
	names := map[name]int32{}
	sums := map[key]int32{}
	var rows []entry
	err := q.books.Details(ctx, DetailFilter{Filter: p.within(part)}, func(row DetailRow) error {
		for i := range row.Parts {
			d := &row.Parts[i]
			if !part.hold(d.Slot) || !p.selects(d.Component) {
				continue
			}
			n := name{d.Account(), d.Node}
			n.Project = d.Project
			id, ok := names[n]
			if !ok {
				id = int32(len(names)) //nolint:gosec // not above maxNodeRows
				names[n] = id
			}
			k := key{d.Slot, d.Booked, id}
			at, ok := sums[k]
			if !ok || overflows(rows[at].Energy, d.Energy) { // goes on in another row
				if len(rows) == maxNodeRows {
					return tooLarge("an answer by node sums more than %d slots and accounts: ask for a shorter range, or select less",
						maxNodeRows)
				}
				at = int32(len(rows)) //nolint:gosec // not above maxNodeRows
				sums[k] = at
				rows = append(rows, entry{PostingRow: PostingRow{Account: n.Account, Slot: d.Slot, Booked: d.Booked}, Node: d.Node})
			}
			r := &rows[at]
			r.Energy += d.Energy
			r.ObservedMS += d.ObservedMS
			r.InterpolatedMS += d.InterpolatedMS
			r.MissingMS += d.MissingMS
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), compareAccounts(&a.Account, &b.Account), cmp.Compare(a.Node, b.Node))
	})
	for i := range rows {
		if err := yield(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func compareAccounts(a, b *Account) int {
	return cmp.Or(
		cmp.Compare(a.Site, b.Site),
		cmp.Compare(a.Run, b.Run),
		cmp.Compare(a.Project, b.Project),
		cmp.Compare(a.Component, b.Component),
		compareBools(a.Modelled, b.Modelled),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

func tooLarge(format string, args ...any) error {
	return fault.WithReason(fault.Newf(fault.Invalid, format, args...), reasonTooLarge)
}

// floorDiv divides towards −∞; b is positive.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
