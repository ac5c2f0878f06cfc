// Package statefile writes the files in which popgate remembers something over a restart, each whole or not at all.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// halves is what is behind a file's name while a new one is being written.
const halves = ".*.tmp"

// Write puts data in the place of path, for nobody but popgate's user to read, so that a crash leaves the old file or the new one.
// It makes the folder where there is none.
func Write(path string, data []byte) error {
	return Stream(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Stream is Write for what would be large in memory: it puts in the place of path what write writes.
func Stream(path string, write func(w io.Writer) error) (err error) {
	var f *os.File
	defer func() {
		if err != nil && f != nil {
			_ = os.Remove(f.Name())
		}
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	dir, name := filepath.Split(path)
	// Before a first start there may be no folder yet.
	if err := os.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return err
	}
	if f, err = os.CreateTemp(dir, name+halves); err != nil { // 0600
		return err
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Tidy removes what a crash has left half written of the file at path. Nobody else may be writing it.
func Tidy(path string) {
	left, err := filepath.Glob(path + halves)
	if err != nil {
		return // the folder's name is no pattern
	}
	for _, half := range left {
		_ = os.Remove(half)
	}
}
