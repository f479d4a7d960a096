package store

import (
	"fmt"
	"strings"
)

// Signal is a factor that varies in time. The numbers are stored.
type Signal uint8

// The signals, with the numbers that the API has for them.
const (
	AverageLifecycle Signal = 1 // average carbon intensity over the life cycle
	AverageDirect    Signal = 2 // average carbon intensity of generation alone
	Marginal         Signal = 3 // marginal carbon intensity
)

var signalNames = []struct {
	signal     Signal
	long, abbr string
}{
	{AverageLifecycle, "CARBON_AVERAGE_LIFECYCLE", "average-lifecycle"},
	{AverageDirect, "CARBON_AVERAGE_DIRECT", "average-direct"},
	{Marginal, "CARBON_MARGINAL", "marginal"},
}

// String returns the signal's name, such as CARBON_MARGINAL.
func (s Signal) String() string {
	for _, n := range signalNames {
		if n.signal == s {
			return n.long
		}
	}
	return fmt.Sprintf("SIGNAL_%d", uint8(s))
}

// Unit returns the unit of the signal's values.
func (s Signal) Unit() string { return "g/kWh" }

// ParseSignal reads a signal's name or its short form.
func ParseSignal(name string) (Signal, error) {
	var names []string
	for _, n := range signalNames {
		if strings.EqualFold(name, n.long) || strings.EqualFold(name, n.abbr) {
			return n.signal, nil
		}
		names = append(names, n.long)
	}
	return 0, fmt.Errorf("unknown signal %q: want one of %s", name, strings.Join(names, ", "))
}
