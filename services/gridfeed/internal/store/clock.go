package store

import "time"

// clock gives out the moments of recording. The lock of the store's writer guards it.
type clock struct {
	now   func() time.Time
	last  int64 // the latest moment given out, kept across restarts; 0: none
	floor int64 // moments up to here are promised to be past
}

// next gives out a moment: now, or just after what was given out or promised, wherever
// the wall clock stands. It counts as given out even if what it is for fails.
func (c *clock) next() int64 {
	c.last = max(c.now().UnixMilli(), c.last+1, c.floor+1)
	return c.last
}

// hold promises that the moment ms, or now if that is earlier, is past.
func (c *clock) hold(ms int64) {
	c.floor = max(c.floor, min(ms, c.now().UnixMilli()))
}

// untouched reports whether no moment was ever given out.
func (c *clock) untouched() bool { return c.last == 0 }
