package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/collector"
)

// The demo is a real training run on real machines, priced by a real grid, both
// moved to today; demo/NOTICE.md says where they come from. Its zone has a name
// of its own, so that no hour of it can ever price anything real.
const (
	demoSite    = "demo"
	demoZone    = "DEMO-US-CAL-CISO"
	demoPUE     = "1.10"
	demoProject = "demo"
	demoRun     = "mlperf-gpt3-512-h100"
	demoSource  = "carboncast-2021-moved"

	// The year is moved by whole weeks, so that a Monday stays a Monday.
	demoWeeks = 52 * 7 * 24 * time.Hour
	// Hours are imported from a day back to this far ahead, again every day.
	demoAhead = 3 * 24 * time.Hour
)

//go:embed demo/gpt3_8of64_nodes.csv
var demoPower []byte

//go:embed demo/ciso_2021_lifecycle.csv
var demoIntensity []byte

// writeDemoTrace puts the bundled trace into the data directory, where the
// collector's replay reads it.
func writeDemoTrace(dir string) (string, error) {
	file := filepath.Join(dir, "demo", "gpt3_8of64_nodes.csv")
	if stored, err := os.ReadFile(file); err == nil && bytes.Equal(stored, demoPower) {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, demoPower, 0o644)
}

// demoReplay plays the trace on today's clock, again and again.
func demoReplay(file string) collector.ReplayConfig {
	return collector.ReplayConfig{
		Name: "demo", File: file,
		Site: demoSite, Project: demoProject, Run: demoRun, Component: "chassis", Kind: "INSTANT_POWER",
		NodeColumn: "node", TimeColumn: "time_unix_ms", TimeFormat: "unix_ms", ValueColumn: "watts", Unit: "W",
		Period: 2 * time.Second, StartAt: "now", Speed: "1", Loop: true, Live: true,
		FlushInterval: 2 * time.Second,
	}
}

// keepDemo creates the demo's site and keeps its zone priced until ctx ends. It
// goes through the gateway like anyone would.
func keepDemo(ctx context.Context, c *client) error {
	site := &fleetv1.Site{Site: demoSite, Zone: demoZone, Pue: demoPUE}
	if _, err := c.fleet.CreateSite(ctx, &fleetv1.CreateSiteRequest{Site: site}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("demo site: %w", err)
	}
	for {
		if err := importDemoIntensity(ctx, c, time.Now()); err != nil {
			return fmt.Errorf("demo intensities: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(24 * time.Hour):
		}
	}
}

func importDemoIntensity(ctx context.Context, c *client, now time.Time) error {
	moved, err := moveDemoIntensity(demoIntensity, now.Add(-24*time.Hour), now.Add(demoAhead))
	if err != nil {
		return err
	}
	_, err = c.importIntensities(ctx, &gridv1.IntensityMapping{
		Zone: demoZone, Signal: gridv1.Signal_SIGNAL_CARBON_AVERAGE_LIFECYCLE,
		TimeColumn: "datetime_utc", ValueColumn: "g_per_kwh", StepSeconds: 3600,
		Source: demoSource, Quality: gridv1.Quality_QUALITY_FILLED, File: "ciso_2021_lifecycle.csv",
		Attribution: "CarbonCast (Apache-2.0), from EIA hourly generation (public domain): California ISO in 2021, moved to today",
	}, moved)
	return err
}

// moveDemoIntensity lays the hours of 2021 over [from, to), again and again.
func moveDemoIntensity(series []byte, from, to time.Time) (io.Reader, error) {
	rows, err := csv.NewReader(bytes.NewReader(series)).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 {
		return nil, errors.New("the bundled series is empty")
	}
	first, err := time.Parse(time.RFC3339, rows[1][0])
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintln(&out, "datetime_utc,g_per_kwh")
	for t := from.Truncate(time.Hour); t.Before(to); t = t.Add(time.Hour) {
		at := 1 + int(t.Sub(first)%demoWeeks/time.Hour)
		if at >= len(rows) {
			return nil, fmt.Errorf("the bundled series has %d hours, want %d", len(rows)-1, int(demoWeeks/time.Hour))
		}
		fmt.Fprintf(&out, "%s,%s\n", t.UTC().Format(time.RFC3339), rows[at][1])
	}
	return &out, nil
}
