package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/wattfold/wattfold/test/harness"
)

// An `up` that has nothing to do does next to nothing.
func TestIdleFootprint(t *testing.T) {
	harness.Long(t)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.1")
	small(t, up)
	const window = 10 * time.Second
	before := harness.CPU(t, up.PID())
	timer := time.NewTimer(window) // the measurement, not a wait for something
	defer timer.Stop()
	<-timer.C
	used := harness.CPU(t, up.PID()) - before
	rss := harness.RSS(t, up.PID())
	t.Logf("idle: %v of CPU in %v (%.2f %% of a core), RSS %.1f MB", used, window, 100*used.Seconds()/window.Seconds(), float64(rss)/1e6)
	if used > window/50 {
		t.Errorf("idles at %v of CPU in %v, more than 2 %% of a core", used, window)
	}
	if rss > 100e6 {
		t.Errorf("idles at %.1f MB, more than 100 MB", float64(rss)/1e6)
	}
}

// A large file is imported with memory that does not grow with it.
// WATTFOLD_LARGE_MB sets its size; `WATTFOLD_LARGE_MB=1000` is the full trial.
func TestLargeFileInBoundedMemory(t *testing.T) {
	harness.Long(t)
	megabytes := 48
	if text := os.Getenv("WATTFOLD_LARGE_MB"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("WATTFOLD_LARGE_MB: %v", err)
		}
		megabytes = n
	}
	path := filepath.Join(t.TempDir(), "large.csv")
	rows := writeLarge(t, path, megabytes<<20)
	up := harness.Up(t, t.TempDir())
	up.CreateSite("s", "FR", "1.1")

	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var most int64
		for {
			select {
			case <-tick.C:
				if rss, err := harness.ReadRSS(up.PID()); err == nil {
					most = max(most, rss)
				}
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	start := time.Now()
	up.Must("import", "samples", "--csv", path, "--site", "s", "--project", "p", "--run", "r", "--component", "chassis",
		"--kind", "INSTANT_POWER", "--node-column", "node", "--time-column", "t", "--time-format", "unix_ms", "--value-column", "w",
		"--unit", "W")
	took := time.Since(start)
	close(stop)
	most := <-peak
	t.Logf("%d MB, %d rows in %v (%.2f M rows/s), peak RSS of the server %.0f MB",
		megabytes, rows, took.Round(time.Millisecond), float64(rows)/took.Seconds()/1e6, float64(most)/1e6)
	// Every node draws 1 kW and its last reading comes (rows/nodes - 1) s after
	// its first.
	const nodes = 16
	want := strconv.FormatInt(int64(rows/nodes-1)*nodes*1_000_000_000, 10)
	if got := up.Statement("--site", "s").GetEnergy().GetItMicrojoules(); got != want {
		t.Errorf("energy is %s µJ, want %s", got, want)
	}
	if most > 400e6 {
		t.Errorf("the server took %.0f MB for a file of %d MB", float64(most)/1e6, megabytes)
	}
}

// writeLarge writes a file of about the size, 16 nodes at 1 Hz, and returns the
// number of its rows.
func writeLarge(t *testing.T, path string, size int) int {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	written, rows := 0, 0
	n, _ := fmt.Fprintln(w, "node,t,w")
	written += n
	for second := int64(0); written < size; second++ {
		for node := range 16 {
			n, _ := fmt.Fprintf(w, "node-%02d,%d,1000.0\n", node, 1_640_995_200_000+second*1000)
			written += n
			rows++
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return rows
}
