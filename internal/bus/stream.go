package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// dedupeWindow is the shortest that a server takes. Our messages carry no
// Nats-Msg-Id, so nothing is ever held in it.
const dedupeWindow = 100 * time.Millisecond

// StreamConfig is a stream that buffers until the reader says that it may forget.
type StreamConfig struct {
	// Name of the stream.
	Name string
	// Subjects that it takes.
	Subjects []string
	// MaxBytes bounds it, in bytes; a full stream refuses new messages.
	MaxBytes int64
	// Replicas in a cluster; 0: 1.
	Replicas int
}

func (c StreamConfig) full() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              c.Name,
		Subjects:          slices.Sorted(slices.Values(c.Subjects)),
		Retention:         jetstream.LimitsPolicy,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxBytes:          c.MaxBytes,
		Discard:           jetstream.DiscardNew,
		MaxAge:            0,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		Storage:           jetstream.FileStorage,
		Replicas:          max(1, c.Replicas),
		Duplicates:        dedupeWindow,
		Compression:       jetstream.NoCompression,
	}
}

// EnsureStream returns the stream, having made it if there is none: on file,
// refusing new messages when full, without age limit, compression, de-duplication
// or direct access. One that exists is never altered: if it differs, the error
// names the settings that do.
func EnsureStream(ctx context.Context, js jetstream.StreamManager, cfg StreamConfig) (jetstream.Stream, error) {
	if cfg.MaxBytes <= 0 {
		return nil, fmt.Errorf("stream %s: max_bytes is %d: it must be above 0", cfg.Name, cfg.MaxBytes)
	}
	want := cfg.full()
	stream, err := js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			// Another process was first, with other settings.
			stream, err = js.Stream(ctx, cfg.Name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
	}
	if diff := differences(want, stream.CachedInfo().Config); len(diff) > 0 {
		return nil, fmt.Errorf("stream %s exists with other settings: %s: change them with the nats tool, or delete the stream (producers resend)",
			cfg.Name, strings.Join(diff, ", "))
	}
	return stream, nil
}

func differences(want, have jetstream.StreamConfig) []string {
	var diff []string
	compare := func(name string, want, have any) {
		if want != have {
			diff = append(diff, fmt.Sprintf("%s is %v, not %v", name, have, want))
		}
	}
	compare("subjects", strings.Join(want.Subjects, " "), strings.Join(slices.Sorted(slices.Values(have.Subjects)), " "))
	compare("storage", want.Storage, have.Storage)
	compare("retention", want.Retention, have.Retention)
	compare("discard", want.Discard, have.Discard)
	compare("discard_new_per_subject", want.DiscardNewPerSubject, have.DiscardNewPerSubject)
	compare("max_bytes", want.MaxBytes, have.MaxBytes)
	compare("max_msgs", want.MaxMsgs, have.MaxMsgs)
	compare("max_msgs_per_subject", want.MaxMsgsPerSubject, have.MaxMsgsPerSubject)
	compare("max_age", want.MaxAge, have.MaxAge)
	compare("max_msg_size", want.MaxMsgSize, have.MaxMsgSize)
	compare("duplicate_window", want.Duplicates, have.Duplicates)
	compare("compression", want.Compression, have.Compression)
	compare("allow_direct", want.AllowDirect, have.AllowDirect)
	compare("replicas", want.Replicas, have.Replicas)
	compare("no_ack", want.NoAck, have.NoAck)
	compare("sealed", want.Sealed, have.Sealed)
	compare("deny_purge", want.DenyPurge, have.DenyPurge)
	compare("mirror", want.Mirror != nil, have.Mirror != nil)
	compare("sources", len(want.Sources), len(have.Sources))
	compare("republish", want.RePublish != nil, have.RePublish != nil)
	compare("subject_transform", want.SubjectTransform != nil, have.SubjectTransform != nil)
	return diff
}
