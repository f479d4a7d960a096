package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/wattfold/wattfold/internal/telemetry"
)

// The exit codes of the command line.
const (
	ExitOK     = 0
	ExitError  = 1
	ExitUsage  = 2
	ExitNotNow = 3
	ExitNoData = 4
)

// flushTimeout is how long the last spans and metrics may take to leave.
const flushTimeout = 5 * time.Second

// Env is what a program has of its surroundings.
type Env struct {
	// Name of the program.
	Name string
	// Args are the arguments, without the program's name.
	Args []string
	// Stdin, Stdout and Stderr are those of the process.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Log goes to Stderr: text on a terminal, JSON otherwise, with trace ids.
	Log *slog.Logger
	// Level of Log; may be changed at any time.
	Level     *slog.LevelVar
	Telemetry telemetry.Providers
}

// Version returns the version of the program that is built in.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	return version + " " + info.GoVersion
}

type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// Exit gives err an exit code. It returns nil for nil.
func Exit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// Code returns the exit code of an error: that of [Exit], or 1.
func Code(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return ExitError
}

// Silent returns an error that ends the program with the code and says nothing:
// the answer has been written.
func Silent(code int) error { return &exitError{code: code, err: errSilent} }

var errSilent = errors.New("exit")

// Usage marks err as a mistake of the one who typed the command.
func Usage(err error) error { return Exit(ExitUsage, err) }

// Main runs a program and ends the process: with code 0 when run returns nil or
// has stopped because of SIGINT or SIGTERM, with that of [Exit], or with 1. A
// second signal ends the process at once. The error is written to stderr, once.
func Main(name string, run func(ctx context.Context, env Env) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal has its default effect
	env := Env{Name: name, Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(execute(ctx, env, run))
}

// execute is [Main] without the process.
func execute(ctx context.Context, env Env, run func(ctx context.Context, env Env) error) int {
	env.Level = new(slog.LevelVar)
	level, err := LogLevel(slog.LevelInfo)
	if err != nil {
		fmt.Fprintf(env.Stderr, "%s: %v\n", env.Name, err)
		return Code(err)
	}
	env.Level.Set(level)
	env.Log = NewLogger(env.Stderr, env.Level).With("service", env.Name)
	err = Frame(ctx, env, run)
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ExitOK
	}
	if !errors.Is(err, errSilent) {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(env.Stderr, "%s: %s\n", env.Name, strings.TrimRight(line, "\n"))
		}
	}
	return Code(err)
}

// LogLevel returns the level that WATTFOLD_LOG_LEVEL names, or the standard one.
func LogLevel(standard slog.Level) (slog.Level, error) {
	text := os.Getenv("WATTFOLD_LOG_LEVEL")
	if text == "" {
		return standard, nil
	}
	if err := standard.UnmarshalText([]byte(text)); err != nil {
		return standard, Usage(fmt.Errorf("WATTFOLD_LOG_LEVEL=%s: use debug, info, warn or error", text))
	}
	return standard, nil
}

// Frame runs a part of a program with telemetry under env.Name: it sets
// env.Telemetry, makes an error of a panic, and at the end sends what is held
// back.
func Frame(ctx context.Context, env Env, run func(ctx context.Context, env Env) error) (err error) {
	providers, shutdown, err := telemetry.Setup(ctx, env.Log, env.Name)
	if err != nil {
		return err
	}
	env.Telemetry = providers
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if ferr := shutdown(flush); ferr != nil {
			env.Log.WarnContext(ctx, "telemetry not flushed", "err", ferr)
		}
	}()
	return run(ctx, env)
}

// NewLogger returns the log of a program: text for a terminal, JSON otherwise.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if Terminal(w) {
		return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, opts)))
	}
	return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, opts)))
}

// Terminal reports whether a person reads what is written to w: it is a character
// device, or says of itself that it is one by a method Terminal. So is /dev/null, to
// which all is one.
func Terminal(w io.Writer) bool {
	switch w := w.(type) {
	case *os.File:
		info, err := w.Stat()
		return err == nil && info.Mode()&os.ModeCharDevice != 0
	case interface{ Terminal() bool }:
		return w.Terminal()
	}
	return false
}

// Service is [Main] for a program that is one service with one configuration. It
// has four flags: -config FILE, -check (read the configuration and say whether it
// is right), -print (show it with the origin of each value) and -version.
func Service[T any](name string, defaults T, run func(ctx context.Context, env Env, cfg T) error) {
	Main(name, func(ctx context.Context, env Env) error { return service(ctx, env, defaults, run) })
}

func service[T any](ctx context.Context, env Env, defaults T, run func(ctx context.Context, env Env, cfg T) error) error {
	flags := flag.NewFlagSet(env.Name, flag.ContinueOnError)
	flags.SetOutput(env.Stderr)
	file := flags.String("config", "", "YAML `file` of the configuration")
	check := flags.Bool("check", false, "read the configuration, report its mistakes and end")
	show := flags.Bool("print", false, "print the configuration in effect with the origin of each value and end")
	version := flags.Bool("version", false, "print the version and end")
	if err := flags.Parse(env.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return Silent(ExitUsage) // flags has said why
	}
	if flags.NArg() > 0 {
		return Usage(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if *version {
		_, err := fmt.Fprintln(env.Stdout, env.Name, Version())
		return err
	}
	loaded, err := LoadAll(defaults, *file, EnvPrefix, nil)
	if err != nil {
		return err
	}
	if *show {
		return loaded.Print(env.Stdout)
	}
	if *check {
		_, err := fmt.Fprintln(env.Stdout, "the configuration is right")
		return err
	}
	return run(ctx, env, loaded.Config)
}
