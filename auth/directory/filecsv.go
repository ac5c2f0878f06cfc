package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// parseCSV reads a list of our own as comma-separated values (RFC 4180), with a header that names the columns in any order. Lines
// that begin with # and empty ones are passed over; a field has no line ends in it, so that a quote left open spoils one line only.
func parseCSV(l *lines, b *builder, faults *faults) error {
	header, err := csvHeader(l, faults)
	if err != nil || header == nil {
		return err
	}
	var row [][]byte
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		if skipCSV(line) {
			continue
		}
		if row, err = splitCSV(row[:0], line); err != nil {
			faults.add(l.n, err)
			continue
		}
		if len(row) != len(header) {
			faults.add(l.n, fmt.Errorf("has %d fields, and the header has %d", len(row), len(header)))
			continue
		}
		e := listed{record: record{line: l.n}}
		for i, column := range header {
			if len(row[i]) > 0 && err == nil {
				err = e.set(column, string(row[i]))
			}
		}
		if err == nil {
			err = e.put(b)
		}
		faults.add(l.n, err)
	}
}

func skipCSV(line []byte) bool {
	return len(bytes.TrimSpace(line)) == 0 || line[0] == '#'
}

// csvHeader reads the line that names the columns, and gives for each field its place in columns.
func csvHeader(l *lines, faults *faults) ([]int, error) {
	for {
		line, err := l.next()
		if err != nil {
			return nil, err
		}
		if skipCSV(line) {
			continue
		}
		row, err := splitCSV(nil, line)
		if err != nil {
			faults.add(l.n, err)
			return nil, nil
		}
		var header []int
		for _, name := range row {
			n := slices.Index(columns, string(bytes.ToLower(bytes.TrimSpace(name))))
			switch {
			case n < 0:
				faults.add(l.n, fmt.Errorf("has no header: the first line must name the columns, of which there are %s", strings.Join(columns, ", ")))
				return nil, nil
			case slices.Contains(header, n):
				faults.add(l.n, fmt.Errorf("names the column %s twice", columns[n]))
				return nil, nil
			}
			header = append(header, n)
		}
		return header, nil
	}
}

var (
	errQuoteOpen = errors.New("has a quote that is not closed on its line")
	errQuoteMid  = errors.New(`has a quote inside a field: put the whole field in quotes, and write "" for one in it`)
)

// splitCSV appends the fields of a line to row. Quotes are taken off; the bytes of line may be moved for it.
func splitCSV(row [][]byte, line []byte) ([][]byte, error) {
	if bytes.IndexByte(line, '"') < 0 {
		for {
			i := bytes.IndexByte(line, ',')
			if i < 0 {
				return append(row, line), nil
			}
			row, line = append(row, line[:i]), line[i+1:]
		}
	}
	for {
		var field []byte
		var err error
		if len(line) > 0 && line[0] == '"' {
			field, line, err = quotedCSV(line[1:])
		} else {
			i := bytes.IndexByte(line, ',')
			if i < 0 {
				i = len(line)
			}
			if field, line = line[:i], line[i:]; bytes.IndexByte(field, '"') >= 0 {
				err = errQuoteMid
			}
		}
		if err != nil {
			return row, err
		}
		row = append(row, field)
		if len(line) == 0 {
			return row, nil
		}
		line = line[1:] // the comma
	}
}

// quotedCSV reads a field behind its first quote. What is left begins with a comma, or is empty.
func quotedCSV(line []byte) (field, rest []byte, err error) {
	field = line[:0]
	for {
		i := bytes.IndexByte(line, '"')
		if i < 0 {
			return nil, nil, errQuoteOpen
		}
		field, line = append(field, line[:i]...), line[i+1:]
		switch {
		case len(line) == 0 || line[0] == ',':
			return field, line, nil
		case line[0] != '"':
			return nil, nil, errQuoteMid
		}
		field, line = append(field, '"'), line[1:]
	}
}
