package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// orderTimeout ends an order that an issuer drags out. What DNS may take comes on top.
const orderTimeout = 5 * time.Minute

// issuer is one that may be asked for certificates.
type issuer struct {
	kit
	conf  Issuer
	label string // for metrics, logs and events: its host
	acme  *certmagic.ACMEIssuer
	trust *x509.CertPool // nil is the system's
	eab   *acme.EAB      // nil for none
	// timeout ends an order.
	timeout time.Duration

	mu      sync.Mutex
	configs map[manner]*certmagic.Config // made when first needed

	caaMu    sync.Mutex
	caa      []string // the names by which CAA records call it
	caaUntil time.Time

	hearing hearing
}

// manner is what may differ between two orders of one issuer.
type manner struct {
	rsa                     bool // for the second certificate of a name
	withoutHTTP, without443 bool // where nobody of us could answer
	unrelated               bool // without a word of the certificate that it replaces
}

// unrelatedIssuer does not tell the issuer which certificate an order replaces (RFC 9773, 5): certmagic does that only for its own type.
type unrelatedIssuer struct{ *certmagic.ACMEIssuer }

// kit is what the issuers of one view have in common.
type kit struct {
	cache   *certmagic.Cache
	storage certmagic.Storage
	section ACME
	dns     acmez.Solver // nil without tls.acme.dns
	log     *zap.Logger
}

// newIssuer reads the files that conf names. It asks nobody.
func (k kit) newIssuer(conf Issuer, at string) (*issuer, error) {
	i := &issuer{kit: k, conf: conf, label: conf.CA, timeout: orderTimeout, configs: make(map[manner]*certmagic.Config)}
	if k.dns != nil {
		i.timeout += k.section.DNS.Longest()
	}
	if u, err := url.Parse(conf.CA); err == nil && u.Host != "" {
		i.label = u.Host
	}
	var problems []error
	if conf.CARoot != "" {
		pool, err := readPool(at+".ca_root", conf.CARoot)
		problems = append(problems, err)
		i.trust = pool
	}
	eab, err := readExternalAccount(at+".external_account.hmac_key_file", conf.ExternalAccount)
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	i.eab = eab
	i.acme = i.configFor(manner{}).Issuers[0].(*certmagic.ACMEIssuer)
	return i, nil
}

// configFor gives certmagic's config for an order.
func (i *issuer) configFor(a manner) *certmagic.Config {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.configs[a]; c != nil {
		return c
	}
	c := i.config(i.conf.Key, i.storage)
	if a.rsa {
		c = i.config(keyRSA2048, rsaStorage{i.storage})
	}
	t := i.template(i.conf, i.trust, i.eab)
	t.DisableHTTPChallenge = t.DisableHTTPChallenge || a.withoutHTTP
	t.DisableTLSALPNChallenge = t.DisableTLSALPNChallenge || a.without443
	var made certmagic.Issuer = certmagic.NewACMEIssuer(c, t)
	if a.unrelated {
		made = unrelatedIssuer{made.(*certmagic.ACMEIssuer)}
	}
	c.Issuers = []certmagic.Issuer{made}
	i.configs[a] = c
	return c
}

// config makes a config of certmagic's that orders with keys of a kind. Its cache stays empty: handshakes and renewals are this
// package's.
func (k kit) config(key string, storage certmagic.Storage) *certmagic.Config {
	kinds := map[string]certmagic.KeyType{keyP256: certmagic.P256, keyP384: certmagic.P384, keyRSA2048: certmagic.RSA2048}
	return certmagic.New(k.cache, certmagic.Config{
		Storage:   storage,
		Logger:    k.log,
		KeySource: certmagic.StandardKeyGenerator{KeyType: kinds[key]},
		OCSP:      certmagic.OCSPConfig{DisableStapling: true}, // see staple
		OnEvent:   onEvent,
		// The one for each handshake is built whether anybody looks or not.
		ShouldEmitFunc: func(event string) bool { return event == "cert_failed" },
		Issuers:        []certmagic.Issuer{}, // or a default one would be made
	})
}

func (k kit) template(conf Issuer, trust *x509.CertPool, eab *acme.EAB) certmagic.ACMEIssuer {
	t := certmagic.ACMEIssuer{
		CA:                      conf.CA,
		Email:                   conf.Email,
		Agreed:                  true, // Validate has seen it
		ExternalAccount:         eab,
		Profile:                 conf.Profile,
		DisableHTTPChallenge:    k.section.HTTPAddress == "",
		DisableTLSALPNChallenge: k.section.TLSALPNAddress == "",
		TrustedRoots:            trust,
		DNS01Solver:             k.dns,
		CertObtainTimeout:       k.patience(),
		Logger:                  k.log,
	}
	// certmagic looks whether these are held before it counts on who answers there.
	t.ListenHost, t.AltHTTPPort = hostPort(k.section.HTTPAddress)
	if host, port := hostPort(k.section.TLSALPNAddress); port != 0 {
		t.AltTLSALPNPort = port
		if t.AltHTTPPort == 0 {
			t.ListenHost = host
		}
	}
	return t
}

// patience is how long one order may take. It covers the wait until a challenge's record is seen, which takes minutes with many
// DNS servers: an order that ends before it would fail each time.
func (k kit) patience() time.Duration {
	const order = 90 * time.Second
	if k.dns == nil {
		return order
	}
	return order + k.section.DNS.Longest()
}

func hostPort(address string) (string, int) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return host, 0
	}
	return host, n
}

func readPool(key, path string) (*x509.CertPool, error) {
	data, err := readFile(key, path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, &Problem{Key: key, Problem: path + " " + noCert(path, data)}
	}
	return pool, nil
}

func readExternalAccount(key string, e ExternalAccount) (*acme.EAB, error) {
	if e.KeyID == "" {
		return nil, nil
	}
	data, err := readFile(key, e.HMACKeyFile)
	if err != nil {
		return nil, err
	}
	mac := strings.TrimRight(strings.TrimSpace(string(data)), "=")
	if _, err := base64.RawURLEncoding.DecodeString(mac); err != nil || mac == "" {
		return nil, &Problem{Key: key, Err: err, Problem: e.HMACKeyFile + " holds no key in base64url: write it as the issuer gave it"}
	}
	return &acme.EAB{KeyID: e.KeyID, MACKey: mac}, nil
}

// An attempt is one order of one issuer. It goes with the context of certmagic's calls.
type attempt struct {
	end context.CancelFunc
	err error
}

type attemptKey struct{}

// onEvent takes the cause of a failure, and ends certmagic's own retries, which would hold the name's lock for weeks.
func onEvent(ctx context.Context, event string, data map[string]any) error {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok || event != "cert_failed" {
		return nil
	}
	a.err, _ = data["error"].(error)
	a.end()
	return nil
}

// order has the issuer make a certificate for a name, once, and puts it into the storage. It is done as well where the storage has one
// that needs no renewal, unless force is set.
func (i *issuer) order(ctx context.Context, how manner, name string, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	a := &attempt{end: cancel}
	ctx = context.WithValue(ctx, attemptKey{}, a)
	// It obtains what is not there yet. RenewCertSync would ask a person at the terminal where no email is set.
	err := i.configFor(how).RenewCertAsync(ctx, name, force)
	if a.err != nil {
		err = a.err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("order a certificate for %s from %s: %w", name, i.label, err)
}

// aboutPast says whether an order may have failed for the certificate that it was to replace: an issuer that does not know that one,
// or not by this account, may refuse each order that names it, until it runs out. What came of a validation, and a limit, are about the order itself.
func aboutPast(err error) bool {
	var problem acme.Problem
	if !errors.As(err, &problem) || problem.Type == acme.ProblemTypeRateLimited {
		return false
	}
	_, validation := problem.Resource.(acme.Authorization)
	return !validation
}

// caaNames are the names by which CAA records allow the issuer, as its directory has them; none where it does not say.
func (i *issuer) caaNames(ctx context.Context) []string {
	i.caaMu.Lock() // one asks for all
	defer i.caaMu.Unlock()
	if time.Now().Before(i.caaUntil) {
		return i.caa
	}
	names, err := i.askCAA(ctx)
	// The issuer will look at CAA itself: that it cannot be asked now is no reason to keep asking.
	i.caaUntil = time.Now().Add(time.Minute)
	if err == nil {
		i.caa, i.caaUntil = names, time.Now().Add(12*time.Hour)
	}
	return i.caa
}

func (i *issuer) askCAA(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.conf.CA, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: i.trust}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var dir acme.Directory
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&dir); err != nil {
		return nil, err
	}
	if dir.Meta == nil {
		return nil, nil
	}
	return dir.Meta.CAAIdentities, nil
}

// rsaStorage keeps second certificates apart from the first ones of the same names.
type rsaStorage struct{ certmagic.Storage }

// Store, Load, Delete, Exists and Stat are the storage's, with certificates elsewhere. certmagic lists only what it cleans, and
// cleaning is not left to it.

// Store is the storage's.
func (s rsaStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.Storage.Store(ctx, rsaKey(key), value)
}

// Load is the storage's.
func (s rsaStorage) Load(ctx context.Context, key string) ([]byte, error) {
	return s.Storage.Load(ctx, rsaKey(key))
}

// Delete is the storage's.
func (s rsaStorage) Delete(ctx context.Context, key string) error {
	return s.Storage.Delete(ctx, rsaKey(key))
}

// Exists is the storage's.
func (s rsaStorage) Exists(ctx context.Context, key string) bool {
	return s.Storage.Exists(ctx, rsaKey(key))
}

// Stat is the storage's.
func (s rsaStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	return s.Storage.Stat(ctx, rsaKey(key))
}
