package gridfeed

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/carbon/timeline"
	"github.com/wattfold/wattfold/internal/fault"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/gridfeed/internal/csvfile"
	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
)

// sinceEver is how a moment before all others is told: the first that a timestamp of
// the API may name.
const sinceEver int64 = -62_135_596_800_000

// signalFromProto reads a signal; unspecified is the life-cycle average.
func signalFromProto(s gridv1.Signal) (store.Signal, error) {
	switch s {
	case gridv1.Signal_SIGNAL_UNSPECIFIED, gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE:
		return store.AverageLifecycle, nil
	case gridv1.Signal_SIGNAL_CARBON_AVERAGE_DIRECT:
		return store.AverageDirect, nil
	case gridv1.Signal_SIGNAL_CARBON_MARGINAL:
		return store.Marginal, nil
	default:
		return 0, fault.Fields(fault.Fieldf("signal", "%d is not a signal", s))
	}
}

// qualityFromProto reads the label of an import; unspecified is measured.
func qualityFromProto(q gridv1.Quality) (timeline.Quality, error) {
	if q == gridv1.Quality_QUALITY_UNSPECIFIED {
		return timeline.Measured, nil
	}
	if _, ok := gridv1.Quality_name[int32(q)]; !ok {
		return 0, fault.Fields(fault.Fieldf("mapping.quality", "%d is not a quality", q))
	}
	return timeline.Quality(q), nil //nolint:gosec // it is one of a handful
}

// msFromProto reads an instant, rounded down to milliseconds. path names its field.
func msFromProto(path string, t *timestamppb.Timestamp) (int64, error) {
	if err := t.CheckValid(); err != nil {
		return 0, fault.Fields(fault.Fieldf(path, "not a timestamp: %v", err))
	}
	return t.AsTime().UnixMilli(), nil
}

func viewFromProto(v *gridv1.View) (view, error) {
	switch by := v.GetBy().(type) {
	case *gridv1.View_AsOf:
		ms, err := msFromProto("view.as_of", by.AsOf)
		return view{by: asOf, at: ms}, err
	case *gridv1.View_AsKnownAt:
		ms, err := msFromProto("view.as_known_at", by.AsKnownAt)
		return view{by: asKnownAt, at: ms}, err
	case *gridv1.View_AsKnownThen:
		if !by.AsKnownThen {
			return view{}, fault.Fields(fault.Field("view.as_known_then", "false says nothing: leave the view empty for the latest"))
		}
		return view{by: asKnownThen}, nil
	default:
		return view{}, nil
	}
}

// rangeFromProto reads [start, end), widened to slots and cut to all time.
func rangeFromProto(start, end *timestamppb.Timestamp) (from, to slot.Slot, err error) {
	from, to = allTimeStart, allTimeEnd
	if start != nil {
		ms, err := msFromProto("start_time", start)
		if err != nil {
			return 0, 0, err
		}
		from = max(slot.Of(ms), allTimeStart)
	}
	if end != nil {
		ms, err := msFromProto("end_time", end)
		if err != nil {
			return 0, 0, err
		}
		to = min(slot.Ceil(ms), allTimeEnd)
	}
	if start != nil && end != nil && !end.AsTime().After(start.AsTime()) {
		return 0, 0, fault.Fields(fault.Field("end_time", "must be after start_time"))
	}
	return from, max(from, to), nil
}

// importFromProto reads a mapping.
func importFromProto(m *gridv1.IntensityMapping) (importFile, error) {
	signal, err := signalFromProto(m.GetSignal())
	if err != nil {
		return importFile{}, err
	}
	quality, err := qualityFromProto(m.GetQuality())
	if err != nil {
		return importFile{}, err
	}
	in := importFile{
		key:     store.Key{Subject: m.GetZone(), Signal: signal, Source: m.GetSource()},
		quality: quality, knownMS: store.WhenRecorded, attribution: m.GetAttribution(),
		mapping: csvfile.Mapping{
			File: m.GetFile(), TimeColumn: m.GetTimeColumn(), TimeFormat: m.GetTimeFormat(), ValueColumn: m.GetValueColumn(),
			Unit: m.GetUnit(), KnownColumn: m.GetKnownAtColumn(), KnownFormat: m.GetKnownAtFormat(),
		},
	}
	if in.key.Source == "" {
		in.key.Source = "import"
	}
	var wrong []fault.Violation
	if !zonePattern.MatchString(in.key.Subject) {
		wrong = append(wrong, fault.Fieldf("mapping.zone", "%q is not the name of a zone, such as FR or US-CAL-CISO", in.key.Subject))
	}
	if !sourcePattern.MatchString(in.key.Source) {
		wrong = append(wrong, fault.Fieldf("mapping.source", "%q is not the name of a source: letters, digits, blanks and _.:/@+-", in.key.Source))
	}
	if in.mapping.TimeColumn == "" {
		wrong = append(wrong, fault.Field("mapping.time_column", "empty; want the column of the interval's start"))
	}
	if in.mapping.ValueColumn == "" {
		wrong = append(wrong, fault.Field("mapping.value_column", "empty; want the column of the value"))
	}
	const longest = 366 * 24 * 3600
	if step := m.GetStepSeconds(); step < 0 || step > longest || step%300 != 0 {
		wrong = append(wrong, fault.Fieldf("mapping.step_seconds", "%d is not a multiple of 300 up to a year", step))
	}
	in.mapping.Step = time.Duration(m.GetStepSeconds()) * time.Second
	if m.GetKnownAt() != nil {
		if in.mapping.KnownColumn != "" {
			wrong = append(wrong, fault.Field("mapping.known_at", "known_at_column is given too: give one of them"))
		}
		if in.knownMS, err = msFromProto("mapping.known_at", m.GetKnownAt()); err != nil {
			return importFile{}, err
		}
		if in.knownMS == store.WhenRecorded {
			wrong = append(wrong, fault.Field("mapping.known_at", "1970-01-01T00:00:00Z is years off"))
		}
	}
	if m.GetKnownAtFormat() != "" && in.mapping.KnownColumn == "" {
		wrong = append(wrong, fault.Field("mapping.known_at_format", "there is no known_at_column that it could be of"))
	}
	return in, fault.Fields(wrong...)
}

// timestamp tells an instant.
func timestamp(ms int64) *timestamppb.Timestamp {
	t := new(timestamppb.Timestamp)
	setTimestamp(t, ms)
	return t
}

func setTimestamp(t *timestamppb.Timestamp, ms int64) {
	ms = max(ms, sinceEver)
	seconds, rest := ms/1000, ms%1000
	if rest < 0 {
		seconds, rest = seconds-1, rest+1000
	}
	t.Seconds, t.Nanos = seconds, int32(rest*1_000_000) //nolint:gosec // below a thousand million
}

// intensitiesToProto tells answers. A year is thousands of messages of five timestamps
// each, so they are made in two pieces.
func intensitiesToProto(l *lane, answers []answer) []*gridv1.Intensity {
	const each = 5
	var (
		messages = make([]gridv1.Intensity, len(answers))
		times    = make([]timestamppb.Timestamp, each*len(answers))
		out      = make([]*gridv1.Intensity, len(answers))
	)
	for i := range answers {
		fillIntensity(&messages[i], times[each*i:each*i+each], l, &answers[i])
		out[i] = &messages[i]
	}
	return out
}

func fillIntensity(m *gridv1.Intensity, times []timestamppb.Timestamp, l *lane, a *answer) {
	for i, ms := range [...]int64{a.Start.StartMS(), a.End.StartMS(), a.KnownMS, a.RecordedMS, a.until.StartMS()} {
		setTimestamp(&times[i], ms)
	}
	m.Zone = l.zoneOf(&a.Step)
	m.Signal = gridv1.Signal(l.signal)
	m.StartTime, m.EndTime = &times[0], &times[1]
	m.Decimal, m.Unit = a.Value.String(), l.signal.Unit()
	m.Value = nearest(m.Decimal)
	m.Source, m.Product = a.Source, a.Product
	m.Quality, m.Method = gridv1.Quality(a.Quality), gridv1.Method(a.Method)
	m.AgeSeconds = a.AgeMS / 1000
	m.Revision = a.Revision
	m.KnownAt, m.RecordedAt, m.ValidUntil = &times[2], &times[3], &times[4]
}

// nearest returns the double nearest to a decimal that is told beside it. Reading the
// text is half the work of writing the decimal out a second time.
func nearest(decimal string) float64 {
	value, _ := strconv.ParseFloat(decimal, 64) // a unit.Decimal is always within the range of doubles
	return value
}

// revisionToProto tells a stored record. valid_until is the end of its interval.
func revisionToProto(signal store.Signal, r *revision) *gridv1.Revision {
	m := &gridv1.Revision{Retracted: r.Retracted, Intensity: &gridv1.Intensity{
		Zone: r.zone, Signal: gridv1.Signal(signal),
		StartTime: timestamp(r.Start.StartMS()), EndTime: timestamp(r.End.StartMS()),
		Unit: signal.Unit(), Source: r.source, Product: r.product,
		Quality: gridv1.Quality(r.Quality), Method: gridv1.Method_METHOD_DIRECT, Revision: r.Revision,
		KnownAt: timestamp(r.KnownMS), RecordedAt: timestamp(r.RecordedMS), ValidUntil: timestamp(r.End.StartMS()),
	}}
	if !r.Retracted {
		m.Intensity.Decimal = r.Value.String()
		m.Intensity.Value = nearest(m.Intensity.Decimal)
	}
	return m
}

func timelineToProto(t *store.Timeline) *gridv1.Timeline {
	m := &gridv1.Timeline{
		Signal: gridv1.Signal(t.Signal), Source: t.Source, Product: t.Product,
		Revisions: t.Revisions, Attribution: t.Attribution,
	}
	if t.Start != t.End {
		m.StartTime, m.EndTime = timestamp(t.Start.StartMS()), timestamp(t.End.StartMS())
	}
	return m
}

func importedToProto(in imported) *gridv1.ImportIntensitiesResponse {
	m := &gridv1.ImportIntensitiesResponse{
		Rows: in.file.Total, Added: in.change.Added, Revised: in.change.Revised,
		Unchanged: in.change.Unchanged, Empty: in.file.Empty,
		RecordedAt: timestamp(in.recordedMS),
	}
	if in.start != in.end {
		m.StartTime, m.EndTime = timestamp(in.start.StartMS()), timestamp(in.end.StartMS())
	}
	return m
}

// revisedMessage is the announcement of a change.
func revisedMessage(key store.Key, change store.Change, recordedMS int64) ([]byte, error) {
	data, err := proto.Marshal(&gridv1.IntensityRevised{
		Zone: key.Subject, Signal: gridv1.Signal(key.Signal), Source: key.Source,
		StartTime: timestamp(change.Start.StartMS()), EndTime: timestamp(change.End.StartMS()),
		RecordedAt: timestamp(recordedMS),
	})
	if err != nil {
		return nil, fmt.Errorf("announcement: %w", err)
	}
	return data, nil
}

// pageToken is where the next page starts, and what was asked for: a token goes with
// the request that it came from.
type pageToken[T any] struct {
	Request uint32 `json:"r"`
	Next    T      `json:"n"`
}

// requestSum is of all that makes a request other than its page.
func requestSum(parts ...any) uint32 {
	return crc32.ChecksumIEEE(fmt.Appendf(nil, "%q", parts))
}

func encodeToken[T any](request uint32, next T) (string, error) {
	text, err := json.Marshal(pageToken[T]{request, next})
	if err != nil {
		return "", fmt.Errorf("page token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}

// decodeToken returns where a page starts; ok is false for the first page.
func decodeToken[T any](request uint32, token string) (next T, ok bool, err error) {
	if token == "" {
		return next, false, nil
	}
	var page pageToken[T]
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(text, &page)
	}
	if err != nil || page.Request != request {
		return next, false, fault.Fields(fault.Field("page_token", "not from an answer to this request: leave it empty to start anew"))
	}
	return page.Next, true, nil
}
