package certs

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

// TestStorageGoneForAMinute: longer than any lease and any wait of one who asks. Clients come all the time, for what is at hand and
// for what is not.
func TestStorageGoneForAMinute(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, s *servers.Server, c Config) {
		c.ACME.OnDemand.Names = []string{"pop.{domain}"}
		r, v := startRig(t, t.TempDir(), c, func(r *rig) {
			knowing("example.org")(r)
			r.k.acme.wait = 100 * time.Millisecond
		})
		client := p.clientFor("mail.example.org")
		had := shaken(t, v.TLS("pop3s"), client)
		eventually(t, "the order's end", func() bool { return r.told(audit.CertificateIssued, "mail.example.org") == 1 })
		s.Down(t)
		renewed := make(chan error, 1)
		go func() { renewed <- r.k.Renew(t.Context(), "mail.example.org") }()
		over := time.After(time.Minute)
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for gone := true; gone; {
			select {
			case <-over:
				gone = false
			case <-second.C:
			}
			if got := served(t, v.TLS("pop3s"), client); got != had.SerialNumber.String() {
				t.Fatal("another certificate than the one at hand is served")
			}
			if cs, err := shake(v.TLS("pop3s"), heedless("pop.example.org")); err == nil {
				t.Fatalf("a name whose certificate nobody has got one: %v", cs.PeerCertificates[0].DNSNames)
			}
		}
		if err := r.k.Trouble(); err == nil {
			t.Error("no trouble is known")
		}
		if err := <-renewed; err == nil {
			t.Error("a renewal went well without the storage")
		}
		if got := p.orders(); got != 1 {
			t.Errorf("got %d orders, want none while there is no place for what comes of it", got-1)
		}
		s.Up(t)
		eventually(t, "all is well again", func() bool { return r.k.Trouble() == nil })
		shaken(t, v.TLS("pop3s"), p.clientFor("pop.example.org"))
		if err := r.k.Renew(t.Context(), "mail.example.org"); err != nil {
			t.Errorf("renew with the storage back: %v", err)
		}
		if now := shaken(t, v.TLS("pop3s"), client); now.SerialNumber.Cmp(had.SerialNumber) == 0 {
			t.Error("not renewed")
		}
		said := strings.Join(texts(r.log.take()), "\n")
		for _, want := range []string{"certificate storage is down", "certificate storage is back"} {
			// Once; a machine with much to do may take it for down once more.
			if n := strings.Count(said, want); n < 1 || n > 3 {
				t.Errorf("the log says %q %d times", want, n)
			}
		}
	})
}

// TestCorruptWhileServing spoils encrypted records under a gateway that serves what they held: it serves on, says what it found, and
// obtains anew what cannot be used any more.
func TestCorruptWhileServing(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, s *servers.Server, c Config) {
		const name = "mail.example.org"
		r, v := startRig(t, t.TempDir(), c, nil)
		client := p.clientFor(name)
		last := shaken(t, v.TLS("pop3s"), client)
		where := must(Offline(c, r.k.stateDir))
		defer func() { _ = where.Close() }()
		at := must(where.store.places(t.Context()))[0]
		for _, tt := range []struct {
			what   string
			key    string
			change func(record []byte) []byte
		}{
			{"a bit of the key", at.keyKey(), func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
			{"half of the certificate", at.certKey(), func(b []byte) []byte { return b[:len(b)/2] }},
			{"what it says of itself", at.metaKey(), func(b []byte) []byte { return append(b, b...) }},
		} {
			eventually(t, "no visit at work", func() bool { return !r.busy(name) })
			r.log.take()
			spoil(t, c, s, tt.key, tt.change)
			p.dns.mu.Lock() // the order waits
			goOn := sync.OnceFunc(p.dns.mu.Unlock)
			defer goOn()
			visit := r.visit(name)
			r.log.wait(t, "a certificate in the storage is damaged")
			if got := served(t, v.TLS("pop3s"), client); got != last.SerialNumber.String() {
				t.Errorf("%s: while it is obtained anew another one is served", tt.what)
			}
			goOn()
			<-visit.done
			again := shaken(t, v.TLS("pop3s"), client)
			if again.SerialNumber.Cmp(last.SerialNumber) == 0 {
				t.Errorf("%s: nothing was obtained", tt.what)
			}
			if _, err := where.store.load(t.Context(), at); err != nil {
				t.Errorf("%s: what lies there now: %v", tt.what, err)
			}
			last = again
		}
	})
}

// busy says whether a visit of a name is at work.
func (r *rig) busy(name string) bool {
	r.k.acme.mu.Lock()
	defer r.k.acme.mu.Unlock()
	return r.k.acme.all[name].pending != nil
}

// visit has a name visited now.
func (r *rig) visit(name string) *order {
	m := r.k.acme
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[name].due = time.Time{}
	m.schedule(time.Now())
	return m.all[name].pending
}

// spoil changes a record in a server behind popgate's back.
func spoil(t *testing.T, c Config, s *servers.Server, key string, change func([]byte) []byte) {
	t.Helper()
	if s.Connection == "" {
		client := must(cluster.New(c.ACME.Storage.Redis))
		defer func() { _ = client.Close() }()
		record := client.Key("certs", "record:"+key)
		old := must(client.Do(t.Context(), "HGET", record, "v"))
		must(client.Do(t.Context(), "HSET", record, "v", change([]byte(old.(string)))))
		return
	}
	conn := must(pgx.Connect(t.Context(), s.Connection+" password='open sesame'"))
	defer func() { _ = conn.Close(t.Context()) }()
	var old []byte
	if err := conn.QueryRow(t.Context(), `SELECT value FROM popgate.certificates WHERE key = $1`, key).Scan(&old); err != nil {
		t.Fatal(err)
	}
	tag := must(conn.Exec(t.Context(), `UPDATE popgate.certificates SET value = $2 WHERE key = $1`, key, change(bytes.Clone(old))))
	if tag.RowsAffected() != 1 {
		t.Fatalf("%s is not there", key)
	}
}
