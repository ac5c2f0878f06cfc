package directory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxLine bounds a line of a file: what is longer is no list of users.
const maxLine = 64 << 10

// lines reads a file line by line, without the ends of the lines.
type lines struct {
	r     *bufio.Reader
	n     int  // the number of the line read last, from 1
	whole bool // it had an end
}

func newLines(f io.Reader) *lines { return &lines{r: bufio.NewReaderSize(f, maxLine)} }

// next gives a line, which is valid until the next call. The error is io.EOF behind the last one.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
		if errors.Is(err, bufio.ErrBufferFull) {
			l.n++
			return nil, fmt.Errorf("line %d is longer than %d bytes", l.n, maxLine)
		}
		return nil, err
	}
	l.n++
	if l.n == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	line, l.whole = bytes.CutSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// maxFaults bounds how many faults of a file are told.
const maxFaults = 10

// faults are what is wrong with a file, line by line.
type faults struct {
	path string
	said []string
	more int
}

// add notes what is wrong with a line; nil is nothing.
func (f *faults) add(line int, err error) {
	switch {
	case err == nil:
	case len(f.said) < maxFaults:
		f.said = append(f.said, fmt.Sprintf("%s:%d: %v", f.path, line, err))
	default:
		f.more++
	}
}

// err is all of them, nil if there are none.
func (f *faults) err() error {
	if len(f.said) == 0 {
		return nil
	}
	text := strings.Join(f.said, "; ")
	if f.more > 0 {
		text += fmt.Sprintf("; and %d more", f.more)
	}
	return errors.New(text)
}

// parseFile makes a table of a file with what reads its lines.
func parseFile(f *os.File, size int64, parse func(l *lines, b *builder, faults *faults) error) (*table, error) {
	b := newBuilder(size)
	faults := faults{path: f.Name()}
	if err := parse(newLines(f), b, &faults); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if err := faults.err(); err != nil {
		return nil, err
	}
	return b.table(), nil
}
