package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Stored are the certificates of a gateway that does not run: files, what was obtained, and the local CA. Its methods may be called at
// once.
type Stored struct {
	config   Config
	stateDir string
	store    *Store // nil where nothing is obtained
}

// Offline finds the certificates of c for a program that is not the gateway, such as `popgate certs` while none runs. It takes
// no lock, makes nothing and changes nothing. stateDir is as for New.
func Offline(c Config, stateDir string) (*Stored, error) {
	s := &Stored{config: c, stateDir: stateDir}
	// Where ACME has been turned off, a folder may still hold what was obtained; another storage is no more of interest.
	if !c.ACME.on() && c.ACME.Storage.Shared() {
		return s, nil
	}
	opened, err := openStorage(c.ACME.Storage, stateDir, nil)
	if err != nil {
		return nil, err
	}
	s.store = &Store{storage: opened}
	return s, nil
}

// Close ends the connections to the storage.
func (s *Stored) Close() error {
	if s.store == nil {
		return nil
	}
	if c, ok := s.store.storage.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// List gives a Status for each certificate file, then for each certificate in the storage and each name of the configuration that has none,
// by name, then for the local CA. What cannot be read has a LastError. Beside an error, which is the storage's, stands what was found elsewhere.
func (s *Stored) List(ctx context.Context) ([]Status, error) {
	all := s.files()
	obtained, err := s.obtained(ctx)
	return slices.Concat(all, obtained, s.local()), err
}

func (s *Stored) files() []Status {
	var all []Status
	for i, f := range s.config.Certificates {
		cert, err := f.load(fmt.Sprintf("tls.certificates[%d]", i))
		if err != nil {
			all = append(all, Status{Name: f.Cert, Source: SourceFile, LastError: oneLine(err)})
			continue
		}
		all = append(all, source{cert: cert, file: f.Cert}.status(SourceFile))
	}
	return all
}

func (s *Stored) obtained(ctx context.Context) ([]Status, error) {
	var all []Status
	var err error
	if s.store != nil {
		all, err = s.store.List(ctx)
	}
	for _, d := range s.config.ACME.Domains {
		name, bad := normal(d)
		if bad == nil && !slices.ContainsFunc(all, func(st Status) bool { return st.Name == name }) {
			all = append(all, Status{Name: name, Source: SourceACME})
		}
	}
	return all, err
}

// local describes the local CA itself: what it issues is kept in memory alone.
func (s *Stored) local() []Status {
	if s.stateDir == "" {
		return nil
	}
	path := filepath.Join(s.stateDir, caFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ca := &authority{file: path}
	if err == nil {
		err = ca.parse(data)
	}
	if err != nil {
		return []Status{{Name: path, Source: SourceLocal, LastError: oneLine(err)}}
	}
	leaf := ca.cert
	return []Status{{
		Name: leaf.Subject.CommonName, Source: SourceLocal, Issuer: issuerOf(leaf), KeyType: keyType(leaf.PublicKey),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}}
}

// Export gives the certificate of a name, with its chain, and its key, both in PEM: that of a file, if one covers it, else an obtained one. Of several of those
// the one that is good for longest is given, an ECDSA one before an RSA one. The error is ErrUnknownName where there is none.
func (s *Stored) Export(ctx context.Context, name string) (certPEM, keyPEM []byte, err error) {
	name, err = normal(name)
	if err != nil {
		return nil, nil, err
	}
	pairs, _ := loadPairs(s.config.Certificates) // what cannot be read is not what was asked for, or List says it
	var sources []source
	for _, p := range pairs {
		sources = append(sources, p.source())
	}
	if found := newTable(sources).find(name); found != nil {
		return pemOf(name, found[0])
	}
	if s.store == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
	}
	return s.store.Export(ctx, name)
}
