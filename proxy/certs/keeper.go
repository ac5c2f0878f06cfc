package certs

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Keeper keeps what outlives a reload: the view in force, the local CA's place and the ticket keys. Its
// methods may be called at once, except that reloads (Prepare, then Use) come one after another.
type Keeper struct {
	stateDir string
	log      *slog.Logger
	metrics  *metrics
	every    time.Duration // pollEvery; tests that are about days look less often

	view atomic.Pointer[View] // nil before the first Use

	mu      sync.Mutex          // guards tickets, and what the local CA has issued for the view in force
	tickets map[string]*tickets // by listener
}

// New makes a Keeper whose local CA, should one be needed, lives in stateDir. A nil log discards, a nil reg registers
// nothing. New opens nothing and starts nothing.
func New(stateDir string, log *slog.Logger, reg prometheus.Registerer) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{stateDir: stateDir, log: log, every: pollEvery}
	k.metrics = newMetrics(reg, k)
	return k
}

// Prepare reads the certificate files of c anew and makes the configs of the listeners ls. Without files it opens the local
// CA (making it in the state directory the first time) and issues for names and the listeners' default names, or,
// where there are neither, for this host's name and localhost. What runs is not touched until Use. The error joins
// a *Problem for each fault.
func (k *Keeper) Prepare(c Config, names []string, ls []Listener, deps Deps) (*View, error) {
	v := &View{listeners: ls, deps: deps}
	var err error
	if len(c.Certificates) > 0 {
		v.pairs, err = loadPairs(c.Certificates)
	} else {
		v.local, err = k.prepareLocal(names, ls)
	}
	if err != nil {
		return nil, err
	}
	v.rebuild()
	// New ticket keys stay with the view until Use, so that a view nobody uses leaves nothing behind.
	v.tickets = k.ticketsFor(ls)
	v.configure(c.minVersion())
	return v, nil
}

func (k *Keeper) prepareLocal(names []string, ls []Listener) (*local, error) {
	names, err := localNames(names, ls)
	if err != nil {
		return nil, err
	}
	ca, err := openAuthority(k.stateDir)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// Under the lock, since Run may be renewing what we take over.
	var earlier *local
	if v := k.view.Load(); v != nil {
		earlier = v.local
	}
	l, err := issueLocal(ca, names, earlier)
	if err != nil {
		return nil, &Problem{Key: "tls", Problem: err.Error(), Err: err}
	}
	return l, nil
}

// ticketsFor gives each listener the ticket keys it has, or new ones.
func (k *Keeper) ticketsFor(ls []Listener) map[string]*tickets {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]*tickets, len(ls))
	for _, l := range ls {
		if all[l.Name] = k.tickets[l.Name]; all[l.Name] == nil {
			all[l.Name] = newTickets()
		}
	}
	return all
}

// Use puts v in force: Run follows its files from now on, and the metrics show it. The log gets what an operator should
// know of v. The configs of earlier views go on working, with the certificates they last had and the current ticket keys.
func (k *Keeper) Use(v *View) {
	k.mu.Lock()
	k.view.Store(v)
	k.tickets = v.tickets
	k.mu.Unlock()
	k.announce(v)
}

func (k *Keeper) rotateTickets() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tickets {
		t.rotate()
	}
}

// announce says what an operator should know of a view that comes into force.
func (k *Keeper) announce(v *View) {
	t := v.table.Load()
	if v.local != nil {
		names := t.infos[0].Names
		k.log.Warn("no certificates configured: a local CA issues them, and mail clients will not trust it by themselves; "+
			"for certificates that every client trusts list yours under tls.certificates, or import the CA file into the clients",
			"ca_file", v.local.ca.file, "ca_expires", v.local.ca.cert.NotAfter, "names", first(names))
	}
	k.warnInfos(v)
	for _, l := range v.listeners {
		if name, _ := normal(l.DefaultName); l.DefaultName != "" && t.find(name) == nil {
			k.log.Warn("no certificate covers the listener's default_name: clients that name no server get the first certificate listed",
				"listener", l.Name, "default_name", l.DefaultName)
		}
	}
}

// warnInfos is repeated while popgate runs: a renewal that stopped working is noticed by nothing else in time.
func (k *Keeper) warnInfos(v *View) {
	if v == nil || v.local != nil {
		return
	}
	for _, info := range v.table.Load().infos {
		k.warnInfo(info)
	}
}

func (k *Keeper) warnInfo(info Info) {
	now, left := time.Now(), time.Until(info.NotAfter)
	switch {
	case left < 0:
		k.log.Warn("certificate has expired, clients will refuse it: renew it, the new file is taken by itself",
			"cert", info.File, "not_after", info.NotAfter)
	// Renewals come with a third of the life left; half of that late is a fault, for certificates of six days too.
	case left < info.NotAfter.Sub(info.NotBefore)/6:
		k.log.Warn("certificate expires soon and was not renewed: see what should renew it",
			"cert", info.File, "not_after", info.NotAfter)
	case now.Before(info.NotBefore):
		k.log.Warn("certificate is not valid yet: see that this host's clock is right", "cert", info.File, "not_before", info.NotBefore)
	}
	if len(info.Names) == 0 {
		k.log.Warn("certificate names no server: clients will refuse it", "cert", info.File)
	}
}

// first keeps a log line short where a certificate has many names.
func first(names []string) []string { return names[:min(len(names), 10)] }
