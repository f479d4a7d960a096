// Package spool keeps batches on disk until the ledger has them.
//
// The unit is the [Group]: the batches of one flush, where their source stood
// after the last of them, and the trace that they belong to. [Spool.Append]
// returns after one write and one fsync; only what it returned for may be
// published. So a source that goes on from [Spool.Cursor] after a crash neither
// loses nor repeats anything.
//
// A group is pending until the ledger's floors cover each of its batches
// ([Spool.ApplyFloors]). Floors may fall, because a ledger may be restored from
// a back-up: what lies above is pending again. That is why committed groups stay
// for a while: whole segments are deleted, oldest first, once they are older
// than Options.KeepFor or all of them together are larger than
// Options.KeepBytes.
//
// On disk a spool is a directory:
//
//	id                     drawn when the spool is made; the producer ids of its
//	                       sources are derived from it
//	lock                   held while the spool is open
//	cursors                cursors of sources whose groups are deleted
//	0000000000000001.spool segments: groups, one behind the other
//
// and a group is
//
//	"WFG1" · length uint32 · CRC-32C of length and payload · payload
//
// little-endian. A group whose end is missing at the end of the newest segment
// was being written when the process died: it was never published, and is cut
// off. Any other group that fails its checksum, the last one included if it has
// its whole length, is damage: what is whole around it is kept, and the loss is
// logged and counted.
//
// In memory a pending group takes about a hundred bytes and a segment that is
// committed a few runs of sequences.
package spool
