package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// An output is where lines go. Only the writer writes to it.
type output struct {
	w    io.WriteCloser
	path string
	// torn says that what was written last is not a whole line: the disk was full in its middle, or popgate died.
	torn   bool
	looked bool // torn is known of what was there before us
}

// openOutput opens path, which is what key says, for appending, and makes it if need be.
func openOutput(key, path string) (*output, error) {
	// Not to wait: a FIFO that nobody reads would hold up start and reload for ever.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return nil, fmt.Errorf("open audit file %s: %w (%s)", path, err, advice(key, path, err))
	}
	return &output{w: f, path: path}, nil
}

// advice is what to do about an error from opening path.
func advice(key, path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("make the folder %s, or set %s to a file elsewhere", filepath.Dir(path), key)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("let user id %d write there, or set %s to a file elsewhere", os.Geteuid(), key)
	case errors.Is(err, syscall.EISDIR):
		return "that is a folder: set " + key + " to a file in it"
	case errors.Is(err, syscall.ENXIO):
		return "that is a FIFO which nobody reads: start its reader first"
	case key == "audit.path":
		return `set audit.path to a file that popgate can write, or to "-" for standard output`
	}
	return "set " + key + " to a file that popgate can write"
}

// close closes o; a nil one needs none.
func (o *output) close() {
	if o != nil {
		_ = o.w.Close()
	}
}

// write appends lines and says how many of their bytes are written. After a line that was cut it begins a new one, so
// that a cut never spoils the record behind it.
func (o *output) write(lines []byte) (int, error) {
	if !o.looked {
		o.torn, o.looked = tornFile(o.path), true
	}
	if o.torn {
		if _, err := o.w.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		o.torn = false
	}
	n, err := o.w.Write(lines)
	if n > 0 {
		o.torn = lines[n-1] != '\n'
	}
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	return n, err
}

// tornFile says whether a file ends within a line, as far as that can be seen.
func tornFile(path string) bool {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var last [1]byte
	if _, err := f.Seek(-1, io.SeekEnd); err != nil {
		return false
	}
	_, err = f.Read(last[:])
	return err == nil && last[0] != '\n'
}

// unclosed is standard output: it is not ours to close.
type unclosed struct{ io.Writer }

// Close does nothing.
func (unclosed) Close() error { return nil }
