package certs

import (
	"bytes"
	"crypto/tls"
	"os"
	"slices"
)

// pair is a certificate file and its key file. After Use only the keeper's check touches it.
type pair struct {
	at     string // where the configuration names it
	files  Files
	cert   *tls.Certificate // in force, also while the files are bad
	stamp  stamp            // the files as they were when last read
	failed string           // why the files as they are cannot be used, "" when they are in force
}

// stamp is what two files look like from outside; a nil entry could not be looked at.
type stamp [2]os.FileInfo

func (f Files) stat() stamp {
	var s stamp
	for i, path := range []string{f.Cert, f.Key} {
		// Stat goes through symlinks, so a link that was turned to another file shows as another file.
		if info, err := os.Stat(path); err == nil {
			s[i] = info
		}
	}
	return s
}

func (s stamp) equal(o stamp) bool {
	for i, a := range s {
		b := o[i]
		// Neither owner nor mode: files that lose them are still in force, and files that failed are tried again anyway.
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			return false
		}
	}
	return true
}

// fate is what came of looking at a pair's files again.
type fate int

const (
	unchanged fate = iota
	reloaded       // p.cert is new, or its files are good again
	rejected       // the files changed and cannot be used; p.cert is as before
)

// refresh reads the files if they changed since they were last read. It says rejected once for each change.
func (p *pair) refresh() (fate, error) {
	// Stat before reading: a change while we read is then seen as a change the next time.
	now := p.files.stat()
	changed := !now.equal(p.stamp)
	if !changed && p.failed == "" {
		return unchanged, nil
	}
	p.stamp = now
	// Files that failed are tried again even when they look the same, as a change of owner cannot be seen from outside.
	cert, err := p.files.load(p.at)
	if err != nil {
		if !changed && err.Error() == p.failed {
			return unchanged, nil
		}
		p.failed = err.Error()
		return rejected, err
	}
	if p.failed == "" && slices.EqualFunc(cert.Certificate, p.cert.Certificate, bytes.Equal) {
		return unchanged, nil
	}
	p.cert, p.failed = cert, ""
	return reloaded, nil
}

func (p *pair) source() source { return source{cert: p.cert, file: p.files.Cert} }
