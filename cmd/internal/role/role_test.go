package role_test

import (
	"strings"
	"testing"

	"github.com/wattfold/wattfold/cmd/internal/calculatord"
	"github.com/wattfold/wattfold/cmd/internal/collectord"
	"github.com/wattfold/wattfold/cmd/internal/gatewayd"
	"github.com/wattfold/wattfold/cmd/internal/gridfeedd"
	"github.com/wattfold/wattfold/cmd/internal/role"
	"github.com/wattfold/wattfold/internal/daemon"
)

// TestDefaultsNeedNoFile: every role starts without a configuration.
func TestDefaultsNeedNoFile(t *testing.T) {
	for name, c := range map[string]daemon.Validator{
		"collector": collectord.Default(), "gridfeed": gridfeedd.Default(),
		"calculator": calculatord.Default(), "gateway": gatewayd.Default(),
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMistakesNameTheirSection: a mistake of a service is reported under the
// section that it stands in.
func TestMistakesNameTheirSection(t *testing.T) {
	cfg := gatewayd.Default()
	cfg.Gateway.GRPC, cfg.Gateway.MaxConnections = "0.0.0.0:9090", 0
	err := cfg.Validate()
	if err == nil {
		t.Fatal("Validate found nothing")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{"gateway.grpc: ", "gateway.max_connections: "}
	if len(lines) != len(want) {
		t.Fatalf("Validate = %v, want two mistakes", err)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("mistake %d = %q, want it to begin with %q", i, line, want[i])
		}
	}
	if err := role.Under("gateway", nil); err != nil {
		t.Errorf("Under of no mistake = %v", err)
	}
}
