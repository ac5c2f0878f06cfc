package statefile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/popgate/popgate/policy/statefile"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "state")
	for _, text := range []string{"first", "second, and longer", ""} {
		if err := statefile.Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != text || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("got %q, want the file alone", names)
	}
}

// TestStreamFails: what cannot be written whole leaves the file of before, and nothing else.
func TestStreamFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := statefile.Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left")
	err := statefile.Stream(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "ne")
		return full
	})
	if !errors.Is(err, full) || err.Error() != "write "+path+": no space left" {
		t.Errorf("got %v, want the writer's error with the path", err)
	}
	if got, err := os.ReadFile(path); string(got) != "old" || err != nil {
		t.Errorf("got %q, %v; want the old file", got, err)
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("got %q, want the file alone", names)
	}
	if err := statefile.Write(filepath.Join(path, "below"), nil); err == nil {
		t.Error("a file below a file was written")
	}
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"state", "state.123.tmp", "state.key", "state.key.4.tmp", "other.5.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	statefile.Tidy(filepath.Join(dir, "state.key"))
	if names := list(t, dir); len(names) != 4 {
		t.Errorf("got %q, want the key's half gone", names)
	}
	statefile.Tidy(filepath.Join(dir, "state"))
	if names := list(t, dir); len(names) != 3 {
		t.Errorf("got %q, want the state's half gone", names)
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
