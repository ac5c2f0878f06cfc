package certs

import (
	"crypto/tls"
	"fmt"
)

// Config is the `tls` section of the configuration file.
type Config struct {
	// The oldest TLS version clients may speak, in quotes: "1.2" or "1.3". Older ones than 1.2 are not offered.
	MinVersion string `yaml:"min_version"`
	// Certificate files and their keys. A client gets the first one that covers the name it asks for and that it can
	// use, so an ECDSA and an RSA certificate for one name can stand side by side. The files are looked at every 5 seconds:
	// a renewed certificate is used once it and its key fit each other. Without any, a local CA in state_dir issues
	// certificates for the configured names, which mail clients do not trust by themselves.
	Certificates []Files `yaml:"certificates"`
	// Certificates that popgate obtains and renews by itself. A name that `certificates` covers too is served from there.
	ACME ACME `yaml:"acme"`
	// Certificates that clients show. The subject of one goes to the audit.
	ClientCA ClientCA `yaml:"client_ca"`
}

// Files is one certificate and its private key, both in PEM. They may be the same file.
type Files struct {
	// The file with the certificate, followed by its intermediate certificates (often called fullchain.pem).
	Cert string `yaml:"cert"`
	// The file with the certificate's private key, without a passphrase (often called privkey.pem).
	Key string `yaml:"key"`
}

// DefaultConfig is what holds where the file says nothing: TLS 1.2 and newer, and the local CA.
func DefaultConfig() Config { return Config{MinVersion: "1.2", ACME: defaultACME()} }

// Validate reports what is wrong with c by itself, without opening any file; Check does that.
func (c Config) Validate(fault func(key, problem string)) {
	if c.MinVersion != "1.2" && c.MinVersion != "1.3" {
		fault("min_version", fmt.Sprintf(`%q is no TLS version that popgate offers: write "1.2" or "1.3"`, c.MinVersion))
	}
	c.ACME.validate(func(key, problem string) { fault("acme."+key, problem) })
	c.ClientCA.validate(func(key, problem string) { fault("client_ca."+key, problem) })
	seen := make(map[Files]int)
	for i, f := range c.Certificates {
		at := fmt.Sprintf("certificates[%d]", i)
		switch first, twice := seen[f]; {
		case f.Cert == "" && f.Key == "":
			fault(at, "names no files: write cert and key, or remove the entry")
		case f.Cert == "":
			fault(at+".cert", fmt.Sprintf("is missing: write the file that holds the certificate for the key %s", f.Key))
		case f.Key == "":
			fault(at+".key", fmt.Sprintf("is missing: write the file that holds the private key of %s", f.Cert))
		case twice:
			fault(at, fmt.Sprintf("is the same as certificates[%d]: remove one of them", first))
		}
		if _, twice := seen[f]; !twice {
			seen[f] = i
		}
	}
}

func (c Config) minVersion() uint16 {
	if c.MinVersion == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// Problem is one thing that keeps a Config from being used. Prepare and Check return one or more of them in
// an errors.Join; Problems takes them apart.
type Problem struct {
	Key     string // where in the configuration file, e.g. `tls.certificates[0].key` or `state_dir`
	Problem string // which file, what is wrong with it and what to do
	Err     error  // the cause, nil where the file itself is the cause
}

// Error is the key and the problem on one line.
func (p *Problem) Error() string { return p.Key + ": " + p.Problem }

// Unwrap gives the cause, such as fs.ErrNotExist.
func (p *Problem) Unwrap() error { return p.Err }

// Problems lists every Problem in err, in the order of the configuration.
func Problems(err error) []*Problem {
	if p, ok := err.(*Problem); ok {
		return []*Problem{p}
	}
	var all []*Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
	}
	return all
}
