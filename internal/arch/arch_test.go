package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/wattfold/wattfold"

// A reachRule says that packages must not reach others, not through any chain
// of imports. Paths are relative to the module unless they have a dot in their
// first element; "x/..." is x and all below it.
type reachRule struct {
	from    string
	never   []string
	because string
	// tests says that the rule holds for the imports of test files too.
	tests bool
}

var reachRules = []reachRule{{
	from:    "./carbon/...",
	never:   []string{"./internal/...", "./proto/...", "./services/...", "./gateway/...", "./cmd/..."},
	because: "the arithmetic must be checkable without the product",
	tests:   true,
}, {
	from:    "./proto/...",
	never:   []string{"./internal/...", "./services/...", "./gateway/...", "./cmd/...", "./carbon/..."},
	because: "the contract is compiled into other people's programs and brings nothing of ours along",
	tests:   true,
}, {
	from:    "./internal/...",
	never:   []string{"./services/...", "./gateway/...", "./cmd/...", "./carbon/..."},
	because: "internal is mechanism and knows no domain word",
	tests:   true,
}, {
	from:    "./services/collector/...",
	never:   []string{"./services/gridfeed/...", "./services/calculator/...", "./gateway/...", "./cmd/..."},
	because: "services meet at protos and the bus, so that each can run on a machine of its own",
	tests:   true,
}, {
	from:    "./services/gridfeed/...",
	never:   []string{"./services/collector/...", "./services/calculator/...", "./gateway/...", "./cmd/..."},
	because: "services meet at protos and the bus, so that each can run on a machine of its own",
	tests:   true,
}, {
	from:    "./services/calculator/...",
	never:   []string{"./services/collector/...", "./services/gridfeed/...", "./gateway/...", "./cmd/..."},
	because: "services meet at protos and the bus, so that each can run on a machine of its own",
	tests:   true,
}, {
	from:    "./gateway/...",
	never:   []string{"./services/...", "./carbon/...", "./internal/sqlite/...", "./cmd/..."},
	because: "the gateway forwards by descriptor: a new call must not need a new gateway",
}, {
	from:    "./services/collector/...",
	never:   []string{"./internal/sqlite/...", "modernc.org/sqlite/..."},
	because: "a collector runs on every node and must stay small: its spool is a file",
}, {
	from:    "./cmd/collector/...",
	never:   []string{"github.com/nats-io/nats-server/...", "./internal/sqlite/...", "modernc.org/sqlite/..."},
	because: "a collector runs on every node and carries neither a broker nor a database",
}, {
	from:    "./cmd/gateway/...",
	never:   []string{"github.com/nats-io/...", "./internal/sqlite/...", "modernc.org/sqlite/...", "./services/..."},
	because: "the door holds nothing but connections",
}, {
	from:    "./test/oracle/...",
	never:   []string{"./carbon/...", "./proto/samplewire/..."},
	because: "an oracle that shares code with what it judges judges nothing",
}}

// An importRule says that packages must not import others directly.
type importRule struct {
	from    string
	except  []string
	never   []string
	because string
}

var importRules = []importRule{{
	from:    "./carbon/...",
	never:   []string{"os", "io/fs", "net/...", "log/...", "context", "database/sql/...", "math/rand/...", "sync/..."},
	because: "carbon is told everything and returns values; it cannot read, wait or draw lots",
}, {
	from:    "./...",
	except:  []string{"./internal/bus/embedded/..."},
	never:   []string{"github.com/nats-io/nats-server/..."},
	because: "one package starts a server; everyone else is given a connection",
}, {
	from:    "./...",
	except:  []string{"./internal/sqlite/..."},
	never:   []string{"modernc.org/sqlite/..."},
	because: "the driver is named once, so that it can be changed once",
}, {
	from:    "./services/...",
	except:  []string{"./services/calculator/internal/...", "./services/gridfeed/internal/..."},
	never:   []string{"database/sql/..."},
	because: "SQL lives in the stores; a service sees the interface that it declares",
}, {
	from:    "./...",
	except:  []string{"./internal/daemon/...", "./cmd/..."},
	never:   []string{"os/signal"},
	because: "a process has one place that listens to signals; all else is told by its context",
}}

// serviceFiles are what a reader finds in every service, in this order.
var serviceFiles = []string{"doc.go", "config.go", "service.go", "grpc.go", "wire.go", "metrics.go"}

// generatedAllowed are the files of a service that may name generated types.
var generatedAllowed = []string{"wire.go", "grpc.go"}

// emptyNames say nothing about what a folder holds, so in time it holds anything.
var emptyNames = []string{"common", "util", "utils", "helper", "helpers", "base", "core", "types", "misc", "lib", "pkg", "models", "interfaces"}

func TestReach(t *testing.T) {
	g := graph(t)
	for _, rule := range reachRules {
		for _, p := range g.matching(rule.from) {
			for _, chain := range g.chains(p, rule.never, rule.tests) {
				t.Errorf("%s\n\tbecause %s", strings.Join(chain, " → "), rule.because)
			}
		}
	}
}

func TestDirectImports(t *testing.T) {
	g := graph(t)
	for _, rule := range importRules {
		for _, p := range g.matching(rule.from) {
			if matchesAny(rule.except, p.ImportPath) {
				continue
			}
			for _, imported := range p.Imports {
				if matchesAny(rule.never, imported) {
					t.Errorf("%s imports %s\n\tbecause %s", p.ImportPath, imported, rule.because)
				}
			}
		}
	}
}

// TestRulesBite runs the rules against imports that break them: a pattern with
// a slip in it would match nothing, and hold for ever.
func TestRulesBite(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"./carbon/...", module + "/carbon", true},
		{"./carbon/...", module + "/carbon/unit", true},
		{"./carbon/...", module + "/carbonate", false},
		{"github.com/nats-io/nats-server/...", "github.com/nats-io/nats-server/v2/server", true},
		{"net/...", "net/http", true},
		{"net/...", "netip", false},
		{"os", "os", true},
		{"os", "os/signal", false},
		{"./...", module + "/gateway", true},
		{"./...", "gateway", false},
	} {
		if got := matches(c.pattern, c.path); got != c.want {
			t.Errorf("matches(%q, %q) = %v, want %v", c.pattern, c.path, got, c.want)
		}
	}
	g := &imports{packages: map[string]*listed{
		module + "/a": {ImportPath: module + "/a", Imports: []string{module + "/b"}, XTestImports: []string{module + "/d"}},
		module + "/b": {ImportPath: module + "/b", Imports: []string{module + "/c"}},
		module + "/c": {ImportPath: module + "/c"},
		module + "/d": {ImportPath: module + "/d"},
	}}
	a := g.packages[module+"/a"]
	if got := g.chains(a, []string{"./c"}, false); len(got) != 1 || len(got[0]) != 3 {
		t.Errorf("chains from a to c = %v, want one of three packages", got)
	}
	if got := g.chains(a, []string{"./d"}, false); len(got) != 0 {
		t.Errorf("chains from a to d without tests = %v, want none", got)
	}
	if got := g.chains(a, []string{"./d"}, true); len(got) != 1 {
		t.Errorf("chains from a to d with tests = %v, want one", got)
	}
}

func TestServiceFolders(t *testing.T) {
	root := root(t)
	services, err := os.ReadDir(filepath.Join(root, "services"))
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range services {
		if !service.IsDir() {
			continue
		}
		for _, name := range serviceFiles {
			if _, err := os.Stat(filepath.Join(root, "services", service.Name(), name)); err != nil {
				t.Errorf("services/%s has no %s\n\tbecause who knows one service folder should know them all", service.Name(), name)
			}
		}
	}
}

func TestGeneratedTypesStop(t *testing.T) {
	g := graph(t)
	for _, p := range g.matching("./services/...") {
		for _, name := range p.GoFiles {
			if slices.Contains(generatedAllowed, name) {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if matches("./proto/gen/...", imported) {
					t.Errorf("%s/%s imports %s\n\tbecause the domain must not change when the wire does; it belongs into %s",
						p.ImportPath, name, imported, strings.Join(generatedAllowed, " or "))
				}
			}
		}
	}
}

func TestFolderNames(t *testing.T) {
	for _, p := range graph(t).matching("...") {
		for element := range strings.SplitSeq(strings.TrimPrefix(p.ImportPath, module), "/") {
			if slices.Contains(emptyNames, element) {
				t.Errorf("%s: a folder named %q excludes nothing, so everything arrives; name it for what it holds", p.ImportPath, element)
			}
		}
	}
}

// TestModules keeps the promises that the go.mod files make to those who
// import a module without wanting the product.
func TestModules(t *testing.T) {
	for _, c := range []struct {
		module  string
		allowed []string
		because string
	}{
		{"carbon", nil, "anyone can see in three lines that the arithmetic is the standard library's alone"},
		{"proto", []string{
			"google.golang.org/grpc",
			"google.golang.org/protobuf",
			"google.golang.org/genproto/googleapis/api",
			"google.golang.org/genproto/googleapis/rpc",
			"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go",
		}, "clients must not inherit our broker, database or telemetry"},
	} {
		dir := filepath.Join(root(t), c.module)
		out := goCommand(t, dir, "mod", "edit", "-json")
		var mod struct {
			Require []struct {
				Path     string
				Indirect bool
			}
		}
		if err := json.Unmarshal(out, &mod); err != nil {
			t.Fatal(err)
		}
		for _, r := range mod.Require {
			if !r.Indirect && !slices.Contains(c.allowed, r.Path) {
				t.Errorf("%s/go.mod requires %s\n\tbecause %s", c.module, r.Path, c.because)
			}
		}
		if c.allowed == nil && len(mod.Require) > 0 {
			t.Errorf("%s/go.mod has requirements\n\tbecause %s", c.module, c.because)
		}
	}
}

// listed is what go list says of a package.
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Standard     bool
}

// imports is the graph of all packages of the workspace and what they need.
type imports struct {
	packages map[string]*listed
}

var readGraph = sync.OnceValues(func() (*imports, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-test=false",
		"-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports,Standard", "work")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	g := &imports{packages: map[string]*listed{}}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, err
		}
		g.packages[p.ImportPath] = p
	}
})

func graph(t *testing.T) *imports {
	t.Helper()
	g, err := readGraph()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// matching returns the packages of the workspace that match, in order.
func (g *imports) matching(pattern string) []*listed {
	var found []*listed
	for _, p := range g.packages {
		if matches(pattern, p.ImportPath) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *listed) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return found
}

// chains returns the shortest chain of imports from p to each package that
// matches one of the patterns. Chains through p's own tests are looked at only
// when tests is set; tests of others are never looked at.
func (g *imports) chains(p *listed, patterns []string, tests bool) [][]string {
	from := map[string]string{p.ImportPath: ""}
	queue := slices.Clone(p.Imports)
	if tests {
		queue = append(append(queue, p.TestImports...), p.XTestImports...)
	}
	for _, imported := range queue {
		if _, seen := from[imported]; !seen {
			from[imported] = p.ImportPath
		}
	}
	var found [][]string
	done := map[string]bool{p.ImportPath: true}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if done[at] {
			continue
		}
		done[at] = true
		if matchesAny(patterns, at) {
			var chain []string
			for step := at; step != ""; step = from[step] {
				chain = append(chain, step)
			}
			slices.Reverse(chain)
			found = append(found, chain)
			continue
		}
		next := g.packages[at]
		if next == nil {
			continue
		}
		for _, imported := range next.Imports {
			if _, seen := from[imported]; !seen {
				from[imported] = at
				queue = append(queue, imported)
			}
		}
	}
	return found
}

func matchesAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, importPath) })
}

func matches(pattern, importPath string) bool {
	if own, ok := strings.CutPrefix(pattern, "./"); ok {
		pattern = module + "/" + own
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
	}
	return importPath == pattern
}

// root is the folder of the repository: the one with go.work.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.work above the test")
		}
		dir = parent
	}
}

func goCommand(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}
