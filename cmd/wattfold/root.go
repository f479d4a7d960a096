package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wattfold/wattfold/internal/daemon"
)

// usagef says that a command line cannot be understood.
func usagef(format string, args ...any) error {
	return daemon.Usage(fmt.Errorf(format, args...))
}

// app is what every command shares.
type app struct {
	in       io.Reader
	out, err io.Writer
	// screen is where the live line is; nil without one. Then it is out as well, and
	// err if that is the same terminal.
	screen *screen
	server string
	output string
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return daemon.ExitOK
	}
	return a.report(err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "wattfold",
		Short:         "Folds watts into carbon: measured, time-matched, exact",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	server := os.Getenv("WATTFOLD_SERVER")
	if server == "" {
		server = defaultServer
	}
	root.PersistentFlags().StringVar(&a.server, "server", server, "gateway to ask, host:port (WATTFOLD_SERVER)")
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "table, json or csv")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee '%s --help'", err, cmd.CommandPath())
	})
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch a.output {
		case "table", "json", "csv":
			return nil
		}
		return usagef("--output %q: use table, json or csv", a.output)
	}
	root.AddCommand(
		a.upCommand(), a.collectorCommand(), a.gridfeedCommand(), a.calculatorCommand(), a.gatewayCommand(),
		a.sitesCommand(), a.zonesCommand(), a.importCommand(), a.intensityCommand(),
		a.statementCommand(), a.seriesCommand(), a.configCommand(), a.versionCommand(),
	)
	for _, cmd := range root.Commands() {
		asUsage(cmd)
	}
	return root
}

// asUsage marks what cobra itself refuses as errors of usage.
func asUsage(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%w\nSee '%s --help'", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		asUsage(sub)
	}
}

// report prints an error with all that the server said of it and returns the
// exit code.
func (a *app) report(err error) int {
	if st, ok := status.FromError(err); ok {
		return a.reportStatus(st)
	}
	fmt.Fprintln(a.err, "error:", err)
	if strings.HasPrefix(err.Error(), "unknown command") ||
		strings.HasPrefix(err.Error(), "required flag") {
		return daemon.ExitUsage
	}
	return daemon.Code(err)
}

// fieldOfMapping is how the API names what a flag said.
var fieldOfMapping = regexp.MustCompile(`\bmapping\.([a-z_]+)`)

// byFlag names flags in place of the API's fields.
func byFlag(message string) string {
	return fieldOfMapping.ReplaceAllStringFunc(message, func(field string) string {
		return "--" + strings.ReplaceAll(strings.TrimPrefix(field, "mapping."), "_", "-")
	})
}

func (a *app) reportStatus(st *status.Status) int {
	fmt.Fprintln(a.err, "error:", byFlag(st.Message()))
	for _, detail := range st.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				// A file's lines stand in the message already.
				if v.GetField() != "chunk" && !strings.Contains(st.Message(), v.GetDescription()) {
					fmt.Fprintln(a.err, " ", byFlag(v.GetField()+": "+v.GetDescription()))
				}
			}
		}
	}
	switch st.Code() {
	case codes.NotFound:
		return daemon.ExitNoData
	case codes.Unavailable:
		if strings.Contains(st.Message(), "connection error") || strings.Contains(st.Message(), "name resolver") {
			fmt.Fprintf(a.err, "  Is a gateway running at %s? Start one with 'wattfold up', or name it with --server.\n", a.server)
		} else {
			fmt.Fprintln(a.err, "  The gateway answers, but what is behind it does not: its /readyz tells which.")
		}
	}
	return daemon.ExitError
}
