package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrLocked says that another process works in the data directory.
var ErrLocked = errors.New("in use by another process")

// lockName is the file in a data directory that is locked. It stays when the
// lock is released: removing it would let two processes lock two files.
const lockName = "LOCK"

// Lock takes the data directory dir for this process until release is called or
// the process ends, however it ends. If another one holds it, the error wraps
// [ErrLocked] and names the directory and, where it can be read, the holder.
func Lock(dir string) (release func(), err error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
		}
		if pid := holder(f); pid > 0 {
			return nil, fmt.Errorf("data directory %s: %w (pid %d): stop it or choose another --data-dir", dir, ErrLocked, pid)
		}
		return nil, fmt.Errorf("data directory %s: %w: stop it or choose another --data-dir", dir, ErrLocked)
	}
	// The pid only serves the message above, so a failure to write it is no
	// reason not to start.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() { _ = f.Close() }, nil
}

func holder(f *os.File) int {
	var buf [32]byte
	n, _ := f.ReadAt(buf[:], 0)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}
