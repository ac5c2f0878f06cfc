package certs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// pair is a certificate file and its key file. After Use only the keeper's poll touches it.
type pair struct {
	at     string // where the configuration names it
	files  Files
	cert   *tls.Certificate // in force, also while the files are bad
	stamp  stamp            // the files as they were when last read
	failed error            // why the files as they are cannot be used, nil when they are in force
	said   bool             // that they cannot be used
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
		// Neither owner nor mode: files that lose them are still in force, and those that could not be read are tried again anyway.
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

// refresh reads the files if they changed since they were last read. It says rejected once for each change, and not
// before they were bad twice: writing certificate and key takes a moment, and this may be it.
func (p *pair) refresh() (fate, error) {
	// Stat before reading: a change while we read is then seen as a change the next time.
	now := p.files.stat()
	changed := !now.equal(p.stamp)
	// That files can be read at last (a change of owner, a free descriptor) does not show from outside.
	_, unread := errors.AsType[*fs.PathError](p.failed)
	again := p.failed != nil && (unread || !p.said)
	if !changed && !again {
		return unchanged, nil
	}
	p.stamp = now
	cert, err := p.files.load(p.at)
	if err != nil {
		quiet := p.failed == nil || p.said && !changed
		p.failed = err
		if quiet {
			return unchanged, nil
		}
		p.said = true
		return rejected, err
	}
	same := !p.said && slices.EqualFunc(cert.Certificate, p.cert.Certificate, bytes.Equal)
	p.failed, p.said = nil, false
	if same {
		return unchanged, nil
	}
	p.cert = cert
	return reloaded, nil
}

func (p *pair) source() source { return source{cert: p.cert, file: p.files.Cert} }
