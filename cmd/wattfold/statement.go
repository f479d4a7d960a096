package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// selectionFlags are the flags that say whose energy, when, and by what
// knowledge.
type selectionFlags struct {
	site, run, project, node, component string
	from, to, last                      string
	pricing, asOf                       string
	signals                             []string
}

func (f *selectionFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.site, "site", "", "only this site")
	flags.StringVar(&f.run, "run", "", "only this run")
	flags.StringVar(&f.project, "project", "", "only this project")
	flags.StringVar(&f.node, "node", "", "only this node")
	flags.StringVar(&f.component, "component", "", "only this component")
	flags.StringVar(&f.from, "from", "", "start of the range, with --to (default: all energy of the selection)")
	flags.StringVar(&f.to, "to", "", "end of the range, exclusive, with --from")
	flags.StringVar(&f.last, "last", "", "the range that ends now, such as 24h or 7d")
	flags.StringVar(&f.pricing, "pricing", "", "latest (default) or as-known-then")
	flags.StringVar(&f.asOf, "as-of", "", "by what was recorded by then, energy and factors alike")
	flags.StringSliceVar(&f.signals, "signal", nil, "average-lifecycle (default), average-direct, marginal; may be repeated")
}

func (f *selectionFlags) selection() *ledgerv1.Selection {
	return &ledgerv1.Selection{Site: f.site, Run: f.run, Project: f.project, Node: f.node, Component: f.component}
}

func (f *selectionFlags) interval() (*ledgerv1.Interval, error) {
	if f.last != "" {
		if f.from != "" || f.to != "" {
			return nil, usagef("--last and --from/--to: use one of them")
		}
		span, err := parseSpan("last", f.last)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		return &ledgerv1.Interval{StartTime: timestamppb.New(now.Add(-span)), EndTime: timestamppb.New(now)}, nil
	}
	if f.from == "" && f.to == "" {
		return nil, nil
	}
	if f.from == "" || f.to == "" {
		return nil, usagef("--from and --to: give both, or --last")
	}
	start, err := parseTime("from", f.from)
	if err != nil {
		return nil, err
	}
	end, err := parseTime("to", f.to)
	return &ledgerv1.Interval{StartTime: start, EndTime: end}, err
}

func (f *selectionFlags) price() (*ledgerv1.Pricing, error) {
	if f.asOf != "" {
		if f.pricing != "" {
			return nil, usagef("--pricing and --as-of: use one of them")
		}
		t, err := parseTime("as-of", f.asOf)
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsOf{AsOf: t}}, err
	}
	switch f.pricing {
	case "", "latest":
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_Latest{Latest: true}}, nil
	case "as-known-then":
		return &ledgerv1.Pricing{By: &ledgerv1.Pricing_AsKnownThen{AsKnownThen: true}}, nil
	}
	return nil, usagef("--pricing %q: use latest or as-known-then, or --as-of T", f.pricing)
}

func (f *selectionFlags) signalList() ([]gridv1.Signal, error) {
	var out []gridv1.Signal
	for _, text := range f.signals {
		s, err := parseSignal(text)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (f *selectionFlags) oneSignal() (gridv1.Signal, error) {
	signals, err := f.signalList()
	switch {
	case err != nil || len(signals) == 0:
		return 0, err
	case len(signals) > 1:
		return 0, usagef("--signal: one signal only here")
	}
	return signals[0], nil
}

func (a *app) statementCommand() *cobra.Command {
	var f selectionFlags
	var every string
	var groupBy []string
	var explain bool
	cmd := &cobra.Command{
		Use:   "statement",
		Short: "Sum energy and emissions of a selection over a range",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := &ledgerv1.QueryStatementsRequest{Selection: f.selection(), Every: every}
			var err error
			if query.Interval, err = f.interval(); err != nil {
				return err
			}
			if query.Pricing, err = f.price(); err != nil {
				return err
			}
			if query.Signals, err = f.signalList(); err != nil {
				return err
			}
			if query.GroupBy, err = parseDimensions(groupBy); err != nil {
				return err
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			switch {
			case explain && (every != "" || len(groupBy) > 0):
				return usagef("--explain lists the terms of one statement: leave out --every and --group-by")
			case explain:
				signal, err := f.oneSignal()
				if err != nil {
					return err
				}
				return a.explain(cmd.Context(), c, query, signal)
			case every != "" || len(groupBy) > 0:
				return a.queryStatements(cmd.Context(), c, query)
			}
			return a.statement(cmd.Context(), c, query)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&every, "every", "", "one statement every 5m, 1h, 1d or 1mo, in UTC")
	cmd.Flags().StringSliceVar(&groupBy, "group-by", nil, "site, run, project, component, node; several with commas")
	cmd.Flags().BoolVar(&explain, "explain", false, "list the terms that the statement sums")
	return cmd
}

func (a *app) statement(ctx context.Context, c *client, q *ledgerv1.QueryStatementsRequest) error {
	answer, err := c.ledger.GetStatement(ctx, &ledgerv1.GetStatementRequest{
		Selection: q.GetSelection(), Interval: q.GetInterval(), Pricing: q.GetPricing(), Signals: q.GetSignals(),
	})
	if err != nil {
		return err
	}
	s := answer.GetStatement()
	if a.output == "csv" {
		return a.print(s, a.statementsTable([]*ledgerv1.Statement{s}))
	}
	return a.print(s, statementSheet(s, answer.GetFreshness()))
}

func (a *app) queryStatements(ctx context.Context, c *client, q *ledgerv1.QueryStatementsRequest) error {
	answer := &ledgerv1.QueryStatementsResponse{}
	for {
		page, err := c.ledger.QueryStatements(ctx, q)
		if err != nil {
			return err
		}
		answer.Statements = append(answer.Statements, page.GetStatements()...)
		answer.Pricing, answer.Freshness = page.GetPricing(), page.GetFreshness()
		if q.PageToken = page.GetNextPageToken(); q.PageToken == "" {
			return a.print(answer, a.statementsTable(answer.GetStatements()))
		}
	}
}

func (a *app) explain(ctx context.Context, c *client, q *ledgerv1.QueryStatementsRequest, signal gridv1.Signal) error {
	terms, err := pages(func(token string) ([]*ledgerv1.Term, string, error) {
		answer, err := c.ledger.ExplainStatement(ctx, &ledgerv1.ExplainStatementRequest{
			Selection: q.GetSelection(), Interval: q.GetInterval(), Pricing: q.GetPricing(), Signal: signal, PageToken: token,
		})
		return answer.GetTerms(), answer.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	t := &table{head: []string{"SLOT", "SITE", "RUN", "COMPONENT", "MICROJOULES", "PUE", "G/KWH", "SOURCE", "QUALITY", "GRAMS"}}
	for _, term := range terms {
		grams := "-"
		if term.Grams != nil {
			grams = exactly(term.GetGrams())
		}
		factor, source, quality := "-", "-", "-"
		if v := term.GetFactor(); v != nil {
			factor, source, quality = v.GetDecimal(), v.GetSource(), label(v.GetQuality(), "QUALITY_")
		}
		t.add(clock(term.GetSlotStart()), term.GetSite(), orDash(term.GetRun()), term.GetComponent(), term.GetItMicrojoules(),
			orDash(term.GetPue()), factor, source, quality, grams)
	}
	return a.print(&ledgerv1.ExplainStatementResponse{Terms: terms}, t)
}

// statementSheet is one statement for people: a line a figure.
func statementSheet(s *ledgerv1.Statement, f *ledgerv1.Freshness) *table {
	e := s.GetEnergy()
	effective := s.GetInterval().GetEffective()
	t := &table{head: []string{"FIGURE", "VALUE", ""}}
	t.add("from", clock(effective.GetStartTime()), "")
	t.add("to", clock(effective.GetEndTime()), "")
	t.add("IT energy", fmt.Sprintf("%.6f kWh", e.GetItKwh()), e.GetItMicrojoules()+" µJ exactly")
	t.add("facility energy", fmt.Sprintf("%.6f kWh", e.GetFacilityKwh()), unknownNote(e.GetFacilityUnknownKwh(), "kWh without a PUE"))
	t.add("mean power", fmt.Sprintf("%.3f kW", e.GetMeanKw()), fmt.Sprintf("highest slot %.3f kW", e.GetPeakSlotKw()))
	for _, m := range s.GetEmissions() {
		name := label(m.GetSignal(), "SIGNAL_")
		t.add(name, fmt.Sprintf("%.3f g", m.GetGrams()), unknownNote(m.GetUnpricedKwh(), "kWh unpriced"))
		t.add("  mean intensity", number(m.MeanGramsPerKwh)+" g/kWh", qualityNote(m.GetQuality()))
	}
	c := s.GetCoverage()
	coverage := "-"
	if c != nil && c.Ratio != nil {
		coverage = fmt.Sprintf("%.4f %%", 100*c.GetRatio())
	}
	t.add("coverage", coverage, fmt.Sprintf("missing %s, silent %s", span(c.GetMissingMs()), span(c.GetSilentMs())))
	for _, p := range s.GetProvenance() {
		t.add("  "+strings.ToLower(p.GetFactor()), fmt.Sprintf("%s: %s %s", p.GetSubject(), p.GetSource(), p.GetProduct()),
			strings.TrimSpace(fmt.Sprintf("%.3f kWh %s", p.GetKwh(), p.GetAttribution())))
	}
	for _, reason := range slices.Sorted(maps.Keys(s.GetRejected())) {
		t.add("rejected", fmt.Sprint(s.GetRejected()[reason]), reason)
	}
	if s.GetProvisional() {
		t.foot = append(t.foot, "Provisional: slots of the last hour may still grow.")
	}
	if f.GetLastTick() != nil {
		t.foot = append(t.foot, "Newest tick "+clock(f.GetLastTick())+".")
	}
	return t
}

func unknownNote(kwh float64, what string) string {
	if kwh == 0 {
		return ""
	}
	return fmt.Sprintf("%.6f %s", kwh, what)
}

func qualityNote(shares []*ledgerv1.QualityShare) string {
	var parts []string
	for _, q := range shares {
		parts = append(parts, fmt.Sprintf("%s %.1f %%", label(q.GetQuality(), "QUALITY_"), 100*q.GetShare()))
	}
	return strings.Join(parts, ", ")
}

func span(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// statementsTable is many statements: a line a group and bucket. For people
// figures are short; in CSV they are whole.
func (a *app) statementsTable(list []*ledgerv1.Statement) *table {
	figure := func(v float64, decimals int) string { return strconv.FormatFloat(v, 'f', decimals, 64) }
	if a.output == "csv" {
		figure = func(v float64, _ int) string { return exactly(v) }
	}
	t := &table{head: []string{"FROM", "TO"}}
	var keys []string
	if len(list) > 0 {
		keys = slices.Sorted(maps.Keys(list[0].GetGroup()))
	}
	for _, key := range keys {
		t.head = append(t.head, strings.ToUpper(key))
	}
	if a.output == "csv" {
		t.head = append(t.head, "IT_MICROJOULES")
	}
	t.head = append(t.head, "IT_KWH", "FACILITY_KWH", "MEAN_KW", "SIGNAL", "GRAMS", "G_PER_KWH", "UNPRICED_KWH", "COVERAGE")
	optional := func(v *float64, decimals int) string {
		if v == nil {
			return "-"
		}
		return figure(*v, decimals)
	}
	for _, s := range list {
		effective := s.GetInterval().GetEffective()
		row := []string{clock(effective.GetStartTime()), clock(effective.GetEndTime())}
		for _, key := range keys {
			row = append(row, orDash(s.GetGroup()[key]))
		}
		e := s.GetEnergy()
		if a.output == "csv" {
			row = append(row, e.GetItMicrojoules())
		}
		row = append(row, figure(e.GetItKwh(), 6), figure(e.GetFacilityKwh(), 6), figure(e.GetMeanKw(), 3))
		var ratio *float64
		if c := s.GetCoverage(); c != nil {
			ratio = c.Ratio
		}
		for _, m := range s.GetEmissions() {
			t.add(append(slices.Clone(row), label(m.GetSignal(), "SIGNAL_"), figure(m.GetGrams(), 3),
				optional(m.MeanGramsPerKwh, 3), figure(m.GetUnpricedKwh(), 6), optional(ratio, 4))...)
		}
	}
	return t
}

func (a *app) seriesCommand() *cobra.Command {
	var f selectionFlags
	var every string
	cmd := &cobra.Command{
		Use:   "series",
		Short: "Power, intensity and emissions of a selection over time",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := &ledgerv1.GetSeriesRequest{Selection: f.selection()}
			var err error
			if request.Interval, err = f.interval(); err != nil {
				return err
			}
			if request.Interval == nil {
				return usagef("a series needs a range: give --last 24h, or --from and --to")
			}
			if request.Pricing, err = f.price(); err != nil {
				return err
			}
			if request.Signal, err = f.oneSignal(); err != nil {
				return err
			}
			if every != "" {
				step, err := parseSpan("every", every)
				if err != nil {
					return err
				}
				request.Step = durationpb.New(step)
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			answer, err := c.ledger.GetSeries(cmd.Context(), request)
			if err != nil {
				return err
			}
			t := &table{head: []string{"FROM", "IT_KW", "G_PER_KWH", "GRAMS", "UNPRICED_KWH"}}
			for _, p := range answer.GetPoints() {
				t.add(clock(p.GetStartTime()), fmt.Sprintf("%.3f", p.GetMeanKw()), number(p.GramsPerKwh),
					fmt.Sprintf("%.3f", p.GetGrams()), fmt.Sprintf("%.6f", p.GetUnpricedKwh()))
			}
			return a.print(answer, t)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&every, "every", "", "the step, a multiple of 5m (default 5m)")
	return cmd
}
