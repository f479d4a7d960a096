package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/wattfold/wattfold/internal/bus"
	"github.com/wattfold/wattfold/services/calculator/internal/ledger"
)

const (
	floorsPrefix    = "wattfold.floors."
	committedPrefix = "wattfold.committed."
	// floorsPerMessage bounds a message to far below the server's largest.
	floorsPerMessage = 1000
)

// ServeFloors answers on wattfold.floors.<site> what the ledger holds of the
// producers asked for, until ctx ends. Of several calculators one answers.
func ServeFloors(ctx context.Context, log *slog.Logger, nc *nats.Conn, store ledger.Store) error {
	sub, err := nc.QueueSubscribe(floorsPrefix+"*", "calculator", func(msg *nats.Msg) {
		answer, err := answerFloors(ctx, store, msg)
		if err == nil {
			err = msg.Respond(answer)
		}
		if err != nil && ctx.Err() == nil {
			// The spool asks again in half a minute.
			log.WarnContext(ctx, "floors not answered", "subject", msg.Subject, "err", err)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s*: %w", floorsPrefix, err)
	}
	<-ctx.Done()
	if err := sub.Unsubscribe(); err != nil && !nc.IsClosed() {
		return fmt.Errorf("unsubscribe from %s*: %w", floorsPrefix, err)
	}
	return nil
}

func answerFloors(ctx context.Context, store ledger.Store, msg *nats.Msg) ([]byte, error) {
	site, err := bus.ParseSubjectToken(strings.TrimPrefix(msg.Subject, floorsPrefix))
	if err != nil {
		return nil, err
	}
	asked, err := parseFloorsRequest(msg.Data)
	if err != nil {
		return nil, err
	}
	known, err := store.Producers(ctx, site, asked)
	if err != nil {
		return nil, err
	}
	for _, key := range asked {
		if key.Epoch != 0 && !slices.ContainsFunc(known, func(p ledger.Producer) bool { return p.ProducerKey == key }) {
			known = append(known, ledger.Producer{ProducerKey: key})
		}
	}
	incarnation, err := store.Incarnation(ctx)
	if err != nil {
		return nil, err
	}
	return marshalFloors(incarnation, known)
}

// publishFloors tells the spools of a site what was committed. Those that miss it
// ask.
func publishFloors(nc *nats.Conn, incarnation string, moves []ledger.ProducerMove) error {
	bySite := map[string][]ledger.Producer{}
	for i := range moves {
		bySite[moves[i].Site] = append(bySite[moves[i].Site], moves[i].New)
	}
	for site, producers := range bySite {
		subject := committedPrefix + bus.SubjectToken(site) + ".all"
		for chunk := range slices.Chunk(producers, floorsPerMessage) {
			msg, err := marshalFloors(incarnation, chunk)
			if err != nil {
				return fmt.Errorf("floors of site %q: %w", site, err)
			}
			if err := nc.Publish(subject, msg); err != nil {
				return fmt.Errorf("publish %s: %w", subject, err)
			}
		}
	}
	return nil
}
