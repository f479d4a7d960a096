package collector

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/replay"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

// Config is what a collector is told.
type Config struct {
	// Dir is the directory of the spool; one collector at a time works in it.
	Dir string `koanf:"dir"`
	// Spool bounds what is kept on disk.
	Spool SpoolConfig `koanf:"spool"`
	// Publish bounds what is on its way to the broker.
	Publish PublishConfig `koanf:"publish"`
	// Import bounds ImportSamples.
	Import ImportConfig `koanf:"import"`
	// Replays are files to be played.
	Replays []ReplayConfig `koanf:"replays"`
}

// SpoolConfig bounds the spool.
type SpoolConfig struct {
	// MaxUncommittedBytes is how much may wait for the ledger before sources do.
	MaxUncommittedBytes int64 `koanf:"max_uncommitted_bytes"`
	// KeepCommittedFor and KeepCommittedBytes end how long committed batches are
	// kept for a ledger that is restored from a back-up; whichever ends first.
	KeepCommittedFor   time.Duration `koanf:"keep_committed_for"`
	KeepCommittedBytes int64         `koanf:"keep_committed_bytes"`
	// SegmentBytes is the size of a file of the spool.
	SegmentBytes int64 `koanf:"segment_bytes"`
}

// PublishConfig bounds the publisher.
type PublishConfig struct {
	// MaxOutstandingBytes and MaxOutstanding bound what the broker has not acked.
	MaxOutstandingBytes int64 `koanf:"max_outstanding_bytes"`
	MaxOutstanding      int   `koanf:"max_outstanding"`
	// AckTimeout is how long an ack may take before the batch is sent again.
	AckTimeout time.Duration `koanf:"ack_timeout"`
	// ResendAfter is how long the ledger may take before a batch that the broker
	// acked is sent again; it doubles up to MaxResendAfter.
	ResendAfter    time.Duration `koanf:"resend_after"`
	MaxResendAfter time.Duration `koanf:"max_resend_after"`
	// FloorsEvery is how often the ledger is asked what it holds.
	FloorsEvery time.Duration `koanf:"floors_every"`
}

// ImportConfig bounds ImportSamples.
type ImportConfig struct {
	// MaxFileBytes is the largest file taken.
	MaxFileBytes int64 `koanf:"max_file_bytes"`
	// MaxConcurrent is how many imports run at once.
	MaxConcurrent int `koanf:"max_concurrent"`
}

// ReplayConfig is a file to be played. The columns are those of import samples.
type ReplayConfig struct {
	// Name is what the replay's place is kept under. A replay of the same name
	// goes on; empty: derived from the file's content and the fields below, so
	// that another file is another replay.
	Name string `koanf:"name"`
	// File is the path of the CSV file.
	File string `koanf:"file"`

	// Site, Project, Run, Component and Device attribute the energy.
	Site      string `koanf:"site"`
	Project   string `koanf:"project"`
	Run       string `koanf:"run"`
	Component string `koanf:"component"`
	Device    string `koanf:"device"`
	// Kind is INSTANT_POWER, AVERAGE_POWER or CUMULATIVE_ENERGY.
	Kind string `koanf:"kind"`
	// Provenance is MEASURED (the default) or MODELLED.
	Provenance string `koanf:"provenance"`
	// NodeColumn is the column of the node, or Node the node of all rows.
	NodeColumn string `koanf:"node_column"`
	Node       string `koanf:"node"`
	// TimeColumn and TimeFormat (rfc3339, unix, unix_ms or a layout) are the time.
	TimeColumn string `koanf:"time_column"`
	TimeFormat string `koanf:"time_format"`
	// ValueColumn and Unit are the value.
	ValueColumn string `koanf:"value_column"`
	Unit        string `koanf:"unit"`
	// StartAt moves the earliest row to an instant (RFC 3339 or Unix ms), or to
	// when the replay first starts (now); empty: as it is.
	StartAt string `koanf:"start_at"`
	// RunStart and RunStop cut energy off outside, in the file's own clock.
	RunStart string `koanf:"run_start"`
	RunStop  string `koanf:"run_stop"`
	// Period and MaxGap are declared of the series; 0: not declared.
	Period time.Duration `koanf:"period"`
	MaxGap time.Duration `koanf:"max_gap"`
	// CounterRange is what a counter counts modulo, in Unit.
	CounterRange string `koanf:"counter_range"`
	// MaxPowerWatts is the most that the meter can read; 0: not declared.
	MaxPowerWatts float64 `koanf:"max_power_watts"`

	// Speed is by how much faster than it was the file is played, or max (the
	// default). Whatever it is, no tick is sent over ten minutes before its time.
	Speed string `koanf:"speed"`
	// Loop begins again at the end, moved on by the file's span and one step.
	Loop bool `koanf:"loop"`
	// Live plays on the wall clock, and after an interruption goes on at now: the
	// time between shows as missing. It needs start_at now and no speed but 1.
	Live bool `koanf:"live"`
	// BatchTicks is how many readings a batch has at most; 0: 60.
	BatchTicks int `koanf:"batch_ticks"`
	// FlushInterval is how long a reading may wait for the disk; 0: 5 s, and at
	// speed max never over 0.2 s.
	FlushInterval time.Duration `koanf:"flush_interval"`
}

// The defaults of a replay.
const (
	defaultBatchTicks    = 60
	defaultFlushInterval = 5 * time.Second
	maxBatchTicks        = 3600
)

// Default returns the configuration that needs no file; Dir must be set.
func Default() Config {
	keep := spool.DefaultOptions()
	return Config{
		Spool: SpoolConfig{
			MaxUncommittedBytes: keep.MaxUncommitted,
			KeepCommittedFor:    keep.KeepFor,
			KeepCommittedBytes:  keep.KeepBytes,
			SegmentBytes:        keep.SegmentBytes,
		},
		Publish: PublishConfig{
			MaxOutstandingBytes: 48_000_000,
			MaxOutstanding:      8192,
			AckTimeout:          5 * time.Second,
			ResendAfter:         10 * time.Second,
			MaxResendAfter:      time.Minute,
			FloorsEvery:         30 * time.Second,
		},
		Import: ImportConfig{MaxFileBytes: 16 << 30, MaxConcurrent: 4},
	}
}

// Validate returns everything that is wrong, with dotted paths.
func (c Config) Validate() error {
	var errs []error
	add := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
	}
	if c.Dir == "" {
		add("dir", "is empty: name the directory of the spool")
	}
	for _, f := range []struct {
		path  string
		value int64
	}{
		{"spool.max_uncommitted_bytes", c.Spool.MaxUncommittedBytes},
		{"spool.keep_committed_for", int64(c.Spool.KeepCommittedFor)},
		{"spool.keep_committed_bytes", c.Spool.KeepCommittedBytes},
		{"spool.segment_bytes", c.Spool.SegmentBytes},
		{"publish.max_outstanding_bytes", c.Publish.MaxOutstandingBytes},
		{"publish.max_outstanding", int64(c.Publish.MaxOutstanding)},
		{"publish.ack_timeout", int64(c.Publish.AckTimeout)},
		{"publish.resend_after", int64(c.Publish.ResendAfter)},
		{"publish.floors_every", int64(c.Publish.FloorsEvery)},
		{"import.max_file_bytes", c.Import.MaxFileBytes},
		{"import.max_concurrent", int64(c.Import.MaxConcurrent)},
	} {
		if f.value <= 0 {
			add(f.path, "must be above 0")
		}
	}
	if c.Publish.MaxResendAfter < c.Publish.ResendAfter {
		add("publish.max_resend_after", "is less than publish.resend_after")
	}
	names := make(map[string]int)
	for i, r := range c.Replays {
		path := fmt.Sprintf("replays[%d]", i)
		if other, ok := names[r.Name]; ok && r.Name != "" {
			add(path+".name", "%q is that of replays[%d] too", r.Name, other)
		}
		names[r.Name] = i
		if _, err := r.parse(); err != nil {
			for _, e := range unjoin(err) {
				add(path+"."+e.path, "%s", e.message)
			}
		}
	}
	return errors.Join(errs...)
}

// mistake is one thing that is wrong with a replay's fields.
type mistake struct{ path, message string }

func (m mistake) Error() string { return m.path + ": " + m.message }

type mistakes []mistake

func (ms mistakes) Error() string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.Error()
	}
	return strings.Join(texts, "; ")
}

func unjoin(err error) mistakes {
	if ms, ok := errors.AsType[mistakes](err); ok {
		return ms
	}
	return mistakes{{message: err.Error()}}
}

// parse turns the fields into what a replay takes.
func (c *ReplayConfig) parse() (replay.Config, error) {
	var ms mistakes
	add := func(path, format string, args ...any) {
		ms = append(ms, mistake{path, fmt.Sprintf(format, args...)})
	}
	m := csvfile.Mapping{
		File: filepath.Base(c.File), Site: c.Site, Project: c.Project, Run: c.Run,
		Component: c.Component, Device: c.Device,
		NodeColumn: c.NodeColumn, Node: c.Node, TimeColumn: c.TimeColumn, TimeFormat: c.TimeFormat,
		ValueColumn: c.ValueColumn, Unit: c.Unit,
		CounterRange: c.CounterRange, MaxPowerWatts: c.MaxPowerWatts,
	}
	if c.File == "" {
		add("file", "is empty: name the CSV file")
	}
	switch c.Kind {
	case "INSTANT_POWER":
		m.Kind = segment.InstantPower
	case "AVERAGE_POWER":
		m.Kind = segment.AveragePower
	case "CUMULATIVE_ENERGY":
		m.Kind = segment.CumulativeEnergy
	case "":
	default:
		add("kind", "%q is none of INSTANT_POWER, AVERAGE_POWER, CUMULATIVE_ENERGY", c.Kind)
		// Set, so that it is not reported as missing too.
		m.Kind = segment.InstantPower
	}
	switch c.Provenance {
	case "", "MEASURED":
		m.Provenance = csvfile.Measured
	case "MODELLED":
		m.Provenance = csvfile.Modelled
	default:
		add("provenance", "%q is neither MEASURED nor MODELLED", c.Provenance)
	}
	out := replay.Config{
		Name: c.Name, Loop: c.Loop, Live: c.Live, Ticks: c.BatchTicks, Interval: c.FlushInterval,
		StartNow: c.StartAt == "now",
		Open:     func() (io.ReadSeekCloser, error) { return os.Open(c.File) },
	}
	for _, at := range []struct {
		path, text string
		to         **int64
	}{{"start_at", c.StartAt, &m.StartAtMS}, {"run_start", c.RunStart, &m.RunStartMS}, {"run_stop", c.RunStop, &m.RunStopMS}} {
		if at.text == "" || at.path == "start_at" && out.StartNow {
			continue
		}
		instant, err := parseInstant(at.text)
		if err != nil {
			add(at.path, "%v", err)
			continue
		}
		*at.to = &instant
	}
	for _, d := range []struct {
		path  string
		value time.Duration
		to    *uint32
	}{{"period", c.Period, &m.PeriodMS}, {"max_gap", c.MaxGap, &m.MaxGapMS}} {
		if whole := d.value.Milliseconds(); d.value < 0 || d.value%time.Millisecond != 0 || whole > math.MaxUint32 {
			add(d.path, "%v is not a whole number of milliseconds from 0 to 49 days", d.value)
		} else {
			*d.to = uint32(whole)
		}
	}
	for _, v := range m.Validate() {
		ms = append(ms, mistake{v.Path, v.Message})
	}
	out.Mapping = m
	switch speed, err := strconv.ParseFloat(c.Speed, 64); {
	case c.Speed == "max" || c.Speed == "" && !c.Live:
	case c.Speed == "":
		out.Speed = 1
	case err != nil || !(speed > 0) || math.IsInf(speed, 0):
		add("speed", "%q is neither max nor a number above 0", c.Speed)
	default:
		out.Speed = speed
	}
	if c.Live && (out.Speed != 1 || !out.StartNow) {
		add("live", "needs start_at now and speed 1: a live replay plays on the wall clock")
	}
	if c.Loop && (m.RunStartMS != nil || m.RunStopMS != nil) {
		add("loop", "goes with neither run_start nor run_stop: each time through would have a run of its own")
	}
	if out.Ticks == 0 {
		out.Ticks = defaultBatchTicks
	}
	if out.Ticks < 0 || out.Ticks > maxBatchTicks {
		add("batch_ticks", "%d is not between 1 and %d", out.Ticks, maxBatchTicks)
	}
	if out.Interval == 0 {
		out.Interval = defaultFlushInterval
	}
	if out.Interval < 10*time.Millisecond {
		add("flush_interval", "%v is less than 10ms", out.Interval)
	}
	if len(ms) > 0 {
		return replay.Config{}, ms
	}
	return out, nil
}

// parseInstant parses RFC 3339 or whole milliseconds since the Unix epoch.
func parseInstant(text string) (int64, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Nanosecond()%1e6 != 0 {
		return 0, fmt.Errorf("%q is neither an instant in RFC 3339 of whole milliseconds nor Unix milliseconds", text)
	}
	return t.UnixMilli(), nil
}
