package csvfile

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"

	"github.com/wattfold/wattfold/carbon/segment"
	"github.com/wattfold/wattfold/proto/samplewire"
)

const (
	// MaxNodes bounds the nodes of one file, and with it the memory of a pass.
	MaxNodes = 100_000
	// MaxAhead is how far a tick may lie ahead of our clock.
	MaxAhead = 10 * time.Minute
	// maxProblems is how many mistakes are told at once.
	maxProblems = 10
	// progressBytes is how often a pass tells how far it is.
	progressBytes = 1 << 20
)

// earliestMS is the first of January 2000: before it lie clocks that were never
// set, and seconds read as milliseconds.
var earliestMS = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// Node is what a scan learned of one node.
type Node struct {
	// Name is the node's name.
	Name string
	// FirstMS and LastMS are its first and last instant in the file's own clock.
	FirstMS, LastMS int64
	// Readings counts its rows less duplicates.
	Readings uint64
	// Scale is the largest n with every value a multiple of 10^n.
	Scale uint8
}

// Summary is what a scan learned of a file.
type Summary struct {
	// Rows counts all rows, Samples those less duplicates, Rounded those that
	// were finer than ms or mW (µJ).
	Rows, Samples, Duplicates, Rounded uint64
	// Nodes are in the order of their first rows.
	Nodes []Node
	// EarliestMS and LatestMS bound all rows, in the file's own clock.
	EarliestMS, LatestMS int64
	// MedianStepMS is the median of the steps between two readings of a node,
	// exact below 65 s; 0 if there is no step.
	MedianStepMS int64
	// InOrder tells that the rows as a whole never fall in time.
	InOrder bool
	// Size is the file's bytes, Content their SHA-256.
	Size    int64
	Content [sha256.Size]byte
}

// ShiftMS returns by how much the file's clock is moved to start at startAt;
// nil leaves it.
func (s *Summary) ShiftMS(startAt *int64) int64 {
	if startAt == nil {
		return 0
	}
	return *startAt - s.EarliestMS
}

// Problems are the mistakes of a file, the first ones of many.
type Problems []*Error

// Error lists them, one a line.
func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, e := range p {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// Options tell a scan what else to do.
type Options struct {
	// NowMS is our clock: no row may lie over [MaxAhead] ahead of it.
	NowMS int64
	// AnyYear leaves the years unchecked, for a caller that moves the file to an
	// instant of its own.
	AnyYear bool
	// Progress, if not nil, is told the bytes done, about once a megabyte.
	Progress func(done int64)
	// Visit, if not nil, is told of every reading but duplicates: its node's
	// place in Summary.Nodes and its instant in the file's own clock.
	Visit func(node int, ms int64)
}

// Scan reads a whole file, which stands at its start, under a valid mapping.
// Mistakes come back as [Problems], up to ten at once.
func Scan(ctx context.Context, src io.ReadSeeker, m *Mapping, o Options) (*Summary, error) {
	hash := sha256.New()
	tee := &teeSeeker{ReadSeeker: src, to: hash.Write}
	r, err := NewReader(tee, m)
	if err != nil {
		return nil, asProblems(err)
	}
	s := scanner{m: m, opts: o, index: make(map[string]int), sum: Summary{InOrder: true}}
	var problems Problems
	var row Row
	told := int64(0)
	for {
		err := r.Next(&row)
		if err == nil {
			err = s.add(&row)
		}
		var wrong *Error
		switch {
		case errors.Is(err, io.EOF):
			return s.finish(problems, r, hash.Sum(nil))
		case errors.As(err, &wrong):
			s.sum.Rows++
			if problems = append(problems, wrong); len(problems) == maxProblems {
				return nil, problems
			}
		case err != nil:
			return nil, err
		}
		if done := r.Position().Offset; done-told >= progressBytes {
			if told = done; o.Progress != nil {
				o.Progress(done)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
}

func asProblems(err error) error {
	if wrong, ok := errors.AsType[*Error](err); ok {
		return Problems{wrong}
	}
	return err
}

type scanner struct {
	m       *Mapping
	opts    Options
	sum     Summary
	index   map[string]int
	latest  int64
	steps   steps
	last    int
	hasLast bool
}

// add takes a row that is right by itself and checks it against the others.
func (s *scanner) add(row *Row) error {
	if s.m.StartAtMS == nil && !s.opts.AnyYear {
		if message := s.checkYear(row.TimeMS); message != "" {
			return s.wrong(row.Line, s.m.TimeColumn, message)
		}
	}
	node, err := s.node(row)
	if err != nil {
		return err
	}
	if node.Readings > 0 && row.TimeMS < node.LastMS {
		return s.wrong(row.Line, s.m.TimeColumn, fmt.Sprintf("%s is before the row of node %s before it, at %s: sort the rows of each node by time",
			text(row.TimeMS), node.Name, text(node.LastMS)))
	}
	s.sum.Rows++
	if row.Rounded {
		s.sum.Rounded++
	}
	if node.Readings > 0 && row.TimeMS == node.LastMS {
		s.sum.Duplicates++
		return nil
	}
	if node.Readings > 0 {
		s.steps.add(row.TimeMS - node.LastMS)
	} else {
		node.FirstMS = row.TimeMS
	}
	if s.sum.Samples == 0 || row.TimeMS < s.sum.EarliestMS {
		s.sum.EarliestMS = row.TimeMS
	}
	if s.sum.Samples == 0 || row.TimeMS > s.sum.LatestMS {
		s.sum.LatestMS, s.latest = row.TimeMS, row.Line
	} else if row.TimeMS < s.sum.LatestMS {
		s.sum.InOrder = false
	}
	s.sum.Samples++
	node.Readings++
	node.LastMS = row.TimeMS
	if s.opts.Visit != nil {
		s.opts.Visit(s.last, row.TimeMS)
	}
	for node.Scale > 0 && row.Value%int64(pow10[node.Scale]) != 0 {
		node.Scale--
	}
	return nil
}

func (s *scanner) node(row *Row) (*Node, error) {
	if s.hasLast && s.sum.Nodes[s.last].Name == row.Node {
		return &s.sum.Nodes[s.last], nil
	}
	i, ok := s.index[row.Node]
	if !ok {
		i = len(s.sum.Nodes)
		if i == MaxNodes {
			return nil, s.wrong(row.Line, s.m.NodeColumn, fmt.Sprintf("is the %dth node: split the file by nodes, %d each at most", i+1, MaxNodes))
		}
		s.index[row.Node] = i
		s.sum.Nodes = append(s.sum.Nodes, Node{Name: row.Node, Scale: samplewire.MaxScale})
	}
	s.last, s.hasLast = i, true
	return &s.sum.Nodes[i], nil
}

func (s *scanner) checkYear(ms int64) string {
	switch {
	case ms < earliestMS:
		hint := ""
		if s.m.TimeFormat == UnixMS && ms > 0 {
			hint = "; seconds are of the format unix"
		}
		return fmt.Sprintf("%s is before the year 2000%s: check the time format, or move the file with start_at", text(ms), hint)
	case ms > s.opts.NowMS+MaxAhead.Milliseconds():
		hint := ""
		if s.m.TimeFormat == Unix {
			hint = "; milliseconds are of the format unix_ms"
		}
		return fmt.Sprintf("%s is more than 10 minutes ahead of now%s: check the time format", text(ms), hint)
	}
	return ""
}

func (s *scanner) finish(problems Problems, r *Reader, content []byte) (*Summary, error) {
	sum := &s.sum
	sum.Size = r.Position().Offset
	copy(sum.Content[:], content)
	sum.MedianStepMS = s.steps.median()
	if len(problems) > 0 {
		return nil, problems
	}
	if sum.Rows == 0 {
		return nil, Problems{r0(s.m, "the file has a header and no row")}
	}
	if at := s.m.StartAtMS; at != nil && !s.opts.AnyYear {
		shift := sum.ShiftMS(at)
		if *at < earliestMS {
			return nil, Problems{r0(s.m, fmt.Sprintf("start_at %s is before the year 2000", text(*at)))}
		}
		if end := sum.LatestMS + shift; end > s.opts.NowMS+MaxAhead.Milliseconds() {
			return nil, Problems{s.wrong(s.latest, s.m.TimeColumn, fmt.Sprintf(
				"started at %s, this row lies at %s, more than 10 minutes ahead of now: choose an earlier start_at", text(*at), text(end)))}
		}
	}
	if message := s.checkRun(); message != "" {
		return nil, Problems{r0(s.m, message)}
	}
	spec := s.m.Spec()
	if gap := spec.Gap(); s.m.Kind != segment.CumulativeEnergy && sum.MedianStepMS > gap {
		return nil, Problems{r0(s.m, fmt.Sprintf(
			"the median step between two rows of a node is %v, but power is not bridged over more than %v: declare the rows' period with --period, or how far to bridge with --max-gap",
			time.Duration(sum.MedianStepMS)*time.Millisecond, time.Duration(gap)*time.Millisecond))}
	}
	// A node of zeros alone is a multiple of anything; it needs no scale.
	for i := range sum.Nodes {
		if sum.Nodes[i].Scale == samplewire.MaxScale {
			sum.Nodes[i].Scale = 0
		}
	}
	return sum, nil
}

// checkRun finds a run that leaves nothing of the file, or that began before there
// were any: most likely its times are of another unit or clock.
func (s *scanner) checkRun() string {
	const hint = "run_start and run_stop are in the file's own clock, in RFC 3339 or Unix milliseconds"
	start, stop := s.m.RunStartMS, s.m.RunStopMS
	switch {
	case start != nil && *start > s.sum.LatestMS:
		return fmt.Sprintf("run_start %s is after the last row, at %s: %s", text(*start), text(s.sum.LatestMS), hint)
	case stop != nil && *stop < s.sum.EarliestMS:
		return fmt.Sprintf("run_stop %s is before the first row, at %s: %s", text(*stop), text(s.sum.EarliestMS), hint)
	case start != nil && !s.opts.AnyYear && *start+s.sum.ShiftMS(s.m.StartAtMS) < earliestMS:
		return fmt.Sprintf("run_start %s is before the year 2000, or start_at moves it there: %s", text(*start), hint)
	default:
		return ""
	}
}

func (s *scanner) wrong(line int64, column, message string) *Error {
	return &Error{File: s.m.File, Line: line, Column: column, Message: message}
}

func text(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// steps counts steps exactly up to 65 s and by octaves above, so that its
// memory does not grow with the file.
type steps struct {
	exact   [1 << 16]uint64
	octaves [64]uint64
	n       uint64
}

func (s *steps) add(ms int64) {
	s.n++
	if ms < int64(len(s.exact)) {
		s.exact[ms]++
		return
	}
	s.octaves[bits.Len64(uint64(ms))-1]++
}

// median returns the lower median.
func (s *steps) median() int64 {
	if s.n == 0 {
		return 0
	}
	rank := (s.n + 1) / 2
	for ms, n := range s.exact {
		if n >= rank {
			return int64(ms)
		}
		rank -= n
	}
	for octave, n := range s.octaves {
		if n >= rank {
			return 1 << octave
		}
		rank -= n
	}
	return 0
}

// teeSeeker shows every byte read to a function.
type teeSeeker struct {
	io.ReadSeeker
	to func([]byte) (int, error)
}

func (t *teeSeeker) Read(p []byte) (int, error) {
	n, err := t.ReadSeeker.Read(p)
	if n > 0 {
		if _, werr := t.to(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}
