package gridfeed

import (
	"sync"
	"sync/atomic"

	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
)

// laneKey names a lane.
type laneKey struct {
	zone   string
	signal store.Signal
}

// cache keeps lanes up to a size in records, dropping those that were asked for longest
// ago. A lane that was read before a write is not kept after it: put compares the
// generation that the reader noted before it read.
type cache struct {
	limit int
	calls atomic.Int64

	mu         sync.RWMutex
	lanes      map[laneKey]*lane
	size       int
	generation uint64
}

func newCache(limit int) *cache {
	return &cache{limit: limit, lanes: map[laneKey]*lane{}}
}

// get returns a lane, or nil and the generation for put.
func (c *cache) get(key laneKey) (*lane, uint64) {
	c.mu.RLock()
	l, generation := c.lanes[key], c.generation
	c.mu.RUnlock()
	if l != nil {
		l.used.Store(c.calls.Add(1))
	}
	return l, generation
}

// put keeps a lane, unless there was a write since the generation.
func (c *cache) put(key laneKey, l *lane, generation uint64) {
	l.used.Store(c.calls.Add(1))
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	if old := c.lanes[key]; old != nil {
		c.size -= old.size()
	}
	c.lanes[key] = l
	c.size += l.size()
	for c.size > c.limit && len(c.lanes) > 1 {
		var oldest laneKey
		least := int64(-1)
		for k, other := range c.lanes {
			if used := other.used.Load(); k != key && (least < 0 || used < least) {
				oldest, least = k, used
			}
		}
		c.size -= c.lanes[oldest].size()
		delete(c.lanes, oldest)
	}
}

// drop forgets the lanes of zones that were written to, and whatever is being read.
func (c *cache) drop(written func(laneKey) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	for key, l := range c.lanes {
		if written(key) {
			c.size -= l.size()
			delete(c.lanes, key)
		}
	}
}

// len returns the lanes and the records kept.
func (c *cache) len() (lanes, records int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.lanes), c.size
}
