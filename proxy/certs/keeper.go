package certs

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
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

	acme    *manager
	stapler *stapler

	mu      sync.Mutex          // guards what follows, and what the local CA has issued for the view in force
	tickets map[string]*tickets // by listener and what it asks of clients' certificates
	cache   *certmagic.Cache    // see emptyCache; nil as long as nobody needed it
}

// New makes a Keeper whose local CA, should one be needed, lives in stateDir. A nil log discards, a nil reg registers
// nothing. New opens nothing and starts nothing.
func New(stateDir string, log *slog.Logger, reg prometheus.Registerer) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{stateDir: stateDir, log: log, every: pollEvery}
	k.metrics = newMetrics(reg, k)
	k.acme = newManager(log, k.metrics.orders)
	k.stapler = newStapler(k)
	return k
}

// Prepare reads the certificate files of c anew and makes the configs of the listeners ls. Without files it opens the local
// CA (making it in the state directory the first time) and issues for names and the listeners' default names, or,
// where there are neither, for this host's name and localhost. What runs is not touched until Use. A view
// that will not be used is to be discarded. The error joins a *Problem for each fault.
func (k *Keeper) Prepare(c Config, names []string, ls []Listener, deps Deps) (*View, error) {
	v := &View{listeners: ls, keeper: k, post: deps.Post}
	err := errors.Join(k.prepareCerts(v, c, names, deps), v.prepareClients(c.ClientCA))
	if err != nil {
		v.Discard()
		return nil, err
	}
	v.rebuild()
	// New ticket keys stay with the view until Use, so that a view nobody uses leaves nothing behind.
	v.tickets = k.ticketsFor(v.ticketSets())
	v.configure(c.minVersion())
	return v, nil
}

// prepareCerts opens where v's certificates come from.
func (k *Keeper) prepareCerts(v *View, c Config, names []string, deps Deps) (err error) {
	var problems []error
	if len(c.Certificates) > 0 {
		v.pairs, err = loadPairs(c.Certificates)
		problems = append(problems, err)
	}
	if c.ACME.on() {
		if v.acme, err = k.prepareACME(c, deps); err == nil {
			names = slices.Concat(names, v.acme.ordered)
		}
		if v.acme != nil {
			v.depot = v.acme.depot
		}
		problems = append(problems, err)
	} else if c.ACME.Storage.Shared() {
		// Session ticket keys are shared whatever the certificates come from.
		v.depot, err = k.depotFor(c.ACME.Storage)
		problems = append(problems, err)
	}
	if len(c.Certificates) == 0 && !c.ACME.on() || c.ACME.on() && c.ACME.Missing == missingLocalCA {
		v.local, err = k.prepareLocal(names, v.listeners)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
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

// ticketsFor gives each set the ticket keys it has, or new ones.
func (k *Keeper) ticketsFor(sets []string) map[string]*tickets {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]*tickets, len(sets))
	for _, set := range sets {
		if all[set] = k.tickets[set]; all[set] == nil {
			all[set] = newTickets()
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
	k.acme.move(v.depot)
	k.acme.use(v.acme)
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
	if v.onlyLocal() {
		names := t.infos[0].Names
		k.log.Warn("no certificates configured: a local CA issues them, and mail clients will not trust it by themselves; "+
			"for certificates that every client trusts list yours under tls.certificates, or import the CA file into the clients",
			"ca_file", v.local.ca.file, "ca_expires", v.local.ca.cert.NotAfter, "names", first(names))
	}
	k.warnInfos(v)
	for _, l := range v.listeners {
		if name, _ := normal(l.DefaultName); l.DefaultName != "" && t.find(name) == nil && !v.acme.covers(name) {
			k.log.Warn("no certificate covers the listener's default_name: clients that name no server get the first certificate listed",
				"listener", l.Name, "default_name", l.DefaultName)
		}
		if l.Legacy && !v.hasRSA() {
			k.log.Warn("the legacy listener has no RSA certificate: most clients of its kind know no other; put an RSA certificate for its names "+
				"beside those in tls.certificates", "listener", l.Name)
		}
	}
}

// warnInfos is repeated while popgate runs: a renewal that stopped working is noticed by nothing else in time.
func (k *Keeper) warnInfos(v *View) {
	if v == nil || v.onlyLocal() {
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
	case info.overdue(now):
		k.log.Warn("certificate has used up two thirds of its life and was not renewed: see what should renew it",
			"cert", info.File, "not_after", info.NotAfter)
	case now.Before(info.NotBefore):
		k.log.Warn("certificate is not valid yet: see that this host's clock is right", "cert", info.File, "not_before", info.NotBefore)
	}
	if len(info.Names) == 0 {
		k.log.Warn("certificate names no server: clients will refuse it", "cert", info.File)
	}
}

// overdue says that a certificate should have been renewed.
func (i Info) overdue(now time.Time) bool {
	at := i.late
	if at.IsZero() {
		at = renewAt(i.NotBefore, i.NotAfter).Add(grace(i.NotBefore, i.NotAfter))
	}
	return now.After(at)
}

// grace is a little more, for who renews just then.
func grace(from, to time.Time) time.Duration { return to.Sub(from) / 50 }

// first keeps a log line short where a certificate has many names.
func first(names []string) []string { return names[:min(len(names), 10)] }
