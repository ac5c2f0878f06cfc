package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/libdns/libdns"
	miekg "github.com/miekg/dns"
)

// acmeDNS sets the records of an acme-dns server, which serves nothing but those. It keeps the two latest values of an
// account, as a domain and its wildcard need, and knows no removal.
type acmeDNS struct {
	config ACMEDNS
	api    *api
}

// An account is what acme-dns answers to a registration.
type account struct {
	Username   string `json:"username"`
	Password   string `json:"password"`
	Subdomain  string `json:"subdomain"`
	FullDomain string `json:"fulldomain"`
}

const challengeLabel = "_acme-challenge."

func newACMEDNS(c Config) (*acmeDNS, error) {
	a, err := newAPI(c.ACMEDNS.CAFile, c.Timeout)
	if err != nil {
		return nil, fmt.Errorf("acme_dns.%w", err)
	}
	return &acmeDNS{config: c.ACMEDNS, api: a}, nil
}

// account reads the account of the domain that fqdn is the challenge name of.
func (p *acmeDNS) account(fqdn string) (account, error) {
	domain := host(strings.TrimPrefix(fqdn, challengeLabel))
	// It becomes a file's name.
	if _, ok := miekg.IsDomainName(domain); !ok || strings.ContainsAny(domain, `/\:`) || strings.HasPrefix(domain, ".") || domain == "" {
		return account{}, fmt.Errorf("%q is no domain name", domain)
	}
	path := filepath.Join(p.config.Accounts, domain+".json")
	data, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return account{}, fmt.Errorf("there is no acme-dns account for %s: make one with `curl -X POST %s/register > %s`, "+
			"and let %s%s be a CNAME to the fulldomain in it: %w", domain, p.server(), path, challengeLabel, domain, fs.ErrNotExist)
	}
	if err != nil {
		return account{}, fmt.Errorf("acme-dns account of %s: %w", domain, err)
	}
	a, err := parseAccount(data)
	if err != nil {
		return account{}, fmt.Errorf("acme-dns account %s: %w", path, err)
	}
	return a, nil
}

// parseAccount reads an account file. Its errors show nothing of it.
func parseAccount(data []byte) (account, error) {
	var a account
	if err := json.Unmarshal(data, &a); err != nil {
		return account{}, errors.New("is not the JSON that the server answered to /register")
	}
	for name, value := range map[string]string{
		"username": a.Username, "password": a.Password, "subdomain": a.Subdomain, "fulldomain": a.FullDomain,
	} {
		if value == "" || strings.ContainsAny(value, "\r\n\x00") {
			return account{}, fmt.Errorf("lacks %s: put the whole answer to /register into it", name)
		}
	}
	if _, ok := miekg.IsDomainName(a.FullDomain); !ok {
		return account{}, errors.New("has a fulldomain that is no domain name")
	}
	return a, nil
}

func (p *acmeDNS) server() string { return strings.TrimRight(p.config.Server, "/") }

// Delegate says where the record of name will appear, and thus where its CNAME must lead.
func (p *acmeDNS) Delegate(name string) (string, error) {
	a, err := p.account(fqdn(name))
	if err != nil {
		return "", err
	}
	return fqdn(a.FullDomain), nil
}

// Zone is name: which zone it is in matters to the server alone.
func (p *acmeDNS) Zone(_ context.Context, name string) (string, error) { return fqdn(name), nil }

// AppendRecords sets each record in the account of the domain it is for.
func (p *acmeDNS) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	wanted, err := records(zone, recs)
	if err != nil {
		return nil, err
	}
	for i, r := range wanted {
		if err := p.update(ctx, r); err != nil {
			return asTXT(recs[:i]), err
		}
	}
	return asTXT(recs), nil
}

func (p *acmeDNS) update(ctx context.Context, r record) error {
	a, err := p.account(r.fqdn)
	if err != nil {
		return err
	}
	header := http.Header{"X-Api-User": {a.Username}, "X-Api-Key": {a.Password}}
	body := struct {
		Subdomain string `json:"subdomain"`
		TXT       string `json:"txt"`
	}{a.Subdomain, r.value}
	answer, err := p.api.post(ctx, p.server()+"/update", header, body)
	var refused *statusError
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusUnauthorized:
		return fmt.Errorf("set the record of %s: %w: the account is unknown there, or may not be used from this host (allowfrom): register anew", host(r.fqdn), err)
	case err != nil:
		return fmt.Errorf("set the record of %s: %w", host(r.fqdn), err)
	}
	var set struct {
		TXT string `json:"txt"`
	}
	if json.Unmarshal(answer, &set) != nil || set.TXT != r.value {
		return fmt.Errorf("set the record of %s: %s/update answered %s instead of the value: see that acme_dns.server is an acme-dns API",
			host(r.fqdn), p.server(), excerpt(answer))
	}
	return nil
}

// DeleteRecords does nothing: the server drops old values by itself.
func (p *acmeDNS) DeleteRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	return asTXT(recs), nil
}
