package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const (
	caFile    = "local-ca.crt"
	caKeyFile = "local-ca.key"

	caLife = 10 * 365 * 24 * time.Hour
	// leafLife: Apple's clients refuse more than 397 days, and renewing is free here.
	leafLife = 90 * 24 * time.Hour
	// backdate lets clients whose clock is a little behind take a fresh certificate.
	backdate = time.Hour
)

// authority is the local CA: it signs for the configured names where there are no certificate files.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	file string
}

// openAuthority reads the CA kept in dir, and makes it where there is none. Several processes may do so at once: they end
// up with the same CA.
func openAuthority(dir string) (*authority, error) {
	if dir == "" {
		return nil, &Problem{Key: "state_dir", Problem: "is not set, and without certificates popgate needs a place for its local CA: " +
			"set state_dir, or list certificates under tls"}
	}
	key, err := openKey(dir)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, file: filepath.Join(dir, caFile)}
	data, err := os.ReadFile(a.file)
	// Key first, certificate second: a crash between the two leaves a key, which the next start goes on with.
	if errors.Is(err, fs.ErrNotExist) {
		data, err = a.sign(dir)
	}
	if err != nil {
		return nil, unusable(a.file, err)
	}
	return a, a.accept(data)
}

// openKey reads the CA's key, and makes it where neither it nor a CA certificate is there yet.
func openKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, caKeyFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, made := os.Stat(filepath.Join(dir, caFile)); made != nil {
			data, err = makeKey(dir)
		} else if data, err = os.ReadFile(path); errors.Is(err, fs.ErrNotExist) { // read again: another process may have made both since
			// A new key would leave clients trusting a CA that signs nothing any more; that is for the operator to decide.
			return nil, &Problem{Key: "state_dir", Err: err, Problem: fmt.Sprintf(
				"the local CA %s has lost its key %s: restore the key, or remove the certificate so that popgate makes a new CA",
				filepath.Join(dir, caFile), path)}
		}
	}
	if err != nil {
		return nil, unusable(path, err)
	}
	if blocks := pemBlocks(data, isKeyBlock); len(blocks) > 0 {
		if key, err := x509.ParsePKCS8PrivateKey(blocks[0]); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, &Problem{Key: "state_dir", Problem: fmt.Sprintf(
		"%s is damaged: restore it, or remove it and %s so that popgate makes a new CA", path, caFile)}
}

func makeKey(dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return create(filepath.Join(dir, caKeyFile), 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// sign makes the CA's own certificate. One made again from the same key (the file was lost) has the same subject
// and key id, so clients that trust the earlier one go on trusting what the CA issues.
func (a *authority) sign(dir string) ([]byte, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"popgate"}, CommonName: short("popgate local CA " + host)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs servers, never another CA
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, a.key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return create(filepath.Join(dir, caFile), 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// accept takes the CA certificate in data if it is one, belongs to the key and has not run out.
func (a *authority) accept(data []byte) error {
	if err := a.parse(data); err != nil {
		return err
	}
	if pub, ok := a.key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(a.cert.PublicKey) {
		return a.fault("does not belong to its key")
	}
	if !a.cert.IsCA {
		return a.fault("is no CA certificate")
	}
	if time.Now().After(a.cert.NotAfter) {
		return a.fault("expired on " + a.cert.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// parse takes the certificate in data.
func (a *authority) parse(data []byte) error {
	blocks := pemBlocks(data, isCertBlock)
	if len(blocks) == 0 {
		return a.fault("is damaged")
	}
	cert, err := x509.ParseCertificate(blocks[0])
	if err != nil {
		return a.fault("is damaged")
	}
	a.cert = cert
	return nil
}

func (a *authority) fault(what string) error {
	return &Problem{Key: "state_dir", Problem: fmt.Sprintf(
		"the local CA %s %s: restore it, or remove it and %s so that popgate makes a new CA", a.file, what, caKeyFile)}
}

// issue makes a certificate for names, which normal has written.
func (a *authority) issue(names []string) (*tls.Certificate, error) {
	now := time.Now()
	leaf := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"popgate"}, CommonName: short(names[0])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	// Some clients refuse a certificate that outlives its issuer.
	if leaf.NotAfter.After(a.cert.NotAfter) {
		leaf.NotAfter = a.cert.NotAfter
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			leaf.IPAddresses = append(leaf.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for %s: %w", names[0], err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", names[0], err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", names[0], err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, nil
}

// create writes a file that appears whole or not at all. If another process made it first, that one's content is given.
func create(path string, mode fs.FileMode, data []byte) ([]byte, error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	defer tmp.Close()
	// Not left to the umask, which may be wider or narrower.
	if err := tmp.Chmod(mode); err != nil {
		return nil, err
	}
	if _, err := tmp.Write(data); err != nil {
		return nil, err
	}
	if err := tmp.Sync(); err != nil {
		return nil, err
	}
	// A link, unlike a rename, never replaces a file that is there; some mounts have no links.
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return os.ReadFile(path)
	}
	if err != nil {
		err = os.Rename(tmp.Name(), path)
	}
	return data, err
}

// unusable says that the state directory cannot be used for path.
func unusable(path string, err error) error {
	return &Problem{Key: "state_dir", Err: err, Problem: fmt.Sprintf(
		"keep the local CA in %s: %v: let the user popgate runs as (uid %d) write %s, set state_dir to a directory where it may, "+
			"or list certificates under tls, which need none", path, err, os.Getuid(), filepath.Dir(path))}
}

// short cuts a common name to the 64 characters X.520 allows.
func short(name string) string { return name[:min(len(name), 64)] }
