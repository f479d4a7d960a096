package csvfile

import (
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/proto/samplewire"
)

// Provenance says whether energy was metered or modelled. The numbers are those
// of wattfold.telemetry.v1.Provenance.
type Provenance uint8

const (
	// Measured energy was read from a meter.
	Measured Provenance = 1
	// Modelled energy was computed.
	Modelled Provenance = 2
)

// Components are the kinds of meters that a file may be of.
var Components = []string{"gpu", "cpu", "dram", "other", "chassis", "envelope"}

// The time formats that are not layouts of Go's time package.
const (
	RFC3339 = "rfc3339"
	Unix    = "unix"
	UnixMS  = "unix_ms"
)

// unit is one unit of the values: how many mW or µJ it is.
type unit struct {
	name  string
	scale uint64
}

var (
	powerUnits  = []unit{{"W", 1e3}, {"kW", 1e6}, {"MW", 1e9}, {"mW", 1}}
	energyUnits = []unit{{"J", 1e6}, {"kJ", 1e9}, {"mJ", 1e3}, {"uJ", 1}, {"Wh", 36e8}, {"kWh", 36e11}}
)

// maxPowerWatts is the most that may be declared; it fits a uint64 of mW and is
// more than any meter reads.
const maxPowerWatts = 1e15

// Mapping says how the columns of a file become readings. The zero value of a
// field means what the field of telemetry.v1.SampleMapping of that name says.
type Mapping struct {
	// File is the name of the file, for messages only.
	File string
	// Site is where the nodes stand.
	Site string
	// Project and Run attribute the energy; empty: none.
	Project, Run string
	// Component is the kind of the meter, Device its name; empty: Component/0.
	Component, Device string
	// Kind says what a value means.
	Kind segment.Kind
	// Provenance is Measured unless set.
	Provenance Provenance
	// NodeColumn names the column of the node, or Node the node of all rows.
	NodeColumn, Node string
	// TimeColumn and TimeFormat say where the time is and how it is written.
	TimeColumn, TimeFormat string
	// ValueColumn and Unit say where the value is and what it is in.
	ValueColumn, Unit string
	// StartAtMS moves the earliest row of the file to that instant.
	StartAtMS *int64
	// RunStartMS and RunStopMS cut off energy outside, in the file's own clock.
	RunStartMS, RunStopMS *int64
	// PeriodMS and MaxGapMS are as in the descriptor; 0: not declared.
	PeriodMS, MaxGapMS uint32
	// CounterRange is what a counter counts modulo, in Unit; empty: no wrap.
	CounterRange string
	// MaxPowerWatts is the most that the meter can read; 0: not declared.
	MaxPowerWatts float64
}

// Validate returns everything that is wrong with the mapping itself; the paths
// are the names of the fields in telemetry.v1.SampleMapping.
func (m *Mapping) Validate() []fault.Violation {
	var vs []fault.Violation
	add := func(path, format string, args ...any) { vs = append(vs, fault.Fieldf(path, format, args...)) }
	if m.Site == "" {
		add("site", "is empty: name the site that the nodes stand in")
	}
	for _, name := range []struct{ path, value string }{
		{"site", m.Site}, {"project", m.Project}, {"run", m.Run}, {"device", m.Device}, {"node", m.Node},
	} {
		if err := checkName(name.value); err != nil {
			add(name.path, "%v", err)
		}
	}
	if !slices.Contains(Components, m.Component) {
		add("component", "%q is none of %s", m.Component, strings.Join(Components, ", "))
	}
	if !m.Kind.Valid() {
		add("kind", "is not set: choose INSTANT_POWER, AVERAGE_POWER or CUMULATIVE_ENERGY")
	} else if _, message := m.unit(); message != "" {
		add("unit", "%s", message)
	}
	if m.Provenance > Modelled {
		add("provenance", "%d is neither measured nor modelled", m.Provenance)
	}
	if (m.NodeColumn == "") == (m.Node == "") {
		add("node_column", "give either the column of the node or the one node of all rows")
	}
	if m.TimeColumn == "" {
		add("time_column", "is empty: name the column of the time")
	}
	if m.TimeFormat == "" {
		add("time_format", "is empty: rfc3339, unix, unix_ms or a layout such as 2006-01-02 15:04:05")
	} else if !m.timeFormatKnown() {
		add("time_format", "%q is neither rfc3339, unix or unix_ms nor a layout of Go's time package such as 2006-01-02 15:04:05", m.TimeFormat)
	}
	if m.ValueColumn == "" {
		add("value_column", "is empty: name the column of the value")
	}
	if m.RunStartMS != nil && m.RunStopMS != nil && *m.RunStartMS >= *m.RunStopMS {
		add("run_stop", "is not after run_start")
	}
	if m.CounterRange != "" {
		switch v, err := m.counterRange(); {
		case m.Kind.Valid() && m.Kind != segment.CumulativeEnergy:
			add("counter_range", "only a counter (CUMULATIVE_ENERGY) has a range")
		case err != nil:
			add("counter_range", "%v", err)
		case v == 0:
			add("counter_range", "must be above 0")
		}
	}
	if math.IsNaN(m.MaxPowerWatts) || m.MaxPowerWatts < 0 || m.MaxPowerWatts > maxPowerWatts {
		add("max_power_watts", "%v is not between 0 and 1e15 W", m.MaxPowerWatts)
	}
	return vs
}

// checkName refuses names that no table, subject or terminal could show.
func checkName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("is longer than 253 bytes")
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%q is not UTF-8", name)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q has a control character", name)
	}
	return nil
}

func (m *Mapping) timeFormatKnown() bool {
	switch m.TimeFormat {
	case RFC3339, Unix, UnixMS:
		return true
	}
	// A layout without any element formats every instant alike.
	at := time.Date(2007, 11, 29, 19, 47, 58, 0, time.UTC)
	return at.Format(m.TimeFormat) != m.TimeFormat
}

// unit returns the unit of the values or, if it does not fit the kind, why.
func (m *Mapping) unit() (unit, string) {
	own, other := powerUnits, energyUnits
	if m.Kind == segment.CumulativeEnergy {
		own, other = energyUnits, powerUnits
	}
	for _, u := range own {
		if u.name == m.Unit {
			return u, ""
		}
	}
	kind := strings.ToUpper(m.Kind.String())
	for _, u := range other {
		if u.name != m.Unit {
			continue
		}
		if m.Kind == segment.CumulativeEnergy {
			return unit{}, fmt.Sprintf("%s is a unit of power, but %s reads energy in %s; power is INSTANT_POWER or AVERAGE_POWER",
				m.Unit, kind, unitNames(own))
		}
		return unit{}, fmt.Sprintf("%s is a unit of energy, but %s reads power in %s; a counter of energy is CUMULATIVE_ENERGY",
			m.Unit, kind, unitNames(own))
	}
	return unit{}, fmt.Sprintf("%q is no unit of %s: use %s", m.Unit, kind, unitNames(own))
}

func unitNames(units []unit) string {
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.name
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

func (m *Mapping) counterRange() (uint64, error) {
	if m.CounterRange == "" {
		return 0, nil
	}
	u, message := m.unit()
	if message != "" {
		// Reported for the unit.
		return 1, nil
	}
	v, _, err := parseScaled([]byte(m.CounterRange), u.scale)
	if err != nil {
		return 0, err
	}
	if v < 0 {
		return 0, fmt.Errorf("%q is negative", m.CounterRange)
	}
	return uint64(v), nil
}

// MeterName returns the device that the mapping names.
func (m *Mapping) MeterName() string {
	if m.Device != "" {
		return m.Device
	}
	return m.Component + "/0"
}

// Spec returns what the mapping declares, for the rule of the gap.
func (m *Mapping) Spec() segment.Spec {
	return segment.Spec{Kind: m.Kind, PeriodMS: int64(m.PeriodMS), MaxGapMS: int64(m.MaxGapMS)}
}

// Descriptor returns the descriptor of every series of the file, moved by
// shiftMS. The mapping must be valid.
func (m *Mapping) Descriptor(shiftMS int64) samplewire.Descriptor {
	wraps, err := m.counterRange()
	if err != nil {
		panic("csvfile: descriptor of a mapping that was not validated: " + err.Error())
	}
	d := samplewire.Descriptor{
		Device:     m.MeterName(),
		Component:  m.Component,
		Run:        m.Run,
		Project:    m.Project,
		Kind:       uint8(m.Kind),
		Provenance: uint8(max(m.Provenance, Measured)),
		PeriodMS:   m.PeriodMS,
		MaxGapMS:   m.MaxGapMS,
		Range:      wraps,
		MaxPower:   uint64(math.RoundToEven(m.MaxPowerWatts * 1000)),
	}
	if m.RunStartMS != nil {
		d.HasClipStart, d.ClipStartMS = true, *m.RunStartMS+shiftMS
	}
	if m.RunStopMS != nil {
		d.HasClipEnd, d.ClipEndMS = true, *m.RunStopMS+shiftMS
	}
	return d
}

// Hash writes everything of the mapping that changes what the file means, which
// is all but the name of the file.
func (m *Mapping) Hash(h hash.Hash) {
	var b []byte
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	instant := func(ms *int64) {
		if ms == nil {
			b = append(b, 0)
			return
		}
		b = binary.AppendVarint(append(b, 1), *ms)
	}
	text(m.Site)
	text(m.Project)
	text(m.Run)
	text(m.Component)
	text(m.MeterName())
	b = append(b, byte(m.Kind), byte(max(m.Provenance, Measured)))
	text(m.NodeColumn)
	text(m.Node)
	text(m.TimeColumn)
	text(m.TimeFormat)
	text(m.ValueColumn)
	text(m.Unit)
	instant(m.StartAtMS)
	instant(m.RunStartMS)
	instant(m.RunStopMS)
	b = binary.AppendUvarint(b, uint64(m.PeriodMS))
	b = binary.AppendUvarint(b, uint64(m.MaxGapMS))
	text(m.CounterRange)
	text(strconv.FormatFloat(m.MaxPowerWatts, 'g', -1, 64))
	h.Write(b)
}
