// Package csvfile reads the intensities of one signal of one zone out of a CSV file.
//
// [Parse] takes the file as a stream and a [Mapping] that says which columns count
// and how they are written. It returns a [File] of [Row] values that may be stored as
// they are: times on slots, values in g/kWh, ordered by when they were known, no two
// rows that contradict each other. Or it returns [Problems], each with file, line,
// column and a remedy, and then nothing of the file is to be used.
//
// A file need not be sorted: a poll log runs backwards whenever its publisher did.
// An hour may occur many times, once for each time that it was known. What is refused
// is a file that says two things at once: two values for one interval known at one
// moment, or intervals that overlap.
package csvfile
