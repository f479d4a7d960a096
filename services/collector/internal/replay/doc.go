// Package replay plays a CSV file of samples into the spool.
//
// The only state of a [Replay] is its cursor in the spool's last whole group:
// the byte after the last row, how often the file was gone through, by how much
// its clock is moved (fixed when the replay first starts) and each node's last
// reading. A replay that is killed goes on there: nothing is lost, nothing comes
// twice.
//
// A live replay is the exception, made for the demo: its ticks are on the wall
// clock, so after an interruption it goes on at the row of now, and the time
// between shows as missing.
package replay
