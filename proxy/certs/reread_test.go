package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/certs/storage"
)

func clientKeyPEM(t *testing.T) (cert tls.Certificate, caPEM []byte) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{
		Subject: testIssuer().cert.Subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))
	leafKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert = tls.Certificate{
		Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, must(x509.ParseCertificate(der)), leafKey.Public(), key))}, PrivateKey: leafKey,
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestClientCAChangesOnReload: the same file with another CA in it lets others in from the reload on, and keeps out whom it let in, with a
// ticket of then, too.
func TestClientCAChangesOnReload(t *testing.T) {
	dir := t.TempDir()
	oldCert, oldPEM := clientKeyPEM(t)
	newCert, newPEM := clientKeyPEM(t)
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	c.ClientCA = ClientCA{File: filepath.Join(dir, "clients.pem"), Mode: "require"}
	write(t, c.ClientCA.File, oldPEM)
	k := New("", nil, nil)
	v := prepare(t, k, c)
	with := func(cert tls.Certificate, cache tls.ClientSessionCache) *tls.Config {
		cl := client("mail.example.org")
		cl.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		cl.ClientSessionCache = cache
		return cl
	}
	cache := tls.NewLRUClientSessionCache(1)
	for _, want := range []bool{false, true} {
		if cs, err := shakeOverTCP(t, v.TLS("pop3s"), with(oldCert, cache)); err != nil || cs.DidResume != want {
			t.Fatalf("%v, resumed: %v", err, cs.DidResume)
		}
	}
	write(t, c.ClientCA.File, newPEM)
	v = prepare(t, k, c)
	if cs, err := shakeOverTCP(t, v.TLS("pop3s"), with(oldCert, cache)); err == nil {
		t.Errorf("whom no CA vouches for any more is let in, resumed: %v", cs.DidResume)
	}
	if _, err := shakeOverTCP(t, v.TLS("pop3s"), with(newCert, nil)); err != nil {
		t.Errorf("the new CA's client: %v", err)
	}
	write(t, c.ClientCA.File, []byte("nothing"))
	if _, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
		t.Error("a damaged file was taken")
	}
}

// TestKeyFilesChangeOnReload: other contents at the same path are seen, those of external accounts and of the storage's encryption.
func TestKeyFilesChangeOnReload(t *testing.T) {
	dir := t.TempDir()
	eab, key := filepath.Join(dir, "eab"), filepath.Join(dir, "storage.key")
	write(t, eab, []byte("Zmlyc3Q"))
	write(t, key, []byte(base64.StdEncoding.EncodeToString([]byte("first key, which has 32 bytes..."))))
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Issuers = []Issuer{{ExternalAccount: ExternalAccount{KeyID: "1", HMACKeyFile: eab}}}
	c.ACME.Storage.EncryptionKeyFiles = []string{key}
	k := New(dir, nil, nil)
	first := prepare(t, k, c)
	if err := first.acme.store.storage.Store(t.Context(), "a", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if same := prepare(t, k, c); same.acme.depot != first.acme.depot {
		t.Error("the storage is opened anew though nothing changed")
	}
	write(t, eab, []byte("c2Vjb25k"))
	write(t, key, []byte(base64.StdEncoding.EncodeToString([]byte("second key, it has 32 bytes too!"))))
	second := prepare(t, k, c)
	if got := second.acme.issuers[0].eab.MACKey; got != "c2Vjb25k" {
		t.Errorf("the external account's key is %s", got)
	}
	if _, err := second.acme.store.storage.Load(t.Context(), "a"); !errors.Is(err, storage.ErrUnreadable) {
		t.Errorf("got %v, want the record to be another key's", err)
	}
	write(t, key, []byte("too short"))
	if _, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
		t.Error("a damaged key was taken")
	}
}

// TestKeyFileAlone: a key file that is written anew with the same key, or for a moment with another one, changes nothing that clients see.
func TestKeyFileAlone(t *testing.T) {
	dir := t.TempDir()
	f := issueFiles(t, dir, "mail", "mail.example.org")
	_, strange := pemPair(nil, nil, "mail.example.org")
	log, logger := newLog()
	k := New("", logger, nil)
	v := prepare(t, k, withFiles(f))
	_, good := must(f.load("x")), must(readKey("x", f.Key))
	before := served(t, v.TLS("pop3s"), client("mail.example.org"))
	write(t, f.Key, strange)
	k.poll()
	k.poll()
	log.wait(t, "changed certificate not taken")
	if got := served(t, v.TLS("pop3s"), client("mail.example.org")); got != before {
		t.Error("another certificate is served")
	}
	if _, err := k.Prepare(withFiles(f), nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
		t.Error("a key that does not fit was taken on a reload")
	}
	write(t, f.Key, good)
	k.poll()
	log.wait(t, "certificate reloaded")
	if got := served(t, v.TLS("pop3s"), client("mail.example.org")); got != before {
		t.Error("another certificate is served")
	}
}
