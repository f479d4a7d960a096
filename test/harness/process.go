package harness

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// startDeadline bounds how long a process may take until it is healthy, and
// stopDeadline how long it may take to leave after SIGTERM. Both are generous:
// they end hangs, they do not judge speed.
const (
	startDeadline = 60 * time.Second
	stopDeadline  = 30 * time.Second
)

// Process is a running wattfold.
type Process struct {
	t    testing.TB
	args []string
	cmd  *exec.Cmd
	out  *buffer
	done chan struct{}
	err  error // of Wait; read after done
}

// buffer collects what a process prints, from two pipes at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Start runs wattfold with the arguments. When the test ends the process is
// killed if it still runs, and its output is shown if the test failed.
func Start(t testing.TB, args ...string) *Process {
	t.Helper()
	return startIn(t, nil, args...)
}

// startIn is Start with more variables, NAME=VALUE, in the environment.
func startIn(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, args: args, out: &buffer{}, done: make(chan struct{})}
	// Not CommandContext: the test's context ends before its clean-ups, and this
	// process has to outlive it until it is asked to stop.
	p.cmd = exec.Command(Binary(t), args...) //nolint:noctx // see above
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		// Nothing of the desk that runs the test may change what is tested.
		return strings.HasPrefix(v, "WATTFOLD_") || strings.HasPrefix(v, "OTEL_")
	})
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("wattfold %v: %v", args, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("wattfold %v printed:\n%s", args, tail(p.out.String(), 12_000))
		}
	})
	return p
}

// tail returns the end of a long text.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}

// Kill ends the process as a power cut would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone already, which is as well
	<-p.done
}

// Stop asks the process to leave and fails the test if it does not, or leaves
// with an error.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("wattfold %v: %v", p.args, err)
	}
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("wattfold %v left with %v after SIGTERM", p.args, p.err)
		}
	case <-time.After(stopDeadline):
		p.t.Errorf("wattfold %v has not left %v after SIGTERM", p.args, stopDeadline)
		p.Kill()
	}
}

// Done is closed when the process has left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output returns what the process has printed so far.
func (p *Process) Output() string { return p.out.String() }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// WaitHealthy returns when the gRPC server at addr says that it serves, and
// fails the test if the process leaves before.
func (p *Process) WaitHealthy(addr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), startDeadline)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn := dial(p.t, addr)
	defer func() { _ = conn.Close() }() // only read from
	for {
		err := watchHealth(ctx, conn)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			p.t.Fatalf("wattfold %v is not healthy on %s: %v", p.args, addr, err)
		}
	}
}

// watchHealth returns nil once the server serves, or an error when the stream
// breaks, as it does while the server comes up.
func watchHealth(ctx context.Context, conn *grpc.ClientConn) error {
	watch, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		answer, err := watch.Recv()
		if err != nil {
			return err
		}
		if answer.GetStatus() == healthv1.HealthCheckResponse_SERVING {
			return nil
		}
	}
}

// dial connects to a server that may not listen yet.
func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 200 * time.Millisecond},
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	return conn
}

// Dial connects to a gRPC server until the test ends.
func Dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn := dial(t, addr)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// FreeAddr returns a loopback address that nobody listened on a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}

// RSS returns the resident memory of a process in bytes.
func RSS(t testing.TB, pid int) int64 {
	t.Helper()
	rss, err := ReadRSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	return rss
}

// ReadRSS is RSS for processes that may be gone.
func ReadRSS(pid int) (int64, error) {
	fields, err := procFields(pid, "statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// CPU returns the processor time that a process has used. The kernel counts it
// in hundredths of a second.
func CPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	fields, err := procFields(pid, "stat")
	if err != nil {
		t.Fatal(err)
	}
	var ticks int64
	for _, f := range fields[13:15] { // utime and stime; the name has no space
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// procFields reads a file of /proc.
func procFields(pid int, name string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	return strings.Fields(string(text)), err
}

// Eventually asks again and again until what is true, and fails the test if it
// is not within the deadline. It is for what another process does in its own
// time and tells nobody.
func Eventually(t testing.TB, deadline time.Duration, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !is() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not within %v: %s", deadline, what)
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s", what)
		}
	}
}
