// Package scenarios tells stories of the ledger in text files and runs them
// against the gRPC API of a real `wattfold up`. Every file of testdata is one
// story; its numbers are small enough to be checked by hand.
//
// A command stands at the start of a line, its lines are indented below it, and
// # begins a comment:
//
//	site NAME zone=ZONE pue=1.1
//	intensity ZONE [source=S] [step=1h]
//	  TIME VALUE [known=TIME]                 g/kWh over [TIME, TIME+step)
//	samples SITE run=R node=N kind=KIND unit=U [component=C] [device=D] [max-gap=30s]
//	        [range=V] [max-power=W] [start=TIME] [stop=TIME] [id=ID] [replace] [refused=WORD]
//	  TIME VALUE [xN every=1s]                N readings of one value
//	again                                     the samples before, once more
//	mark NAME                                 this moment, for as-of=NAME
//	statement site=S|run=R|node=N [as-of=MARK|as-known-then] [from=TIME to=TIME]
//	  energy 36000000000                      µJ, compared by ==
//	  grams 0.55                              compared to 1e-12
//	  unpriced 0.01                           kWh, likewise; mean is g/kWh
//	  observed 10s                            as are missing, silent and interpolated, by ==
//	  rejected duplicate 1                    readings of the site
//	  no data
package scenarios
