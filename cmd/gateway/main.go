// Command gateway is the one public door.
// It has the flags -config, -check, -print and -version.
package main

import (
	"github.com/wattfold/wattfold/cmd/internal/gatewayd"
	"github.com/wattfold/wattfold/internal/daemon"
)

func main() { daemon.Service("gateway", gatewayd.Default(), gatewayd.Run) }
