package harness

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/wattfold/wattfold/internal/bus/embedded"
)

// Cluster is wattfold as four processes and a NATS server of its own, which
// runs in the test's process and listens on loopback. The embedded Server is
// its gateway.
type Cluster struct {
	*Server
	Bus   *embedded.Server
	Roles map[string]*Process

	t     testing.TB
	addrs map[string]string
	https map[string]string
	args  []string // further arguments of the collector
}

// roleNames are the roles in the order in which they are started.
var roleNames = []string{"gridfeed", "calculator", "collector", "gateway"}

// Four starts the roles as processes of their own, each with its folder below
// dir, and returns when all are healthy. Further arguments go to the collector.
func Four(t testing.TB, dir string, collectorArgs ...string) *Cluster {
	t.Helper()
	c := &Cluster{
		Server: &Server{Dir: dir, GRPC: FreeAddr(t), HTTP: FreeAddr(t), NATS: FreeAddr(t), t: t},
		Roles:  map[string]*Process{}, t: t, addrs: map[string]string{}, https: map[string]string{}, args: collectorArgs,
	}
	for _, role := range roleNames {
		c.addrs[role], c.https[role] = FreeAddr(t), FreeAddr(t)
	}
	c.addrs["gateway"] = c.GRPC
	c.StartBus()
	t.Cleanup(func() { c.Bus.Shutdown() })
	for _, role := range roleNames {
		c.StartRole(role)
	}
	return c
}

// StartBus starts the NATS server, over what an earlier one left.
func (c *Cluster) StartBus() {
	c.t.Helper()
	server, err := embedded.Start(embedded.Config{StoreDir: filepath.Join(c.Dir, "nats"), Listen: c.NATS})
	if err != nil {
		c.t.Fatal(err)
	}
	c.Bus = server
}

// StartRole starts a role, over what an earlier one left.
func (c *Cluster) StartRole(role string) {
	c.t.Helper()
	nats := []string{
		"--nats", "nats://" + c.NATS, "--data-dir", filepath.Join(c.Dir, role),
		"--grpc", c.addrs[role], "--http", c.https[role],
	}
	var args []string
	switch role {
	case "gridfeed":
		args = nats
	case "calculator":
		args = append(nats, "--gridfeed", c.addrs["gridfeed"])
	case "collector":
		args = append(nats, c.args...)
	case "gateway":
		args = []string{
			"--grpc", c.GRPC, "--http", c.HTTP,
			"--collector", c.addrs["collector"], "--gridfeed", c.addrs["gridfeed"], "--calculator", c.addrs["calculator"],
		}
	}
	p := Start(c.t, append([]string{role}, args...)...)
	p.WaitHealthy(c.addrs[role])
	c.Roles[role] = p
}

// MetricsOf returns the metrics of a role's process.
func (c *Cluster) MetricsOf(role string) map[string]float64 {
	c.t.Helper()
	return (&Server{HTTP: c.https[role], t: c.t}).Metrics()
}

// KillRole kills a role and starts it again.
func (c *Cluster) KillRole(role string) {
	c.t.Helper()
	c.Roles[role].Kill()
	c.StartRole(role)
}

// RestartBus stops the NATS server and starts it again.
func (c *Cluster) RestartBus() {
	c.t.Helper()
	c.Bus.Shutdown()
	c.StartBus()
}

// Stop asks every role to leave, the last started first.
func (c *Cluster) Stop() {
	c.t.Helper()
	for _, role := range slices.Backward(roleNames) {
		c.Roles[role].Stop()
	}
}
