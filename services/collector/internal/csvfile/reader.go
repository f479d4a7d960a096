package csvfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxLine bounds a row, and with it what a file without line ends can take.
const maxLine = 256 << 10

// Error is a mistake in a file, with its place.
type Error struct {
	// File is the name given in the mapping; Line counts from 1, header included;
	// 0 is the file as a whole.
	File string
	Line int64
	// Column is the column's name; empty if the row as a whole is meant.
	Column string
	// Message says what is wrong and what would be right.
	Message string
}

// Error returns file:line: column: message.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Column != "" {
		fmt.Fprintf(&b, "column %s: ", e.Column)
	}
	b.WriteString(e.Message)
	return b.String()
}

// Row is one reading of the file, in the file's own clock.
type Row struct {
	// Node is valid for ever: equal names share their memory.
	Node string
	// TimeMS is milliseconds since the Unix epoch, Value mW or µJ.
	TimeMS, Value int64
	// Rounded tells that time or value were finer than their unit.
	Rounded bool
	// Line is the row's line in the file.
	Line int64
}

// Position is where a reader stands between two rows.
type Position struct {
	// Offset is the byte after the last row read, Line how many lines that is.
	Offset, Line int64
}

// Reader reads the rows of a file in order. It checks each row by itself, not
// rows against each other.
type Reader struct {
	m       *Mapping
	src     io.ReadSeeker
	in      *bufio.Reader
	at      Position
	columns []string
	node    int
	time    int
	value   int
	scale   uint64
	nodes   map[string]string
	fields  [][]byte
	joined  []byte
	plain   []byte
}

// NewReader reads the header of src, which stands at its start, and finds the
// columns of the mapping, which must be valid. It returns an [*Error] about the
// header, or the error of src.
func NewReader(src io.ReadSeeker, m *Mapping) (*Reader, error) {
	u, message := m.unit()
	if message != "" {
		return nil, r0(m, message)
	}
	r := &Reader{m: m, src: src, in: bufio.NewReaderSize(src, maxLine), scale: u.scale, nodes: make(map[string]string)}
	switch err := r.record(); {
	case errors.Is(err, io.EOF):
		return nil, &Error{File: m.File, Line: 1, Message: "the file is empty: it needs a header with the columns' names, and rows"}
	case err != nil:
		return nil, err
	}
	for i, f := range r.fields {
		if i == 0 {
			f = bytes.TrimPrefix(f, []byte("\ufeff"))
		}
		r.columns = append(r.columns, string(bytes.TrimSpace(f)))
	}
	var err error
	if r.time, err = r.column(m.TimeColumn); err != nil {
		return nil, err
	}
	if r.value, err = r.column(m.ValueColumn); err != nil {
		return nil, err
	}
	r.node = -1
	if m.NodeColumn != "" {
		if r.node, err = r.column(m.NodeColumn); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func r0(m *Mapping, message string) *Error { return &Error{File: m.File, Message: message} }

func (r *Reader) column(name string) (int, error) {
	found := -1
	for i, c := range r.columns {
		if c != name {
			continue
		}
		if found >= 0 {
			return 0, r.wrong("", fmt.Sprintf("there are two columns %q: rename one", name))
		}
		found = i
	}
	if found < 0 {
		hint := ""
		if len(r.columns) == 1 && strings.ContainsAny(r.columns[0], ";\t") {
			hint = " (columns are separated by commas)"
		}
		return 0, r.wrong("", fmt.Sprintf("there is no column %q: the columns are %s%s", name, strings.Join(r.columns, ", "), hint))
	}
	return found, nil
}

// Position returns where the reader stands: after the last row that Next gave.
func (r *Reader) Position() Position { return r.at }

// Seek continues at a position that a reader of the same file returned.
func (r *Reader) Seek(at Position) error {
	if _, err := r.src.Seek(at.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek in %s: %w", r.m.File, err)
	}
	r.in.Reset(r.src)
	r.at = at
	return nil
}

// Next reads the next row. It returns [io.EOF] after the last one, an [*Error]
// about a row that is wrong (the next call goes on behind it), or the error of
// the source.
func (r *Reader) Next(row *Row) error {
	for {
		if err := r.record(); err != nil {
			return err
		}
		if len(r.fields) > 1 || len(bytes.TrimSpace(r.fields[0])) > 0 {
			return r.parse(row)
		}
	}
}

func (r *Reader) parse(row *Row) error {
	// One too many is a mistake too: an unquoted 1,234 would be read as 1.
	if len(r.fields) != len(r.columns) {
		return r.wrong("", fmt.Sprintf("has %d columns, the header has %d", len(r.fields), len(r.columns)))
	}
	row.Line = r.at.Line
	row.Node = r.m.Node
	if r.node >= 0 {
		name := bytes.TrimSpace(r.fields[r.node])
		known, ok := r.nodes[string(name)]
		if !ok {
			known = string(name)
			if known == "" {
				return r.wrong(r.m.NodeColumn, "is empty: every row needs its node")
			}
			if err := checkName(known); err != nil {
				return r.wrong(r.m.NodeColumn, err.Error())
			}
			r.nodes[known] = known
		}
		row.Node = known
	}
	ms, roundedTime, err := r.m.parseTime(bytes.TrimSpace(r.fields[r.time]))
	if err != nil {
		return r.wrong(r.m.TimeColumn, err.Error())
	}
	value, roundedValue, err := parseScaled(bytes.TrimSpace(r.fields[r.value]), r.scale)
	if err != nil {
		return r.wrong(r.m.ValueColumn, err.Error())
	}
	if value < 0 {
		return r.wrong(r.m.ValueColumn, fmt.Sprintf("%q is negative: a meter that reads so has no reading there; remove the row",
			clip(bytes.TrimSpace(r.fields[r.value]))))
	}
	row.TimeMS, row.Value, row.Rounded = ms, value, roundedTime || roundedValue
	return nil
}

func (m *Mapping) parseTime(text []byte) (ms int64, rounded bool, err error) {
	switch m.TimeFormat {
	case UnixMS:
		ms, rounded, err = parseScaled(text, 1)
	case Unix:
		ms, rounded, err = parseScaled(text, 1000)
	default:
		layout := m.TimeFormat
		if layout == RFC3339 {
			layout = time.RFC3339Nano
		}
		var t time.Time
		if t, err = time.Parse(layout, string(text)); err != nil {
			return 0, false, m.notATime(text)
		}
		ms, rounded = roundMS(t)
	}
	if errors.Is(err, errNotANumber) {
		return 0, false, m.notATime(text)
	}
	if err == nil && (ms <= minTimeMS || ms >= maxTimeMS) {
		err = fmt.Errorf("%q is out of range as a time of the format %s", clip(text), m.TimeFormat)
	}
	return ms, rounded, err
}

func (m *Mapping) notATime(text []byte) error {
	return fmt.Errorf("%q is no time of the format %s: give another --time-format (rfc3339, unix, unix_ms, or a layout)", clip(text), m.TimeFormat)
}

// maxTimeMS and minTimeMS bound any instant, so that no difference overflows.
const (
	maxTimeMS = 1 << 51
	minTimeMS = -maxTimeMS
)

// roundMS returns t in ms, rounded half to even.
func roundMS(t time.Time) (ms int64, rounded bool) {
	ms = t.UnixMilli()
	rest := t.Nanosecond() % 1e6
	if rest > 5e5 || rest == 5e5 && ms&1 != 0 {
		ms++
	}
	return ms, rest != 0
}

func (r *Reader) wrong(column, message string) *Error {
	return &Error{File: r.m.File, Line: r.at.Line, Column: column, Message: message}
}

// record reads the next line, or the lines that quotes join, into fields.
func (r *Reader) record() error {
	line, err := r.line()
	if err != nil {
		return err
	}
	r.fields = r.fields[:0]
	if bytes.IndexByte(line, '"') >= 0 {
		return r.quoted(line)
	}
	for {
		i := bytes.IndexByte(line, ',')
		if i < 0 {
			r.fields = append(r.fields, line)
			return nil
		}
		r.fields = append(r.fields, line[:i])
		line = line[i+1:]
	}
}

// line returns the next line without its end; it is valid until the next call.
func (r *Reader) line() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	r.at.Offset += int64(len(line))
	if len(line) > 0 {
		r.at.Line++
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, r.wrong("", "is longer than 256 KiB: is this a CSV file?")
	case errors.Is(err, io.EOF):
		if len(line) == 0 {
			return nil, io.EOF
		}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", r.m.File, err)
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// quoted splits a record that has quotes (RFC 4180). A record whose quotes are
// still open goes on in the next line.
func (r *Reader) quoted(line []byte) error {
	first := r.at.Line
	r.joined = append(r.joined[:0], line...)
	for bytes.Count(r.joined, []byte(`"`))%2 == 1 {
		more, err := r.line()
		if errors.Is(err, io.EOF) || len(r.joined)+len(more) > maxLine {
			return &Error{File: r.m.File, Line: first, Message: `a quote (") is not closed`}
		}
		if err != nil {
			return err
		}
		r.joined = append(append(r.joined, '\n'), more...)
	}
	// Fields are cut from plain, which never grows while they are.
	r.plain = r.plain[:0]
	if cap(r.plain) < len(r.joined) {
		r.plain = make([]byte, 0, 2*len(r.joined))
	}
	rest := r.joined
	for {
		field, after, ok := r.field(rest)
		if !ok {
			return &Error{File: r.m.File, Line: first, Message: `has a quote (") inside a field: double it and quote the field`}
		}
		r.fields = append(r.fields, field)
		if len(after) == 0 {
			return nil
		}
		rest = after[1:]
	}
}

// field cuts the next field off b; after begins with the comma behind it or is
// empty at the end.
func (r *Reader) field(b []byte) (field, after []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		end := bytes.IndexByte(b, ',')
		if end < 0 {
			end = len(b)
		}
		return b[:end], b[end:], bytes.IndexByte(b[:end], '"') < 0
	}
	start := len(r.plain)
	b = b[1:]
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return nil, nil, false
		}
		r.plain = append(r.plain, b[:i]...)
		b = b[i+1:]
		if len(b) == 0 || b[0] == ',' {
			return r.plain[start:len(r.plain):len(r.plain)], b, true
		}
		if b[0] != '"' {
			return nil, nil, false
		}
		r.plain = append(r.plain, '"')
		b = b[1:]
	}
}
