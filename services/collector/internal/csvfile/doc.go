// Package csvfile reads CSV files of power and energy as exact integers.
//
// A [Mapping] says which columns hold node, time and value, and in which unit.
// A [Reader] turns rows into [Row]s of milliseconds and milliwatts (or
// microjoules): decimals are parsed exactly and rounded half to even, and what
// was finer than the unit is counted. [Scan] goes over a whole file once: it
// finds every mistake that would make the file mean something else than its
// owner thinks, and learns what a second pass needs to know beforehand (the
// earliest instant, each node's last one, the decimal scale of its values).
//
// The rows of one node rise in time. Of two rows at one instant the first
// counts; the second is a duplicate and is counted as such, whatever its value
// (meters under load do stamp two readings alike).
//
//	sum, err := csvfile.Scan(ctx, f, &mapping, nil)
//	r, err := csvfile.NewReader(f, &mapping)
//	for r.Next(&row) == nil { … }
package csvfile
