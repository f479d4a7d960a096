package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func wait(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestGroup(t *testing.T) {
	broken := errors.New("broken")
	ended := func(context.Context) error { return nil }
	breaks := func(context.Context) error { return broken }

	if err := Group(t.Context(), wait, ended, breaks, wait); !errors.Is(err, broken) {
		t.Errorf("the first error: got %v", err)
	}
	if err := Group(t.Context(), wait, func(context.Context) error { panic("at the disco") }); err == nil ||
		!strings.Contains(err.Error(), "panic: at the disco") || !strings.Contains(err.Error(), "daemon_test.go") {
		t.Errorf("a panic: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Group(ctx, wait, func(context.Context) error { cancel(); return nil }); err != nil {
		t.Errorf("the end of the context: got %v", err)
	}
	if err := Group(ctx, wait, func(ctx context.Context) error { <-ctx.Done(); return broken }); !errors.Is(err, broken) {
		t.Errorf("an error while stopping: got %v", err)
	}
	if err := Group(t.Context()); err != nil {
		t.Errorf("nothing to do: got %v", err)
	}
}

func TestExecute(t *testing.T) {
	broken := errors.New("first mistake\nsecond mistake")
	for name, test := range map[string]struct {
		run    func(context.Context, Env) error
		code   int
		stderr string
	}{
		"done":        {func(context.Context, Env) error { return nil }, ExitOK, ""},
		"failed":      {func(context.Context, Env) error { return broken }, ExitError, "prog: first mistake\nprog: second mistake\n"},
		"mistyped":    {func(context.Context, Env) error { return Usage(broken) }, ExitUsage, "prog: first mistake\nprog: second mistake\n"},
		"answered no": {func(context.Context, Env) error { return Silent(ExitNotNow) }, ExitNotNow, ""},
		"no data":     {func(context.Context, Env) error { return Exit(ExitNoData, errors.New("no data")) }, ExitNoData, "prog: no data\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := execute(t.Context(), Env{Name: "prog", Stderr: &stderr}, test.run)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if diff := cmp.Diff(test.stderr, stderr.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a panic", func(t *testing.T) {
		var stderr bytes.Buffer
		code := execute(t.Context(), Env{Name: "prog", Stderr: &stderr}, func(context.Context, Env) error { panic("oh") })
		if code != ExitError || !strings.HasPrefix(stderr.String(), "prog: panic: oh\n") {
			t.Errorf("exit code %d: %s", code, stderr.String())
		}
	})
	t.Run("a bad level", func(t *testing.T) {
		t.Setenv("WATTFOLD_LOG_LEVEL", "loud")
		var stderr bytes.Buffer
		if code := execute(t.Context(), Env{Name: "prog", Stderr: &stderr}, nil); code != ExitUsage {
			t.Errorf("exit code %d: %s", code, stderr.String())
		}
	})
}

func TestService(t *testing.T) {
	var got *testConfig
	serve := func(args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		got = nil
		code = execute(t.Context(), Env{Name: "prog", Args: args, Stdout: &out, Stderr: &errs}, func(ctx context.Context, env Env) error {
			return service(ctx, env, defaults(), func(_ context.Context, _ Env, cfg testConfig) error {
				got = &cfg
				return nil
			})
		})
		return code, out.String(), errs.String()
	}
	name := file(t, "streams: 9\n")
	if code, _, stderr := serve("-config", name); code != ExitOK || got == nil || got.Streams != 9 {
		t.Errorf("exit code %d, %+v: %s", code, got, stderr)
	}
	if code, stdout, _ := serve("-config", name, "-print"); code != ExitOK || got != nil || !strings.Contains(stdout, "streams: 9 # "+name+":1") {
		t.Errorf("-print: %d\n%s", code, stdout)
	}
	if code, stdout, _ := serve("-check"); code != ExitOK || got != nil || stdout != "the configuration is right\n" {
		t.Errorf("-check: %d %s", code, stdout)
	}
	if code, stdout, _ := serve("-version"); code != ExitOK || !strings.HasPrefix(stdout, "prog ") {
		t.Errorf("-version: %d %s", code, stdout)
	}
	for _, args := range [][]string{{"-config", file(t, "steams: 9\n")}, {"-nope"}, {"serve"}} {
		if code, _, stderr := serve(args...); code != ExitUsage || got != nil || stderr == "" {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

// A real process: a signal ends it with code 0, a second one at once.
func TestSignals(t *testing.T) {
	if mode := os.Getenv("DAEMON_TEST"); mode != "" {
		Main("prog", func(ctx context.Context, _ Env) error {
			_, _ = os.Stdout.WriteString("up\n")
			<-ctx.Done()
			_, _ = os.Stdout.WriteString("stopping\n")
			if mode == "hang" {
				select {}
			}
			return ctx.Err()
		})
	}
	start := func(mode string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSignals$")
		cmd.Env = append(os.Environ(), "DAEMON_TEST="+mode)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		if lines.Text() != "stopping" {
			t.Errorf("%s: got %q", mode, lines.Text())
		}
		return cmd
	}
	cmd := start("stop")
	if err := cmd.Wait(); err != nil {
		t.Errorf("a signal: %v", err)
	}
	cmd = start("hang")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	for running := true; running; {
		// The default effect comes back a moment after the first signal, so this
		// may take more than one.
		select {
		case err = <-ended:
			running = false
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if state, ok := errors.AsType[*exec.ExitError](err); !ok || !state.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("a second signal: got %v", err)
	}
}
