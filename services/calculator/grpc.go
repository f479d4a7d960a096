package calculator

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	fleetv1 "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	ledgerv1 "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
)

// Sizes of pages when none is asked for, and the most there is.
const (
	defaultStatements, maxStatements = 1000, 10_000
	defaultTerms, maxTerms           = 1000, 10_000
	defaultSites, maxSites           = 500, 1000
	// pageBytes ends a page of statements early: attributions are long.
	pageBytes = 8 << 20
)

// Register gives the services to a server.
func (q *queries) Register(r grpc.ServiceRegistrar) {
	ledgerv1.RegisterLedgerServiceServer(r, &ledgerServer{q: q})
	fleetv1.RegisterFleetServiceServer(r, &fleetServer{q: q})
}

// ledgerServer is LedgerService: it reads requests, asks and tells the answer.
type ledgerServer struct {
	ledgerv1.UnimplementedLedgerServiceServer
	q *queries
}

// fleetServer is FleetService.
type fleetServer struct {
	fleetv1.UnimplementedFleetServiceServer
	q *queries
}

// GetStatement implements ledgerv1.LedgerServiceServer.
func (s *ledgerServer) GetStatement(
	ctx context.Context, req *ledgerv1.GetStatementRequest,
) (*ledgerv1.GetStatementResponse, error) {
	ask, err := questionFromProto(req.GetSelection(), req.GetInterval(), req.GetPricing(), req.GetSignals())
	if err != nil {
		return nil, err
	}
	fresh, err := s.q.freshness(ctx, ask.selection) // before: what is told is in it at least
	if err != nil {
		return nil, err
	}
	p, st, err := s.q.whole(ctx, ask)
	if err != nil {
		return nil, err
	}
	return &ledgerv1.GetStatementResponse{
		Statement: statementToProto(p, st), Pricing: pricingToProto(ask.pricing), Freshness: freshnessToProto(fresh),
	}, nil
}

// QueryStatements implements ledgerv1.LedgerServiceServer.
func (s *ledgerServer) QueryStatements(
	ctx context.Context, req *ledgerv1.QueryStatementsRequest,
) (*ledgerv1.QueryStatementsResponse, error) {
	ask, err := questionFromProto(req.GetSelection(), req.GetInterval(), req.GetPricing(), req.GetSignals())
	if err != nil {
		return nil, err
	}
	if ask.groupBy, err = dimensionsFromProto(req.GetGroupBy()); err != nil {
		return nil, err
	}
	every, ok := everies[req.GetEvery()]
	if !ok {
		return nil, fault.Fields(fault.Fieldf("every", "%q; want 5m, 1h, 1d or 1mo", req.GetEvery()))
	}
	ask.buckets = every
	size, err := rpc.PageSize(req.GetPageSize(), defaultStatements, maxStatements)
	if err != nil {
		return nil, err
	}
	sum, err := requestSum(&ledgerv1.QueryStatementsRequest{
		Selection: req.GetSelection(), Interval: req.GetInterval(), Pricing: req.GetPricing(), Signals: req.GetSignals(),
		GroupBy: req.GetGroupBy(), Every: req.GetEvery(),
	})
	if err != nil {
		return nil, err
	}
	after, err := decodeToken[place]("page_token", sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	fresh, err := s.q.freshness(ctx, ask.selection)
	if err != nil {
		return nil, err
	}
	resp := &ledgerv1.QueryStatementsResponse{Pricing: pricingToProto(ask.pricing), Freshness: freshnessToProto(fresh)}
	bytes := 0
	_, next, err := s.q.page(ctx, ask, after, size, func(p *plan, st *statement) bool {
		m := statementToProto(p, st)
		resp.Statements = append(resp.Statements, m)
		bytes += proto.Size(m)
		return bytes < pageBytes
	})
	if err == nil && next != nil {
		resp.NextPageToken, err = encodeToken(sum, *next)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// ExplainStatement implements ledgerv1.LedgerServiceServer.
func (s *ledgerServer) ExplainStatement(
	ctx context.Context, req *ledgerv1.ExplainStatementRequest,
) (*ledgerv1.ExplainStatementResponse, error) {
	ask, err := questionFromProto(req.GetSelection(), req.GetInterval(), req.GetPricing(), nil)
	if err != nil {
		return nil, err
	}
	of, err := signalFromProto("signal", req.GetSignal())
	if err != nil {
		return nil, err
	}
	ask.signals = []signal{of}
	size, err := rpc.PageSize(req.GetPageSize(), defaultTerms, maxTerms)
	if err != nil {
		return nil, err
	}
	sum, err := requestSum(&ledgerv1.ExplainStatementRequest{
		Selection: req.GetSelection(), Interval: req.GetInterval(), Pricing: req.GetPricing(), Signal: req.GetSignal(),
	})
	if err != nil {
		return nil, err
	}
	after, err := decodeToken[termPlace]("page_token", sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &ledgerv1.ExplainStatementResponse{}
	next, err := s.q.explain(ctx, ask, after, size, func(t *term) {
		resp.Terms = append(resp.Terms, termToProto(of, t))
	})
	if err == nil && next != nil {
		resp.NextPageToken, err = encodeToken(sum, *next)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetSeries implements ledgerv1.LedgerServiceServer.
func (s *ledgerServer) GetSeries(
	ctx context.Context, req *ledgerv1.GetSeriesRequest,
) (*ledgerv1.GetSeriesResponse, error) {
	ask, err := questionFromProto(req.GetSelection(), req.GetInterval(), req.GetPricing(), []gridv1.Signal{req.GetSignal()})
	if err != nil {
		return nil, err
	}
	if ask.start == nil || ask.end == nil {
		return nil, fault.Fields(fault.Field("interval", "a series needs start_time and end_time"))
	}
	if ask.buckets, err = stepFromProto(req); err != nil {
		return nil, err
	}
	asked := span{*ask.start, *ask.end}
	step := int64(ask.buckets.slots) * slot.Millis
	widened := span{floorDiv(asked.start, step) * step, -floorDiv(-asked.end, step) * step}
	if widened.start < minSlot.StartMS() || widened.end > maxSlot.StartMS() {
		return nil, fault.Fields(fault.Field("interval", "reaches beyond the years 1 to 9999"))
	}
	ask.start, ask.end = &widened.start, &widened.end
	p, points, err := s.q.series(ctx, ask)
	if err != nil {
		return nil, err
	}
	resp := &ledgerv1.GetSeriesResponse{Interval: interval(asked, widened), Points: make([]*ledgerv1.Point, len(points))}
	for i := range points {
		resp.Points[i] = pointToProto(p, &points[i])
	}
	return resp, nil
}

// WatchEmissions implements ledgerv1.LedgerServiceServer.
func (s *ledgerServer) WatchEmissions(
	req *ledgerv1.WatchEmissionsRequest, stream grpc.ServerStreamingServer[ledgerv1.WatchEmissionsResponse],
) error {
	ctx := stream.Context()
	of, err := signalFromProto("signal", req.GetSignal())
	if err != nil {
		return err
	}
	if req.GetFromStart() && req.GetResumeToken() != "" {
		return fault.Fields(fault.Field("from_start", "not with resume_token: give one of them"))
	}
	sum, err := requestSum(&ledgerv1.WatchEmissionsRequest{Selection: req.GetSelection()})
	if err != nil {
		return err
	}
	resumed, err := decodeToken[watched]("resume_token", sum, req.GetResumeToken())
	if err != nil {
		return err
	}
	var at watched
	if resumed == nil {
		at, err = s.q.begin(ctx, req.GetFromStart())
	} else {
		at, err = *resumed, s.q.resume(ctx, *resumed)
	}
	if err != nil {
		return err
	}
	return s.q.watch(ctx, selectionFromProto(req.GetSelection()), of, at, func(parts []pricedPart, behind watched) error {
		resp := &ledgerv1.WatchEmissionsResponse{Segments: make([]*ledgerv1.Segment, len(parts))}
		for i := range parts {
			resp.Segments[i] = segmentToProto(of, &parts[i])
		}
		var err error
		if resp.ResumeToken, err = encodeToken(sum, behind); err != nil {
			return err
		}
		return stream.Send(resp)
	})
}

// CreateSite implements fleetv1.FleetServiceServer.
func (s *fleetServer) CreateSite(
	ctx context.Context, req *fleetv1.CreateSiteRequest,
) (*fleetv1.CreateSiteResponse, error) {
	site, err := siteFromProto(req.GetSite())
	if err != nil {
		return nil, err
	}
	stored, err := s.q.createSite(ctx, site)
	if err != nil {
		return nil, err
	}
	return &fleetv1.CreateSiteResponse{Site: siteToProto(&stored)}, nil
}

// ListSites implements fleetv1.FleetServiceServer.
func (s *fleetServer) ListSites(
	ctx context.Context, req *fleetv1.ListSitesRequest,
) (*fleetv1.ListSitesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize(), defaultSites, maxSites)
	if err != nil {
		return nil, err
	}
	sum, err := requestSum(&fleetv1.ListSitesRequest{})
	if err != nil {
		return nil, err
	}
	after, err := decodeToken[string]("page_token", sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	name := ""
	if after != nil {
		name = *after
	}
	sites, more, err := s.q.listSites(ctx, name, size)
	if err != nil {
		return nil, err
	}
	resp := &fleetv1.ListSitesResponse{Sites: make([]*fleetv1.Site, len(sites))}
	for i := range sites {
		resp.Sites[i] = siteToProto(&sites[i])
	}
	if more {
		resp.NextPageToken, err = encodeToken(sum, sites[len(sites)-1].Name)
	}
	return resp, err
}
