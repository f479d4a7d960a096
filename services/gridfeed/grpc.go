package gridfeed

import (
	"context"
	"errors"
	"io"
	"sort"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/carbon/slot"
	"github.com/wattfold/wattfold/internal/fault"
	"github.com/wattfold/wattfold/internal/rpc"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	"github.com/wattfold/wattfold/services/gridfeed/internal/yearly"
)

// Sizes of pages when none is asked for, and the most there is.
const (
	defaultZones, maxZones             = 500, 1000
	defaultIntensities, maxIntensities = 10_000, 50_000
	defaultRevisions, maxRevisions     = 1000, 10_000
)

// Register gives the service's calls to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	gridv1.RegisterGridServiceServer(r, &server{service: s})
}

// server is GridService: it reads requests, asks the service and tells the answer.
type server struct {
	gridv1.UnimplementedGridServiceServer
	service *Service
}

// ListZones implements gridv1.GridServiceServer.
func (g *server) ListZones(_ context.Context, req *gridv1.ListZonesRequest) (*gridv1.ListZonesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize(), defaultZones, maxZones)
	if err != nil {
		return nil, err
	}
	sum := requestSum("zones", req.GetWithoutStatic())
	after, going, err := decodeToken[string](sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	known := g.service.zones.Load()
	first := 0
	if going {
		first = sort.Search(len(known.names), func(i int) bool { return known.names[i] > after })
	}
	resp := &gridv1.ListZonesResponse{}
	for _, name := range known.names[first:] {
		zone := &gridv1.Zone{Zone: name, DisplayName: displayName(name)}
		for i := range known.timelines[name] {
			if t := &known.timelines[name][i]; !req.GetWithoutStatic() || !isYearly(*t) {
				zone.Timelines = append(zone.Timelines, timelineToProto(t))
			}
		}
		if len(zone.GetTimelines()) == 0 {
			continue
		}
		if len(resp.GetZones()) == size {
			resp.NextPageToken, err = encodeToken(sum, resp.GetZones()[size-1].GetZone())
			return resp, err
		}
		resp.Zones = append(resp.Zones, zone)
	}
	return resp, nil
}

// displayName is the country's name, or that of the country that a zone is a part of
// with the zone; empty if the table does not have it.
func displayName(zone string) string {
	if name := countryNames()[zone]; name != "" {
		return name
	}
	if country, part := yearly.CountryOf(zone); part && countryNames()[country] != "" {
		return countryNames()[country] + ", " + zone[len(country)+1:]
	}
	return ""
}

var countryNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	countries, err := yearly.Countries()
	if err != nil { // New has read it before
		return names
	}
	for _, c := range countries {
		names[c.Zone] = c.Name
	}
	return names
})

// GetIntensity implements gridv1.GridServiceServer.
func (g *server) GetIntensity(ctx context.Context, req *gridv1.GetIntensityRequest) (*gridv1.GetIntensityResponse, error) {
	signal, err := signalFromProto(req.GetSignal())
	if err != nil {
		return nil, err
	}
	v, err := viewFromProto(req.GetView())
	if err != nil {
		return nil, err
	}
	ms := g.service.now().UnixMilli()
	if req.GetTime() != nil {
		if ms, err = msFromProto("time", req.GetTime()); err != nil {
			return nil, err
		}
	}
	l, step, err := g.service.intensity(ctx, req.GetZone(), signal, ms, v)
	if err != nil {
		return nil, err
	}
	// One allocation holds the answer and its times.
	m := new(struct {
		response  gridv1.GetIntensityResponse
		intensity gridv1.Intensity
		times     [5]timestamppb.Timestamp
	})
	fillIntensity(&m.intensity, m.times[:], l, &answer{Step: step, until: step.End})
	m.response.Intensity = &m.intensity
	return &m.response, nil
}

// ListIntensities implements gridv1.GridServiceServer.
func (g *server) ListIntensities(ctx context.Context, req *gridv1.ListIntensitiesRequest) (*gridv1.ListIntensitiesResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize(), defaultIntensities, maxIntensities)
	if err != nil {
		return nil, err
	}
	signal, err := signalFromProto(req.GetSignal())
	if err != nil {
		return nil, err
	}
	v, err := viewFromProto(req.GetView())
	if err != nil {
		return nil, err
	}
	if req.GetStartTime() == nil || req.GetEndTime() == nil {
		return nil, fault.Fields(fault.Field("start_time", "a range needs both start_time and end_time"))
	}
	from, to, err := rangeFromProto(req.GetStartTime(), req.GetEndTime())
	if err != nil {
		return nil, err
	}
	sum := requestSum("intensities", req.GetZone(), signal, from, to, v.by, v.at)
	next, going, err := decodeToken[slot.Slot](sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if going {
		from = next
	}
	l, answers, next, err := g.service.intensities(ctx, req.GetZone(), signal, from, to, v, size)
	if err != nil {
		return nil, err
	}
	resp := &gridv1.ListIntensitiesResponse{Intensities: intensitiesToProto(l, answers)}
	if next < to {
		resp.NextPageToken, err = encodeToken(sum, next)
	}
	return resp, err
}

// ListRevisions implements gridv1.GridServiceServer.
func (g *server) ListRevisions(ctx context.Context, req *gridv1.ListRevisionsRequest) (*gridv1.ListRevisionsResponse, error) {
	size, err := rpc.PageSize(req.GetPageSize(), defaultRevisions, maxRevisions)
	if err != nil {
		return nil, err
	}
	signal, err := signalFromProto(req.GetSignal())
	if err != nil {
		return nil, err
	}
	from, to, err := rangeFromProto(req.GetStartTime(), req.GetEndTime())
	if err != nil {
		return nil, err
	}
	sum := requestSum("revisions", req.GetZone(), signal, req.GetSource(), from, to)
	after, going, err := decodeToken[position](sum, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if !going {
		after = position{Start: allTimeStart}
	}
	l, err := g.service.lane(ctx, listRevisions, req.GetZone(), signal)
	if err != nil {
		return nil, err
	}
	g.service.metrics.answers.Add(ctx, 1, answeredOK[listRevisions]...)
	found, next, more := l.revisions(req.GetSource(), from, to, after, size)
	resp := &gridv1.ListRevisionsResponse{Revisions: make([]*gridv1.Revision, len(found))}
	for i := range found {
		resp.Revisions[i] = revisionToProto(signal, &found[i])
	}
	if more {
		resp.NextPageToken, err = encodeToken(sum, next)
	}
	return resp, err
}

// ImportIntensities implements gridv1.GridServiceServer.
func (g *server) ImportIntensities(stream grpc.ClientStreamingServer[gridv1.ImportIntensitiesRequest, gridv1.ImportIntensitiesResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) || err == nil && first.GetMapping() == nil {
		return fault.Fields(fault.Field("mapping", "the first message must hold the mapping"))
	}
	if err != nil {
		return err //nolint:wrapcheck // what the transport says
	}
	in, err := importFromProto(first.GetMapping())
	if err != nil {
		return err
	}
	result, err := g.service.importCSV(stream.Context(), &chunkReader{recv: stream.Recv}, in)
	if err != nil {
		return err
	}
	return stream.SendAndClose(importedToProto(result)) //nolint:wrapcheck // what the transport says
}

// chunkReader reads the file out of the messages after the first.
type chunkReader struct {
	recv func() (*gridv1.ImportIntensitiesRequest, error)
	left []byte
}

func (c *chunkReader) Read(b []byte) (int, error) {
	for len(c.left) == 0 {
		req, err := c.recv()
		if err != nil {
			return 0, err //nolint:wrapcheck // io.EOF ends the file, and what else the transport says
		}
		if req.GetMapping() != nil {
			return 0, fault.Fields(fault.Field("mapping", "only the first message holds a mapping"))
		}
		c.left = req.GetChunk()
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}
