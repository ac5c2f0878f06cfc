package certs

import (
	"context"
	"strings"
	"sync"
	"time"
)

// pollEvery is how often the certificate files are looked at. Watches on their directories would be woken by each log line written
// beside them, and see nothing on network file systems; a look at 10,000 pairs takes some 40 ms (BenchmarkPoll).
const pollEvery = 5 * time.Second

// Run takes up what changes in the files of the view in force, within seconds, obtains and renews certificates, renews what the local CA
// issued and changes the ticket keys every 24 hours. It ends with ctx, without an error. It must run once beside the listeners.
func (k *Keeper) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer k.dropCache()
	defer work.Wait()
	work.Go(func() { k.acme.run(ctx) })
	work.Go(func() { k.shareTickets(ctx) })
	work.Go(func() { k.stapler.run(ctx) })
	files := time.NewTicker(k.every)
	defer files.Stop()
	daily := time.NewTicker(ticketLife)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-files.C:
			k.poll()
		case <-daily.C:
			k.rotateTickets()
			k.renewLocal()
			k.warnInfos(k.view.Load())
			k.acme.warn()
		}
	}
}

// poll brings the view in force up to date with its files. It takes no lock: a file system that hangs must not hold up a reload.
func (k *Keeper) poll() {
	v := k.view.Load()
	if v == nil {
		return
	}
	var news []func()
	changed := false
	for _, p := range v.pairs {
		what, err := p.refresh()
		changed = changed || what == reloaded
		if what != unchanged {
			news = append(news, func() { k.report(p, what, err) })
		}
	}
	// Handshakes see the old table or the new one, never half of a renewal.
	if changed {
		v.rebuild()
	}
	// Last, so that what the log says is so.
	for _, say := range news {
		say()
	}
}

func (k *Keeper) report(p *pair, what fate, err error) {
	if what == rejected {
		k.metrics.rejected.Inc()
		k.log.Error("changed certificate not taken, the one before stays in force",
			"cert", p.files.Cert, "key", p.files.Key, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	k.metrics.reloaded.Inc()
	info := p.source().info()
	k.log.Info("certificate reloaded", "cert", p.files.Cert, "key", p.files.Key,
		"names", first(info.Names), "not_after", info.NotAfter)
	k.warnInfo(info)
}

// renewLocal is in time once a day: a third of the certificates' life is left then.
func (k *Keeper) renewLocal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.view.Load()
	if v == nil || v.local == nil {
		return
	}
	renewed, err := v.local.renew(time.Now())
	if err != nil {
		k.log.Error("renew what the local CA issued", "error", err)
	}
	if renewed {
		v.rebuild()
	}
}
