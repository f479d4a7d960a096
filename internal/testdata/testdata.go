// Package testdata finds the real traces and grid series that tests read but
// that the project may not contain.
package testdata

import (
	"os"
	"path/filepath"
	"testing"
)

// Shared returns the path of shared/data beside the repository. A test that
// needs it and does not find it is skipped, saying so.
func Shared(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("working directory: %v", err)
	}
	for {
		data := filepath.Join(dir, "shared", "data")
		if info, err := os.Stat(data); err == nil && info.IsDir() {
			return data
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Skip("no shared/data beside the repository: this test reads real traces from there")
		}
		dir = parent
	}
}
