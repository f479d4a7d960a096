package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what a caller can do about an error.
type Kind uint8

// The kinds. Their order is not significant but for the zero value.
const (
	// Internal: we are wrong. The text stays in our log.
	Internal Kind = iota
	// Invalid: can never succeed as sent.
	Invalid
	// NotFound: there is no such thing.
	NotFound
	// Conflict: an id is used with other content, or another writer was first.
	Conflict
	// NotYet: the state that the call needs has not been reached.
	NotYet
	// Denied: the caller may not.
	Denied
	// Exhausted: a limit is reached; later it may succeed.
	Exhausted
	// Unavailable: something that we depend on is away; later it may succeed.
	Unavailable

	numKinds
)

var kindNames = [numKinds]string{
	"internal", "invalid", "not_found", "conflict", "not_yet", "denied", "exhausted", "unavailable",
}

// String returns the kind in snake case.
func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Temporary reports whether the same call may succeed later without a change.
func (k Kind) Temporary() bool { return k == Exhausted || k == Unavailable }

// Violation is one thing that is wrong with a request.
type Violation struct {
	// Path leads to the field by its proto names, such as "mapping.zone".
	Path string
	// Message says what is wrong and what would be right.
	Message string
}

// Error is an error with a kind. Callers read it through the functions of this
// package rather than by its type.
type Error struct {
	kind       Kind
	classified bool
	reason     string
	fields     []Violation
	retryAfter time.Duration
	err        error
}

// Error returns the text of the wrapped error: a kind adds no words.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the classified error.
func (e *Error) Unwrap() error { return e.err }

// New returns an error of the kind with the text.
func New(kind Kind, text string) error {
	return &Error{kind: kind, classified: true, err: errors.New(text)}
}

// Newf is [New] with a format of [fmt.Errorf], %w included.
func Newf(kind Kind, format string, args ...any) error {
	return &Error{kind: kind, classified: true, err: fmt.Errorf(format, args...)}
}

// Wrap classifies err, whatever it was before. It keeps reason, fields and text.
// It returns nil for nil.
func Wrap(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{kind: kind, classified: true, err: err}
}

// WithReason adds a machine-readable reason in UPPER_SNAKE_CASE, unique in our
// domain. It does not change the kind. It returns nil for nil.
func WithReason(err error, reason string) error {
	if err == nil {
		return nil
	}
	return &Error{reason: reason, err: err}
}

// RetryAfter says when a temporary error is worth another try. It does not
// change the kind. It returns nil for nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &Error{retryAfter: d, err: err}
}

// Field returns a violation of one field.
func Field(path, message string) Violation { return Violation{Path: path, Message: message} }

// Fieldf is [Field] with a format.
func Fieldf(path, format string, args ...any) Violation {
	return Violation{Path: path, Message: fmt.Sprintf(format, args...)}
}

// Fields returns an error of kind [Invalid] that lists the violations, or nil if
// there are none.
func Fields(violations ...Violation) error {
	if len(violations) == 0 {
		return nil
	}
	texts := make([]string, len(violations))
	for i, v := range violations {
		texts[i] = v.Message
		if v.Path != "" {
			texts[i] = v.Path + ": " + v.Message
		}
	}
	return WithFields(New(Invalid, strings.Join(texts, "; ")), violations...)
}

// WithFields attaches violations to an error without changing its text or kind.
// It returns nil for nil.
func WithFields(err error, violations ...Violation) error {
	if err == nil {
		return nil
	}
	return &Error{fields: violations, err: err}
}

// KindOf returns the outermost kind given to err, or [Internal].
func KindOf(err error) Kind {
	kind := Internal
	walk(err, func(e *Error) bool {
		kind = e.kind
		return !e.classified
	})
	return kind
}

// Is reports whether err is of the kind. Nil is of none.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// ReasonOf returns the outermost reason given to err, or "".
func ReasonOf(err error) string {
	reason := ""
	walk(err, func(e *Error) bool {
		reason = e.reason
		return reason == ""
	})
	return reason
}

// FieldsOf returns all violations in err's tree, outermost first.
func FieldsOf(err error) []Violation {
	var fields []Violation
	walk(err, func(e *Error) bool {
		fields = append(fields, e.fields...)
		return true
	})
	return fields
}

// RetryAfterOf returns the outermost advice of [RetryAfter]; 0 if there is none.
func RetryAfterOf(err error) time.Duration {
	var after time.Duration
	walk(err, func(e *Error) bool {
		after = e.retryAfter
		return after == 0
	})
	return after
}

// Classified reports whether anyone gave err a kind, [Internal] included.
func Classified(err error) bool {
	found := false
	walk(err, func(e *Error) bool {
		found = e.classified
		return !found
	})
	return found
}

// walk visits the faults in err's tree depth first until visit returns false.
// It reports whether it came to the end.
func walk(err error, visit func(*Error) bool) bool {
	for err != nil {
		if e, ok := err.(*Error); ok && !visit(e) { //nolint:errorlint // the walk itself unwraps
			return false
		}
		switch x := err.(type) { //nolint:errorlint // the walk itself unwraps
		case interface{ Unwrap() error }:
			err = x.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range x.Unwrap() {
				if !walk(e, visit) {
					return false
				}
			}
			return true
		default:
			return true
		}
	}
	return true
}
