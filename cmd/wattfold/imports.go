package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wattfold/wattfold/internal/daemon"
	gridv1 "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	telemetryv1 "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// chunkSize is how much of a file travels in one message.
const chunkSize = 256 << 10

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Import samples or intensities from a CSV file",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.importSamplesCommand(), a.importIntensityCommand())
	return cmd
}

func (a *app) importSamplesCommand() *cobra.Command {
	var f sampleFlags
	var file, id string
	var replace, quiet bool
	cmd := &cobra.Command{
		Use:   "samples --site S --component C --kind K --csv F --time-column C --value-column C --unit U",
		Short: "Import power or energy samples; the whole file is checked before any of it counts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mapping, err := f.mapping(filepath.Base(file))
			if err != nil {
				return err
			}
			mapping.ImportId, mapping.Replace = id, replace
			result, err := a.importSamples(cmd.Context(), mapping, file, !quiet && daemon.Terminal(a.err))
			if err != nil {
				return err
			}
			a.warnRefused(result)
			if err := a.print(result, importTable(result)); err != nil {
				return err
			}
			if len(result.GetRefused()) > 0 {
				return errors.New("not all of the file counts: the ledger refused a part of it")
			}
			return nil
		},
	}
	f.register(cmd)
	f.require(cmd)
	flags := cmd.Flags()
	flags.StringVar(&file, "csv", "", "the file, or - for standard input (required)")
	flags.StringVar(&id, "import-id", "", "the import's id (default: derived from content and mapping)")
	flags.BoolVar(&replace, "replace", false, "replace what the same --import-id brought before")
	flags.BoolVarP(&quiet, "quiet", "q", false, "print no progress")
	if err := cmd.MarkFlagRequired("csv"); err != nil {
		panic(err)
	}
	return cmd
}

func (a *app) importSamples(ctx context.Context, m *telemetryv1.SampleMapping, file string, progress bool) (*telemetryv1.ImportResult, error) {
	in, size, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	sites, err := c.sites(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(sites, siteNamed(m.GetSite())) {
		return nil, fmt.Errorf("--site %s: no such site; create it with 'wattfold sites create %s --zone ZONE --pue 1.10'", m.GetSite(), m.GetSite())
	}
	stream, err := c.telemetry.ImportSamples(ctx)
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.Go(func() error {
		err := stream.Send(&telemetryv1.ImportSamplesRequest{Part: &telemetryv1.ImportSamplesRequest_Mapping{Mapping: m}})
		if err == nil {
			err = sendChunks(in, func(chunk []byte) error {
				return stream.Send(&telemetryv1.ImportSamplesRequest{Part: &telemetryv1.ImportSamplesRequest_Chunk{Chunk: chunk}})
			})
		}
		// The server's answer says why it ended the stream.
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return stream.CloseSend()
	})
	meter := &progressMeter{out: a.err, enabled: progress, size: size}
	defer meter.end()
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.Join(group.Wait(), errors.New("the gateway ended the import without a result"))
		case err != nil:
			return nil, err
		case answer.GetResult() != nil:
			return answer.GetResult(), group.Wait()
		}
		meter.show(answer.GetProgress())
	}
}

// open opens a file or standard input and tells its size, 0 if it is not known.
func (a *app) open(file string) (io.ReadCloser, uint64, error) {
	if file == "-" {
		return io.NopCloser(a.in), 0, nil
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := in.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, in.Close())
	}
	if info.IsDir() {
		return nil, 0, errors.Join(fmt.Errorf("--csv %s: is a folder", file), in.Close())
	}
	return in, uint64(info.Size()), nil
}

func sendChunks(in io.Reader, send func([]byte) error) error {
	for {
		// A sent message keeps its bytes, so each chunk has its own.
		chunk := make([]byte, chunkSize)
		n, err := io.ReadFull(in, chunk)
		if n > 0 {
			if err := send(chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// progressMeter prints one line of progress and rewrites it.
type progressMeter struct {
	out     io.Writer
	enabled bool
	size    uint64
	shown   string
}

func (p *progressMeter) show(v *telemetryv1.ImportProgress) {
	total := v.GetTotal()
	if total == 0 && v.GetPhase() != "committing" {
		total = p.size
	}
	line := fmt.Sprintf("%s %d", v.GetPhase(), v.GetDone())
	if total > 0 {
		line = fmt.Sprintf("%s %.0f %%", v.GetPhase(), 100*float64(v.GetDone())/float64(total))
	}
	if !p.enabled || line == p.shown {
		return
	}
	p.shown = line
	fmt.Fprintf(p.out, "\r\033[K%s", line)
}

func (p *progressMeter) end() {
	if p.shown != "" {
		fmt.Fprint(p.out, "\r\033[K")
	}
}

// refusals explain what a ledger refuses of a file that was right by itself.
var refusals = map[string]string{
	"duplicate_meter":  "another import or collector has brought these meters at that time: replace it under its --import-id, or name another --device",
	"posting_overflow": "more energy than a ledger can hold: is the unit right?",
	"superseded":       "a newer replacement of this import was there before",
}

// warnRefused says that not all of a file counts, whatever the output.
func (a *app) warnRefused(r *telemetryv1.ImportResult) {
	for _, reason := range slices.Sorted(maps.Keys(r.GetRefused())) {
		text := reason
		if why := refusals[reason]; why != "" {
			text += ": " + why
		}
		fmt.Fprintf(a.err, "warning: %d of %d batches do not count, or not as a whole (%s)\n", r.GetRefused()[reason], r.GetBatches(), text)
	}
}

func importTable(r *telemetryv1.ImportResult) *table {
	t := &table{head: []string{"FIGURE", "VALUE"}}
	t.add("import id", r.GetImportId())
	t.add("rows", fmt.Sprint(r.GetRows()))
	t.add("samples", fmt.Sprint(r.GetSamples()))
	t.add("nodes", fmt.Sprint(r.GetNodes()))
	t.add("from", clock(r.GetStartTime()))
	t.add("to", clock(r.GetEndTime()))
	t.add("duplicate rows", fmt.Sprint(r.GetDuplicateRows()))
	t.add("rounded", fmt.Sprint(r.GetRounded()))
	for _, reason := range slices.Sorted(maps.Keys(r.GetRefused())) {
		t.add("refused: "+reason, fmt.Sprint(r.GetRefused()[reason]))
	}
	if r.GetAlreadyImported() {
		t.foot = append(t.foot, "Already imported: nothing changed.")
	}
	return t
}

func (a *app) importIntensityCommand() *cobra.Command {
	var f intensityFlags
	var file string
	cmd := &cobra.Command{
		Use:   "intensity --zone Z --csv F --time-column C --value-column C",
		Short: "Import a series of one signal of one zone; the same source again makes revisions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mapping, err := f.mapping(filepath.Base(file))
			if err != nil {
				return err
			}
			in, _, err := a.open(file)
			if err != nil {
				return err
			}
			defer in.Close()
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.close()
			result, err := c.importIntensities(cmd.Context(), mapping, in)
			if err != nil {
				return err
			}
			t := &table{head: []string{"ROWS", "ADDED", "REVISED", "UNCHANGED", "EMPTY", "FROM", "TO", "RECORDED"}}
			t.add(fmt.Sprint(result.GetRows()), fmt.Sprint(result.GetAdded()), fmt.Sprint(result.GetRevised()),
				fmt.Sprint(result.GetUnchanged()), fmt.Sprint(result.GetEmpty()),
				clock(result.GetStartTime()), clock(result.GetEndTime()), clock(result.GetRecordedAt()))
			return a.print(result, t)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&file, "csv", "", "the file, or - for standard input (required)")
	if err := cmd.MarkFlagRequired("csv"); err != nil {
		panic(err)
	}
	return cmd
}

// importIntensities sends one file of intensities.
func (c *client) importIntensities(ctx context.Context, m *gridv1.IntensityMapping, in io.Reader) (*gridv1.ImportIntensitiesResponse, error) {
	stream, err := c.grid.ImportIntensities(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&gridv1.ImportIntensitiesRequest{Part: &gridv1.ImportIntensitiesRequest_Mapping{Mapping: m}})
	if err == nil {
		err = sendChunks(in, func(chunk []byte) error {
			return stream.Send(&gridv1.ImportIntensitiesRequest{Part: &gridv1.ImportIntensitiesRequest_Chunk{Chunk: chunk}})
		})
	}
	// After io.EOF the answer says why the server ended the stream.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

// parseClock reads an instant of a file's own clock: what parseTime reads, or
// milliseconds since the Unix epoch.
func parseClock(flag, text string) (*timestamppb.Timestamp, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return timestamppb.New(time.UnixMilli(ms)), nil
	}
	return parseTime(flag, text)
}
