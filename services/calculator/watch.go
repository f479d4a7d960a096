package calculator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wattfold/wattfold/carbon/account"
	"github.com/wattfold/wattfold/internal/fault"
)

const (
	// signOfLife is how long a watcher hears nothing at most.
	signOfLife = 30 * time.Second
	// watchRows and watchParts bound what is read at once, and priced by factors
	// asked for once.
	watchRows, watchParts = 256, 20_000
	// watchSegments bounds the segments of one answer: some 250 bytes each.
	watchSegments = 10_000
)

// watched is the place of a watcher: behind the first Parts parts of a row.
type watched struct {
	Ledger string `json:"l"` // its incarnation: ids are given anew in another one
	ID     int64  `json:"i"`
	Parts  int    `json:"p,omitempty"`
}

// pricedPart is a part of a row and what prices it.
type pricedPart struct {
	DetailPart
	rates  *rates
	factor *factor // nil: no data
	grams  float64
}

// priced reports whether the part has a factor and a PUE.
func (s *pricedPart) priced() bool { return s.factor != nil && s.rates.pue != nil }

// watchRow is a detail row that outlives its walk.
type watchRow struct {
	id    int64
	parts []DetailPart
}

// begin returns the place where a watcher begins that says nothing else.
func (q *queries) begin(ctx context.Context, fromStart bool) (watched, error) {
	incarnation, err := q.books.Incarnation(ctx)
	if err != nil || fromStart {
		return watched{Ledger: incarnation}, err
	}
	last, err := q.books.LastDetail(ctx)
	return watched{Ledger: incarnation, ID: last}, err
}

// resume checks the place where a watcher goes on.
func (q *queries) resume(ctx context.Context, at watched) error {
	incarnation, err := q.books.Incarnation(ctx)
	if err != nil {
		return err
	}
	last, err := q.books.LastDetail(ctx)
	if err != nil {
		return err
	}
	// A ledger that was restored from a back-up gives its ids anew.
	if at.Ledger != incarnation || at.ID > last {
		return fault.WithReason(fault.WithFields(
			fault.New(fault.Invalid, "the resume token is of another ledger: begin anew, from the start or from now"),
			fault.Field("resume_token", "of another ledger"),
		), reasonTokenStale)
	}
	return nil
}

// watch tells what is committed behind a place until ctx ends: every row in one
// call of send, or more if it is long, with the place behind it. After signOfLife
// without any it sends nothing, with the place.
func (q *queries) watch(
	ctx context.Context, of selection, by signal, at watched, send func([]pricedPart, watched) error,
) error {
	quiet := time.NewTimer(signOfLife)
	defer quiet.Stop()
	speak := func(parts []pricedPart, behind watched) error {
		quiet.Reset(signOfLife)
		return send(parts, behind)
	}
	for {
		// Before reading, so that no commit falls in between.
		wake := q.signal.Wait()
		rows, upTo, err := q.read(ctx, of, at)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			if err := q.tell(ctx, by, rows, &at, speak); err != nil {
				return err
			}
		}
		if upTo > at.ID {
			at = watched{Ledger: at.Ledger, ID: upTo}
		}
		if len(rows) > 0 && upTo == 0 {
			continue // there may be more
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-quiet.C:
			if err := speak(nil, at); err != nil {
				return err
			}
		}
	}
}

// read copies rows behind a place. upTo is the id up to which these are all; 0: the
// walk was cut short.
func (q *queries) read(ctx context.Context, of selection, at watched) (rows []watchRow, upTo int64, err error) {
	// Read first: what is committed later is read twice rather than missed.
	upTo, err = q.books.LastDetail(ctx)
	if err != nil || upTo <= at.ID && at.Parts == 0 {
		return nil, upTo, err
	}
	f := DetailFilter{Filter: of.filter(), AfterID: at.ID, Limit: watchRows}
	if at.Parts > 0 {
		f.AfterID--
	}
	parts, walked := 0, 0
	err = q.books.Details(ctx, f, func(row DetailRow) error {
		walked++
		copied := watchRow{id: row.ID, parts: slices.DeleteFunc(slices.Clone(row.Parts), func(d DetailPart) bool {
			// A gap is no segment: nothing was read in it.
			return !of.selects(d.Component) || d.Energy == 0 && d.ObservedMS == 0
		})}
		if row.ID == at.ID {
			copied.parts = copied.parts[min(at.Parts, len(copied.parts)):]
		}
		rows = append(rows, copied) // one without parts moves the place as well
		if parts += len(copied.parts); parts >= watchParts {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) || walked == watchRows {
		return rows, 0, ignoreEnough(err)
	}
	return rows, upTo, err
}

func ignoreEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// tell prices rows and sends them.
func (q *queries) tell(
	ctx context.Context, by signal, rows []watchRow, at *watched, send func([]pricedPart, watched) error,
) error {
	all, err := q.ratesOfRows(ctx, by, rows)
	if err != nil {
		return err
	}
	var out []pricedPart
	for i := range rows {
		row := &rows[i]
		told := 0
		if row.id == at.ID {
			told = at.Parts
		}
		for j := range row.parts {
			part := &row.parts[j]
			if len(out) == watchSegments {
				*at = watched{Ledger: at.Ledger, ID: row.id, Parts: told + j}
				if err := send(out, *at); err != nil {
					return err
				}
				out = out[:0]
			}
			s := pricedPart{DetailPart: *part, rates: all[part.Site]}
			s.factor = s.rates.signals[0].find(part.Slot)
			if s.priced() {
				var grams account.Inner
				grams.Add(part.Energy, *s.rates.pue, s.factor.Value)
				s.grams = grams.Grams()
			}
			out = append(out, s)
		}
		*at = watched{Ledger: at.Ledger, ID: row.id}
		if len(out) == 0 {
			continue
		}
		if err := send(out, *at); err != nil {
			return err
		}
		out = out[:0]
	}
	return nil
}

// ratesOfRows asks for what was known of the slots of rows when they began.
func (q *queries) ratesOfRows(ctx context.Context, by signal, rows []watchRow) (map[string]*rates, error) {
	known, err := q.sites(ctx)
	if err != nil {
		return nil, err
	}
	ranges := map[string]slots{}
	for i := range rows {
		for j := range rows[i].parts {
			part := &rows[i].parts[j]
			r, ok := ranges[part.Site]
			if !ok {
				r = slots{part.Slot, part.Slot}
			}
			ranges[part.Site] = slots{min(r.from, part.Slot), max(r.to, part.Slot+1)}
		}
	}
	session := q.prices.open()
	all := make(map[string]*rates, len(ranges))
	for name, r := range ranges {
		site, ok := known[name]
		if !ok {
			site = Site{Name: name}
		}
		one, err := session.newRates(ctx, []Site{site}, []signal{by}, pricing{by: pricedAsKnownThen}, r.from, r.to)
		if err != nil {
			return nil, err
		}
		all[name] = one[name]
	}
	return all, nil
}
