package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
)

// files is certmagic's own storage in files, for this host alone. Its locks are files too, which another process on this host obeys.
type files struct {
	*certmagic.FileStorage
	mu sync.Mutex // makes replace one act, within this process
}

// lockFolder is where FileStorage has its locks, amid the records.
const lockFolder = "locks"

// openFiles closes the folder to others if it is there. It is made when there is something to put into it: whoever only looks, as root perhaps,
// must not leave one that the gateway's user cannot write.
func openFiles(dir string) (*files, error) {
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the folder for certificates: %w", err)
	}
	return &files{FileStorage: &certmagic.FileStorage{Path: dir}}, nil
}

func (f *files) load(ctx context.Context, key string) ([]byte, error) {
	record, err := f.Load(ctx, key)
	return record, missing(err)
}

// missing makes fs.ErrNotExist of all that means it, folders in the place of files included.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || folder(err) {
		return fs.ErrNotExist
	}
	return err
}

// folder says that a folder stands where a file was looked for, or the other way round.
func folder(err error) bool { return errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) }

func (f *files) store(ctx context.Context, key string, record []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Store(ctx, key, record)
}

func (f *files) replace(ctx context.Context, key string, old, record []byte) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, err := f.load(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if (err == nil) != (old != nil) || !bytes.Equal(there, old) {
		return false, nil
	}
	return true, f.Store(ctx, key, record)
}

func (f *files) remove(ctx context.Context, key string) error {
	err := f.Delete(ctx, key)
	if folder(err) {
		return nil
	}
	return err
}

func (f *files) stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info, err := f.Stat(ctx, key)
	return info, missing(err)
}

func (f *files) keys(ctx context.Context, folder string, deep bool) ([]string, error) {
	root := f.Filename(folder)
	var keys []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return nil // deleted while we look
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case name == root:
			return nil
		}
		rel, err := filepath.Rel(root, name)
		key := path.Join(folder, filepath.ToSlash(rel))
		switch {
		case err != nil:
			return err
		case d.IsDir() && key == lockFolder:
			return fs.SkipDir
		case d.IsDir() && !deep:
			// A folder with nothing in it is what a deletion leaves; the other storages have none.
			if inside, err := os.ReadDir(name); err == nil && len(inside) > 0 {
				keys = append(keys, key+"/")
			}
			return fs.SkipDir
		case !d.IsDir():
			keys = append(keys, key)
		}
		return nil
	})
	return keys, err
}

// sweep goes by the time of the locks' files, which those who hold them write every few seconds. Probes that were cut off lie there too.
func (f *files) sweep(ctx context.Context, before time.Time) (n int, err error) {
	dir := filepath.Join(f.Path, lockFolder)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
		n++
	}
	return n, errors.Join(err, ctx.Err())
}

// health writes a file, as a full disk or one mounted read-only shows in nothing else.
func (f *files) health(context.Context) error {
	dir := filepath.Join(f.Path, lockFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	_, err = probe.WriteString("popgate can write here")
	return errors.Join(err, probe.Close(), os.Remove(probe.Name()))
}

func (f *files) close() {}
