// Package timeline answers what a factor is in a slot, or was known to be.
//
// A [Series] is what one source has published of one signal of one zone or
// site, as [Record] values that are only ever added: a correction is a record
// of a higher revision, a withdrawal a record that is retracted. A chain is the
// declared order in which sources are asked. [Resolve] turns both into steps
// under a [View]:
//
//   - [Latest]: all records.
//   - [AsOf]: those recorded by an instant, whatever was recorded later. What
//     was answered then is answered again, to the last digit.
//   - [AsKnownAt]: those that were known by an instant.
//   - [AsKnownThen]: for every slot those that were known when it began.
//
// The laws, tested against a twin that looks at every record for every slot:
//
//   - The first entry of the chain that yields a value for a slot answers it.
//   - An entry yields the admitted record of the highest revision that covers
//     the slot, whatever its quality ([Direct]).
//   - Failing that, it yields the source's latest earlier interval with a value,
//     if that ended at most the entry's maximum age before the slot's start
//     ([Carried], of quality [Filled]). A maximum age of 0 never carries.
//   - A retraction of the highest revision is no value, as if nothing covered
//     the slot. It never uncovers the revision below it.
//   - A slot for which no entry yields is in no step: no data is not 0.
package timeline
