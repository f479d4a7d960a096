package collector

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/wattfold/wattfold/services/collector/internal/csvfile"
	"github.com/wattfold/wattfold/services/collector/internal/durable"
	"github.com/wattfold/wattfold/services/collector/internal/spool"
)

// accepted is an import whose file was found right, as it is stored before the
// first of its batches is spooled: from then on all of them will be, whatever
// happens to the client or to this process.
type accepted struct {
	ID      string
	Epoch   uint64
	Content []byte // SHA-256 of file and mapping, as in Import.content
	Batches uint64
	Mapping csvfile.Mapping
}

func (a *accepted) key() spool.Key {
	return spool.Key{Site: a.Mapping.Site, Producer: importProducer(a.Mapping.Site, a.ID), Epoch: a.Epoch}
}

// importStore keeps the files of imports in a directory:
//
//	*.upload           being received or validated; nobody was promised anything
//	<producer>.csv     accepted, and not yet all in the spool …
//	<producer>.import  … as this says; a csv without it was not accepted
type importStore struct {
	log *slog.Logger
	dir string
}

const (
	uploadPattern  = "*.upload"
	fileSuffix     = ".csv"
	acceptedSuffix = ".import"
)

// openImportStore returns the imports that were accepted and have not ended, and
// removes all that was not accepted: its client knows nothing of a success and
// asks again.
func openImportStore(log *slog.Logger, dir string) (*importStore, []*accepted, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory of imports: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, nil, fmt.Errorf("make directory of imports: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read directory of imports: %w", err)
	}
	st := &importStore{log: log, dir: dir}
	var unfinished []*accepted
	keep := make(map[string]bool)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), acceptedSuffix)
		if !ok {
			continue
		}
		a, err := st.read(name)
		if err != nil {
			log.Error("an accepted import cannot be read and is lost: import its file again", "file", e.Name(), "error", err)
			continue
		}
		unfinished = append(unfinished, a)
		keep[name+acceptedSuffix], keep[name+fileSuffix] = true, true
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, nil, fmt.Errorf("clear interrupted imports: %w", err)
		}
	}
	return st, unfinished, nil
}

func (st *importStore) read(name string) (*accepted, error) {
	text, err := os.ReadFile(filepath.Join(st.dir, name+acceptedSuffix))
	if err != nil {
		return nil, err
	}
	a := new(accepted)
	if err := json.Unmarshal(text, a); err != nil {
		return nil, err
	}
	if vs := a.Mapping.Validate(); len(vs) > 0 || a.Epoch == 0 || len(a.Content) != 16 || st.name(a) != name {
		return nil, errors.New("it is damaged")
	}
	return a, nil
}

func (st *importStore) name(a *accepted) string {
	producer := a.key().Producer
	return hex.EncodeToString(producer[:])
}

// upload is a file that was received.
type upload struct {
	*os.File
	path string // empty once it was accepted
}

// create makes the file of an upload, which the caller discards.
func (st *importStore) create() (*upload, error) {
	f, err := os.CreateTemp(st.dir, uploadPattern)
	if err != nil {
		return nil, fmt.Errorf("store import: %w", err)
	}
	return &upload{File: f, path: f.Name()}, nil
}

// discard closes the file, and removes it unless it was accepted.
func (u *upload) discard() {
	// What stays behind is removed at the next start.
	_ = u.Close()
	if u.path != "" {
		_ = os.Remove(u.path)
	}
}

// accept makes the import lasting. After an error it was not accepted.
func (st *importStore) accept(u *upload, a *accepted) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("store import: %w", err)
	}
	if err := u.Sync(); err != nil {
		return fmt.Errorf("store import: %w", err)
	}
	path := filepath.Join(st.dir, st.name(a)+fileSuffix)
	if err := os.Rename(u.path, path); err != nil {
		return fmt.Errorf("store import: %w", err)
	}
	u.path = path
	if err := durable.WriteFile(st.dir, st.name(a)+acceptedSuffix, text); err != nil {
		// Not even half of a promise may stay: discard removes the file.
		return fmt.Errorf("store import: %w", errors.Join(err, st.retract(a)))
	}
	u.path = ""
	return nil
}

func (st *importStore) retract(a *accepted) error {
	err := os.Remove(filepath.Join(st.dir, st.name(a)+acceptedSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// open opens the file of an accepted import.
func (st *importStore) open(a *accepted) (*os.File, error) {
	return os.Open(filepath.Join(st.dir, st.name(a)+fileSuffix))
}

// forget removes an import that is in the spool as a whole. One that comes back
// after a crash is found there and forgotten again.
func (st *importStore) forget(a *accepted) {
	err := st.retract(a)
	if err == nil {
		err = os.Remove(filepath.Join(st.dir, st.name(a)+fileSuffix))
	}
	if err != nil {
		st.log.Warn("cannot remove the file of an import that has ended; it is tried again at the next start",
			"import", a.ID, "error", err)
	}
}
