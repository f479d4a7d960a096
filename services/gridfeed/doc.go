// Package gridfeed is the service that knows the grid: what a signal of a zone is, was,
// and was known to be.
//
// It takes intensities in (today from CSV files, by [Service.Import]) and keeps every
// revision of them in timelines, one a zone, signal, source and product. A reader names
// a zone, a signal and a view; a chain says which sources are asked and in what order:
// the declared one, or else whatever was imported, newest source first, and last the
// yearly table of countries that comes with the program. A zone that is a part of a
// country, such as US-CAL-CISO, falls back to the table's value of the country, and the
// answer says so by its zone.
//
// What holds:
//
//   - Nothing that was stored is changed. LATEST follows revisions, an answer AS_OF an
//     earlier moment never changes: the moments are the store's own, rise with every
//     import, and an AS_OF reader waits for an import that is being written.
//   - A file is imported whole or not at all, and importing it again adds nothing.
//   - No data is an error with a reason, never a number.
//   - After the commit the change is announced on wattfold.grid.<zone>.<signal>. An
//     announcement that is lost costs its listener time, not truth. A revision of the
//     yearly table is announced for the country alone, not for its parts.
//
// Readers are answered from memory. A zone's signal is read from the store when it is
// first asked for, resolved once for the latest view and kept until it is written to;
// an answer is then a binary search. See lane.
package gridfeed
