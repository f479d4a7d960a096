// Command wattfold is every role of wattfold and its command line.
//
//	wattfold up                      everything in one process
//	wattfold collector|gridfeed|calculator|gateway
//	wattfold sites|zones|import|intensity|statement|series
//	wattfold config|version
//
// Commands that ask print a table, or JSON or CSV with -o: the JSON is the API's
// message. Exit codes: 0 ok, 1 error, 2 usage, 4 no data.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal ends the process at once
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
