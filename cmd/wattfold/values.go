package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// parseTime reads an instant: RFC 3339, a date or date and time in UTC, or now.
func parseTime(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if text == "now" {
		return timestamppb.Now(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, usagef("--%s %q: want a time such as 2022-04-08T13:40:00Z, a date, or now", flag, text)
}

// parseSpan reads a duration that may be in days or weeks, such as 7d.
func parseSpan(flag, text string) (time.Duration, error) {
	units := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if n := len(text); n > 1 {
		if unit, ok := units[text[n-1]]; ok {
			if count, err := strconv.ParseFloat(text[:n-1], 64); err == nil && count > 0 {
				return time.Duration(count * float64(unit)), nil
			}
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, usagef("--%s %q: want a duration such as 90m, 24h, 7d or 2w", flag, text)
	}
	return d, nil
}

// parseEnum finds an enum value by its full name, its name without prefix, or
// its short form on the command line (average-lifecycle).
func parseEnum(flag, text, prefix string, values map[string]int32, shorten ...string) (int32, error) {
	if text == "" {
		return 0, nil
	}
	name := strings.ToUpper(strings.ReplaceAll(text, "-", "_"))
	for _, p := range append([]string{"", prefix}, shorten...) {
		if v, ok := values[p+name]; ok && v != 0 {
			return v, nil
		}
	}
	var known []string
	for name, v := range values {
		if v != 0 {
			known = append(known, strings.TrimPrefix(name, prefix))
		}
	}
	slices.Sort(known)
	return 0, usagef("--%s %q: use one of %s", flag, text, strings.Join(known, ", "))
}

func parseSignal(text string) (gridv1.Signal, error) {
	v, err := parseEnum("signal", text, "SIGNAL_", gridv1.Signal_value, "SIGNAL_CARBON_")
	return gridv1.Signal(v), err
}

func parseQuality(text string) (gridv1.Quality, error) {
	v, err := parseEnum("quality", text, "QUALITY_", gridv1.Quality_value)
	return gridv1.Quality(v), err
}

func parseKind(text string) (telemetryv1.ReadingKind, error) {
	v, err := parseEnum("kind", text, "READING_KIND_", telemetryv1.ReadingKind_value)
	return telemetryv1.ReadingKind(v), err
}

func parseProvenance(text string) (telemetryv1.Provenance, error) {
	v, err := parseEnum("provenance", text, "PROVENANCE_", telemetryv1.Provenance_value)
	return telemetryv1.Provenance(v), err
}

func parseDimensions(list []string) ([]ledgerv1.Dimension, error) {
	var out []ledgerv1.Dimension
	for _, text := range list {
		v, err := parseEnum("group-by", text, "DIMENSION_", ledgerv1.Dimension_value)
		if err != nil {
			return nil, err
		}
		out = append(out, ledgerv1.Dimension(v))
	}
	return out, nil
}

// clock prints an instant for people; an absent one as "-".
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	at := t.AsTime()
	if at.Year() <= 1 {
		return "ever"
	}
	if at.Year() >= 9999 {
		return "open"
	}
	return at.Format("2006-01-02 15:04:05Z")
}

// number prints a figure with three decimals; an absent one as "-".
func number(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *v)
}

// exactly prints a figure so that reading it gives the same one.
func exactly(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func label(enum fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(enum.String(), prefix))
}
