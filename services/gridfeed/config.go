package gridfeed

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/wattfold/wattfold/services/gridfeed/internal/store"
)

// Config is what an operator may decide. [Default] is its start.
type Config struct {
	// Dir is the directory of the timelines. It is made if it is not there, and locked:
	// no other process, and no other service, may use it.
	Dir string `koanf:"dir" yaml:"dir"`

	// Chains replace the default chain of single zones and signals. A change holds from
	// the start that brings it: a statement as of an earlier moment is priced by the
	// chain of that moment.
	Chains []ChainConfig `koanf:"chains" yaml:"chains"`

	// CacheRecords bounds what is kept in memory, in intervals of 200 bytes or so. The
	// zones that were asked for longest ago are dropped first.
	CacheRecords int `koanf:"cache_records" yaml:"cache_records"`
}

// ChainConfig is the chain of one signal of one zone.
type ChainConfig struct {
	Zone    string        `koanf:"zone" yaml:"zone"`       // such as FR or US-CAL-CISO
	Signal  string        `koanf:"signal" yaml:"signal"`   // CARBON_AVERAGE_LIFECYCLE or its short form average-lifecycle …; empty: that
	Entries []EntryConfig `koanf:"entries" yaml:"entries"` // who is asked, in this order; nobody else is
}

// EntryConfig is one source of a chain.
type EntryConfig struct {
	Source  string `koanf:"source" yaml:"source"`   // as given to the import, such as entsoe; the yearly table is ember
	Product string `koanf:"product" yaml:"product"` // observed (imports) or yearly (the table)
	// MaxAge is how long after its end the source's last interval still answers, as
	// FILLED, such as 2h; 0: an interval has to cover the time asked for.
	MaxAge time.Duration `koanf:"max_age" yaml:"max_age"`
}

// Default returns the configuration of a service that nobody configured. Dir is up to
// the program.
func Default() Config {
	return Config{CacheRecords: 2_000_000}
}

const (
	minCacheRecords = 10_000
	maxAge          = 366 * 24 * time.Hour
)

var (
	zonePattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	productPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	sourcePattern  = regexp.MustCompile(`^[\pL\pN][\pL\pN _.:/@+-]{0,126}$`)
)

// Validate returns every mistake in the configuration, each with its dotted path.
func (c Config) Validate() error {
	var mistakes []error
	say := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		say("dir: empty; want a directory for the timelines")
	}
	if c.CacheRecords < minCacheRecords {
		say("cache_records: %d; want at least %d", c.CacheRecords, minCacheRecords)
	}
	seen := map[string]int{}
	for i, chain := range c.Chains {
		at := fmt.Sprintf("chains[%d]", i)
		if !zonePattern.MatchString(chain.Zone) {
			say("%s.zone: %q is not the name of a zone, such as FR or US-CAL-CISO", at, chain.Zone)
		}
		signal, err := chain.signal()
		if err != nil {
			say("%s.signal: %w", at, err)
		}
		id := chain.Zone + " " + signal.String()
		if first, twice := seen[id]; twice {
			say("%s: %s is already in chains[%d]", at, id, first)
		}
		seen[id] = i
		if len(chain.Entries) == 0 {
			say("%s.entries: empty; remove the chain to use the default one", at)
		}
		named := map[[2]string]bool{}
		for j, entry := range chain.Entries {
			at := fmt.Sprintf("%s.entries[%d]", at, j)
			if !sourcePattern.MatchString(entry.Source) {
				say("%s.source: %q is not the name of a source", at, entry.Source)
			}
			if !productPattern.MatchString(entry.Product) {
				say("%s.product: %q is not a product, such as observed or yearly", at, entry.Product)
			}
			if entry.MaxAge < 0 || entry.MaxAge > maxAge {
				say("%s.max_age: %s; want 0 to %s", at, entry.MaxAge, maxAge)
			}
			name := [2]string{entry.Source, entry.Product}
			if named[name] {
				say("%s: %s, %s is already in this chain", at, entry.Source, entry.Product)
			}
			named[name] = true
		}
	}
	return errors.Join(mistakes...)
}

// signal returns the signal that the chain is for.
func (c ChainConfig) signal() (store.Signal, error) {
	if c.Signal == "" {
		return store.AverageLifecycle, nil
	}
	return store.ParseSignal(c.Signal)
}
