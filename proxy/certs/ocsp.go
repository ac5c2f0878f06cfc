package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/popgate/popgate/policy/audit"
)

const (
	// ocspTimeout ends a question that a responder drags out.
	ocspTimeout = 10 * time.Second
	// ocspAsked is how many responders are asked at once.
	ocspAsked = 4
	// A responder that failed is asked again after ocspRetry, later each time, up to ocspRetryMost.
	ocspRetry, ocspRetryMost = 5 * time.Minute, time.Hour
	// ocspEndless is how long an answer is shown that does not say when it ends.
	ocspEndless = 12 * time.Hour
)

// stapler keeps what OCSP responders say of the certificates in force, from files or obtained, the second ones of a name too. Those that name no
// responder, as all of Let's Encrypt's, have nobody to ask and cost nothing. Handshakes look into a map that is never changed; the asking is
// done in the background, and nothing waits for it.
type stapler struct {
	k      *Keeper
	log    *slog.Logger
	client *http.Client
	now    atomic.Pointer[map[string]*staple] // by the certificate's signature, which no two have in common
}

// staple is what a responder said last of a certificate. It is never changed.
type staple struct {
	raw      []byte    // nil where there is no good answer
	until    time.Time // when raw ends; it is not shown any more then
	next     time.Time // when to ask again
	failures int       // in a row
	revoked  bool
}

func newStapler(k *Keeper) *stapler {
	s := &stapler{k: k, log: k.log, client: http.DefaultClient}
	s.now.Store(&map[string]*staple{})
	return s
}

// dress gives cert with its responder's answer, if there is one that holds, and cert itself otherwise. It takes nil too.
func (s *stapler) dress(cert *tls.Certificate) *tls.Certificate {
	if cert == nil || cert.Leaf == nil || len(cert.Leaf.OCSPServer) == 0 {
		return cert
	}
	st := (*s.now.Load())[string(cert.Leaf.Signature)]
	if st == nil || st.raw == nil || !time.Now().Before(st.until) {
		return cert
	}
	dressed := *cert
	dressed.OCSPStaple = st.raw
	return &dressed
}

// subject is a certificate in force that names a responder.
type subject struct {
	cert *tls.Certificate
	file string   // where it is from, or:
	name *managed // whose it is
	site *site
}

func (o subject) responder() string { return o.cert.Leaf.OCSPServer[0] }

// called is what people know it by.
func (o subject) called() string {
	if o.name != nil {
		return o.name.name
	}
	return o.file
}

// subjects are the certificates in force that name a responder.
func (s *stapler) subjects() []subject {
	var all []subject
	add := func(o subject) {
		if len(o.cert.Leaf.OCSPServer) > 0 {
			all = append(all, o)
		}
	}
	v := s.k.view.Load()
	if v == nil {
		return nil
	}
	if !v.onlyLocal() {
		for _, from := range v.table.Load().sources {
			add(subject{cert: from.cert, file: from.file})
		}
	}
	s.k.acme.shelf.each(func(e *managed) {
		for _, one := range e.shown.Load().sites {
			add(subject{cert: one.cert, name: e, site: one})
		}
	})
	return all
}

// run asks what is due until ctx ends.
func (s *stapler) run(ctx context.Context) {
	tick := time.NewTicker(s.k.every)
	defer tick.Stop()
	for {
		s.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round asks what is due, and forgets what is not in force any more.
func (s *stapler) round(ctx context.Context) {
	all := s.subjects()
	before := *s.now.Load()
	if len(all) == 0 && len(before) == 0 {
		return
	}
	var (
		work   sync.WaitGroup
		mu     sync.Mutex
		after  = make(map[string]*staple, len(all))
		places = make(chan struct{}, ocspAsked)
		silent sync.Map // responders that did not answer in this round: no use to wait for them once more
	)
	for _, o := range all {
		key := string(o.cert.Leaf.Signature)
		st := before[key]
		mu.Lock()
		_, twice := after[key]
		after[key] = st
		mu.Unlock()
		if twice || st != nil && time.Now().Before(st.next) {
			continue
		}
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			if ctx.Err() != nil {
				return
			}
			fresh := st.later()
			if _, skip := silent.Load(o.responder()); !skip {
				var answered bool
				if fresh, answered = s.ask(ctx, o, st); !answered {
					silent.Store(o.responder(), true)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			after[key] = fresh
		})
	}
	work.Wait()
	s.now.Store(&after)
}

// later is what is left after a failure: what the responder said before holds until it ends. A nil s was never asked.
func (s *staple) later() *staple {
	var st staple
	if s != nil {
		st = *s
	}
	st.failures++
	wait := min(ocspRetry<<min(st.failures-1, 8), ocspRetryMost)
	st.next = time.Now().Add(wait - rand.N(wait/10))
	return &st
}

// ask asks a certificate's responder, and says whether that answered at all. A nil old was never asked.
func (s *stapler) ask(ctx context.Context, o subject, old *staple) (st *staple, answered bool) {
	reply, raw, err := s.askOCSP(ctx, o.cert)
	if err != nil {
		st := old.later()
		level := slog.LevelDebug
		if st.failures == 1 && ctx.Err() == nil {
			level = slog.LevelWarn
		}
		s.log.Log(ctx, level, "ask whether a certificate is revoked: it is shown without an answer once the last one has ended",
			"certificate", o.called(), "responder", o.responder(), "error", err, "again", st.next)
		_, bad := errors.AsType[ocspAnswer](err)
		return st, bad
	}
	now := time.Now()
	st = &staple{until: now.Add(ocspEndless), next: now.Add(time.Hour)}
	switch reply.Status {
	case ocsp.Good:
		st.raw = raw
		if !reply.NextUpdate.IsZero() {
			st.until = reply.NextUpdate
			// With half of it left; where it came late in its life, before the end all the same.
			st.next = reply.ThisUpdate.Add(reply.NextUpdate.Sub(reply.ThisUpdate) / 2)
			if soonest := now.Add(max(time.Minute, st.until.Sub(now)/10)); st.next.Before(soonest) {
				st.next = soonest
			}
		}
	case ocsp.Revoked:
		st.revoked = true
		if old == nil || !old.revoked {
			s.revoked(o, reply.RevokedAt)
		}
	}
	return st, true
}

// revoked has another certificate obtained, where that is popgate's to do.
func (s *stapler) revoked(o subject, at time.Time) {
	event := &audit.Event{Name: audit.CertificateRevoked, Certificate: &audit.Certificate{
		Name: o.called(), Issuer: statusOf(o.cert, SourceFile).Issuer, Serial: serialOf(o.cert), NotAfter: o.cert.Leaf.NotAfter,
	}}
	if o.name != nil {
		event.Certificate.Issuer = o.site.issuer
		s.log.Error("the issuer has revoked a certificate: another one is obtained", "name", o.called(), "serial", serialOf(o.cert), "revoked_at", at)
		s.k.acme.disown(o.name, serialOf(o.cert))
	} else {
		if names := covered(o.cert.Leaf); len(names) > 0 {
			event.Certificate.Name = names[0]
		}
		s.log.Error("the issuer has revoked a certificate, and clients may refuse it: put another one in its place, which is taken by itself",
			"cert", o.file, "serial", serialOf(o.cert), "revoked_at", at)
	}
	if v := s.k.view.Load(); v != nil && v.post != nil {
		v.post(event)
	}
}

// ocspAnswer is an error of what a responder answered.
type ocspAnswer struct{ error }

// askOCSP asks the certificate's own responder (RFC 6960).
func (s *stapler) askOCSP(ctx context.Context, cert *tls.Certificate) (*ocsp.Response, []byte, error) {
	if len(cert.Certificate) < 2 {
		return nil, nil, ocspAnswer{fmt.Errorf("the chain has no issuer's certificate to ask with")}
	}
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		return nil, nil, ocspAnswer{err}
	}
	body, err := ocsp.CreateRequest(cert.Leaf, issuer, nil)
	if err != nil {
		return nil, nil, ocspAnswer{err}
	}
	ctx, cancel := context.WithTimeout(ctx, ocspTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cert.Leaf.OCSPServer[0], bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, nil, ocspAnswer{fmt.Errorf("the responder says %s", resp.Status)}
	}
	reply, err := ocsp.ParseResponseForCert(raw, cert.Leaf, issuer)
	if err != nil {
		return nil, nil, ocspAnswer{err}
	}
	if !reply.NextUpdate.IsZero() && !time.Now().Before(reply.NextUpdate) {
		return nil, nil, ocspAnswer{fmt.Errorf("the answer ran out at %s", reply.NextUpdate)}
	}
	return reply, raw, nil
}
