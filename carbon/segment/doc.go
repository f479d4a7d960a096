// Package segment integrates the readings of one series into energy per slot.
//
// Two consecutive readings bound a segment, and every segment is an exact
// integer of half-microjoules, because time is in milliseconds, power in
// milliwatts and counters in microjoules:
//
//	InstantPower       (v₀+v₁)·Δt      power runs straight from v₀ to v₁
//	AveragePower       2·v₁·Δt         v₁ is the mean since the reading before
//	CumulativeEnergy   2·Δv            spread evenly
//
// The laws, each with a test against a twin in math/big:
//
//   - Cutting. A segment is cut at the edges of slots and of its clip window.
//     With E(b) the floor of the exact integral from the segment's own start to
//     b, the part between two cuts is E(b) − E(a): the parts sum to the whole
//     segment exactly, wherever it is cut. Nothing else rounds.
//   - Batching. A segment is a function of its two readings and the [Spec]
//     alone, and [Result.Last] is all that the next batch has to know. So it
//     does not matter how a sequence of readings is divided into batches.
//   - Order. A segment belongs to its later reading. Of two readings at one
//     instant the first counts; a reading earlier than the one before counts
//     for nothing. Both are counted.
//   - Gaps. A gauge is not bridged over more than [Spec.Gap]: that time is
//     missing. A counter carries its energy across, marked as interpolated,
//     while it cannot have wrapped unseen; otherwise the time is missing and
//     counted as ambiguous.
//   - Falls. A counter that falls has wrapped if its range is known and the
//     power that this implies is possible. Otherwise it was reset: what it
//     counted before and after the reset is unknown, so the segment adds no
//     energy and its time is missing.
//   - Sentinels. Readings that say "no reading" are skipped and counted, and
//     are never turned into 0; the segment then runs from the last reading
//     accepted to the next.
//   - Bounds. No slot can overflow: a segment that implies more than
//     [PowerLimit] is missing time, counted as overflow. A segment longer than
//     [MaxSegmentMS] is none: its later reading opens the series anew.
//
// [Fold] applies them; it allocates nothing once its [Result] has grown.
package segment
