// Package passwd checks passwords against stored hashes: those of crypt(3), those that Dovecot writes as {SCHEME}hash, and the
// argon2, scrypt and PBKDF2 forms that other programs share.
//
// A hash is a stranger's order for work: what it may ask for is bounded, and so is what all checks together take of CPU and memory.
package passwd

import (
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sync/semaphore"
)

// What Check refuses for. Nothing that it returns holds a secret or a hash.
var (
	// ErrWrong means that the secret is not the one that was hashed.
	ErrWrong = errors.New("the password is wrong")
	// ErrScheme means that popgate cannot check hashes of this scheme.
	ErrScheme = errors.New("not a password scheme that popgate checks")
	// ErrHash means that the hash is not written as its scheme wants it.
	ErrHash = errors.New("not a well-formed password hash")
	// ErrCost means that the hash asks for more work or memory than popgate gives to one check.
	ErrCost = errors.New("the password hash asks for too much work")
)

const (
	// maxHash and maxSecret bound what is looked at, in octets. The second is crypt(3)'s own bound; without one the work of
	// some schemes could be multiplied by whoever logs in.
	maxHash   = 2048
	maxSecret = 512

	mebi = 1024 // MiB in KiB, in which memory is counted here

	// maxMemory is what one check may take, usualMemory what each worker adds to what all may take together: it is what
	// argon2id takes as Dovecot sets it.
	maxMemory   = 256 * mebi
	usualMemory = 64 * mebi
)

// A Checker checks passwords, so many at a time. Its methods may be called at once; it needs no closing.
type Checker struct {
	workers int64
	shares  shares
	slots   *semaphore.Weighted
	memory  *semaphore.Weighted
}

// New makes a Checker with so many workers; 0 or less means half of the CPUs that the program may use, at least one. All
// checks together take 64 MiB for each worker, and 256 MiB at least, for one check may need that much.
func New(workers int) *Checker {
	if workers <= 0 {
		workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	return &Checker{
		workers: int64(workers),
		shares:  shares{workers: int64(workers), by: make(map[netip.Prefix]*share)},
		slots:   semaphore.NewWeighted(int64(workers)),
		memory:  semaphore.NewWeighted(max(int64(workers)*usualMemory, maxMemory)),
	}
}

// Check returns nil where secret is what hash was made of, ErrWrong where it is not, and an error with ErrScheme, ErrHash or
// ErrCost in it where the hash is at fault. It waits for its turn, and returns ctx's error if that ends first; what has begun
// is not broken off. However many checks one client network wants, those of others wait for a round of them at most. An empty
// secret is always wrong. The time it takes depends on the hash and the secret's length alone.
func (c *Checker) Check(ctx context.Context, from netip.Prefix, hash string, secret []byte) error {
	w, err := parse(hash)
	if err != nil {
		return err
	}
	// No crypt(3) ever saw a zero octet: to bcrypt "a\x00a" is "a".
	if len(secret) == 0 || len(secret) > maxSecret || bytes.IndexByte(secret, 0) >= 0 {
		return ErrWrong
	}
	if w.threads > 0 {
		release, err := c.acquire(ctx, from, w)
		if err != nil {
			return fmt.Errorf("check a password: wait for a worker: %w", err)
		}
		defer release()
	}
	ok := false
	// What a hash was made with was decided elsewhere, long ago: FIPS mode, where it is enforced, must not end the program.
	fips140.WithoutEnforcement(func() { ok = w.match(secret) })
	if !ok {
		return ErrWrong
	}
	return nil
}

// acquire waits for the network's share of the queue, then for workers, then for memory. Whoever holds memory therefore runs, so
// that nobody waits in vain.
func (c *Checker) acquire(ctx context.Context, from netip.Prefix, w work) (release func(), err error) {
	threads := min(w.threads, c.workers)
	leave, err := c.shares.acquire(ctx, from, threads)
	if err != nil {
		return nil, err
	}
	if err := c.slots.Acquire(ctx, threads); err != nil {
		leave()
		return nil, err
	}
	if err := c.memory.Acquire(ctx, w.memory); err != nil {
		c.slots.Release(threads)
		leave()
		return nil, err
	}
	return func() {
		c.memory.Release(w.memory)
		c.slots.Release(threads)
		leave()
	}, nil
}

// A work is a hash taken apart: what checking it takes, and how that is done. It is within the bounds of this package.
type work struct {
	threads int64 // workers that it keeps busy; 0 where it is done in microseconds
	memory  int64 // KiB
	match   func(secret []byte) bool
}

// never is the work of a hash that no password fits, as system administrators write it to shut an account.
var never = work{match: func([]byte) bool { return false }}
