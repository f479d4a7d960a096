package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
)

func (a *app) zonesCommand() *cobra.Command {
	var imported bool
	cmd := &cobra.Command{
		Use:   "zones",
		Short: "List the grid zones that have a timeline",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			zones, err := pages(func(token string) ([]*gridv1.Zone, string, error) {
				answer, err := c.grid.ListZones(cmd.Context(), &gridv1.ListZonesRequest{PageToken: token, WithoutStatic: imported})
				return answer.GetZones(), answer.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			t := &table{head: []string{"ZONE", "NAME", "SIGNAL", "SOURCE", "PRODUCT", "FROM", "TO", "RECORDS"}}
			for _, z := range zones {
				for _, l := range z.GetTimelines() {
					t.add(z.GetZone(), z.GetDisplayName(), label(l.GetSignal(), "SIGNAL_"), l.GetSource(), l.GetProduct(),
						clock(l.GetStartTime()), clock(l.GetEndTime()), fmt.Sprint(l.GetRevisions()))
				}
			}
			return a.print(&gridv1.ListZonesResponse{Zones: zones}, t)
		},
	}
	cmd.Flags().BoolVar(&imported, "imported", false, "leave out the built-in table of yearly means")
	return cmd
}

func (a *app) intensityCommand() *cobra.Command {
	var signal, at, asOf, asKnownAt string
	cmd := &cobra.Command{
		Use:   "intensity ZONE",
		Short: "Ask for the intensity of a zone at an instant",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &gridv1.GetIntensityRequest{Zone: args[0]}
			var err error
			if request.Signal, err = parseSignal(signal); err != nil {
				return err
			}
			if request.Time, err = parseTime("at", at); err != nil {
				return err
			}
			if request.View, err = parseView(asOf, asKnownAt); err != nil {
				return err
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			answer, err := c.grid.GetIntensity(cmd.Context(), request)
			if err != nil {
				return err
			}
			return a.print(answer.GetIntensity(), intensityTable(answer.GetIntensity()))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&signal, "signal", "", "average-lifecycle (default), average-direct or marginal")
	flags.StringVar(&at, "at", "", "the instant (default now)")
	flags.StringVar(&asOf, "as-of", "", "by what was recorded here by then")
	flags.StringVar(&asKnownAt, "as-known-at", "", "by what the publisher claims to have said by then")
	return cmd
}

func parseView(asOf, asKnownAt string) (*gridv1.View, error) {
	switch {
	case asOf != "" && asKnownAt != "":
		return nil, usagef("--as-of and --as-known-at: use one of them")
	case asOf != "":
		t, err := parseTime("as-of", asOf)
		return &gridv1.View{By: &gridv1.View_AsOf{AsOf: t}}, err
	case asKnownAt != "":
		t, err := parseTime("as-known-at", asKnownAt)
		return &gridv1.View{By: &gridv1.View_AsKnownAt{AsKnownAt: t}}, err
	}
	return nil, nil
}

func intensityTable(v *gridv1.Intensity) *table {
	t := &table{head: []string{"ZONE", "SIGNAL", "FROM", "TO", "VALUE", "UNIT", "SOURCE", "PRODUCT", "QUALITY", "METHOD", "REVISION", "KNOWN", "RECORDED"}}
	t.add(v.GetZone(), strings.ToLower(strings.TrimPrefix(v.GetSignal().String(), "SIGNAL_")),
		clock(v.GetStartTime()), clock(v.GetEndTime()), v.GetDecimal(), v.GetUnit(), v.GetSource(), v.GetProduct(),
		label(v.GetQuality(), "QUALITY_"), label(v.GetMethod(), "METHOD_"), fmt.Sprint(v.GetRevision()),
		clock(v.GetKnownAt()), clock(v.GetRecordedAt()))
	return t
}
