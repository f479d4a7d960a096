package calculator

import "sync"

// commitSignal wakes those who wait for the next commit. The zero value is ready.
//
//	wake := signal.Wait() // before reading, so that no commit falls in between
//	… read what is committed …
//	<-wake
type commitSignal struct {
	mu   sync.Mutex
	next chan struct{}
}

// Wait returns a channel that is closed by the next commit.
func (s *commitSignal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

// broadcast tells of a commit.
func (s *commitSignal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}
