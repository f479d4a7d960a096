package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/wattfold/wattfold/internal/daemon"
)

// The line that is rewritten is never in a line of the log, and comes back below.
func TestScreenKeepsLinesApart(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	fmt.Fprintln(s, "wattfold is up")
	s.show("1 kW")
	fmt.Fprintln(s, "a warning")
	s.show("2 kW")
	s.leave()
	fmt.Fprintln(s, "the end")
	line := func(text string) string { return "\r\033[K\033[?7l" + text + "\033[?7h" }
	want := "wattfold is up\n" + line("1 kW") + "\r\033[Ka warning\n\033[?7l1 kW\033[?7h" + line("2 kW") + "\nthe end\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

// Many write at once; every line of the log is whole and begins on a clear line.
func TestScreenUnderManyWriters(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	log := daemon.NewLogger(s, slog.LevelInfo)
	s.show("live")
	var writing sync.WaitGroup
	for range 4 {
		writing.Go(func() {
			for i := range 50 {
				s.show("live")
				log.Warn("something", "i", i)
			}
		})
	}
	writing.Wait()
	s.leave()
	logged := 0
	for text := range strings.Lines(out.String()) {
		if strings.Contains(text, "msg=something") {
			logged++
			if !strings.Contains(text, "\r\033[Ktime=") {
				t.Errorf("%q does not begin on a clear line", text)
			}
		}
	}
	if logged != 200 {
		t.Errorf("%d lines of the log are on the screen, want 200 as text", logged)
	}
}
