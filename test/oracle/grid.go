package oracle

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"strconv"
	"time"
)

// Factor is one value of a signal over [StartMS, EndMS), in g/kWh.
type Factor struct {
	StartMS, EndMS int64
	// Value is exact.
	Value *big.Rat
	// KnownMS is when the publisher said so; Always if that is not recorded.
	KnownMS int64
}

// Always is the KnownMS of what holds since ever.
const Always = math.MinInt64

// Timeline is the factors of a zone, a later one superseding an earlier one
// where both cover an instant.
type Timeline []Factor

// Latest returns the newest value that covers the slot, or nil.
func (t Timeline) Latest(slotMS int64) *big.Rat { return t.knownBy(slotMS, math.MaxInt64) }

// KnownThen returns what was known of the slot when it began, or nil.
func (t Timeline) KnownThen(slotMS int64) *big.Rat { return t.knownBy(slotMS, slotMS) }

// knownBy returns the last value known by an instant that covers the slot.
func (t Timeline) knownBy(slotMS, byMS int64) *big.Rat {
	for _, f := range slices.Backward(t) {
		if f.StartMS <= slotMS && slotMS < f.EndMS && f.KnownMS <= byMS {
			return f.Value
		}
	}
	return nil
}

// CarriedThen returns the value that ended last, at most maxAgeMS before the
// slot, among those known when it began, or nil. It is asked when nothing
// covers the slot.
func (t Timeline) CarriedThen(slotMS, maxAgeMS int64) *big.Rat {
	var best *Factor
	for i := range t {
		f := &t[i]
		if f.KnownMS > slotMS || f.EndMS > slotMS || slotMS-f.EndMS > maxAgeMS {
			continue
		}
		if best == nil || f.EndMS >= best.EndMS {
			best = f
		}
	}
	if best == nil {
		return nil
	}
	return best.Value
}

// ReadZones reads an hourly table with one column a zone.
func ReadZones(path, timeColumn string) (zones map[string]Timeline, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	header := all[0]
	if header[0] != timeColumn {
		return nil, fmt.Errorf("%s: first column is %q, not %q", path, header[0], timeColumn)
	}
	zones = map[string]Timeline{}
	for n, row := range all[1:] {
		at, err := time.Parse(time.RFC3339, row[0])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n+2, err)
		}
		for i, text := range row[1:] {
			value, ok := new(big.Rat).SetString(text)
			if !ok {
				return nil, fmt.Errorf("%s:%d: %q is no number", path, n+2, text)
			}
			zones[header[i+1]] = append(zones[header[i+1]], Factor{
				StartMS: at.UnixMilli(), EndMS: at.Add(time.Hour).UnixMilli(), Value: value, KnownMS: Always,
			})
		}
	}
	return zones, nil
}

// ReadPolls reads a log of a live API polled again and again: the hour spoken
// of and when the API said so.
func ReadPolls(path string) (t Timeline, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rows, columns, err := table(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for n, row := range rows {
		polled, err := strconv.ParseInt(row[columns["timestamp"]], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n+2, err)
		}
		hour, err := time.Parse(time.RFC3339, row[columns["zone_datetime"]])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n+2, err)
		}
		value, ok := new(big.Rat).SetString(row[columns["carbon_intensity_avg"]])
		if !ok {
			return nil, fmt.Errorf("%s:%d: %q is no number", path, n+2, row[columns["carbon_intensity_avg"]])
		}
		t = append(t, Factor{
			StartMS: hour.UnixMilli(), EndMS: hour.Add(time.Hour).UnixMilli(), Value: value, KnownMS: polled * 1000,
		})
	}
	return t, nil
}
