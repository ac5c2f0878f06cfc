package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/wforce"
)

// An asker is another server, such as a Dovecot, that asks popgate.
type asker struct {
	t      *testing.T
	server *httptest.Server
}

// serving is a keeper that answers others, with strict lockouts, and one who asks.
func serving(t *testing.T) (*policy.Keeper, *policy.Gate, asker) {
	t.Helper()
	k := policy.New(policy.Options{})
	c := wforce.DefaultConfig()
	c.Serve.Address, c.Serve.PasswordFile = "127.0.0.1:0", secretFile(t)
	g := gateOf(t, k, policy.Parts{
		Lockout: strict(), Weakforced: c, Limits: policy.Config{Exempt: prefixes("10.0.0.0/8")},
	})
	server := httptest.NewServer(k.Server())
	t.Cleanup(server.Close)
	return k, g, asker{t, server}
}

// post makes one call, and gives the status of its answer.
func (a asker) post(command, body string) string {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.server.URL+"/command/"+command, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.SetBasicAuth("wforce", "correct horse battery staple")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Status any `json:"status"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		a.t.Fatalf("%s %s: got HTTP %d, %v", command, body, res.StatusCode, err)
	}
	return fmt.Sprint(answer.Status)
}

// allow asks about a login, and wants the status.
func (a asker) allow(login, addr, hash, want string) {
	a.t.Helper()
	if got := a.post("allow", fmt.Sprintf(`{"login":%q,"remote":%q,"pwhash":%q}`, login, addr, hash)); got != want {
		a.t.Fatalf("allow %s from %s: got the status %s, want %s", login, addr, got, want)
	}
}

// report tells what became of a login; more is what else it says.
func (a asker) report(login, addr, hash, more string) {
	a.t.Helper()
	if got := a.post("report", fmt.Sprintf(`{"login":%q,"remote":%q,"pwhash":%q,%s}`, login, addr, hash, more)); got != "ok" {
		a.t.Fatalf("report %s: got %s", login, got)
	}
}

const wrong = `"success":false,"fail_type":"credentials"`

// TestServiceCountsTogether: failures that others report and those of popgate itself are one count, for both.
func TestServiceCountsTogether(t *testing.T) {
	_, g, a := serving(t)
	a.allow("anna@example.org", "192.0.2.1", "0001", "0")
	a.report("Anna@Example.org", "192.0.2.1", "0001", wrong)
	a.report("anna@example.org", "192.0.2.1", "0001", wrong) // the same again counts once
	v := admit(t, g, "192.0.2.1")
	fails(t, v, "anna", "guess 2")
	a.allow("anna@example.org", "192.0.2.1", "0003", "1") // second to wait
	a.report("anna@example.org", "192.0.2.1", "0003", wrong)
	a.allow("anna@example.org", "::ffff:192.0.2.1", "0004", "2")
	a.report("anna@example.org", "192.0.2.1", "0004", `"success":false`)
	a.allow("anna@example.org", "192.0.2.1", "0005", "-1")
	wantLockedOut(t, v, "anna", "secret")
	a.allow("anna@example.org", "192.0.2.2", "0005", "0")
	login(t, admit(t, g, "192.0.2.2"), "anna", policy.Accepted, "")
}

// TestServiceLockout: who is locked out here is refused there, the whole network too, but for those who are known in it.
func TestServiceLockout(t *testing.T) {
	k, g, a := serving(t)
	a.report("anna@example.org", "192.0.2.1", "0001", `"success":true`)
	for i := range strict().Network.LockoutAfter {
		a.report(fmt.Sprintf("stranger%d", i), "192.0.2.1", "0001", wrong)
	}
	a.allow("berta@example.org", "192.0.2.1", "0002", "-1")
	wantLockedOut(t, admit(t, g, "192.0.2.1"), "berta", "secret")
	a.allow("anna@example.org", "192.0.2.1", "0001", "0")
	login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
	if l := k.Lockouts().List(); len(l) != 1 || l[0].Network != prefixes("192.0.2.1/32")[0] {
		t.Errorf("got the lockouts %+v, want one of 192.0.2.1", l)
	}
}

// TestServiceCountsNothing: questions alone, what was no fault of the user, and exempt networks count for nothing.
func TestServiceCountsNothing(t *testing.T) {
	k, _, a := serving(t)
	for i := range 3 * strict().Network.LockoutAfter {
		hash := fmt.Sprintf("%04x", i)
		a.allow("anna@example.org", "192.0.2.1", hash, "0")
		a.report("anna@example.org", "192.0.2.1", hash, `"success":false,"policy_reject":true,"fail_type":"policy"`)
		a.report("anna@example.org", "192.0.2.1", hash, `"success":false,"fail_type":"internal"`)
		a.report("anna@example.org", "192.0.2.1", hash, `"success":false,"fail_type":"disabled"`)
		a.report("anna@example.org", "10.0.0.1", hash, wrong)
	}
	a.allow("anna@example.org", "192.0.2.1", "0001", "0")
	a.allow("anna@example.org", "10.0.0.1", "0001", "0")
	if l := k.Lockouts().List(); len(l) != 0 {
		t.Errorf("got the lockouts %+v, want none", l)
	}
}

// TestServiceHashes: the few digits that passwords of many users have in common are no password that is tried on many users.
func TestServiceHashes(t *testing.T) {
	var sprays int
	k := policy.New(policy.Options{Events: func(lockout.Event) { sprays++ }})
	c := wforce.DefaultConfig()
	c.Serve.Address, c.Serve.PasswordFile = "127.0.0.1:0", secretFile(t)
	gateOf(t, k, policy.Parts{Lockout: lockout.DefaultConfig(), Weakforced: c})
	server := httptest.NewServer(k.Server())
	defer server.Close()
	a := asker{t, server}
	for i := range 3 * lockout.DefaultConfig().Spray.UsersPerPassword {
		a.report(fmt.Sprintf("user%d", i), fmt.Sprintf("192.0.2.%d", i), "0abc", wrong)
	}
	if sprays != 0 {
		t.Errorf("got %d events, want none", sprays)
	}
}

// TestServiceReset: lockouts end by address, by user wherever it comes from, or both, and never another's.
func TestServiceReset(t *testing.T) {
	lists := func(k *policy.Keeper) (users, networks int) {
		for _, l := range k.Lockouts().List() {
			if l.User == 0 {
				networks++
			} else {
				users++
			}
		}
		return users, networks
	}
	for _, tt := range []struct {
		body            string
		users, networks int // that stay locked out, of 4 and 2
	}{
		{`{"ip":"192.0.2.1"}`, 4, 1},
		{`{"login":"anna@example.org"}`, 2, 2},
		{`{"login":"ANNA@example.org"}`, 2, 2},
		{`{"ip":"192.0.2.1","login":"anna@example.org"}`, 3, 2},
		{`{"ip":"192.0.2.1","login":"cleo@example.org"}`, 4, 2},
		{`{"ip":"192.0.2.1","login":"no name"}`, 4, 2},
		{`{"login":"no name"}`, 4, 2},
		{`{"ip":"192.0.2.9"}`, 4, 2},
	} {
		t.Run(tt.body, func(t *testing.T) {
			k, _, a := serving(t)
			var errs []error
			for _, addr := range prefixes("192.0.2.1/32", "2001:db8::/64") {
				for _, user := range []string{"", "anna@example.org", "berta@example.org"} {
					errs = append(errs, k.Lockouts().Add(addr, user, time.Hour))
				}
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if got := a.post("reset", tt.body); got != "ok" {
				t.Errorf("got %s", got)
			}
			if u, n := lists(k); u != tt.users || n != tt.networks {
				t.Errorf("got %d users and %d networks locked out still, want %d and %d", u, n, tt.users, tt.networks)
			}
		})
	}
	k, _, a := serving(t)
	key := k.Lockouts().User("anna@example.org").String()
	if err := k.Lockouts().Add(auth.Network(client("192.0.2.1").Addr.Addr()), "anna@example.org", time.Hour); err != nil {
		t.Fatal(err)
	}
	a.post("reset", fmt.Sprintf(`{"ip":"192.0.2.1","login":"#%s"}`, key))
	if u, _ := lists(k); u != 1 {
		t.Errorf("a name that looks like a key ended the lockout of the user with that key")
	}
}

// TestServiceBeforeUse: nobody is answered before a gate is in force.
func TestServiceBeforeUse(t *testing.T) {
	w := httptest.NewRecorder()
	policy.New(policy.Options{}).Server().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/command/allow", strings.NewReader(`{}`)))
	if w.Code != http.StatusUnauthorized {
		t.Errorf("got HTTP %d, want 401", w.Code)
	}
}

// TestPrepareFaults: what cannot be made ready is told all at once, by its key.
func TestPrepareFaults(t *testing.T) {
	c := wforce.DefaultConfig()
	c.URL, c.NonceFile = "http://127.0.0.1:1/", "/nonexistent/nonce"
	c.Serve.Address, c.Serve.PasswordFile = "127.0.0.1:0", "/nonexistent/password"
	p := policy.Parts{Weakforced: c}
	p.Access.Disabled.Files = []string{"/nonexistent/disabled"}
	g, err := policy.New(policy.Options{}).Prepare(p)
	if g != nil || err == nil {
		t.Fatalf("got %v, %v", g, err)
	}
	for _, key := range []string{"weakforced.nonce_file: ", "weakforced.serve.password_file: ", "access.disabled.files[0]: "} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("got %q, want a fault of %s", err, key)
		}
	}
}
