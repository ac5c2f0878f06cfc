package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/popgate/popgate/proxy/certs/dns"
)

// maxFile is far above any chain; it keeps a wrong path from being read into memory.
const maxFile = 1 << 20

// Check reads the files c names, as Prepare does, but makes nothing, asks nobody and touches no state_dir: it is for
// `popgate check`. It reports what the readable certificates cover and, as joined *Problem, what is wrong with the others.
func Check(c Config) ([]Info, error) {
	pairs, err := loadPairs(c.Certificates)
	err = errors.Join(err, c.ACME.checkFiles(), c.ClientCA.checkFile())
	infos := make([]Info, 0, len(pairs))
	for _, p := range pairs {
		infos = append(infos, p.source().info())
	}
	return infos, err
}

func (a ACME) checkFiles() error {
	if !a.on() {
		return nil
	}
	var problems []error
	for n, iss := range a.Issuers {
		at := fmt.Sprintf("tls.acme.issuers[%d]", n)
		if iss.CARoot != "" {
			_, err := readPool(at+".ca_root", iss.CARoot)
			problems = append(problems, err)
		}
		_, err := readExternalAccount(at+".external_account.hmac_key_file", iss.ExternalAccount)
		problems = append(problems, err)
	}
	if a.DNS.Enabled() {
		if _, err := dns.NewSolver(a.DNS, nil); err != nil {
			problems = append(problems, &Problem{Key: "tls.acme.dns", Problem: err.Error(), Err: err})
		}
	}
	return errors.Join(problems...)
}

func (c ClientCA) checkFile() error {
	if !c.on() {
		return nil
	}
	_, err := readPool("tls.client_ca.file", c.File)
	return err
}

// loadPairs gives the pairs that are good, in their order, and a Problem for each fault in the others.
func loadPairs(files []Files) ([]*pair, error) {
	pairs := make([]*pair, 0, len(files))
	var faults []error
	for i, f := range files {
		p := &pair{at: fmt.Sprintf("tls.certificates[%d]", i), files: f}
		// Before reading, as in refresh: a change while we read must show later.
		p.stamp = f.stat()
		cert, err := p.files.load(p.at)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		p.cert = cert
		pairs = append(pairs, p)
	}
	return pairs, errors.Join(faults...)
}

// load reads both files and gives the certificate once it and the key fit each other.
func (f Files) load(at string) (*tls.Certificate, error) {
	// Both files are read whatever the first is like: an operator wants to hear of all faults at once.
	certPEM, certErr := readCert(at+".cert", f.Cert)
	keyPEM, keyErr := readKey(at+".key", f.Key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, f.misfit(at, certPEM, keyPEM, err)
	}
	return &cert, nil
}

// misfit says why two files, each good by itself, are no pair.
func (f Files) misfit(at string, certPEM, keyPEM []byte, cause error) error {
	// Bundles made by `cat ca.pem mail.pem` are the usual reason; crypto/tls only says that the key does not match.
	for n, der := range pemBlocks(certPEM, isCertBlock)[1:] {
		one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if _, err := tls.X509KeyPair(one, keyPEM); err == nil {
			return &Problem{Key: at + ".cert", Err: cause, Problem: fmt.Sprintf(
				"%s has the certificate that belongs to the key %s at place %d: put it first, the intermediate certificates after it",
				f.Cert, f.Key, n+2)}
		}
	}
	return &Problem{Key: at + ".key", Err: cause, Problem: fmt.Sprintf(
		"the key %s does not fit the certificate %s (%v): give the key this certificate was issued for",
		f.Key, f.Cert, cause)}
}

func readCert(key, path string) ([]byte, error) {
	data, err := readFile(key, path)
	if err != nil {
		return nil, err
	}
	certs := pemBlocks(data, isCertBlock)
	if len(certs) == 0 {
		return nil, &Problem{Key: key, Problem: path + " " + noCert(path, data)}
	}
	if _, err := x509.ParseCertificate(certs[0]); err != nil {
		return nil, &Problem{Key: key, Err: err, Problem: fmt.Sprintf(
			"%s holds a damaged certificate (%v): write it anew", path, err)}
	}
	return data, nil
}

func noCert(path string, data []byte) string {
	if len(pemBlocks(data, isKeyBlock)) > 0 {
		return "holds a private key and no certificate: are cert and key exchanged?"
	}
	if len(pemBlocks(data, func(b *pem.Block) bool { return strings.HasSuffix(b.Type, "CERTIFICATE REQUEST") })) > 0 {
		return "holds a request for a certificate: give the certificate that the CA made of it"
	}
	if _, err := x509.ParseCertificate(data); err == nil {
		return fmt.Sprintf("is in DER: convert it with `openssl x509 -inform der -in %s -out %s.pem`", path, path)
	}
	return "holds no PEM certificate: give a file with a BEGIN CERTIFICATE line"
}

func readKey(key, path string) ([]byte, error) {
	data, err := readFile(key, path)
	if err != nil {
		return nil, err
	}
	if len(pemBlocks(data, isKeyBlock)) == 0 {
		problem := "holds no PEM private key: give a file with a BEGIN PRIVATE KEY line"
		if len(pemBlocks(data, isCertBlock)) > 0 {
			problem = "holds a certificate and no private key: are cert and key exchanged?"
		}
		return nil, &Problem{Key: key, Problem: path + " " + problem}
	}
	// PKCS #8 says so in the block's type, the older OpenSSL format in a header (RFC 1421).
	locked := pemBlocks(data, func(b *pem.Block) bool {
		return b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED")
	})
	if len(locked) > 0 {
		return nil, &Problem{Key: key, Problem: fmt.Sprintf(
			"%s is locked with a passphrase, which nobody can type at start: unlock it with `openssl pkey -in %s -out %s.open`",
			path, path, path)}
	}
	return data, nil
}

// readFile reads a file that a person named; key is where they named it.
func readFile(key, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(key, path, err)
	}
	// Opening a FIFO would wait for a writer, and a device may never end.
	if info.IsDir() {
		return nil, &Problem{Key: key, Problem: path + " is a directory: write the path of the file in it"}
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, &Problem{Key: key, Problem: path + " is no ordinary file of up to 1 MiB: write the path of a PEM file"}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(key, path, err)
	}
	return data, nil
}

func unreadable(key, path string, err error) error {
	advice := "see that it can be read"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = "correct the path, or put the file there"
	case errors.Is(err, fs.ErrPermission):
		advice = fmt.Sprintf("let the user popgate runs as (uid %d) read it and enter its directory", os.Getuid())
	}
	return &Problem{Key: key, Err: err, Problem: fmt.Sprintf("read %s: %v: %s", path, cause(err), advice)}
}

// cause drops the operation and path that the caller names already.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

func isCertBlock(b *pem.Block) bool { return b.Type == "CERTIFICATE" }

func isKeyBlock(b *pem.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

// pemBlocks gives the contents of the blocks that want picks.
func pemBlocks(data []byte, want func(*pem.Block) bool) [][]byte {
	var found [][]byte
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return found
		}
		if want(b) {
			found = append(found, b.Bytes)
		}
	}
}
