package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/passwd"
)

// A fakeSource is a source whose every answer the test decides.
type fakeSource struct {
	lookup func(ctx context.Context, q *auth.Query) (Answer, error)
	calls  atomic.Int64
	closed atomic.Int64
}

func (s *fakeSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	s.calls.Add(1)
	return s.lookup(ctx, q)
}

func (s *fakeSource) Close() error {
	s.closed.Add(1)
	return nil
}

// everybody knows all users.
func everybody(context.Context, *auth.Query) (Answer, error) { return Answer{Backend: "b"}, nil }

// cacheOver makes a directory of a source. It is closed with the test.
func cacheOver(t testing.TB, source Source, vary Vary, changes ...func(*Config)) *Directory {
	t.Helper()
	c := DefaultConfig()
	c.Name = "users"
	for _, change := range changes {
		change(&c)
	}
	k := New(passwd.New(1), nil, nil)
	d := k.newDirectory(c, Opened{Source: source, Vary: vary})
	t.Cleanup(func() {
		if err := d.asker.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func askFor(t testing.TB, user, secret string) *auth.Query {
	t.Helper()
	n, err := auth.NameRules{}.Parse([]byte(user))
	if err != nil {
		t.Fatal(err)
	}
	q := &auth.Query{Name: n, Client: &auth.Client{Addr: netip.MustParseAddrPort("192.0.2.7:4711"), Listener: "pop3s"}}
	if secret != "" {
		q.Secret = auth.NewSecret([]byte(secret))
	}
	return q
}

// A world is what a source knows, and whether it can be asked: the model that the cache is held against.
type world struct {
	mu      sync.Mutex
	state   string // up, down, hung, garbled or slipping
	secrets bool   // answers depend on the password
	homes   map[string]string
	words   map[string]said // the source's last word about a user, or about a user and a password
	failed  map[string]time.Time
	asked   map[string][]time.Time
	ok      bool // the last lookup was answered
}

// A said is what the source said when.
type said struct {
	home string // "" is unknown, or a refused password
	at   time.Time
}

// right is every user's password.
const right = "right"

func (w *world) lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	user, id := q.Name.Typed, q.Name.Typed
	if w.secrets {
		id += " " + string(q.Secret.Reveal())
	} else if q.Secret != nil {
		panic("a source that does not ask for the password was told it")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[id] = append(w.asked[id], time.Now())
	w.ok = false
	w.failed[id] = time.Now()
	switch w.state {
	case "down":
		return Answer{}, errors.New("connection refused")
	case "hung":
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		w.failed[id] = time.Now()
		return Answer{}, ctx.Err()
	case "garbled":
		w.ok = true // it is there: only what it says cannot be followed
		return Answer{Backend: "a\r\nDELE 1"}, nil
	case "slipping":
		panic("a slip")
	}
	delete(w.failed, id)
	w.ok = true
	home := w.homes[user]
	switch {
	case home == "":
		w.words[id] = said{"", time.Now()}
		return Answer{}, fmt.Errorf("no row: %w", auth.ErrUnknownUser)
	case w.secrets && string(q.Secret.Reveal()) != right:
		w.words[id] = said{"", time.Now()}
		return Answer{Wait: time.Second}, fmt.Errorf("%w: says the service", auth.ErrWrongPassword)
	}
	w.words[id] = said{home, time.Now()}
	return Answer{Backend: home, Verified: true}, nil
}

// judge holds one result of a lookup against what the source said.
func (w *world) judge(t *rapid.T, c CacheConfig, id string, f Found, err error, askedBefore int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, known := w.words[id]
	age := time.Since(last.at)
	_, failed := w.failed[id]
	switch {
	case err == nil && (!known || f.Backend != last.home):
		t.Fatalf("%s is at %q, and the source said last %+v", id, f.Backend, last)
	case err == nil && f.How == Cached && age >= c.TTL:
		t.Fatalf("%s: an answer %s old is cached, with a ttl of %s", id, age, c.TTL)
	case err == nil && f.How == Stale && !failed && w.ok && w.state == "up" && len(w.asked[id]) == askedBefore:
		t.Fatalf("%s: an answer %s old is used without asking a source that is there", id, age)
	case err == nil && f.How != Fresh && age >= c.TTL+c.StaleFor+time.Minute: // time passes within a lookup
		t.Fatalf("%s: an answer %s old is used, with %+v", id, age, c)
	case errors.Is(err, auth.ErrUnknownUser) && (last.home != "" || age >= max(c.NegativeTTL, 1)):
		t.Fatalf("%s is unknown, and the source said %s ago %+v", id, age, last)
	case errors.Is(err, auth.ErrWrongPassword) && (last.home != "" || age > 0 || f.Wait != time.Second):
		t.Fatalf("%s is refused with %+v, and the source said %s ago %+v", id, f, age, last)
	case errors.Is(err, auth.ErrDirectoryDown) && known && last.home != "" && c.Size > 0 && age < c.TTL+c.StaleFor && (!w.secrets || c.Secrets):
		t.Fatalf("%s: %v, and the source said %s ago %+v", id, err, age, last)
	case errors.Is(err, auth.ErrDirectoryDown) && w.state == "up" && w.ok && !failed:
		t.Fatalf("%s: %v of a source that is there", id, err)
	case err != nil && !errors.Is(err, auth.ErrDirectoryDown) && answered(err) == false:
		t.Fatalf("%s: the error %v says nothing of its kind", id, err)
	}
}

// Whatever happens to a source and to its users: the cache says nothing that the source did not say last, not for longer than it
// may, and forgets nobody while the source is down.
func TestCacheAgainstTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) { // in a bubble there is no deadline to ask for
			w := &world{
				state: "up", secrets: rapid.Bool().Draw(t, "secrets"), homes: map[string]string{}, words: map[string]said{},
				failed: map[string]time.Time{}, asked: map[string][]time.Time{}, ok: true,
			}
			vary := VaryUser
			if w.secrets {
				vary |= VarySecret
			}
			conf := DefaultConfig()
			conf.Name, conf.Timeout = "users", 3*time.Second
			conf.Cache.Size = rapid.SampledFrom([]int{0, 1000}).Draw(t, "size")
			conf.Cache.TTL = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "ttl")
			conf.Cache.NegativeTTL = rapid.SampledFrom([]time.Duration{0, 20 * time.Second}).Draw(t, "negative")
			conf.Cache.StaleFor = rapid.SampledFrom([]time.Duration{0, 10 * time.Minute}).Draw(t, "stale")
			conf.Cache.Secrets = rapid.Bool().Draw(t, "remember")
			d := New(nil, nil, nil).newDirectory(conf, Opened{Source: &fakeSource{lookup: w.lookup}, Vary: vary})
			defer func() { _ = d.asker.close() }()

			users := rapid.SampledFrom([]string{"anna", "bob", "carl@example.org", "Carl@example.org"})
			ask := func(t *rapid.T) (id string, q *auth.Query) {
				user, secret := users.Draw(t, "user"), right
				if w.secrets {
					secret = rapid.SampledFrom([]string{right, "guess"}).Draw(t, "secret")
				}
				n, err := auth.NameRules{}.Parse([]byte(user))
				if err != nil {
					t.Fatal(err)
				}
				if id = user; w.secrets {
					id += " " + secret
				}
				return id, &auth.Query{Name: n, Client: &auth.Client{}, Secret: auth.NewSecret([]byte(secret))}
			}
			t.Repeat(map[string]func(*rapid.T){
				"lookup": func(t *rapid.T) {
					id, q := ask(t)
					w.mu.Lock()
					before := len(w.asked[id])
					w.mu.Unlock()
					f, err := d.Lookup(context.Background(), q)
					w.judge(t, conf.Cache, id, f, err, before)
					if string(q.Secret.Reveal()) != right && w.secrets && err == nil {
						t.Fatalf("a wrong password was let in: %v", f)
					}
					synctest.Wait() // what nobody waits for
				},
				"refresh": func(t *rapid.T) {
					_, q := ask(t)
					d.Refresh(q)
				},
				"time": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second / 4)
				},
				"state": func(t *rapid.T) {
					w.state = rapid.SampledFrom([]string{"up", "up", "down", "hung", "garbled", "slipping"}).Draw(t, "to")
				},
				"move": func(t *rapid.T) {
					w.homes[users.Draw(t, "user")] = rapid.SampledFrom([]string{"", "old", "new"}).Draw(t, "home")
				},
			})
			time.Sleep(conf.Timeout) // lookups that hang end
			synctest.Wait()
		})
	})
}

// A thousand logins of one user at once are one question, whose end none of them can bring about by leaving.
func TestSingleFlight(t *testing.T) {
	for _, vary := range []Vary{VaryUser, VaryUser | VarySecret} {
		synctest.Test(t, func(t *testing.T) {
			answer := make(chan struct{})
			source := &fakeSource{lookup: func(ctx context.Context, q *auth.Query) (Answer, error) {
				select {
				case <-answer:
					return Answer{Backend: "b"}, nil
				case <-ctx.Done():
					return Answer{}, ctx.Err()
				}
			}}
			d := cacheOver(t, source, vary)
			impatient, leave := context.WithCancel(context.Background())
			var left error
			var wg sync.WaitGroup
			wg.Go(func() { _, left = d.Lookup(impatient, askFor(t, "anna", "secret")) })
			synctest.Wait() // it is the one who asks
			var found atomic.Int64
			for range 1000 {
				wg.Go(func() {
					if f, err := d.Lookup(context.Background(), askFor(t, "anna", "secret")); err == nil && f.Backend == "b" {
						found.Add(1)
					}
				})
			}
			synctest.Wait()
			leave()
			synctest.Wait()
			if !errors.Is(left, context.Canceled) {
				t.Errorf("the one who left got %v", left)
			}
			close(answer)
			wg.Wait()
			if found.Load() != 1000 || source.calls.Load() != 1 {
				t.Errorf("%d of 1000 were answered, with %d questions", found.Load(), source.calls.Load())
			}
		})
	}
}

// No more lookups than allowed are at one source, whatever comes; the others wait their turn within the timeout.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Second)
			return Answer{}, nil
		}}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Lookups = 3; c.Timeout = 2500 * time.Millisecond })
		var wg sync.WaitGroup
		var answered, late atomic.Int64
		for i := range 12 {
			wg.Go(func() {
				switch _, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("u", i), "")); {
				case err == nil:
					answered.Add(1)
				case errors.Is(err, auth.ErrDirectoryDown):
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 || answered.Load() < 6 || answered.Load()+late.Load() != 12 {
			t.Errorf("%d at once, %d answered, %d not: want 3 at once, and 6 answered within the time", most.Load(), answered.Load(), late.Load())
		}
	})
}

// Lookups that never had their turn, as in a flood, say nothing of the source, nor do answers that come at the very end.
func TestFloodIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{lookup: func(ctx context.Context, _ *auth.Query) (Answer, error) {
			<-ctx.Done()
			return Answer{}, asContent(ctx.Err())
		}}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Lookups = 1; c.Timeout = time.Second })
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if _, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("u", i), "")); !errors.Is(err, auth.ErrDirectoryDown) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if err := d.Trouble(); err != nil {
			t.Errorf("%d lookups, trouble: %v", source.calls.Load(), err)
		}
	})
}

// A source that does not even look at its deadline holds up nobody longer than that, and takes no more than its places.
func TestDeafSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) {
			<-wake
			return Answer{}, nil
		}}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Lookups = 2; c.Timeout = time.Second })
		began := time.Now()
		for i := range 20 {
			if _, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("u", i), "")); !errors.Is(err, auth.ErrDirectoryDown) {
				t.Fatalf("got %v", err)
			}
		}
		if source.calls.Load() != 2 {
			t.Errorf("%d lookups hang, want 2", source.calls.Load())
		}
		if took := time.Since(began); took > 20*(time.Second+landing) || d.Trouble() == nil {
			t.Errorf("20 lookups took %s, trouble: %v", took, d.Trouble())
		}
		close(wake)
		synctest.Wait()
		if _, err := d.Lookup(context.Background(), askFor(t, "later", "")); err != nil {
			t.Errorf("the source is back, and the lookup fails: %v", err)
		}
	})
}

// That a source is down is said once, and once that it is back; a single failure is not said.
func TestSourceDownIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) {
			if down.Load() {
				return Answer{}, errors.New("refused")
			}
			return Answer{Backend: "b"}, nil
		}}
		d := cacheOver(t, source, VaryUser)
		var said bytes.Buffer
		d.asker.log = slog.New(slog.NewTextHandler(&said, nil))
		for round := range 3 {
			for i := range 3 * brokenAfter {
				down.Store(round == 1 || round == 0 && i == 0)
				_, _ = d.Lookup(context.Background(), askFor(t, fmt.Sprint(round, "user", i), ""))
				time.Sleep(2 * time.Second)
			}
		}
		if lines := strings.Count(said.String(), "\n"); lines != 2 ||
			!strings.Contains(said.String(), "a directory is down") || !strings.Contains(said.String(), "answers again") {
			t.Errorf("the log has\n%s", said.String())
		}
	})
}

// A source that fails for everybody is asked once a second; those it knows are answered at once, and it is found when it is back.
func TestBrokenSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		source := &fakeSource{lookup: func(ctx context.Context, q *auth.Query) (Answer, error) {
			if down {
				<-ctx.Done()
				return Answer{}, ctx.Err()
			}
			return Answer{Backend: "b"}, nil
		}}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Cache.TTL = time.Minute; c.Timeout = time.Second })
		lookup := func(user string) (Found, time.Duration, error) {
			began := time.Now()
			f, err := d.Lookup(context.Background(), askFor(t, user, ""))
			return f, time.Since(began), err
		}
		for i := range 100 {
			if _, _, err := lookup(fmt.Sprint("known", i)); err != nil {
				t.Fatal(err)
			}
		}
		down = true
		time.Sleep(2 * time.Minute)
		if f, took, err := lookup("known0"); err != nil || f.How != Stale || took != time.Second || f.Age < 2*time.Minute {
			t.Errorf("the first one: %s, %s, %v, took %s", f.How, f.Age, err, took)
		}
		before := source.calls.Load()
		for i := range 99 {
			if f, took, err := lookup(fmt.Sprint("known", i+1)); err != nil || f.How != Stale || took != 0 {
				t.Fatalf("while it is known to be down: %s, %v, took %s", f.How, err, took)
			}
		}
		if asked := source.calls.Load() - before; asked > 1 {
			t.Errorf("99 known users asked %d times, want once a second", asked)
		}
		for i := range brokenAfter {
			if _, _, err := lookup(fmt.Sprint("stranger", i)); !errors.Is(err, auth.ErrDirectoryDown) {
				t.Errorf("got %v", err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		quick := 0
		for i := range 100 {
			if _, took, err := lookup(fmt.Sprint("more", i)); !errors.Is(err, auth.ErrDirectoryDown) {
				t.Errorf("got %v", err)
			} else if took == 0 {
				quick++
			}
		}
		if quick < 99 {
			t.Errorf("%d of 100 strangers heard at once that nobody knows, want all but one", quick)
		}
		down = false
		time.Sleep(2 * time.Second)
		if _, _, err := lookup("stranger0"); err != nil || d.Trouble() != nil {
			t.Errorf("it is back: %v, trouble %v", err, d.Trouble())
		}
	})
}

// One user whose answer cannot be had stands in nobody else's way.
func TestPoisonedUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{lookup: func(_ context.Context, q *auth.Query) (Answer, error) {
			if q.Name.Local == "mallory" {
				return Answer{}, errors.New("two rows")
			}
			return Answer{}, nil
		}}
		d := cacheOver(t, source, VaryUser)
		for range 100 {
			if _, err := d.Lookup(context.Background(), askFor(t, "mallory", "")); !errors.Is(err, auth.ErrDirectoryDown) {
				t.Fatalf("got %v", err)
			}
		}
		if _, err := d.Lookup(context.Background(), askFor(t, "anna", "")); err != nil {
			t.Errorf("anna: %v", err)
		}
	})
}

// Guesses, of passwords and of names, push no good answer out of a full cache.
func TestGuessesEvictNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{lookup: func(_ context.Context, q *auth.Query) (Answer, error) {
			switch {
			case q.Name.Local[0] != 'k':
				return Answer{}, auth.ErrUnknownUser
			case string(q.Secret.Reveal()) != right:
				return Answer{}, auth.ErrWrongPassword
			}
			return Answer{Verified: true}, nil
		}}
		d := cacheOver(t, source, VaryUser|VarySecret, func(c *Config) { c.Cache.Size = 50; c.Cache.Secrets = true })
		for i := range 50 {
			if _, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("k", i), right)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5000 {
			q := askFor(t, fmt.Sprint("k", i%50), fmt.Sprint("guess", i))
			if _, err := d.Lookup(context.Background(), q); !errors.Is(err, auth.ErrWrongPassword) {
				t.Fatalf("a guess: %v", err)
			}
			d.Refresh(q)
			if _, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("u", i), right)); !errors.Is(err, auth.ErrUnknownUser) {
				t.Fatalf("a made-up name: %v", err)
			}
		}
		before := source.calls.Load()
		for i := range 50 {
			if f, err := d.Lookup(context.Background(), askFor(t, fmt.Sprint("k", i), right)); err != nil || f.How != Cached || !f.Verified {
				t.Errorf("k%d: %s, %v", i, f.How, err)
			}
		}
		if asked := source.calls.Load() - before; asked != 0 {
			t.Errorf("the source was asked %d times again", asked)
		}
		if got := d.cache.unknown.EstimatedSize(); got > 2*minUnknown {
			t.Errorf("%d unknown users are remembered, want %d or so", got, minUnknown)
		}
	})
}

// A refused password has the answer fetched anew, once in ten seconds however many are refused.
func TestRefreshOnceInTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := "old"
		source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) { return Answer{Backend: home}, nil }}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Cache.TTL = time.Hour })
		at := func() string {
			f, err := d.Lookup(context.Background(), askFor(t, "anna", ""))
			if err != nil {
				t.Fatal(err)
			}
			return f.Backend
		}
		at()
		home = "new"
		for i := range 1000 { // a hundred seconds of guessing
			before := at()
			d.Refresh(askFor(t, "anna", ""))
			if i < 99 && before != "old" || i > 101 && before != "new" {
				t.Fatalf("guess %d: anna is at %q", i, before)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got := source.calls.Load(); got != 10 {
			t.Errorf("the source was asked %d times in 100 seconds, want 10", got)
		}
	})
}

// Answers are kept apart by what they depend on, and only by that.
func TestVary(t *testing.T) {
	other := func(change func(*auth.Query)) *auth.Query {
		q := askFor(t, "anna@example.org", "secret")
		q.Client.TLS = &auth.TLS{ServerName: "mail.example.org"}
		change(q)
		return q
	}
	changes := []struct {
		vary   Vary
		change func(*auth.Query)
	}{
		{VaryClient, func(q *auth.Query) { q.Client.Addr = netip.MustParseAddrPort("192.0.2.8:4711") }},
		{VaryClient, func(q *auth.Query) { q.Client.TLS.Subject = "CN=anna" }},
		{VaryClient, func(q *auth.Query) { q.Client.TLS.Fingerprint = "0123" }},
		{VarySNI, func(q *auth.Query) { q.Client.TLS.ServerName = "pop.example.org" }},
		{VaryListener, func(q *auth.Query) { q.Client.Listener = "office" }},
		{VarySecret, func(q *auth.Query) { q.Secret = auth.NewSecret([]byte("Secret")) }},
		{0, func(q *auth.Query) { q.Client.Addr = netip.MustParseAddrPort("192.0.2.7:1") }}, // another port
		{0, func(q *auth.Query) { q.Attempt, q.Session, q.Mechanism = 2, "x", auth.Plain }},
	}
	for vary := VaryUser; vary < VarySecret<<1; vary++ {
		if vary&VaryUser == 0 {
			continue
		}
		d := cacheOver(t, &fakeSource{lookup: everybody}, vary)
		base := d.cache.key(other(func(*auth.Query) {}))
		for i, c := range changes {
			if got, want := d.cache.key(other(c.change)) != base, vary&c.vary != 0; got != want {
				t.Errorf("vary %b, change %d: keys differ: %t, want %t", vary, i, got, want)
			}
		}
		for _, name := range []auth.Name{{Typed: "anna@example.org", Local: "anna@example.org"}, {Typed: "anna", Local: "anna", Domain: "example.org"}} {
			if d.cache.key(other(func(q *auth.Query) { q.Name = name })) == base {
				t.Errorf("vary %b: %+v has the key of another name", vary, name)
			}
		}
	}
}

// The password is in no key as it is.
func TestKeyHidesTheSecret(t *testing.T) {
	one := cacheOver(t, &fakeSource{lookup: everybody}, VaryUser|VarySecret)
	two := cacheOver(t, &fakeSource{lookup: everybody}, VaryUser|VarySecret)
	q := askFor(t, "anna", "secret")
	if one.cache.key(q) == two.cache.key(q) {
		t.Error("two directories digest a password alike: their digests could be looked up in a table")
	}
}

// An answer ends its question's time; that is no failure of the source's, whoever sees which first.
func TestEndOfFlight(t *testing.T) {
	source := &fakeSource{lookup: everybody}
	d := cacheOver(t, source, VaryUser, func(c *Config) { c.Cache.TTL = 0; c.Cache.StaleFor = 0 })
	for i := range 5000 {
		if _, err := d.Lookup(t.Context(), askFor(t, "anna", "")); err != nil || d.Trouble() != nil {
			t.Fatalf("lookup %d: %v, trouble %v", i, err, d.Trouble())
		}
	}
	if got := source.calls.Load(); got != 5000 {
		t.Errorf("the source was asked %d times for 5000 logins, with a ttl of 0", got)
	}
}
