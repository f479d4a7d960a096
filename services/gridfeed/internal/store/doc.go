// Package store keeps timelines: every interval of every source, and every revision
// of it, for ever.
//
// A timeline is named by its [Key]: subject, signal, source and product. [Store.Append]
// adds intervals to timelines, all of a call or none, and is the only way in; nothing
// is changed and nothing is taken away. Each call is given one moment by the store's own
// clock, later than that of every call before it, across restarts too. It is what AS_OF
// reads by, so nobody but the store assigns it.
//
// An interval that says what its timeline already said is not stored again, so a call
// that failed without saying whether it was applied may simply be made once more.
// An interval that overlaps others and says something else becomes the highest revision
// over its slots.
//
// The chains that an operator declares are kept in the same way, because a statement
// depends on them as it does on values.
//
// [Open] opens a store in SQLite, [NewMemory] makes one that keeps its contract and
// forgets everything; storetest holds both to it.
package store
