package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
)

// A watch looks at name servers until all of them show a record.
type watch struct {
	config   Propagation
	asked    []server // given ones; empty for those of the zone
	resolver *Resolver
	port     string // of the zones' name servers
	log      *slog.Logger
}

// A server is one name server, which may have several addresses.
type server struct {
	name      string
	addresses []string // host:port
	recursive bool     // answers for others
}

const (
	lookEvery   = 2 * time.Second
	reportEvery = 10 * time.Second
	// silentRounds is how often in a row a name server may not answer before the others decide: who looks up the record
	// passes over it too.
	silentRounds = 3
	maxServers   = 32
)

func newWatch(c Propagation, r *Resolver, log *slog.Logger) (*watch, error) {
	w := &watch{config: c, resolver: r, port: "53", log: log}
	for i, s := range c.Resolvers {
		address, err := serverAddress(s)
		if err != nil {
			return nil, fmt.Errorf("propagation.resolvers[%d]: %w", i, err)
		}
		w.asked = append(w.asked, server{name: s, addresses: []string{address}, recursive: true})
	}
	return w, nil
}

// wait returns once name has value as a TXT record wherever it is looked for.
func (w *watch) wait(ctx context.Context, name, value string) error {
	if err := pause(ctx, w.config.Delay); err != nil {
		return fmt.Errorf("wait before looking for the record %s: %w", host(name), err)
	}
	if w.config.Timeout == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	start, reported := time.Now(), time.Time{}
	silent := make(map[string]int)
	for {
		lack, err := w.look(ctx, name, value, silent)
		if err == nil && len(lack) == 0 {
			w.log.Info("DNS record is visible", "name", host(name), "waited", since(start))
			return nil
		}
		if err != nil {
			lack = []string{err.Error()}
		}
		if ctx.Err() == nil && time.Since(reported) >= reportEvery {
			w.log.Info("waiting for DNS record", "name", host(name), "waited", since(start), "at_most", w.config.Timeout.String(), "not_seen_by", lack)
			reported = time.Now()
		}
		if err := pause(ctx, lookEvery); err != nil {
			return fmt.Errorf("the record %s was not seen after %s: %s: see that the provider writes into the zone the world sees, "+
				"or allow more time by propagation.timeout: %w", host(name), since(start), strings.Join(lack, "; "), err)
		}
	}
}

func since(start time.Time) string { return time.Since(start).Round(time.Second / 10).String() }

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// look asks each server once and says which do not show the record. silent counts by server how often in a row there was no
// answer.
func (w *watch) look(ctx context.Context, name, value string, silent map[string]int) ([]string, error) {
	servers := w.asked
	if len(servers) == 0 {
		var err error
		if servers, err = w.serversOf(ctx, name); err != nil {
			return nil, err
		}
	}
	shown, errs := make([]bool, len(servers)), make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() { shown[i], errs[i] = w.shows(ctx, s, name, value) })
	}
	all.Wait()
	var lack, quiet []string
	for i, s := range servers {
		switch {
		case errs[i] != nil:
			silent[s.name]++
			text := fmt.Sprintf("%s (%v)", host(s.name), errs[i])
			if silent[s.name] < silentRounds {
				lack = append(lack, text)
			}
			quiet = append(quiet, text)
		case !shown[i]:
			lack = append(lack, host(s.name)+" (answers without it)")
			fallthrough
		default:
			silent[s.name] = 0
		}
	}
	if len(quiet) == len(servers) {
		return quiet, nil
	}
	if len(lack) == 0 && len(quiet) > 0 {
		w.log.Warn("name servers that do not answer were passed over while looking for a DNS record", "name", host(name), "servers", quiet)
	}
	return lack, nil
}

// serversOf finds the name servers of the zone that name is in. One whose addresses cannot be found is one that does not answer.
func (w *watch) serversOf(ctx context.Context, name string) ([]server, error) {
	zone, err := w.resolver.Zone(ctx, name)
	if err != nil {
		return nil, err
	}
	names, err := w.resolver.nameServers(ctx, zone)
	if err != nil {
		return nil, err
	}
	servers := make([]server, min(len(names), maxServers))
	var all sync.WaitGroup
	for i := range servers {
		servers[i].name = names[i]
		all.Go(func() {
			// The error shows as a server without addresses.
			addrs, _ := w.resolver.Addrs(ctx, names[i])
			for _, a := range addrs {
				servers[i].addresses = append(servers[i].addresses, net.JoinHostPort(a.String(), w.port))
			}
		})
	}
	all.Wait()
	return servers, nil
}

// shows asks one server at its addresses in turn until one answers.
func (w *watch) shows(ctx context.Context, s server, name, value string) (bool, error) {
	err := errors.New("its address cannot be found")
	for _, address := range s.addresses {
		var reply *miekg.Msg
		m, queryErr := query(name, miekg.TypeTXT, s.recursive)
		if queryErr != nil {
			return false, queryErr
		}
		if reply, err = w.resolver.exchange(ctx, m, address); err != nil {
			continue
		}
		if err = refusal(reply, address); err != nil {
			continue
		}
		if slices.Contains(textsIn(reply, name), value) {
			return true, nil
		}
		if reply.Authoritative || s.recursive {
			return false, nil
		}
		err = fmt.Errorf("DNS server %s is not authoritative for it", address)
	}
	return false, err
}

// textsIn are the values of the TXT records of name in an answer.
func textsIn(reply *miekg.Msg, name string) []string {
	name = chainEnd(reply, fqdn(name))
	var all []string
	for _, rr := range reply.Answer {
		if t, ok := rr.(*miekg.TXT); ok && fqdn(t.Hdr.Name) == name {
			all = append(all, strings.Join(t.Txt, ""))
		}
	}
	return all
}
