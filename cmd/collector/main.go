// Command collector plays traces and takes imports, by way of its spool, into NATS.
// It carries neither a broker nor a database.
// It has the flags -config, -check, -print and -version.
package main

import (
	"github.com/wattfold/wattfold/cmd/internal/collectord"
	"github.com/wattfold/wattfold/internal/daemon"
)

func main() { daemon.Service("collector", collectord.Default(), collectord.Run) }
