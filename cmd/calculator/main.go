// Command calculator folds samples into the ledger and answers statements.
// It has the flags -config, -check, -print and -version.
package main

import (
	"github.com/wattfold/wattfold/cmd/internal/calculatord"
	"github.com/wattfold/wattfold/internal/daemon"
)

func main() { daemon.Service("calculator", calculatord.Default(), calculatord.Run) }
