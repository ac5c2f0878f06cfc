package certs

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestClean puts what is of no more use beside what is into a storage in files.
func TestClean(t *testing.T) {
	const day = 24 * time.Hour
	c := offDemand()
	_, v := unrun(t, c, Deps{})
	dir, st, now := v.keeper.stateDir, v.acme.depot.store, time.Now()
	iss := v.acme.issuers[0].acme.IssuerKey()
	at := func(key string) string { return filepath.Join(dir, "acme", key) }
	put := func(key, value string, age time.Duration) {
		t.Helper()
		if err := st.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at(key), now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	site := func(name string, left time.Duration, rsa bool) place {
		t.Helper()
		keep(t, dir, c, name, now.Add(left-90*day), now.Add(left))
		p := place{issuer: iss, name: name}
		if rsa {
			first := path.Dir(p.certKey())
			p.rsa = true
			if err := os.MkdirAll(at(rsaSiteDir+"/"+iss), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(at(first), at(path.Dir(p.certKey()))); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	gone := []string{
		site("past.example.org", -31*day, false).certKey(), site("second.example.org", -31*day, true).keyKey(),
		challengeKey(iss, "past.example.org"), trouble{Name: "past.example.org"}.key(),
	}
	stay := []string{
		site("late.example.org", -29*day, false).certKey(), site("mail.example.org", 60*day, true).metaKey(),
		challengeKey(iss, "mail.example.org"), trouble{Name: "mail.example.org"}.key(), "acme/" + iss + "/users/old.json",
	}
	busy, damaged := site("busy.example.org", -31*day, false), site("damaged.example.org", -31*day, false)
	stay = append(stay, busy.certKey(), damaged.certKey())
	put(damaged.certKey(), "half a wri", 60*day)
	put(gone[2], "{}", 2*day)
	put(stay[2], "{}", time.Hour)
	put("acme/"+iss+"/users/old.json", "{}", 400*day)
	for name, age := range map[string]time.Duration{"past.example.org": 31 * day, "mail.example.org": day} {
		if err := v.acme.store.writeTrouble(t.Context(), trouble{Name: name, Error: "x", At: now.Add(-age)}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := st.TryLock(t.Context(), "issue_cert_busy.example.org"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	stale := filepath.Join(at("locks"), "issue_cert_gone.lock")
	write(t, stale, []byte("{}"))
	if err := os.Chtimes(stale, now.Add(-2*day), now.Add(-2*day)); err != nil {
		t.Fatal(err)
	}

	n, err := v.acme.clean(t.Context(), now)
	if n != len(gone)+1 || err != nil {
		t.Errorf("deleted %d, %v; want %d", n, err, len(gone)+1)
	}
	for _, key := range gone {
		if st.Exists(t.Context(), key) || st.Exists(t.Context(), path.Dir(key)) && path.Ext(key) != ".json" {
			t.Errorf("%s is still there", key)
		}
	}
	for _, key := range stay {
		if !st.Exists(t.Context(), key) {
			t.Errorf("%s is gone", key)
		}
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("the lock is still there")
	}
}

// TestCleanOnceADay: the nodes of a storage share the work, and none can end it for all.
func TestCleanOnceADay(t *testing.T) {
	_, v := unrun(t, offDemand(), Deps{})
	st, now := v.acme.depot.store, time.Now()
	past := trouble{Name: "past.example.org", Error: "x", At: now.Add(-2 * longPast)}
	deleted := func(now time.Time) int {
		t.Helper()
		if err := v.acme.store.writeTrouble(t.Context(), past); err != nil {
			t.Fatal(err)
		}
		n, err := v.acme.clean(t.Context(), now)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	got := []int{deleted(now), deleted(now.Add(cleanEvery - time.Minute)), deleted(now.Add(cleanEvery))}
	got = append(got, deleted(now.Add(-time.Hour))) // the clock was ahead
	if err := st.Store(t.Context(), cleanKey, []byte("half a wri")); err != nil {
		t.Fatal(err)
	}
	got = append(got, deleted(now))
	if ok, err := st.TryLock(t.Context(), cleanLock); !ok || err != nil {
		t.Fatal(ok, err)
	}
	got = append(got, deleted(now.Add(2*cleanEvery)))
	if want := []int{1, 0, 1, 1, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("deleted %v, want %v", got, want)
	}
}
