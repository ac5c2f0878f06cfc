package dns

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/libdns/libdns"
)

// webhook asks a service of the operator's to change the DNS.
type webhook struct {
	config Webhook
	api    *api
	ttl    time.Duration
}

func newWebhook(c Config) (*webhook, error) {
	a, err := newAPI(c.Webhook.CAFile, c.Timeout)
	if err != nil {
		return nil, fmt.Errorf("webhook.%w", err)
	}
	p := &webhook{config: c.Webhook, api: a, ttl: c.TTL}
	if _, err := p.header(); err != nil {
		return nil, err
	}
	return p, nil
}

// header is made at each use: a token may be exchanged while popgate runs.
func (p *webhook) header() (http.Header, error) {
	h := http.Header{}
	if p.config.TokenFile == "" {
		return h, nil
	}
	token, err := readSecret(p.config.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("webhook.token_file: %w", err)
	}
	for _, b := range token {
		if b <= ' ' || b > '~' {
			return nil, fmt.Errorf("webhook.token_file %s holds more than one token of letters, digits and signs", p.config.TokenFile)
		}
	}
	h.Set("Authorization", "Bearer "+string(token))
	return h, nil
}

// Zone is name: which zone it is in matters to the service alone.
func (p *webhook) Zone(_ context.Context, name string) (string, error) { return fqdn(name), nil }

// AppendRecords posts action present for each record.
func (p *webhook) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, "present", zone, recs)
}

// DeleteRecords posts action cleanup for each record.
func (p *webhook) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, "cleanup", zone, recs)
}

func (p *webhook) change(ctx context.Context, action, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	wanted, err := records(zone, recs)
	if err != nil {
		return nil, err
	}
	header, err := p.header()
	if err != nil {
		return nil, err
	}
	for i, r := range wanted {
		body := struct {
			Action string `json:"action"`
			FQDN   string `json:"fqdn"`
			Value  string `json:"value"`
			TTL    int    `json:"ttl"`
		}{action, r.fqdn, r.value, int(p.ttl / time.Second)}
		if _, err := p.api.post(ctx, p.config.URL, header, body); err != nil {
			return asTXT(recs[:i]), fmt.Errorf("%s the record of %s by webhook: %w", action, host(r.fqdn), err)
		}
	}
	return asTXT(recs), nil
}
