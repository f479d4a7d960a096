package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// Server is a wattfold that answers on a gRPC address, and its command line.
type Server struct {
	*Process
	// Dir is its data directory.
	Dir string
	// GRPC, HTTP and NATS are its addresses, as host:port.
	GRPC, HTTP, NATS string
	args, env        []string
	t                testing.TB
}

// Up starts `wattfold up` without the demo over a data directory and returns
// when it is healthy. Further arguments are appended.
func Up(t testing.TB, dir string, args ...string) *Server {
	t.Helper()
	return UpIn(t, nil, dir, args...)
}

// UpIn is Up with more variables, NAME=VALUE, in the environment.
func UpIn(t testing.TB, env []string, dir string, args ...string) *Server {
	t.Helper()
	return start(t, &Server{Dir: dir, GRPC: FreeAddr(t), HTTP: FreeAddr(t), NATS: FreeAddr(t), args: args, env: env})
}

// Again starts a server that has been stopped or killed once more, at the same
// addresses, over the same data, with the same arguments and variables.
func (s *Server) Again(t testing.TB) *Server {
	t.Helper()
	return start(t, &Server{Dir: s.Dir, GRPC: s.GRPC, HTTP: s.HTTP, NATS: s.NATS, args: s.args, env: s.env})
}

// start starts the server and waits for it.
func start(t testing.TB, s *Server) *Server {
	t.Helper()
	s.t = t
	s.Process = startIn(t, s.env, append([]string{
		"up", "--data-dir", s.Dir, "--no-demo", "--grpc", s.GRPC, "--http", s.HTTP, "--nats-listen", s.NATS,
	}, s.args...)...)
	s.WaitHealthy(s.GRPC)
	return s
}

// Client returns the command line for a server that is not `up`.
func Client(t testing.TB, grpcAddr string) *Server {
	return &Server{GRPC: grpcAddr, t: t}
}

// Result is what a command did.
type Result struct {
	Args           []string
	Code           int
	Stdout, Stderr string
}

func (r Result) String() string {
	return fmt.Sprintf("wattfold %s\nexit %d\nstdout:\n%s\nstderr:\n%s",
		strings.Join(r.Args, " "), r.Code, tail(r.Stdout, 4000), tail(r.Stderr, 4000))
}

// commandDeadline ends commands that hang.
const commandDeadline = 3 * time.Minute

// Exec runs wattfold with exactly these arguments.
func Exec(t testing.TB, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%v: %v", r, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("hangs: %v", r)
	}
	return r
}

// CLI runs a command against the server.
func (s *Server) CLI(args ...string) Result {
	s.t.Helper()
	return Exec(s.t, append(args, "--server", s.GRPC)...)
}

// Must runs a command that has to succeed and returns what it printed.
func (s *Server) Must(args ...string) string {
	s.t.Helper()
	r := s.CLI(args...)
	if r.Code != 0 {
		s.t.Fatal(r)
	}
	return r.Stdout
}

// CreateSite creates a site.
func (s *Server) CreateSite(name, zone, pue string) {
	s.t.Helper()
	s.Must("sites", "create", name, "--zone", zone, "--pue", pue)
}

// Statement asks for one statement.
func (s *Server) Statement(args ...string) *ledgerv1.Statement {
	s.t.Helper()
	return ParseStatement(s.t, s.Must(append([]string{"statement", "-o", "json"}, args...)...))
}

// ParseStatement reads what `statement -o json` printed.
func ParseStatement(t testing.TB, out string) *ledgerv1.Statement {
	t.Helper()
	var statement ledgerv1.Statement
	unmarshal(t, out, &statement)
	return &statement
}

// Statements asks for statements by group or bucket.
func (s *Server) Statements(args ...string) []*ledgerv1.Statement {
	s.t.Helper()
	out := s.Must(append([]string{"statement", "-o", "json"}, args...)...)
	var answer ledgerv1.QueryStatementsResponse
	unmarshal(s.t, out, &answer)
	return answer.GetStatements()
}

// unmarshal reads a message from what a command printed.
func unmarshal(t testing.TB, out string, into proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("%v in:\n%s", err, tail(out, 4000))
	}
}

// Metrics sums every series of each metric that the server exposes, and keeps
// each labelled series beside the sums.
func (s *Server) Metrics() map[string]float64 {
	s.t.Helper()
	sums, err := Scrape(s.t.Context(), s.HTTP)
	if err != nil {
		s.t.Fatal(err)
	}
	return sums
}

// Scrape reads /metrics.
func Scrape(ctx context.Context, addr string) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %s", response.Status)
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", line, err)
		}
		series := line[:cut]
		name, _, _ := strings.Cut(series, "{")
		sums[name] += value
		if series != name {
			sums[series] += value
		}
	}
	return sums, nil
}

// In returns the server for use in a sub-test, whose failures are its own.
func (s *Server) In(t testing.TB) *Server {
	sub := *s
	sub.t = t
	return &sub
}
