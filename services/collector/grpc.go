package collector

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/internal/fault"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// progressEvery is the least time between two messages of progress of a phase.
const progressEvery = 100 * time.Millisecond

// Register adds telemetry.v1.TelemetryService to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	telemetryv1.RegisterTelemetryServiceServer(r, &telemetryServer{s: s})
}

type telemetryServer struct {
	telemetryv1.UnimplementedTelemetryServiceServer
	s *Service
}

// ImportSamples implements telemetry.v1.TelemetryService.
func (t *telemetryServer) ImportSamples(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) error {
	release, err := t.s.enterImport()
	if err != nil {
		return err
	}
	defer release()
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) || err == nil && first.GetMapping() == nil {
		return fault.Fields(fault.Field("mapping", "must be the first message"))
	}
	if err != nil {
		return err
	}
	m := first.GetMapping()
	tell, told := progressTo(stream)
	result, err := t.take(stream, m, tell)
	told()
	if err != nil {
		return err
	}
	return stream.Send(&telemetryv1.ImportSamplesResponse{Part: &telemetryv1.ImportSamplesResponse_Result{Result: &telemetryv1.ImportResult{
		ImportId:        result.id,
		Producer:        result.key.Producer[:],
		Epoch:           result.key.Epoch,
		Rows:            result.sum.Rows,
		Samples:         result.sum.Samples,
		DuplicateRows:   result.sum.Duplicates,
		Rounded:         result.sum.Rounded,
		Nodes:           uint64(len(result.sum.Nodes)),
		Batches:         result.batches,
		StartTime:       timestamppb.New(time.UnixMilli(result.startMS)),
		EndTime:         timestamppb.New(time.UnixMilli(result.endMS)),
		AlreadyImported: result.alreadyImported,
		Refused:         result.refused,
	}}})
}

// take stores the file and imports it.
func (t *telemetryServer) take(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse], m *telemetryv1.SampleMapping, tell progress) (*importResult, error) {
	file, err := t.s.importer.store.create()
	if err != nil {
		return nil, err
	}
	defer file.discard()
	if err := t.receive(stream, file, tell); err != nil {
		return nil, err
	}
	return t.s.importer.run(stream.Context(),
		importRequest{mapping: mappingOf(m), id: m.GetImportId(), replace: m.GetReplace(), file: file}, tell)
}

func (t *telemetryServer) receive(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse], file io.Writer, tell progress) error {
	limit := t.s.cfg.Import.MaxFileBytes
	size := int64(0)
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetMapping() != nil {
			return fault.Fields(fault.Field("mapping", "may be the first message only"))
		}
		if size += int64(len(req.GetChunk())); size > limit {
			return fault.Newf(fault.Exhausted, "the file is larger than %d bytes: split it by time or by nodes", limit)
		}
		if _, err := file.Write(req.GetChunk()); err != nil {
			return fault.Newf(fault.Exhausted, "store import: %w", err)
		}
		if err := tell(phaseReceiving, uint64(size), 0); err != nil {
			return err
		}
	}
}

// progressTo returns what sends progress, not too often and without waiting for
// the client: one that does not read must not hold up its import. Told is called
// before anything else is sent.
func progressTo(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) (tell progress, told func()) {
	toSend := make(chan *telemetryv1.ImportProgress, 16)
	var sending sync.WaitGroup
	sending.Go(func() {
		for p := range toSend {
			// An error ends the stream's context, which is what tell looks at.
			_ = stream.Send(&telemetryv1.ImportSamplesResponse{Part: &telemetryv1.ImportSamplesResponse_Progress{Progress: p}})
		}
	})
	var phaseTold string
	var last time.Time
	tell = func(phase string, done, total uint64) error {
		if now := time.Now(); phase != phaseTold || now.Sub(last) >= progressEvery {
			phaseTold, last = phase, now
			select {
			case toSend <- &telemetryv1.ImportProgress{Phase: phase, Done: done, Total: total}:
			default:
			}
		}
		return stream.Context().Err()
	}
	return tell, func() { close(toSend); sending.Wait() }
}
