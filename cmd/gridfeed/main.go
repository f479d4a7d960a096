// Command gridfeed keeps the timelines of grid signals.
// It has the flags -config, -check, -print and -version.
package main

import (
	"github.com/wattfold/wattfold/cmd/internal/gridfeedd"
	"github.com/wattfold/wattfold/internal/daemon"
)

func main() { daemon.Service("gridfeed", gridfeedd.Default(), gridfeedd.Run) }
