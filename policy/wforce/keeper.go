package wforce

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Keeper keeps what outlives a reload: the reports that wait to be sent, and whether the server answers. It is made
// once; its methods may be called at once.
type Keeper struct {
	log     *slog.Logger
	metrics *metrics
	bad     complaints           // of answers that are none
	view    atomic.Pointer[View] // nil before the first Use
	reports reports
}

// New makes a Keeper that asks nobody. A nil log discards, a nil reg registers no metrics.
func New(log *slog.Logger, reg prometheus.Registerer) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{log: log, reports: reports{wake: make(chan struct{}, 1)}}
	k.metrics = newMetrics(reg, k.reports.len, func() bool { return k.Trouble() == nil })
	return k
}

// Prepare makes a View of c, which has passed Validate. It reads the files that c names, and connects to nothing: a
// server that is down shows when it is asked.
func (k *Keeper) Prepare(c Config) (*View, error) {
	v := &View{keeper: k, config: c}
	if c.URL == "" {
		return v, nil
	}
	var err error
	if v.nonce, err = readSecret("nonce_file", c.NonceFile); err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		if v.password, err = readSecret("password_file", c.PasswordFile); err != nil {
			return nil, err
		}
	}
	if c.APIKeyFile != "" {
		if v.apiKey, err = readSecret("api_key_file", c.APIKeyFile); err != nil {
			return nil, err
		}
	}
	t, err := c.tls()
	if err != nil {
		return nil, err
	}
	v.http = newHTTPClient(t)
	v.health = &health{}
	if old := k.view.Load(); old != nil && old.health != nil && old.config.URL == c.URL {
		v.health = old.health
	}
	return v, nil
}

// Use makes v the View that Trouble and the metrics show. Logins that began under an earlier one end under it, and so do
// their reports.
func (k *Keeper) Use(v *View) {
	if old := k.view.Swap(v); old != nil && old != v && old.http != nil {
		old.http.CloseIdleConnections()
	}
}

// Run sends the reports until ctx ends. Then it sends those that still wait, for as long as one may take, and returns:
// what is left then is lost. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	var senders sync.WaitGroup
	for range reportSenders {
		senders.Go(func() { k.send(ctx) })
	}
	senders.Wait()
	k.reports.close(k.metrics)
	if v := k.view.Load(); v != nil && v.http != nil {
		v.http.CloseIdleConnections()
	}
	return nil
}

// Trouble says why the server counts as down; nil when it does not, or nobody is to be asked.
func (k *Keeper) Trouble() error {
	v := k.view.Load()
	if v == nil || v.health == nil {
		return nil
	}
	if err := v.health.trouble(); err != nil {
		return fmt.Errorf("weakforced at %s does not answer: %w", v.config.where(), err)
	}
	return nil
}

// noted tells health, log and metrics how a call ended.
func (v *View) noted(command string, r result, err error, took time.Duration) {
	v.keeper.metrics.call(command, r, took)
	log, where := v.keeper.log, slog.String("url", v.config.where())
	switch r {
	case resultSilent:
		if v.health.silent(err, time.Now()) {
			log.Error("weakforced does not answer", where, slog.Any("error", err), slog.String("on_failure", string(v.config.OnFailure)))
		}
		return
	case resultBad:
		if v.keeper.bad.may() {
			log.Error("weakforced answers what is no answer", where, slog.String("command", command), slog.Any("error", err))
		}
	}
	if v.health.answered() {
		log.Info("weakforced answers again", where)
	}
}
