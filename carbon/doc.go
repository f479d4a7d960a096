// Package carbon holds no code: it is the front page of the arithmetic that
// turns readings of meters into grams.
//
//   - [github.com/wattfold/wattfold/carbon/unit]: half-microjoules, their
//     128-bit sums, and decimals.
//   - [github.com/wattfold/wattfold/carbon/slot]: the five minutes of UTC that
//     everything is booked and priced by.
//   - [github.com/wattfold/wattfold/carbon/segment]: readings in, energy per
//     slot out.
//   - [github.com/wattfold/wattfold/carbon/timeline]: what a factor is, or was
//     known to be, in a slot.
//   - [github.com/wattfold/wattfold/carbon/account]: the inner product of the
//     two.
//
// Nothing here reads a clock, a file or a random number; nothing here requires
// another module. The same arguments always give the same answer, to the last
// digit, on every machine.
package carbon
