// Package durable writes files that are there after a crash.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces a file of dir so that after a crash it is the old or the
// new one, and on return the new one for good. Meanwhile the new one has the
// suffix .tmp.
func WriteFile(dir, name string, content []byte) error {
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes what was created, renamed and removed in dir so far lasting.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
