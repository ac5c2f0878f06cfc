//go:build unix

package directory

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth/peers"
)

// A slapd is a real OpenLDAP, on a Unix socket.
type slapd struct {
	*peers.Daemon
	socket, passwordFile string
	ca                   string // the PEM file of the certificate that it and its proxies show, for 127.0.0.1
	tls                  *tls.Config
}

const adminDN = "cn=admin,dc=example,dc=org"

// slapdConf has attributes of our own, for the schemas of Debian's package know no booleans.
const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
attributetype ( 1.3.6.1.4.1.4203.666.1.901 NAME 'popBackend' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.4203.666.1.902 NAME 'popDisabled' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.1.903 NAME 'popNet' SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 1.3.6.1.4.1.4203.666.3.901 NAME 'popUser' SUP top AUXILIARY MAY ( popBackend $ popDisabled $ popNet ) )
database mdb
maxsize 16777216
suffix "dc=example,dc=org"
rootdn "` + adminDN + `"
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`

const slapdEntries = `dn: dc=example,dc=org
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: uid=full,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: popUser
uid: full
cn: full
sn: full
mail: full@example.org
popBackend: old
departmentNumber: 10.0.0.5
roomNumber: 1110
title: acme
popDisabled: TRUE
popNet: 10.0.0.0/8
popNet: 192.0.2.7
userPassword: right

dn: uid=bare,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bare
cn: bare
sn: bare
mail: bare@example.org
userPassword: right too

dn: uid=nopassword,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: nopassword
cn: nopassword
sn: nopassword
mail: nopassword@example.org

dn: uid=two,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: two
uid: zwei
cn: two
sn: two
mail: two@example.org
mail: three@example.org

dn: uid=three,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: three
cn: three
sn: three
mail: three@example.org

dn: cn=a\2Cb (c)*,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: (*)\
cn: a,b (c)*
sn: odd
mail: (*)\@example.org
userPassword: right

dn: ou=elsewhere,ou=people,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://127.0.0.1:1/ou=elsewhere,dc=example,dc=org
`

// newSlapd starts an OpenLDAP with entries. It ends with the test.
func newSlapd(t testing.TB) *slapd {
	t.Helper()
	path, add := peers.Program(t, "slapd", "slapd"), peers.Program(t, "slapadd", "slapd")
	dir, data := peers.Dir(t), peers.Dir(t)
	attr := peers.Nobody(t, dir, data)
	s := &slapd{socket: filepath.Join(dir, "s"), passwordFile: writeText(t, filepath.Join(dir, "secret"), realPassword+"\n")}
	s.ca, s.tls = testCertificate(t, dir)
	conf := writeText(t, filepath.Join(dir, "conf"), "TLSCertificateFile "+s.ca+"\nTLSCertificateKeyFile "+filepath.Join(dir, "key.pem")+"\n"+slapdConf+
		"rootpw \""+realPassword+"\"\ndirectory "+data+"\n")
	fill := exec.Command(add, "-f", conf, "-l", writeText(t, filepath.Join(dir, "ldif"), slapdEntries))
	fill.SysProcAttr, fill.Dir = attr, dir
	if out, err := fill.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	s.Daemon = &peers.Daemon{Start: func() *exec.Cmd {
		cmd := exec.Command(path, "-f", conf, "-h", "ldapi://"+strings.ReplaceAll(s.socket, "/", "%2F"), "-d", "0")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}, Ready: func() error {
		c, err := ldap.DialURL("ldapi://" + s.socket)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return c.Bind(adminDN, realPassword)
	}}
	s.Run(t)
	return s
}

// config searches for users by the given URLs.
func (s *slapd) config(urls ...string) LDAPConfig {
	c := defaultLDAP()
	c.URLs, c.BindDN, c.PasswordFile = urls, adminDN, s.passwordFile
	c.Base, c.Filter = "ou=people,dc=example,dc=org", "(&(objectClass=inetOrgPerson)(mail={user}))"
	c.Attributes = LDAPAttributes{Backend: "popBackend", Host: "departmentNumber", Port: "roomNumber", User: "UID", Tenant: "title",
		Disabled: "popDisabled", AllowNets: "popNet"}
	return c
}

// testCertificate writes a certificate for 127.0.0.1 that signs itself to cert.pem, and its key to key.pem.
func testCertificate(t testing.TB, dir string) (path string, config *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "popgate's test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	path = writeText(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return path, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
