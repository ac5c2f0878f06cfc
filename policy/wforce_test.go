package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/wforce"
)

// A judge is a policy service that answers as its user's name says, and remembers what it was told.
type judge struct {
	mu     sync.Mutex
	status map[string]int // by login
	asked  map[string]int
	told   map[string][]report
}

type report struct {
	Login        string          `json:"login"`
	Session      string          `json:"session_id"`
	Success      bool            `json:"success"`
	PolicyReject bool            `json:"policy_reject"`
	FailType     wforce.FailType `json:"fail_type"`
}

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var said report
	if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.URL.Path == "/command/report" {
		j.told[said.Login] = append(j.told[said.Login], said)
		fmt.Fprint(w, `{"status":"ok"}`)
		return
	}
	j.asked[said.Login]++
	fmt.Fprintf(w, `{"status":%d,"msg":""}`, j.status[said.Login])
}

// wants is the check that of each login just this one report comes.
func (j *judge) wants(t *testing.T, want map[string]report) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		j.mu.Lock()
		n := len(j.told)
		j.mu.Unlock()
		if n >= len(want) || time.Now().After(deadline) {
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for user, w := range want {
		if got := j.told[user]; len(got) != 1 || got[0].Success != w.Success || got[0].PolicyReject != w.PolicyReject || got[0].FailType != w.FailType {
			t.Errorf("%s: got the reports %+v, want one: %+v", user, got, w)
		} else if got[0].Session == "" {
			t.Errorf("%s: the report names no session", user)
		}
	}
	if len(j.told) != len(want) {
		t.Errorf("got reports of %d users, want %d", len(j.told), len(want))
	}
}

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// asking is a keeper that runs, and a gate that asks at url.
func asking(t *testing.T, url string, change func(*policy.Parts)) (*policy.Keeper, *policy.Gate, func()) {
	t.Helper()
	c := wforce.DefaultConfig()
	c.URL, c.NonceFile = url, secretFile(t)
	p := policy.Parts{Weakforced: c, Limits: policy.Config{Sessions: 1000, SessionsPerUser: 1, LoginsPerIP: per(1000, time.Hour)}}
	change(&p)
	k := policy.New(policy.Options{})
	g := gateOf(t, k, p)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	end := sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(end)
	return k, g, end
}

// TestReports: weakforced hears of each login exactly once what became of it, wherever it ended.
func TestReports(t *testing.T) {
	j := &judge{status: map[string]int{"refused@example.org": -1}, asked: map[string]int{}, told: map[string][]report{}}
	server := httptest.NewServer(j)
	defer server.Close()
	k, g, end := asking(t, server.URL, func(p *policy.Parts) {
		p.Access.Disabled.Users = []string{"disabled@example.org"}
		p.Access.Lists = []access.ListConfig{{Name: "here", Networks: []string{"192.0.2.0/24"}}}
		p.Access.Rules = []access.RuleConfig{{
			Name: "away", Action: "deny", Users: []string{"away@example.org"}, Networks: access.NetworksRule{Deny: []string{"here"}},
		}}
	})
	done := func(user string, o policy.Outcome) *policy.Visit {
		v := admit(t, g, "192.0.2.1")
		enter(t, v, query(user, "x"), route(user))
		_ = v.Done(t.Context(), o)
		return v
	}
	done("accepted", policy.Accepted).Settle()
	done("wrong", policy.Refused).Close()
	done("unknown", policy.Unknown)
	done("barred", policy.Barred)
	done("undecided", policy.Undecided).Close()
	done("disabled", policy.Accepted)
	done("unrecorded", policy.Accepted).Close() // once said, it stays
	if err := done("accepted2", policy.Accepted).Done(t.Context(), policy.Undecided); err != nil {
		t.Fatal(err)
	}
	limited := admit(t, g, "192.0.2.1")
	q := query("accepted", "x")
	q.Name.Typed = "limited@example.org"
	enter(t, limited, q, route("accepted"))
	wantLimit(t, limited.Done(t.Context(), policy.Accepted), "per_user.sessions")

	v := admit(t, g, "192.0.2.1")
	if err := v.Attempt(t.Context(), query("refused", "x")); err != nil {
		t.Fatal(err)
	}
	if err := v.Hold(t.Context()); !errors.Is(err, wforce.ErrRefused) {
		t.Fatalf("got %v, want %v", err, wforce.ErrRefused)
	}
	_ = v.Done(t.Context(), policy.Undecided)

	v = admit(t, g, "192.0.2.1")
	enter(t, v, query("closed", "x"), route("closed"))
	v.Close()
	v = admit(t, g, "192.0.2.1")
	enter(t, v, query("replaced", "x"), route("replaced"))
	enter(t, v, query("again", "x"), route("again"))
	_ = v.Done(t.Context(), policy.Refused)
	v = admit(t, g, "192.0.2.1")
	if err := errors.Join(v.Attempt(t.Context(), query("away", "x")), v.Hold(t.Context())); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, v.Enter(t.Context(), route("away")), "away", access.NetworkDenied, false)
	_ = v.Done(t.Context(), policy.Undecided)
	v = admit(t, g, "192.0.2.1") // of one that was never asked about nothing is told
	if err := v.Attempt(t.Context(), query("unasked", "x")); err != nil {
		t.Fatal(err)
	}
	v.Close()

	failed := func(f wforce.FailType) report { return report{FailType: f} }
	want := map[string]report{}
	for user, r := range map[string]report{
		"accepted": {Success: true}, "unrecorded": {Success: true}, "accepted2": {Success: true},
		"wrong": failed(wforce.FailCredentials), "unknown": failed(wforce.FailAccount), "barred": failed(wforce.FailDisabled),
		"undecided": failed(wforce.FailInternal), "disabled": failed(wforce.FailDisabled), "limited": failed(wforce.FailPolicy),
		"refused": {PolicyReject: true, FailType: wforce.FailPolicy},
		"closed":  failed(wforce.FailInternal), "replaced": failed(wforce.FailInternal), "again": failed(wforce.FailCredentials),
		"away": failed(wforce.FailInternal),
	} {
		want[user+"@example.org"] = r
	}
	j.wants(t, want)
	end() // a report that came twice would have come by now
	j.wants(t, want)
	if n := len(j.asked); n != len(want) {
		t.Errorf("asked about %d users, want %d", n, len(want))
	}
	if k.Trouble() != nil {
		t.Errorf("got %v", k.Trouble())
	}
}

// TestWeakforcedWait: a login waits as long as weakforced says, and the end of its ctx ends that.
func TestWeakforcedWait(t *testing.T) {
	j := &judge{status: map[string]int{"slow@example.org": 1, "slower@example.org": 3600}, asked: map[string]int{}, told: map[string][]report{}}
	server := httptest.NewServer(j)
	defer server.Close()
	_, g, _ := asking(t, server.URL, func(p *policy.Parts) { p.Weakforced.MaxWait = 25 * time.Second })
	v := admit(t, g, "192.0.2.1")
	began := time.Now()
	enter(t, v, query("slow", "x"), route("slow"))
	if got := time.Since(began); got < time.Second {
		t.Errorf("got %v to wait, want 1s at least", got)
	}
	_ = v.Done(t.Context(), policy.Accepted)
	if err := v.Attempt(t.Context(), query("slower", "x")); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the client is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			j.mu.Lock()
			n := j.asked["slower@example.org"]
			j.mu.Unlock()
			if n > 0 {
				cancel(gone)
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	if err := v.Hold(ctx); !errors.Is(err, gone) {
		t.Errorf("got %v, want %v", err, gone)
	}
	v.Close()
	j.wants(t, map[string]report{
		"slow@example.org": {Success: true}, "slower@example.org": {FailType: wforce.FailInternal},
	})
}

// TestWeakforcedDown: what a login gets then is the configuration's.
func TestWeakforcedDown(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, o := range []wforce.OnFailure{wforce.Allow, wforce.Refuse} {
		t.Run(string(o), func(t *testing.T) {
			k, g, _ := asking(t, server.URL, func(p *policy.Parts) { p.Weakforced.OnFailure = o })
			for range 4 { // the last is not asked about: it counts as down by then
				v := admit(t, g, "192.0.2.1")
				if err := v.Attempt(t.Context(), query("anna", "x")); err != nil {
					t.Fatal(err)
				}
				err := v.Hold(t.Context())
				if o == wforce.Allow && err != nil || o == wforce.Refuse && !errors.Is(err, wforce.ErrDown) {
					t.Errorf("got %v", err)
				}
				_ = v.Done(t.Context(), policy.Undecided)
			}
			if k.Trouble() == nil {
				t.Error("got no trouble, want to hear that it does not answer")
			}
			if n := k.Turns(); n != 0 {
				t.Errorf("got turns of %d keys out, want none", n)
			}
		})
	}
}
