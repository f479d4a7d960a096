package collector

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	tell := progressTo(stream)
	file, err := t.receive(stream, tell)
	if err != nil {
		return err
	}
	defer discard(file)
	result, err := t.s.importer.run(stream.Context(), t.s.stopping,
		importRequest{mapping: mappingOf(m), id: m.GetImportId(), replace: m.GetReplace(), file: file}, tell)
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

// receive stores the file; the caller discards it.
func (t *telemetryServer) receive(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse], tell progress) (_ *os.File, err error) {
	file, err := os.CreateTemp(t.s.importsDir(), "*.csv")
	if err != nil {
		return nil, fmt.Errorf("store import: %w", err)
	}
	defer func() {
		if err != nil {
			discard(file)
		}
	}()
	limit := t.s.cfg.Import.MaxFileBytes
	size := int64(0)
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file, nil
		}
		if err != nil {
			return nil, err
		}
		if req.GetMapping() != nil {
			return nil, fault.Fields(fault.Field("mapping", "may be the first message only"))
		}
		if size += int64(len(req.GetChunk())); size > limit {
			return nil, fault.Newf(fault.Exhausted, "the file is larger than %d bytes: split it by time or by nodes", limit)
		}
		if _, err := file.Write(req.GetChunk()); err != nil {
			return nil, fault.Newf(fault.Exhausted, "store import: %w", err)
		}
		if err := tell(phaseReceiving, uint64(size), 0); err != nil {
			return nil, err
		}
	}
}

func discard(file *os.File) {
	// What stays behind is removed at the next start.
	_ = file.Close()
	_ = os.Remove(filepath.Clean(file.Name()))
}

// progressTo sends progress, not too often.
func progressTo(stream grpc.BidiStreamingServer[telemetryv1.ImportSamplesRequest, telemetryv1.ImportSamplesResponse]) progress {
	var phaseTold string
	var told time.Time
	return func(phase string, done, total uint64) error {
		now := time.Now()
		if phase == phaseTold && now.Sub(told) < progressEvery {
			return stream.Context().Err()
		}
		phaseTold, told = phase, now
		return stream.Send(&telemetryv1.ImportSamplesResponse{Part: &telemetryv1.ImportSamplesResponse_Progress{
			Progress: &telemetryv1.ImportProgress{Phase: phase, Done: done, Total: total},
		}})
	}
}
