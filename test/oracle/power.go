package oracle

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Sample is one reading: mW for power, µJ for a counter.
type Sample struct{ TimeMS, Value int64 }

// Trace is the readings of every node of a file, in the order of the file.
type Trace map[string][]Sample

// Nodes returns the names in order.
func (t Trace) Nodes() []string { return slices.Sorted(maps.Keys(t)) }

// Count returns the number of readings.
func (t Trace) Count() int {
	n := 0
	for _, s := range t {
		n += len(s)
	}
	return n
}

// EarliestMS returns the time of the earliest reading.
func (t Trace) EarliestMS() int64 {
	first := true
	var earliest int64
	for _, samples := range t {
		for _, s := range samples {
			if first || s.TimeMS < earliest {
				earliest, first = s.TimeMS, false
			}
		}
	}
	return earliest
}

// Shifted returns the trace moved in time.
func (t Trace) Shifted(byMS int64) Trace {
	moved := make(Trace, len(t))
	for node, samples := range t {
		out := make([]Sample, len(samples))
		for i, s := range samples {
			out[i] = Sample{s.TimeMS + byMS, s.Value}
		}
		moved[node] = out
	}
	return moved
}

// Ledger is what a trace amounts to.
type Ledger struct {
	Nodes map[string]Account
	Total Account
	// SilentMS is time of the run's window before the first and after the last
	// reading of each node; 0 if no window is declared.
	SilentMS int64
	Counts   Counts
}

// Fold integrates every node of the trace.
func (t Trace) Fold(law Law) Ledger {
	l := Ledger{Nodes: map[string]Account{}, Total: Account{}}
	for _, node := range t.Nodes() {
		samples := t[node]
		account, counts := Integrate(samples, law)
		l.Nodes[node] = account
		l.Total.Add(account)
		l.Counts.Duplicate += counts.Duplicate
		l.Counts.OutOfOrder += counts.OutOfOrder
		l.Counts.Negative += counts.Negative
		l.Counts.Reset += counts.Reset
		l.Counts.Wrap += counts.Wrap
		l.Counts.Ambiguous += counts.Ambiguous
		if law.ClipStartMS != nil {
			l.SilentMS += max(0, samples[0].TimeMS-*law.ClipStartMS)
		}
		if law.ClipEndMS != nil {
			l.SilentMS += max(0, *law.ClipEndMS-samples[len(samples)-1].TimeMS)
		}
	}
	return l
}

// ReadPower reads a CSV with a header. The time column is in Unix milliseconds;
// values are decimal numbers in a unit that is scale times 1 mW or 1 µJ. An
// empty nodeColumn gives every row to node.
func ReadPower(path, nodeColumn, node, timeColumn, valueColumn string, scale int64) (trace Trace, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rows, columns, err := table(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	trace = Trace{}
	for i, row := range rows {
		ms, err := strconv.ParseInt(row[columns[timeColumn]], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+2, err)
		}
		value, err := integer(row[columns[valueColumn]], scale)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+2, err)
		}
		name := node
		if nodeColumn != "" {
			name = row[columns[nodeColumn]]
		}
		trace[name] = append(trace[name], Sample{ms, value})
	}
	return trace, nil
}

// integer returns text·scale, which must be whole.
func integer(text string, scale int64) (int64, error) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, fmt.Errorf("%q is no number", text)
	}
	r.Mul(r, new(big.Rat).SetInt64(scale))
	if !r.IsInt() || !r.Num().IsInt64() {
		return 0, fmt.Errorf("%q is no whole number of the smallest unit", text)
	}
	return r.Num().Int64(), nil
}

// table reads a CSV and the places of its columns.
func table(r io.Reader) (rows [][]string, columns map[string]int, err error) {
	all, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return nil, nil, errors.New("no header")
	}
	columns = map[string]int{}
	for i, name := range all[0] {
		columns[name] = i
	}
	return all[1:], columns, nil
}

// mllog is the part of an MLPerf log line that is read here.
type mllog struct {
	TimeMS int64       `json:"time_ms"`
	Key    string      `json:"key"`
	Value  json.Number `json:"value"`
}

// ReadMLLog reads the power_reading lines of a log of MLPerf's power shelf, in
// watts, for one node.
func ReadMLLog(path string) (samples []Sample, err error) {
	err = eachLog(path, func(line string) error {
		var e mllog
		if !strings.Contains(line, `"power_reading"`) {
			return nil
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return err
		}
		value, err := integer(e.Value.String(), 1000)
		if err != nil {
			return err
		}
		samples = append(samples, Sample{e.TimeMS, value})
		return nil
	})
	return samples, err
}

// ReadRun reads the window of a run from its log.
func ReadRun(path string) (startMS, stopMS int64, err error) {
	err = eachLog(path, func(line string) error {
		var e struct {
			TimeMS int64  `json:"time_ms"`
			Key    string `json:"key"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return err
		}
		switch e.Key {
		case "run_start":
			startMS = e.TimeMS
		case "run_stop":
			stopMS = e.TimeMS
		}
		return nil
	})
	if err == nil && (startMS == 0 || stopMS == 0) {
		err = fmt.Errorf("%s: no run_start or no run_stop", path)
	}
	return startMS, stopMS, err
}

// eachLog calls fn with the JSON of every MLLOG line.
func eachLog(path string, fn func(line string) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		_, text, ok := strings.Cut(lines.Text(), ":::MLLOG ")
		if !ok {
			continue
		}
		if err := fn(text); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return lines.Err()
}

// WriteCSV writes a trace of power as node,time_unix_ms,watts, in the order of
// time, as an exporter would.
func (t Trace) WriteCSV(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	type row struct {
		node string
		Sample
	}
	var rows []row
	for _, node := range t.Nodes() {
		for _, s := range t[node] {
			rows = append(rows, row{node, s})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		switch {
		case a.TimeMS < b.TimeMS:
			return -1
		case a.TimeMS > b.TimeMS:
			return 1
		}
		return 0
	})
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "node,time_unix_ms,watts")
	for _, r := range rows {
		fmt.Fprintf(w, "%s,%d,%d.%03d\n", r.node, r.TimeMS, r.Value/1000, r.Value%1000)
	}
	return w.Flush()
}
