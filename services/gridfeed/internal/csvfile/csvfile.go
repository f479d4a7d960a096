package csvfile

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/unit"
)

const (
	// MaxRows bounds the rows of a file, and with them the memory of an import:
	// about 64 bytes a row. It is nineteen years of five minutes.
	MaxRows = 2_000_000
	// maxRecord bounds one record, so that a quote that is never closed does not
	// swallow the file into memory.
	maxRecord = 1 << 20
	// maxProblems is how many mistakes are collected before reading stops.
	maxProblems = 10
	// maxIntensity is beyond anything that a grid can emit; a value above it is in
	// another unit.
	maxIntensity = 1_000_000
)

// Mapping says how the columns of a file become intervals.
type Mapping struct {
	File        string        // the file's name, for messages
	TimeColumn  string        // the column of the interval's start
	TimeFormat  string        // rfc3339 (also when empty), unix, unix_ms, or a layout of package time, read as UTC
	ValueColumn string        // the column of the value
	Unit        string        // see [Units]; empty: g/kWh
	Step        time.Duration // the length of an interval, whole slots; 0: the median distance of the starts
	KnownColumn string        // the column of when the publisher said so; empty: none
	KnownFormat string        // as TimeFormat
	Now         time.Time     // rows more than ten years after it are refused
}

// Row is one value.
type Row struct {
	Start   slot.Slot
	KnownMS int64        // Unix milliseconds; 0 without a column of it
	Value   unit.Decimal // g/kWh
	Raw     unit.Decimal // as the file has it, in its unit
	Line    int32        // where it stands in the file, counted from 1
	empty   bool         // has no value: its start counts for the step alone
}

// File is what was read.
type File struct {
	Rows     []Row         // those with a value, by KnownMS, then by line; repeated rows once
	Step     time.Duration // the length of every interval
	Unit     string        // the unit of Raw, one of [Units]
	Total    uint64        // rows of the file without its header
	Empty    uint64        // rows without a value
	Repeated uint64        // rows that say again what an earlier one said
}

// Problem is one mistake in a file or its mapping.
type Problem struct {
	File   string
	Line   int    // counted from 1; 0: the file as a whole
	Column string // the column's name; empty: the line as a whole
	Text   string // what is wrong and what to do about it
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Column != "" {
		fmt.Fprintf(&b, "column %q: ", p.Column)
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are the first mistakes found, in the order of reading, at most ten.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads a file to its end. It returns [Problems] if the file or the mapping is
// wrong, and the reader's own error if reading fails.
func Parse(r io.Reader, m Mapping) (*File, error) {
	p := &parser{mapping: m, file: &File{}}
	if m.File == "" {
		p.mapping.File = "csv"
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	if err := p.read(r); err != nil {
		return nil, err
	}
	if len(p.problems) == 0 {
		p.finish()
	}
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return p.file, nil
}

// parser is one run of Parse.
type parser struct {
	mapping  Mapping
	unit     conversion
	start    timeFormat
	known    timeFormat
	file     *File
	problems Problems
}

// report notes a mistake and says whether reading goes on.
func (p *parser) report(line int, column, format string, args ...any) bool {
	p.problems = append(p.problems, Problem{
		File: p.mapping.File, Line: line, Column: column, Text: fmt.Sprintf(format, args...),
	})
	return len(p.problems) < maxProblems
}

// prepare checks the mapping itself.
func (p *parser) prepare() error {
	var err error
	if p.unit, err = conversionOf(p.mapping.Unit); err != nil {
		p.report(0, "", "%s", err)
	}
	p.file.Unit = p.unit.name
	if p.start, err = newTimeFormat(p.mapping.TimeFormat); err != nil {
		p.report(0, p.mapping.TimeColumn, "%s", err)
	}
	if p.mapping.KnownColumn != "" {
		if p.known, err = newTimeFormat(p.mapping.KnownFormat); err != nil {
			p.report(0, p.mapping.KnownColumn, "%s", err)
		}
	}
	if step := p.mapping.Step; step < 0 || step%(slot.Millis*time.Millisecond) != 0 {
		p.report(0, "", "a step of %s is not a multiple of five minutes", step)
	}
	if len(p.problems) > 0 {
		return p.problems
	}
	return nil
}

// read goes through the file once, row by row.
func (p *parser) read(r io.Reader) error {
	guarded := &recordGuard{r: r, left: maxRecord}
	buffered := bufio.NewReader(guarded)
	if mark, err := buffered.Peek(3); err == nil && string(mark) == "\ufeff" {
		if _, err := buffered.Discard(3); err != nil {
			return fmt.Errorf("read %s: %w", p.mapping.File, err)
		}
	}
	in := csv.NewReader(buffered)
	in.FieldsPerRecord = -1
	in.ReuseRecord = true

	header, err := in.Read()
	if errors.Is(err, io.EOF) {
		p.report(1, "", "the file is empty: want a header line and rows")
		return nil
	}
	if err != nil {
		return p.readError(err)
	}
	columns := newColumns(header)
	timeAt := p.find(columns, p.mapping.TimeColumn)
	valueAt := p.find(columns, p.mapping.ValueColumn)
	knownAt := -1
	if p.mapping.KnownColumn != "" {
		knownAt = p.find(columns, p.mapping.KnownColumn)
	}
	if len(p.problems) > 0 {
		return nil
	}
	for {
		guarded.left = maxRecord
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return p.readError(err)
		}
		line, _ := in.FieldPos(0)
		p.file.Total++
		switch {
		case len(record) != len(columns):
			if !p.report(line, "", "%d fields, but the header has %d", len(record), len(columns)) {
				return nil
			}
			continue
		case len(p.file.Rows) == MaxRows:
			p.report(line, "", "more than %d rows: split the file", MaxRows)
			return nil
		}
		row := Row{Line: int32(line)} //nolint:gosec // MaxRows records of at most maxRecord bytes; only a message reads it
		var known string
		if knownAt >= 0 {
			known = record[knownAt]
		}
		if !p.row(&row, record[timeAt], record[valueAt], known) {
			return nil
		}
		if len(p.problems) == 0 {
			p.file.Rows = append(p.file.Rows, row)
		}
	}
}

// readError tells a malformed file from a reader that failed.
func (p *parser) readError(err error) error {
	var malformed *csv.ParseError
	switch {
	case errors.Is(err, errLongRecord):
		p.report(0, "", "after row %d: %s", p.file.Total, errLongRecord)
		return nil
	case errors.As(err, &malformed):
		p.report(malformed.Line, "", "byte %d: %s", malformed.Column, malformed.Err)
		return nil
	default:
		return fmt.Errorf("read %s: %w", p.mapping.File, err)
	}
}

// row reads the fields of one row. It says whether reading goes on.
func (p *parser) row(row *Row, start, value, known string) bool {
	startMS, err := p.start.parse(start)
	if err == nil {
		err = p.plausible(startMS)
	}
	if err == nil && startMS%slot.Millis != 0 {
		err = fmt.Errorf("%s does not lie on a slot of five minutes, where intervals start: round the times first",
			strings.TrimSpace(start))
	}
	if err != nil {
		return p.report(int(row.Line), p.mapping.TimeColumn, "%s", err)
	}
	row.Start = slot.Of(startMS)

	if p.mapping.KnownColumn != "" {
		row.KnownMS, err = p.known.parse(known)
		if err == nil {
			err = p.plausible(row.KnownMS)
		}
		if err != nil {
			return p.report(int(row.Line), p.mapping.KnownColumn, "%s", err)
		}
	}

	value = strings.TrimSpace(value)
	if value == "" {
		row.empty = true
		p.file.Empty++
		return true
	}
	if row.Raw, err = unit.ParseDecimal(value); err == nil {
		row.Value, err = p.unit.apply(row.Raw)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("%w; leave the field empty where there is no value", err)
	case row.Value.Sign() < 0:
		err = fmt.Errorf("%s is negative: an intensity is not; leave the field empty where there is no value", value)
	case row.Value.Float64() > maxIntensity:
		err = fmt.Errorf("%s %s is more than any grid emits: is the unit right? (%s)", value, p.unit.name, unitList)
	}
	if err != nil {
		return p.report(int(row.Line), p.mapping.ValueColumn, "%s", err)
	}
	return true
}

// earliest is where plausible times begin. It is not 1970, because seconds read as
// milliseconds end up there.
var earliest = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *parser) plausible(ms int64) error {
	t := time.UnixMilli(ms).UTC()
	latest := p.mapping.Now.AddDate(10, 0, 0)
	if t.Before(earliest) || t.After(latest) {
		return fmt.Errorf("%s is years off (%d to %d is expected): "+
			"is it another column, or another --time-format (unix is seconds, unix_ms milliseconds)?",
			t.Format(time.RFC3339), earliest.Year(), latest.Year())
	}
	return nil
}

// find returns the place of a column, or reports that it is missing or twice there.
func (p *parser) find(columns []string, name string) int {
	at := -1
	for i, column := range columns {
		if column != name {
			continue
		}
		if at >= 0 {
			p.report(1, name, "there are two columns of this name (%d and %d): rename one", at+1, i+1)
			return -1
		}
		at = i
	}
	if at < 0 {
		hint := ""
		if len(columns) == 1 && strings.ContainsAny(columns[0], ";\t") {
			hint = "; fields must be separated by commas"
		}
		p.report(1, name, "no such column; there are %s%s", quoteAll(columns), hint)
	}
	return at
}

// finish derives the step, refuses contradictions and drops repetitions.
func (p *parser) finish() {
	f := p.file
	if f.Total == 0 {
		p.report(1, "", "no rows after the header")
		return
	}
	// Sorted by start, then by when it was known, equal intervals are neighbours.
	slices.SortFunc(f.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.KnownMS, b.KnownMS), cmp.Compare(a.Line, b.Line))
	})
	if !p.step() {
		return
	}
	kept := f.Rows[:0]
	for _, row := range f.Rows {
		if row.empty {
			continue
		}
		if n := len(kept); n > 0 && kept[n-1].Start == row.Start && kept[n-1].KnownMS == row.KnownMS {
			if kept[n-1].Value != row.Value {
				hint := "give --known-at-column if the file says when each was known"
				if p.mapping.KnownColumn != "" {
					hint = "both are known at the same moment"
				}
				if !p.report(int(row.Line), p.mapping.ValueColumn, "%s for %s, where line %d has %s: %s",
					row.Raw, row.Start, kept[n-1].Line, kept[n-1].Raw, hint) {
					return
				}
				continue
			}
			f.Repeated++
			continue
		}
		kept = append(kept, row)
	}
	f.Rows = kept
	slices.SortFunc(f.Rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.KnownMS, b.KnownMS), cmp.Compare(a.Line, b.Line))
	})
}

// step settles the length of the intervals, given the rows by start.
func (p *parser) step() bool {
	f := p.file
	const oneSlot = slot.Millis * time.Millisecond
	var distances []slot.Slot
	for i := 1; i < len(f.Rows); i++ {
		if d := f.Rows[i].Start - f.Rows[i-1].Start; d > 0 {
			distances = append(distances, d)
		}
	}
	derived := p.mapping.Step == 0
	f.Step = p.mapping.Step
	if derived {
		if len(distances) == 0 {
			p.report(0, p.mapping.TimeColumn, "one start alone does not say how long an interval is: give --step")
			return false
		}
		slices.Sort(distances)
		f.Step = time.Duration(distances[(len(distances)-1)/2]) * oneSlot
	}
	length := slot.Slot(f.Step / oneSlot)
	for i := 1; i < len(f.Rows); i++ {
		a, b := f.Rows[i-1], f.Rows[i]
		if d := b.Start - a.Start; d > 0 && d < length {
			hint := "give a shorter --step"
			if derived {
				hint = "the median distance of the rows; split the file where its resolution changes, or give --step"
			}
			p.report(int(max(a.Line, b.Line)), p.mapping.TimeColumn,
				"%s is %s from %s in line %d, but an interval lasts %s: %s",
				b.Start, time.Duration(d)*oneSlot, a.Start, min(a.Line, b.Line), f.Step, hint)
			return false
		}
	}
	return true
}

// newColumns copies the header, without the blanks around its names.
func newColumns(header []string) []string {
	columns := make([]string, len(header))
	for i, name := range header {
		columns[i] = strings.TrimSpace(name)
	}
	return columns
}

func quoteAll(names []string) string {
	const most = 30
	quoted := make([]string, 0, min(len(names), most+1))
	for i, name := range names {
		if i == most {
			quoted = append(quoted, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	return strings.Join(quoted, ", ")
}

var errLongRecord = fmt.Errorf("a record of more than %d bytes: is a quote not closed?", maxRecord)

// recordGuard fails once a record has taken more than its share of bytes. It counts
// what is read ahead too, which makes the bound loose by one buffer.
type recordGuard struct {
	r    io.Reader
	left int
}

func (g *recordGuard) Read(b []byte) (int, error) {
	if g.left <= 0 {
		return 0, errLongRecord
	}
	n, err := g.r.Read(b)
	g.left -= n
	return n, err //nolint:wrapcheck // a reader passes io.EOF on as it is
}
