package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
	"github.com/wattfold/wattfold/services/collector"
)

// sampleFlags are the flags that say how a file of samples is read: the same
// for 'import samples' and 'collector --replay'.
type sampleFlags struct {
	site, project, run, component, device, kind string
	nodeColumn, node                            string
	timeColumn, timeFormat, valueColumn, unit   string
	startAt, runStart, runStop                  string
	period, maxGap                              time.Duration
	counterRange                                string
	maxPower                                    float64
	provenance                                  string
}

func (f *sampleFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.site, "site", "", "the site that the nodes stand in")
	flags.StringVar(&f.project, "project", "", "the project")
	flags.StringVar(&f.run, "run", "", "the run")
	flags.StringVar(&f.component, "component", "", "what the meter measures: gpu, cpu, dram, other, chassis or envelope")
	flags.StringVar(&f.device, "device", "", "the meter (default: the component with /0)")
	flags.StringVar(&f.kind, "kind", "", "INSTANT_POWER, AVERAGE_POWER or CUMULATIVE_ENERGY")
	flags.StringVar(&f.nodeColumn, "node-column", "", "the column that names the node")
	flags.StringVar(&f.node, "node", "", "the node of every row")
	flags.StringVar(&f.timeColumn, "time-column", "", "the column of the time")
	flags.StringVar(&f.timeFormat, "time-format", "rfc3339", "rfc3339, unix, unix_ms, or a layout of Go's time package, read as UTC")
	flags.StringVar(&f.valueColumn, "value-column", "", "the column of the value")
	flags.StringVar(&f.unit, "unit", "", "W, kW, MW, mW for power; J, kJ, mJ, uJ, Wh, kWh for energy")
	flags.StringVar(&f.startAt, "start-at", "", "move the earliest sample of the file to this instant")
	flags.StringVar(&f.runStart, "run-start", "", "cut energy off before this instant of the file's clock (RFC 3339 or Unix ms)")
	flags.StringVar(&f.runStop, "run-stop", "", "cut energy off from this instant of the file's clock on (RFC 3339 or Unix ms)")
	flags.DurationVar(&f.period, "period", 0, "the time between two readings, such as 2s")
	flags.DurationVar(&f.maxGap, "max-gap", 0, "do not bridge a gauge over more than this (default: 5 periods, at least 30s)")
	flags.StringVar(&f.counterRange, "counter-range", "", "the counter counts modulo this, in the unit")
	flags.Float64Var(&f.maxPower, "max-power", 0, "the most that the meter can read, in W")
	flags.StringVar(&f.provenance, "provenance", "", "MEASURED (default) or MODELLED")
}

// require makes the flags that no file can be read without mandatory.
func (f *sampleFlags) require(cmd *cobra.Command) {
	for _, name := range []string{"site", "component", "kind", "time-column", "value-column", "unit"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
		cmd.Flags().Lookup(name).Usage += " (required)"
	}
}

// mapping checks the flags and turns them into the API's message.
func (f *sampleFlags) mapping(file string) (*telemetryv1.SampleMapping, error) {
	m := &telemetryv1.SampleMapping{
		Site: f.site, Project: f.project, Run: f.run, Component: f.component, Device: f.device,
		NodeColumn: f.nodeColumn, Node: f.node,
		TimeColumn: f.timeColumn, TimeFormat: f.timeFormat, ValueColumn: f.valueColumn, Unit: f.unit,
		CounterRange: f.counterRange, MaxPowerWatts: f.maxPower, File: file,
	}
	if (f.nodeColumn == "") == (f.node == "") {
		return nil, usagef("--node-column and --node: give one of them")
	}
	var err error
	if m.Kind, err = parseKind(f.kind); err != nil {
		return nil, err
	}
	if m.Provenance, err = parseProvenance(f.provenance); err != nil {
		return nil, err
	}
	if m.StartAt, err = parseTime("start-at", f.startAt); err != nil {
		return nil, err
	}
	if m.RunStart, err = parseClock("run-start", f.runStart); err != nil {
		return nil, err
	}
	if m.RunStop, err = parseClock("run-stop", f.runStop); err != nil {
		return nil, err
	}
	if m.PeriodMs, err = millis("period", f.period); err != nil {
		return nil, err
	}
	m.MaxGapMs, err = millis("max-gap", f.maxGap)
	return m, err
}

// replay is the flags as a replay of the collector, which checks them.
func (f *sampleFlags) replay(file, speed string, once bool) collector.ReplayConfig {
	return collector.ReplayConfig{
		File: file, Site: f.site, Project: f.project, Run: f.run, Component: f.component, Device: f.device,
		Kind: strings.ToUpper(f.kind), Provenance: strings.ToUpper(f.provenance), NodeColumn: f.nodeColumn, Node: f.node,
		TimeColumn: f.timeColumn, TimeFormat: f.timeFormat, ValueColumn: f.valueColumn, Unit: f.unit,
		StartAt: f.startAt, RunStart: f.runStart, RunStop: f.runStop, Period: f.period, MaxGap: f.maxGap,
		CounterRange: f.counterRange, MaxPowerWatts: f.maxPower, Speed: speed, Loop: !once,
	}
}

func millis(flag string, d time.Duration) (uint32, error) {
	if d < 0 || d%time.Millisecond != 0 || d > 30*24*time.Hour {
		return 0, usagef("--%s %s: want whole milliseconds, at most 30 days", flag, d)
	}
	return uint32(d.Milliseconds()), nil
}

// intensityFlags are the flags that say how a file of intensities is read.
type intensityFlags struct {
	zone, signal, timeColumn, timeFormat, valueColumn string
	step                                              time.Duration
	unit, source, quality                             string
	knownAt, knownAtColumn, knownAtFormat             string
	attribution                                       string
}

func (f *intensityFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.zone, "zone", "", "the grid zone (required)")
	flags.StringVar(&f.signal, "signal", "", "CARBON_AVERAGE_LIFECYCLE (default), CARBON_AVERAGE_DIRECT or CARBON_MARGINAL")
	flags.StringVar(&f.timeColumn, "time-column", "", "the column of an interval's start (required)")
	flags.StringVar(&f.timeFormat, "time-format", "rfc3339", "rfc3339, unix, unix_ms, or a layout of Go's time package, read as UTC")
	flags.StringVar(&f.valueColumn, "value-column", "", "the column of the value (required)")
	flags.DurationVar(&f.step, "step", 0, "the length of an interval, such as 1h (default: the median distance of the rows)")
	flags.StringVar(&f.unit, "unit", "", "g/kWh (default), kg/MWh, lb/MWh or t/MWh")
	flags.StringVar(&f.source, "source", "", "who says so (default import)")
	flags.StringVar(&f.quality, "quality", "", "MEASURED (default), ESTIMATED, FORECAST, FILLED or STATIC")
	flags.StringVar(&f.knownAt, "known-at", "", "when the publisher said so (default: when it is recorded)")
	flags.StringVar(&f.knownAtColumn, "known-at-column", "", "the column of when the publisher said so")
	flags.StringVar(&f.knownAtFormat, "known-at-format", "", "its format (default rfc3339)")
	flags.StringVar(&f.attribution, "attribution", "", "licence and attribution, kept with the timeline")
	for _, name := range []string{"zone", "time-column", "value-column"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
}

func (f *intensityFlags) mapping(file string) (*gridv1.IntensityMapping, error) {
	m := &gridv1.IntensityMapping{
		Zone: f.zone, TimeColumn: f.timeColumn, TimeFormat: f.timeFormat, ValueColumn: f.valueColumn,
		StepSeconds: int64(f.step / time.Second), Unit: f.unit, Source: f.source,
		KnownAtColumn: f.knownAtColumn, KnownAtFormat: f.knownAtFormat, File: file, Attribution: f.attribution,
	}
	if f.step < 0 || f.step%time.Second != 0 {
		return nil, usagef("--step %s: want whole seconds", f.step)
	}
	if f.knownAt != "" && f.knownAtColumn != "" {
		return nil, usagef("--known-at and --known-at-column: use one of them")
	}
	var err error
	if m.Signal, err = parseSignal(f.signal); err != nil {
		return nil, err
	}
	if m.Quality, err = parseQuality(f.quality); err != nil {
		return nil, err
	}
	m.KnownAt, err = parseTime("known-at", f.knownAt)
	return m, err
}
