package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"

	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

const (
	// staleAfter is how long a node's last power counts for the fleet.
	staleAfter = time.Minute
	// On a terminal one line is rewritten; in a log a line comes now and then.
	terminalPause = 2 * time.Second
	logPause      = 30 * time.Second
)

// live shows the figures of the demo's fleet as they are, asked through the gateway
// like anyone would.
type live struct {
	log    *slog.Logger
	client *client
	out    io.Writer
	// screen is where one line is rewritten; nil: lines go to out now and then.
	screen *screen

	mu sync.Mutex
	// nodes holds each node's newest power.
	nodes map[nodeKey]nodePower
}

type nodeKey struct{ site, node string }

type nodePower struct {
	kw float64
	// seen is the newest tick.
	seen time.Time
}

// run shows figures until ctx ends.
func (l *live) run(ctx context.Context) error {
	l.nodes = map[nodeKey]nodePower{}
	go l.watch(ctx)
	pause := logPause
	if l.screen != nil {
		pause = terminalPause
		defer l.screen.leave()
	}
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			line, err := l.line(ctx)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				l.log.DebugContext(ctx, "no live figures", "err", err)
			case l.screen != nil:
				l.screen.show(line)
			default:
				fmt.Fprintln(l.out, line)
			}
		}
	}
}

// watch keeps the nodes' power from the stream of committed segments, and takes
// the stream up again where it broke off.
func (l *live) watch(ctx context.Context) {
	request := &ledgerv1.WatchEmissionsRequest{Selection: &ledgerv1.Selection{Site: demoSite}}
	for ctx.Err() == nil {
		stream, err := l.client.ledger.WatchEmissions(ctx, request)
		for err == nil {
			var answer *ledgerv1.WatchEmissionsResponse
			if answer, err = stream.Recv(); err == nil {
				request.ResumeToken = answer.GetResumeToken()
				l.take(answer.GetSegments())
			}
		}
		l.log.DebugContext(ctx, "watching again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// take turns the segments of one batch into its node's power: energy over time,
// summed over the meters.
func (l *live) take(segments []*ledgerv1.Segment) {
	type meter struct {
		joules   float64
		from, to time.Time
	}
	meters := map[string]meter{}
	var key nodeKey
	for _, s := range segments {
		key = nodeKey{s.GetSite(), s.GetNode()}
		microjoules, err := strconv.ParseFloat(s.GetItMicrojoules(), 64)
		if err != nil || microjoules < 0 {
			return // a correction of the past says nothing of now
		}
		from, to := s.GetStartTime().AsTime(), s.GetEndTime().AsTime()
		m, known := meters[s.GetDevice()]
		if !known || from.Before(m.from) {
			m.from = from
		}
		if to.After(m.to) {
			m.to = to
		}
		m.joules += microjoules / 1e6
		meters[s.GetDevice()] = m
	}
	var power nodePower
	for _, m := range meters {
		if m.to.After(power.seen) {
			power.seen = m.to
		}
		if seconds := m.to.Sub(m.from).Seconds(); seconds > 0 {
			power.kw += m.joules / seconds / 1000
		}
	}
	if power.kw == 0 || time.Since(power.seen) > staleAfter {
		return // imported history is not the fleet as it is now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[key] = power
}

// power returns the fleet's power by site, in kW, and how many nodes it is of.
func (l *live) power() (map[string]float64, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sites := map[string]float64{}
	for key, p := range l.nodes {
		if time.Since(p.seen) > staleAfter {
			delete(l.nodes, key)
			continue
		}
		sites[key.site] += p.kw
	}
	return sites, len(l.nodes)
}

// line asks for what is known now and puts it into one line.
func (l *live) line(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	sites, err := l.client.sites(ctx)
	if err != nil {
		return "", err
	}
	answer, err := l.client.ledger.GetStatement(ctx, &ledgerv1.GetStatementRequest{Selection: &ledgerv1.Selection{Site: demoSite}})
	if err != nil {
		return "", err
	}
	byName := map[string]*fleetv1.Site{}
	for _, s := range sites {
		byName[s.GetSite()] = s
	}
	power, nodes := l.power()
	var kw, facilityKW, gramsPerHour float64
	for name, p := range power {
		kw += p
		pue, err := strconv.ParseFloat(byName[name].GetPue(), 64)
		if err != nil {
			continue
		}
		factor, err := l.client.grid.GetIntensity(ctx, &gridv1.GetIntensityRequest{Zone: byName[name].GetZone()})
		if err != nil {
			continue
		}
		facilityKW += p * pue
		gramsPerHour += p * pue * factor.GetIntensity().GetValue()
	}
	s := answer.GetStatement()
	now := "waiting for samples"
	switch {
	case nodes > 0 && facilityKW > 0:
		now = fmt.Sprintf("%d nodes · %.1f kW (%.1f with PUE) · %.0f g/kWh · %.0f g/h", nodes, kw, facilityKW, gramsPerHour/facilityKW, gramsPerHour)
	case nodes > 0:
		now = fmt.Sprintf("%d nodes · %.1f kW · no intensity", nodes, kw)
	}
	return fmt.Sprintf("%s │ total %.3f kWh, %.3f kg CO2e", now, s.GetEnergy().GetItKwh(), emissions(s)/1000), nil
}

func emissions(s *ledgerv1.Statement) float64 {
	if list := s.GetEmissions(); len(list) > 0 {
		return list[0].GetGrams()
	}
	return 0
}

// screen is a terminal whose last line is rewritten in place. What else is written
// to it, a log's lines for one, comes above that line.
type screen struct {
	out io.Writer

	mu   sync.Mutex
	line string
}

// Control sequences: to the start of the line and clear it; and show a text cut off
// at the edge, for a line that wraps cannot be rewritten.
const (
	clearLine = "\r\033[K"
	cutAtEdge = "\033[?7l%s\033[?7h"
)

// Terminal says what a screen is, for [daemon.Terminal].
func (s *screen) Terminal() bool { return true }

// Write writes whole lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.out.Write(p)
	}
	if _, err := fmt.Fprintf(s.out, clearLine+"%s"+cutAtEdge, p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show rewrites the last line.
func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line
	fmt.Fprintf(s.out, clearLine+cutAtEdge, line)
}

// leave lets the last line stand as it is.
func (s *screen) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		fmt.Fprintln(s.out)
	}
	s.line = ""
}
