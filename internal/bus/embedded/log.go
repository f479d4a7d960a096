package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog passes on what the server warns of. What it notes of its own life is
// of interest to nobody who did not start it as a program.
type serverLog struct {
	log *slog.Logger
	// up is set once the server takes clients. What it warns of before is the repair
	// of what a kill left, which is its job.
	up    atomic.Bool
	fatal atomic.Value // string: why the server would have exited as a program
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, args ...any) {
	level := slog.LevelInfo
	if l.up.Load() {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "nats server", "text", fmt.Sprintf(format, args...))
}

func (l *serverLog) Errorf(format string, args ...any) {
	l.log.Error("nats server", "text", fmt.Sprintf(format, args...))
}

// Fatalf is what the server calls before it would exit as a program. Embedded it
// goes on without what it lacks, and [Start] ends it.
func (l *serverLog) Fatalf(format string, args ...any) {
	l.fatal.CompareAndSwap(nil, fmt.Sprintf(format, args...))
}

// ready waits until the server takes clients, and returns why it does not.
func (l *serverLog) ready(s *server.Server) error {
	for deadline := time.Now().Add(startTimeout); ; {
		up := s.ReadyForConnections(100 * time.Millisecond)
		if why, ok := l.fatal.Load().(string); ok {
			return errors.New(why)
		}
		switch {
		case up && s.JetStreamEnabled():
			l.up.Store(true)
			return nil
		case up:
			return errors.New("came up without JetStream")
		case time.Now().After(deadline):
			return fmt.Errorf("not ready after %v", startTimeout)
		}
	}
}
