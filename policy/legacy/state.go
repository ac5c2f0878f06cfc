package legacy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/popgate/popgate/policy/statefile"
)

const (
	stateFile = "legacy.json"
	// maxState bounds the file: all that a Keeper may hold, with the longest names.
	maxState = 512 << 20
	maxText  = 512
)

func statePath(dir string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, stateFile)
}

// Load reads what an earlier Keeper has saved, and adds it. A file that cannot be read is an error, and nothing of it is taken.
func (k *Keeper) Load() error {
	if k.path == "" {
		return nil
	}
	statefile.Tidy(k.path)
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read who used the legacy lane: %w", err)
	}
	defer func() { _ = f.Close() }()
	uses, err := read(io.LimitReader(f, maxState))
	if err != nil {
		return fmt.Errorf("read who used the legacy lane: %s: %w; it begins anew", k.path, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range uses {
		k.add(u)
	}
	k.changed = false
	return nil
}

// read reads a list of uses; one that cannot be is an error.
func read(r io.Reader) ([]Use, error) {
	var uses []Use
	if err := json.NewDecoder(r).Decode(&uses); err != nil {
		return nil, err
	}
	for i := range uses {
		if !uses[i].sound() {
			return nil, fmt.Errorf("entry %d is none of a login", i)
		}
	}
	return uses, nil
}

// sound says that u may come from a Keeper.
func (u *Use) sound() bool {
	for _, text := range []string{u.User, u.Tenant, u.Version, u.Listener} {
		if len(text) > maxText || !utf8.ValidString(text) {
			return false
		}
	}
	return u.User != "" && u.Network.IsValid() && u.Count > 0 && !u.Last.Before(u.First)
}

// Save writes what is known into the folder, so that a crash leaves the file of before or this one.
func (k *Keeper) Save() error {
	if k.path == "" {
		return nil
	}
	all := k.List()
	return statefile.Stream(k.path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(all)
	})
}

func (k *Keeper) saveChanged() {
	k.mu.Lock()
	changed := k.changed
	k.changed = false
	k.mu.Unlock()
	if !changed {
		return
	}
	if err := k.Save(); err != nil {
		k.mu.Lock()
		k.changed = true
		k.mu.Unlock()
		k.log.Warn("who used the legacy lane could not be saved: it would be lost at a restart", "error", err)
	}
}
