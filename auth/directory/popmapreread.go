package directory

import (
	"bufio"
	"errors"
	"io"
)

// A popmapWord is one of a popmap.re, or the end of what Perdition takes for a line.
type popmapWord struct {
	text string
	line int
	end  bool
}

// maxPopmapWord is where Perdition cuts words off.
const maxPopmapWord = 4096 - 3

// A popmapReader takes a popmap.re apart as Perdition's library does, state by state: quotes and backslashes nearly as in a
// shell, # for comments. Its manual and its code differ, as in that a backslash is taken off from before any character outside of
// single quotes (so that \. is a dot, any character); the code is what users' files work with.
type popmapReader struct {
	words []popmapWord
	token []byte
	line  int // being read
	first int // in which the token begins

	escape, comment, key, value, single, double bool
	added                                       bool // a key, since the last end of a line
	kept                                        int  // up to where blanks at the end of the token are meant
}

// popmapWords reads the words of a popmap.re.
func popmapWords(f io.Reader, faults *faults) ([]popmapWord, error) {
	r := popmapReader{line: 1, first: 1, key: true}
	in := bufio.NewReader(f)
	for {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		skip := r.take(c)
		if (r.key || r.value) && c != '\n' && c != '\r' && !r.escape && !skip {
			if len(r.token) == 0 {
				r.first = r.line
			}
			if len(r.token) == maxPopmapWord {
				faults.add(r.line, errors.New("has a word that Perdition would cut off"))
			}
			r.token = append(r.token, c)
		}
		if c == '\n' {
			r.line++
		}
	}
	switch {
	case r.single || r.double:
		faults.add(r.first, errors.New("has a quote that is not closed"))
	case len(r.token) > 0:
		faults.add(r.first, errors.New("is the last line and has no end, and Perdition passes such a line over: end it, or take it out"))
	}
	return r.words, nil
}

// take changes the state for a character; skip says that it is no part of a word.
func (r *popmapReader) take(c byte) (skip bool) {
	switch c {
	case ' ', '\t':
		r.endValue()
		r.endKey()
		if r.escape {
			r.beginValue()
		}
		r.endEscape()
	case '\n', '\r':
		r.endKey()
		if !r.escape {
			r.comment = false
		}
		r.endValue()
		r.beginKey()
		r.endEscape()
	case '\\':
		if r.escape || r.single {
			r.endEscape()
		} else {
			r.escape = true
		}
		r.beginValue()
	case '#':
		if !r.escape && !r.quoted() {
			r.comment = true
		}
		r.endKey()
		r.endValue()
		r.beginValue()
		r.endEscape()
	case '"':
		skip = r.quote(&r.double, r.single)
	case '\'':
		skip = r.quote(&r.single, r.double)
	default:
		r.beginValue()
		r.endEscape()
	}
	return skip
}

func (r *popmapReader) quoted() bool { return r.single || r.double }

// quote opens or closes one kind of quotes, unless it stands within the other kind.
func (r *popmapReader) quote(open *bool, within bool) (skip bool) {
	r.beginValue()
	if !r.escape && !r.comment && (*open || !within) {
		if *open {
			r.kept = len(r.token)
		}
		*open = !*open
		skip = true
	}
	r.endEscape()
	return skip
}

func (r *popmapReader) beginKey() {
	r.kept = 0
	if r.escape || r.comment || r.quoted() {
		return
	}
	if r.added {
		r.words = append(r.words, popmapWord{line: r.line, end: true})
	}
	r.key, r.added = true, false
}

func (r *popmapReader) endKey() {
	if r.escape || !r.key || r.quoted() {
		return
	}
	if len(r.token) > 0 {
		r.add()
		r.added = true
	}
	r.token, r.key = r.token[:0], false
}

func (r *popmapReader) beginValue() {
	r.kept = 0
	if !r.key && !r.comment && !r.quoted() {
		r.value = true
	}
}

func (r *popmapReader) endValue() {
	if r.escape || !r.value || r.quoted() {
		return
	}
	r.add()
	r.token, r.value = r.token[:0], false
}

func (r *popmapReader) endEscape() {
	if r.escape {
		r.escape = false
		r.kept = len(r.token) + 1
	}
}

// add ends a word. Blanks at its end are taken off, unless they were quoted.
func (r *popmapReader) add() {
	n := len(r.token)
	for n > min(r.kept, len(r.token)) && (r.token[n-1] == ' ' || r.token[n-1] == '\t') {
		n--
	}
	r.words = append(r.words, popmapWord{text: string(r.token[:n]), line: r.first})
}
