package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/gateway"
	"github.com/wattfold/wattfold/internal/daemon"
	"github.com/wattfold/wattfold/services/calculator"
	"github.com/wattfold/wattfold/services/collector"
	"github.com/wattfold/wattfold/services/gridfeed"
)

// config is the whole configuration: one section a role. A process reads the
// sections of the roles that it plays; the others may be there too.
type config struct {
	// DataDir holds everything that a process keeps, a folder a role.
	DataDir string `koanf:"data_dir" yaml:"data_dir"`
	// Demo replays the bundled trace ('wattfold up' alone).
	Demo       bool              `koanf:"demo" yaml:"demo"`
	NATS       natsConfig        `koanf:"nats" yaml:"nats"`
	Collector  collector.Config  `koanf:"collector" yaml:"collector"`
	Gridfeed   gridfeed.Config   `koanf:"gridfeed" yaml:"gridfeed"`
	Calculator calculator.Config `koanf:"calculator" yaml:"calculator"`
	Gateway    gateway.Config    `koanf:"gateway" yaml:"gateway"`
	// Roles are where single roles answer, and are found by the others.
	Roles roles `koanf:"roles" yaml:"roles"`
}

// natsConfig says where the bus is.
type natsConfig struct {
	// URL of a NATS server, such as nats://127.0.0.1:4222; for single roles.
	URL string `koanf:"url" yaml:"url"`
	// Listen is where the embedded server takes collectors in, host:port; empty:
	// it opens no port ('wattfold up' alone).
	Listen string `koanf:"listen" yaml:"listen"`
	// Insecure allows Listen to be an address other than loopback. Whoever reaches
	// it may read and write every batch.
	Insecure bool `koanf:"insecure" yaml:"insecure"`
	// MaxStore bounds the embedded server's streams together, in bytes.
	MaxStore int64 `koanf:"max_store" yaml:"max_store"`
}

// roles are the addresses of single roles, host:port.
type roles struct {
	Collector  string `koanf:"collector" yaml:"collector"`
	Gridfeed   string `koanf:"gridfeed" yaml:"gridfeed"`
	Calculator string `koanf:"calculator" yaml:"calculator"`
	// HTTP is where a single role answers /metrics and /livez; empty: no such port.
	HTTP string `koanf:"http" yaml:"http"`
	// Insecure lets a single role answer at addresses other than loopback. There is
	// no authentication yet.
	Insecure bool `koanf:"insecure" yaml:"insecure"`
}

func defaultConfig() config {
	return config{
		DataDir:    defaultDataDir,
		Demo:       true,
		NATS:       natsConfig{URL: role.NATS},
		Collector:  collector.Default(),
		Gridfeed:   gridfeed.Default(),
		Calculator: calculator.Default(),
		Gateway:    gateway.Default(),
		Roles:      roles{Collector: role.CollectorGRPC, Gridfeed: role.GridfeedGRPC, Calculator: role.CalculatorGRPC},
	}
}

// Validate returns every mistake of every section, each with its dotted path.
func (c *config) Validate() error {
	if c.DataDir == "" {
		return errors.New("data_dir: empty; want a directory")
	}
	c.setDirs()
	return errors.Join(
		role.CheckListen("nats.listen", c.NATS.Listen, c.NATS.Insecure),
		role.Under("collector", c.Collector.Validate()),
		role.Under("gridfeed", c.Gridfeed.Validate()),
		role.Under("calculator", c.Calculator.Validate()),
		role.Under("gateway", c.Gateway.Validate()),
	)
}

// setDirs gives each role a folder in the data directory, unless it has one.
func (c *config) setDirs() {
	for role, dir := range map[string]*string{
		"collector": &c.Collector.Dir, "gridfeed": &c.Gridfeed.Dir, "calculator": &c.Calculator.Dir,
	} {
		if *dir == "" {
			*dir = filepath.Join(c.DataDir, role)
		}
	}
}

// load reads the configuration: defaults, file, environment, flags.
func load(file string, flags map[string]any) (daemon.Loaded[config], error) {
	return daemon.LoadAll(defaultConfig(), file, daemon.EnvPrefix, flags)
}

func (a *app) configCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in effect and where each value comes from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			loaded, err := load(file, nil)
			if err != nil {
				return err
			}
			return loaded.Print(a.out)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file of the configuration")
	return cmd
}
