package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is where Main put the program.
var binary string

// Main builds the program, runs the tests and returns their exit status. Tests
// that are skipped under -short need no program, so nothing is built then.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "wattfold-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "harness:", err)
		}
	}()
	binary = filepath.Join(dir, "wattfold")
	return m.Run()
}

// Binary returns the path of the program, built at the first call.
func Binary(t testing.TB) string {
	t.Helper()
	if binary == "" {
		t.Fatal("harness: TestMain does not call harness.Main")
	}
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/wattfold/wattfold/cmd/wattfold")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// Long skips a test that takes more than a moment when -short is given.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real program for many seconds: make e2e, make faults")
	}
}
