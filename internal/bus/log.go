package bus

import (
	"fmt"
	"log/slog"
	"sync/atomic"
)

// serverLog passes on what the server warns of. What it notes of its own life is
// of interest to nobody who did not start it as a program.
type serverLog struct {
	log   *slog.Logger
	error atomic.Value // string: the last error, for the one who waits for start
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, args ...any) {
	l.log.Warn("nats server", "text", fmt.Sprintf(format, args...))
}

func (l *serverLog) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.error.Store(text)
	l.log.Error("nats server", "text", text)
}

// Fatalf is what the server calls before it would exit as a program; embedded it
// returns and is shut down by [Start].
func (l *serverLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }

func (l *serverLog) last() string {
	text, _ := l.error.Load().(string)
	return text
}
