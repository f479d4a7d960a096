package account

import (
	"cmp"
	"math/big"
	"slices"

	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/carbon/unit"
)

// Posting is a row of the ledger: the energy and the time of one account in one
// slot.
type Posting struct {
	// Energy is IT energy; negative if the row takes back another.
	Energy unit.Energy
	// Modelled says that it was computed from a model and not metered.
	Modelled bool
	// ObservedMS, InterpolatedMS and MissingMS are series-milliseconds, observed
	// with interpolated included.
	ObservedMS, InterpolatedMS, MissingMS int64
}

// Share is the energy priced by factors of one quality.
type Share struct {
	Quality timeline.Quality
	// Energy is IT energy.
	Energy unit.Sum
}

// Provenance is the energy priced by one source in one way.
type Provenance struct {
	Source, Product string
	Quality         timeline.Quality
	Method          timeline.Method
	// Energy is IT energy.
	Energy unit.Sum
	// RecordedMS is when the newest record used was recorded.
	RecordedMS int64
}

// Folder adds the rows of one statement up, for one signal. The zero value is
// an empty statement. No result depends on the order of the rows.
type Folder struct {
	energy, modelled, noPUE, unpriced unit.Sum
	facility, priced, grams           Inner
	observed, interpolated, missing   int64
	rows                              int

	sources []Provenance
	source  int // the index of the one used last
}

// one is the factor that leaves energy as it is.
var one = unit.Decimal{Coef: 1}

// Add adds a row. pue is the site's PUE in the row's slot, nil if it is not
// known; step is what the signal's timeline answers for the slot, nil if it has
// no data. Neither is retained.
func (f *Folder) Add(row *Posting, pue *unit.Decimal, step *timeline.Step) {
	f.rows++
	f.energy.Add(row.Energy)
	if row.Modelled {
		f.modelled.Add(row.Energy)
	}
	f.observed += row.ObservedMS
	f.interpolated += row.InterpolatedMS
	f.missing += row.MissingMS
	if pue == nil {
		f.noPUE.Add(row.Energy)
		f.unpriced.Add(row.Energy)
		return
	}
	f.facility.Add(row.Energy, *pue, one)
	if step == nil {
		f.unpriced.Add(row.Energy)
		return
	}
	f.priced.Add(row.Energy, *pue, one)
	f.grams.Add(row.Energy, *pue, step.Value)
	p := f.provenance(step.Source, step.Product, step.Quality, step.Method)
	p.Energy.Add(row.Energy)
	p.RecordedMS = max(p.RecordedMS, step.RecordedMS)
}

// AddFolder adds all rows of o. It is as if each had been added.
func (f *Folder) AddFolder(o *Folder) {
	f.rows += o.rows
	f.energy.AddSum(o.energy)
	f.modelled.AddSum(o.modelled)
	f.noPUE.AddSum(o.noPUE)
	f.unpriced.AddSum(o.unpriced)
	f.facility.AddInner(&o.facility)
	f.priced.AddInner(&o.priced)
	f.grams.AddInner(&o.grams)
	f.observed += o.observed
	f.interpolated += o.interpolated
	f.missing += o.missing
	for i := range o.sources {
		from := o.sources[i] // o may be f
		p := f.provenance(from.Source, from.Product, from.Quality, from.Method)
		p.Energy.AddSum(from.Energy)
		p.RecordedMS = max(p.RecordedMS, from.RecordedMS)
	}
}

// provenance returns the entry of a source and a way.
func (f *Folder) provenance(source, product string, quality timeline.Quality, method timeline.Method) *Provenance {
	is := func(p *Provenance) bool {
		return p.Quality == quality && p.Method == method && p.Source == source && p.Product == product
	}
	if f.source < len(f.sources) && is(&f.sources[f.source]) {
		return &f.sources[f.source]
	}
	f.source = slices.IndexFunc(f.sources, func(p Provenance) bool { return is(&p) })
	if f.source < 0 {
		f.source = len(f.sources)
		f.sources = append(f.sources, Provenance{
			Source: source, Product: product, Quality: quality, Method: method,
			RecordedMS: timeline.SinceEver,
		})
	}
	return &f.sources[f.source]
}

// Rows returns the number of rows added.
func (f *Folder) Rows() int { return f.rows }

// Energy returns the IT energy of all rows.
func (f *Folder) Energy() unit.Sum { return f.energy }

// Modelled returns the part of Energy that was computed from models.
func (f *Folder) Modelled() unit.Sum { return f.modelled }

// FacilityRat returns Σ energy·PUE in kWh, exactly, over the rows whose PUE is
// known.
func (f *Folder) FacilityRat() *big.Rat { return f.facility.Rat() }

// FacilityKWh returns FacilityRat, rounded once.
func (f *Folder) FacilityKWh() float64 { return f.facility.Grams() }

// FacilityUnknown returns the IT energy of the rows whose PUE is not known.
func (f *Folder) FacilityUnknown() unit.Sum { return f.noPUE }

// Unpriced returns the IT energy of the rows without a factor or without a PUE.
func (f *Folder) Unpriced() unit.Sum { return f.unpriced }

// Priced returns the IT energy of the rows that have both.
func (f *Folder) Priced() unit.Sum {
	s := f.energy
	s.AddSum(f.unpriced.Neg())
	return s
}

// GramsRat returns Σ energy·PUE·factor over the priced rows, exactly.
func (f *Folder) GramsRat() *big.Rat { return f.grams.Rat() }

// Grams returns GramsRat, rounded once.
func (f *Folder) Grams() float64 { return f.grams.Grams() }

// MeanGramsPerKWh returns the mean of the factor weighted by facility energy,
// Σ energy·PUE·factor ÷ Σ energy·PUE of the priced rows, rounded once. ok is
// false if no energy is priced.
func (f *Folder) MeanGramsPerKWh() (mean float64, ok bool) {
	priced := f.priced.big()
	if priced.Sign() == 0 {
		return 0, false
	}
	grams := f.grams.big()
	mean, _ = grams.Quo(grams, priced).Float64()
	return mean, true
}

// Qualities returns the priced energy by quality of its factor, ascending by
// quality. The shares add up to Priced.
func (f *Folder) Qualities() []Share {
	var shares []Share
	for i := range f.sources {
		p := &f.sources[i]
		at := slices.IndexFunc(shares, func(s Share) bool { return s.Quality == p.Quality })
		if at < 0 {
			at = len(shares)
			shares = append(shares, Share{Quality: p.Quality})
		}
		shares[at].Energy.AddSum(p.Energy)
	}
	slices.SortFunc(shares, func(a, b Share) int { return cmp.Compare(a.Quality, b.Quality) })
	return shares
}

// Provenance returns the priced energy by source, product, quality and method,
// in this order. The energies add up to Priced.
func (f *Folder) Provenance() []Provenance {
	sources := slices.Clone(f.sources)
	slices.SortFunc(sources, func(a, b Provenance) int {
		return cmp.Or(
			cmp.Compare(a.Source, b.Source),
			cmp.Compare(a.Product, b.Product),
			cmp.Compare(a.Quality, b.Quality),
			cmp.Compare(a.Method, b.Method),
		)
	})
	return sources
}

// Coverage returns the time observed, the part of it that is interpolated, and
// the time missing, in series-milliseconds.
func (f *Folder) Coverage() (observedMS, interpolatedMS, missingMS int64) {
	return f.observed, f.interpolated, f.missing
}
