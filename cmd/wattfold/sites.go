package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
)

func (a *app) sitesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sites",
		Short: "List and create sites",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listSites(cmd.Context()) },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the sites",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listSites(cmd.Context()) },
	}, a.createSiteCommand())
	return cmd
}

func (a *app) createSiteCommand() *cobra.Command {
	var zone, pue string
	cmd := &cobra.Command{
		Use:   "create NAME --zone ZONE --pue 1.10",
		Short: "Create a site; what it says holds, and is known, since ever",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v, err := strconv.ParseFloat(pue, 64); pue != "" && (err != nil || v < 1) {
				return fmt.Errorf("--pue %q: want a decimal number of at least 1, such as 1.10", pue)
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			answer, err := c.fleet.CreateSite(cmd.Context(), &fleetv1.CreateSiteRequest{
				Site: &fleetv1.Site{Site: args[0], Zone: zone, Pue: pue},
			})
			if err != nil {
				return err
			}
			if _, err := c.grid.GetIntensity(cmd.Context(), &gridv1.GetIntensityRequest{Zone: zone}); zone != "" && status.Code(err) == codes.NotFound {
				fmt.Fprintf(a.err, "warning: nothing is known of a zone %s yet; its energy is unpriced until intensities are imported ('wattfold zones' lists what there is)\n", zone)
			}
			return a.print(answer.GetSite(), sitesTable([]*fleetv1.Site{answer.GetSite()}))
		},
	}
	cmd.Flags().StringVar(&zone, "zone", "", "grid zone, as Electricity Maps names it, such as FR or US-CAL-CISO")
	cmd.Flags().StringVar(&pue, "pue", "", "power usage effectiveness, such as 1.10; without it energy is unpriced")
	return cmd
}

func (a *app) listSites(ctx context.Context) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.close()
	sites, err := c.sites(ctx)
	if err != nil {
		return err
	}
	return a.print(&fleetv1.ListSitesResponse{Sites: sites}, sitesTable(sites))
}

// sites returns every site.
func (c *client) sites(ctx context.Context) ([]*fleetv1.Site, error) {
	return pages(func(token string) ([]*fleetv1.Site, string, error) {
		answer, err := c.fleet.ListSites(ctx, &fleetv1.ListSitesRequest{PageToken: token})
		return answer.GetSites(), answer.GetNextPageToken(), err
	})
}

// pages collects every page of a list.
func pages[T any](page func(token string) (rows []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		rows, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

func sitesTable(sites []*fleetv1.Site) *table {
	t := &table{head: []string{"SITE", "ZONE", "PUE", "CREATED"}}
	for _, s := range sites {
		t.add(s.GetSite(), orDash(s.GetZone()), orDash(s.GetPue()), clock(s.GetCreateTime()))
	}
	return t
}

// siteNamed tells whether a site has this name.
func siteNamed(name string) func(*fleetv1.Site) bool {
	return func(s *fleetv1.Site) bool { return s.GetSite() == name }
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
