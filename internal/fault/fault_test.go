package fault_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wattfold/wattfold/internal/fault"
)

func TestKindOf(t *testing.T) {
	notFound := fault.New(fault.NotFound, "no zone XX")
	for name, test := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"nobody classified it":     {io.EOF, fault.Internal},
		"as it was made":           {notFound, fault.NotFound},
		"through wrapping":         {fmt.Errorf("site a: %w", notFound), fault.NotFound},
		"the outermost wins":       {fault.Wrap(fault.NotYet, fmt.Errorf("site a: %w", notFound)), fault.NotYet},
		"internal hides":           {fault.Wrap(fault.Internal, notFound), fault.Internal},
		"a reason keeps the kind":  {fault.WithReason(notFound, "ZONE_UNKNOWN"), fault.NotFound},
		"a reason makes no kind":   {fault.WithReason(io.EOF, "X"), fault.Internal},
		"advice keeps the kind":    {fault.RetryAfter(fault.New(fault.Exhausted, "full"), time.Second), fault.Exhausted},
		"the first joined":         {errors.Join(io.EOF, notFound, fault.New(fault.Denied, "no")), fault.NotFound},
		"fields":                   {fault.Fields(fault.Field("a", "b")), fault.Invalid},
		"the format may wrap":      {fault.Newf(fault.Unavailable, "store: %w", io.EOF), fault.Unavailable},
		"deeper than several join": {fmt.Errorf("%w and %w", io.EOF, fmt.Errorf("x: %w", notFound)), fault.NotFound},
	} {
		if got := fault.KindOf(test.err); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	if fault.Is(nil, fault.Internal) {
		t.Error("nil is of a kind")
	}
	if !errors.Is(fault.Newf(fault.Unavailable, "store: %w", io.EOF), io.EOF) {
		t.Error("the wrapped error is lost")
	}
	if fault.Classified(fault.WithReason(io.EOF, "X")) || !fault.Classified(fault.Wrap(fault.Internal, io.EOF)) {
		t.Error("only a kind classifies")
	}
}

func TestWhatGoesWithAnError(t *testing.T) {
	err := fault.Fields(fault.Field("mapping.unit", "W does not fit a counter"), fault.Fieldf("", "line %d: not a number", 7))
	err = fault.WithReason(err, "BAD_FILE")
	err = fault.RetryAfter(fmt.Errorf("import: %w", err), time.Minute)
	if got, want := err.Error(), "import: mapping.unit: W does not fit a counter; line 7: not a number"; got != want {
		t.Errorf("text: got %q, want %q", got, want)
	}
	if got := fault.ReasonOf(err); got != "BAD_FILE" {
		t.Errorf("reason: got %q", got)
	}
	if got := fault.RetryAfterOf(err); got != time.Minute {
		t.Errorf("retry after: got %v", got)
	}
	want := []fault.Violation{{Path: "mapping.unit", Message: "W does not fit a counter"}, {Message: "line 7: not a number"}}
	if diff := cmp.Diff(want, fault.FieldsOf(err)); diff != "" {
		t.Error(diff)
	}
	if got := fault.ReasonOf(fault.WithReason(err, "OUTER")); got != "OUTER" {
		t.Errorf("the outer reason: got %q", got)
	}
}

func TestNilStaysNil(t *testing.T) {
	for name, err := range map[string]error{
		"Wrap":       fault.Wrap(fault.Invalid, nil),
		"WithReason": fault.WithReason(nil, "X"),
		"RetryAfter": fault.RetryAfter(nil, time.Second),
		"Fields":     fault.Fields(),
		"WithFields": fault.WithFields(nil, fault.Field("a", "b")),
	} {
		if err != nil {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
}

func ExampleFields() {
	err := fault.Fields(fault.Field("pue", "is 0.9; it must be at least 1"))
	fmt.Println(fault.KindOf(err), "-", err)
	// Output: invalid - pue: is 0.9; it must be at least 1
}
