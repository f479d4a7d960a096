package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type level int

func (l *level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "low":
		*l = 1
	case "high":
		*l = 2
	default:
		return errors.New("neither low nor high")
	}
	return nil
}

func (l level) MarshalText() ([]byte, error) { return []byte([]string{"", "low", "high"}[l]), nil }

type gatewayConfig struct {
	GRPC       string `yaml:"grpc"`
	HTTPPort   uint16
	Reflection bool `koanf:"reflection"`
}

type chain struct {
	Zone    string        `yaml:"zone"`
	MaxAge  time.Duration `yaml:"max_age"`
	Entries []string      `yaml:"entries"`
}

type testConfig struct {
	DataDir  string `yaml:"data_dir"`
	Interval time.Duration
	Level    level
	Factor   float64
	Streams  int
	Gateway  gatewayConfig
	Limit    *int
	Chains   []chain
	Labels   map[string]string
	Runtime  int `yaml:"-"`
}

func (c testConfig) Validate() error {
	var errs []error
	if c.Streams < 1 {
		errs = append(errs, fmt.Errorf("streams: is %d; it must be at least 1", c.Streams))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("data_dir: is empty"))
	}
	return errors.Join(errs...)
}

func defaults() testConfig {
	return testConfig{
		DataDir: "data", Interval: time.Second, Level: 1, Streams: 1,
		Gateway: gatewayConfig{GRPC: "127.0.0.1:9090", HTTPPort: 8080},
		Labels:  map[string]string{"team": "a"},
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "wattfold.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLayers(t *testing.T) {
	name := file(t, `
data_dir: /var/lib/wattfold
interval: 90s
level: high
factor: 1e-3
limit: 7
gateway:
  grpc: 10.0.0.1:9090
  reflection: true
chains:
  - {zone: FR, max_age: 1h, entries: [a, b]}
  - zone: DE
labels: {site: paris}
`)
	t.Setenv("TESTFOLD_GATEWAY__GRPC", "10.0.0.2:9090")
	t.Setenv("TESTFOLD_GATEWAY__HTTP_PORT", "81")
	t.Setenv("TESTFOLD_DATA_DIR", "007") // text, though it looks like a number
	t.Setenv("TESTFOLD_CHAINS", "[{zone: ES, entries: [c]}]")
	before := defaults()
	loaded, err := LoadAll(before, name, "TESTFOLD_", map[string]any{
		"interval": 5 * time.Second, "gateway.http_port": 82, "streams": 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	limit := 7
	want := testConfig{
		DataDir: "007", Interval: 5 * time.Second, Level: 2, Factor: 1e-3, Streams: 4,
		Gateway: gatewayConfig{GRPC: "10.0.0.2:9090", HTTPPort: 82, Reflection: true},
		Limit:   &limit,
		Chains:  []chain{{Zone: "ES", Entries: []string{"c"}}},
		Labels:  map[string]string{"team": "a", "site": "paris"},
	}
	if diff := cmp.Diff(want, loaded.Config); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(defaults(), before); diff != "" {
		t.Errorf("the defaults were written to: %s", diff)
	}

	var out strings.Builder
	if err := loaded.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`data_dir: "007" # TESTFOLD_DATA_DIR`,
		`interval: 5s # flag`,
		`level: high # ` + name + `:4`,
		`streams: 4 # flag`,
		`  grpc: 10.0.0.2:9090 # TESTFOLD_GATEWAY__GRPC`,
		`  team: a # default`,
		`  site: paris # ` + name + `:13`,
		`  - zone: ES # TESTFOLD_CHAINS`,
		`    max_age: 0s # default`,
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("%q is not in\n%s", line, out.String())
		}
	}
	again, err := Load(testConfig{}, file(t, out.String()), "", nil)
	if err != nil {
		t.Fatalf("what was printed is not read: %v\n%s", err, out.String())
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("what was printed reads differently: %s", diff)
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	name := file(t, `data_dir: [a]
interval: 90
level: middle
steams: 3
gateway:
  htpp_port: 1
  http_port: 70000
  reflection: yes
  grpc: a
  grpc: b
chains:
  - zone: FR
    max_age: long
  - FR
runtime: 3
`)
	t.Setenv("TESTFOLD_GATEWAY__GPRC", "x")
	t.Setenv("TESTFOLD_FACTOR", "much")
	_, err := Load(defaults(), name, "TESTFOLD_", map[string]any{"streams": "four"})
	if err == nil {
		t.Fatal("no mistake found")
	}
	want := []string{
		`{file}:1: data_dir: is a list, not one value`,
		`{file}:2: interval: "90" is not a duration such as 30s or 1h30m`,
		`{file}:3: level: "middle": neither low nor high`,
		`{file}:4: steams: no such key; did you mean streams?`,
		`{file}:6: gateway.htpp_port: no such key; did you mean http_port?`,
		`{file}:7: gateway.http_port: "70000" is not a whole number from 0 of 16 bits`,
		`{file}:8: gateway.reflection: "yes" is neither true nor false`,
		`{file}:10: gateway.grpc: is there twice`,
		`{file}:13: chains[0].max_age: "long" is not a duration such as 30s or 1h30m`,
		`{file}:14: chains[1]: is "FR", not a table of keys`,
		`{file}:15: runtime: no such key`,
		`TESTFOLD_FACTOR: factor: "much" is not a number`,
		`TESTFOLD_GATEWAY__GPRC: gateway.gprc: no such key; did you mean grpc?`,
		`flag: streams: "four" is not a whole number of 64 bits`,
	}
	got := strings.ReplaceAll(err.Error(), name, "{file}")
	if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
		t.Error(diff)
	}
	if e, ok := errors.AsType[*exitError](err); !ok || e.code != ExitUsage {
		t.Errorf("got exit code %v, want %d", e, ExitUsage)
	}
}

func TestServicesOfKubernetesAreNoKeys(t *testing.T) {
	t.Setenv("TESTFOLD_PORT", "tcp://10.0.0.1:9090")
	t.Setenv("TESTFOLD_SERVICE_HOST", "10.0.0.1")
	t.Setenv("TESTFOLD_SERVICE_PORT_GRPC", "9090")
	t.Setenv("TESTFOLD_GATEWAY_PORT_9090_TCP_ADDR", "10.0.0.1")
	t.Setenv("TESTFOLD_GATEWAY__HTTP_PORT", "81")
	cfg, err := Load(defaults(), "", "TESTFOLD_", nil)
	if err != nil || cfg.Gateway.HTTPPort != 81 {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

func TestValidateSaysWhereAValueIsFrom(t *testing.T) {
	name := file(t, "streams: 0\n")
	cfg := defaults()
	cfg.DataDir = ""
	_, err := Load(cfg, name, "", nil)
	want := name + ":1: streams: is 0; it must be at least 1\nconfiguration: data_dir: is empty"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"# nothing\n":           "",
		"interval:\n":           "",
		"a: b: c\n":             "mapping values are not allowed",
		"streams: 1\n---\na: 1": "more than one document",
		"- streams\n":           ":1: is a list, not a table of keys",
	} {
		cfg, err := Load(defaults(), file(t, text), "", nil)
		if want == "" {
			if diff := cmp.Diff(defaults(), cfg); err != nil || diff != "" {
				t.Errorf("%q: %v %s", text, err, diff)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := Load(defaults(), "/nowhere/wattfold.yaml", "", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: got %v", err)
	}
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{
		"MaxAge": "max_age", "HTTPPort": "http_port", "GRPC": "grpc", "StoreDir": "store_dir", "URLOf": "url_of", "P99": "p99",
	} {
		if got := snake(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
