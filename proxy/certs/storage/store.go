package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// What one record may be. certmagic's are some KB.
const (
	maxValue = 16 << 20
	maxKey   = 1024
)

// Store is a certmagic.Storage, with what certmagic makes use of where it is there: TryLock and RenewLockLease. It is a prometheus.Collector too. Its
// methods may be called at once. Close it when nothing uses it any more.
type Store struct {
	backend backend
	locker  locker
	sealer  *sealer // nil: nothing is encrypted
	copies  *copies // nil: there are none
	copying atomic.Bool
	shared  bool
	log     *slog.Logger
	watch   watch
	wrote   atomic.Int64 // when a write was last tried and went well, in Unix nanoseconds
}

// A locker is what certmagic wants of locks.
type locker interface {
	certmagic.Locker
	certmagic.TryLocker
	certmagic.LockLeaseRenewer
}

var (
	_ certmagic.Storage = (*Store)(nil)
	_ locker            = (*Store)(nil)
)

// Open makes the Store of a valid Config. Files and copies are kept in folders of stateDir, made at the first need and closed to others. It reads the
// files that c names and connects to nothing: a storage that is down is no reason not to start. A nil log discards. For
// a gateway Run has to run beside the Store; without, it keeps no copies.
func Open(c Config, stateDir string, log *slog.Logger) (*Store, error) {
	return open(c, stateDir, log, leaseTime)
}

func open(c Config, stateDir string, log *slog.Logger, ttl time.Duration) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{shared: c.Shared(), log: log, watch: newWatch(c.Type)}
	var err error
	if s.sealer, err = newSealer(c.EncryptionKeyFiles, c.AcceptPlaintext); err != nil {
		return nil, err
	}
	// Asked again, after Validate: a forgotten call must not lay keys open.
	if s.shared && s.sealer == nil && c.Encryption != EncryptionNone {
		return nil, errors.New("encryption_key_files: is missing for a shared storage")
	}
	if s.shared && c.LocalCopy {
		if s.copies, err = openCopies(filepath.Join(stateDir, "acme-copy")); err != nil {
			return nil, err
		}
	}
	switch c.Type {
	case TypeFile:
		f, err := openFiles(filepath.Join(stateDir, "acme"))
		if err != nil {
			return nil, err
		}
		s.backend, s.locker = f, fileLocks{f.FileStorage}
	case TypeRedis:
		r, err := openRedis(c.Redis)
		if err != nil {
			return nil, err
		}
		s.backend, s.locker = r, leased{newLocks(r, ttl, log)}
	case TypePostgres:
		p, err := openPostgres(c.Postgres)
		if err != nil {
			return nil, err
		}
		s.backend, s.locker = p, leased{newLocks(p, ttl, log)}
	default:
		return nil, fmt.Errorf("type: is %q", c.Type)
	}
	return s, nil
}

// Close ends the connections and the renewing of locks, which run out by themselves.
func (s *Store) Close() error {
	if l, ok := s.locker.(leased); ok {
		l.close()
	}
	s.backend.close()
	return nil
}

// String names the kind of storage, for certmagic's log.
func (s *Store) String() string { return "storage:" + s.watch.kind }

// checkKey refuses names that mean different things to different storages. A folder may be "" for all there is.
func checkKey(key string, folder bool) error {
	if folder && key == "" {
		return nil
	}
	if !fs.ValidPath(key) || key == "." || len(key) > maxKey || strings.ContainsAny(key, "\x00\\") || strings.HasPrefix(key+"/", lockFolder+"/") {
		return fmt.Errorf("certificate storage: %q cannot be a name: %w", key, fs.ErrInvalid)
	}
	return nil
}

// Store puts value at key (certmagic.Storage).
func (s *Store) Store(ctx context.Context, key string, value []byte) error {
	err := checkKey(key, false)
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("%d bytes are too many", len(value))
	}
	if err == nil {
		record := s.sealer.seal(key, value)
		if err = s.asked(ctx, "store", s.backend.store(ctx, key, record)); err == nil {
			s.keepCopy(ctx, key, record)
		}
	}
	return wrap("store", key, err)
}

// Load gives the value at key, of this gateway's copy where the storage cannot be reached (certmagic.Storage). The error for one that is
// there and unusable is ErrUnreadable.
func (s *Store) Load(ctx context.Context, key string) ([]byte, error) {
	if err := checkKey(key, false); err != nil {
		return nil, err
	}
	if value, ok := s.instead(ctx, key); ok {
		return value, nil
	}
	record, err := s.backend.load(ctx, key)
	err = s.asked(ctx, "load", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.dropCopy(ctx, key)
	case err != nil && s.copies != nil && !errors.Is(err, ErrUnreadable):
		return s.standIn(ctx, key, err)
	}
	if err != nil {
		return nil, wrap("load", key, err)
	}
	value, err := s.sealer.open(key, record)
	if err == nil {
		s.keepCopy(ctx, key, record)
	}
	return value, err
}

// instead gives a copy at once where the storage was found down a moment ago, so that handshakes do not wait for it one by one.
func (s *Store) instead(ctx context.Context, key string) ([]byte, bool) {
	if s.copies == nil || !s.watch.downNow() {
		return nil, false
	}
	record, err := s.copies.load(ctx, key)
	if err != nil {
		return nil, false
	}
	value, err := s.sealer.open(key, record)
	return value, err == nil
}

// standIn gives the copy for what the storage failed to give, for the reason why. A copy that cannot be read says nothing of the
// storage's record, which must not be taken for altered and deleted: it is as good as none.
func (s *Store) standIn(ctx context.Context, key string, why error) ([]byte, error) {
	record, err := s.copies.standIn(ctx, key, why)
	if err == nil {
		value, unreadable := s.sealer.open(key, record)
		if unreadable == nil {
			return value, nil
		}
		err = why
	}
	return nil, wrap("load", key, err)
}

// keepCopy does so for the gateway, where Run runs: whoever only looks, as root perhaps, must not leave files that it cannot write.
func (s *Store) keepCopy(ctx context.Context, key string, record []byte) {
	if s.copies == nil || !s.copying.Load() {
		return
	}
	if err := s.copies.keep(ctx, key, record); err != nil {
		s.log.Warn("certificate storage: the local copy cannot be written", "error", err)
	}
}

func (s *Store) dropCopy(ctx context.Context, key string) {
	if s.copies == nil || !s.copying.Load() {
		return
	}
	if err := s.copies.drop(ctx, key); err != nil {
		s.log.Warn("certificate storage: a local copy cannot be deleted", "error", err)
	}
}

// Delete removes key and all below it; what is not there is no error (certmagic.Storage).
func (s *Store) Delete(ctx context.Context, key string) error {
	err := checkKey(key, false)
	if err == nil {
		err = s.asked(ctx, "delete", s.backend.remove(ctx, key))
	}
	if err == nil {
		s.dropCopy(ctx, key)
	}
	return wrap("delete", key, err)
}

// Exists says whether there is a record or a folder at key, and no if that cannot be told (certmagic.Storage).
func (s *Store) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// Stat tells when and with what size a record was stored (certmagic.Storage). The size is the value's.
func (s *Store) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if err := checkKey(key, false); err != nil {
		return certmagic.KeyInfo{}, err
	}
	info, err := s.backend.stat(ctx, key)
	if err = s.asked(ctx, "stat", err); err != nil {
		return certmagic.KeyInfo{}, wrap("stat", key, err)
	}
	info.Key = key
	if s.sealer != nil && info.IsTerminal {
		info.Size = max(info.Size-int64(overhead), 0)
	}
	return info, nil
}

// List gives what is right below folder, or all that is below it, folders too, in order (certmagic.Storage). "" is the
// folder of all. A folder with nothing in it is not there: fs.ErrNotExist. Certificates are listed from the copies where the storage cannot be
// reached.
func (s *Store) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	if err := checkKey(folder, true); err != nil {
		return nil, err
	}
	keys, err := s.backend.keys(ctx, folder, recursive)
	if err = s.asked(ctx, "list", err); err != nil && s.copies != nil && strings.HasPrefix(folder, sites) {
		keys, err = s.copies.keys(ctx, folder, recursive)
	}
	if err == nil && len(keys) == 0 && folder != "" {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, wrap("list", folder, err)
	}
	return listing(folder, keys, recursive), nil
}

// Lock waits for the lock and takes it (certmagic.Locker).
func (s *Store) Lock(ctx context.Context, name string) error {
	if err := checkLock(name); err != nil {
		return err
	}
	return wrap("lock", name, s.asked(ctx, "lock", s.locker.Lock(ctx, name)))
}

// TryLock takes the lock if it is free now (certmagic.TryLocker).
func (s *Store) TryLock(ctx context.Context, name string) (bool, error) {
	if err := checkLock(name); err != nil {
		return false, err
	}
	ok, err := s.locker.TryLock(ctx, name)
	if err == nil && !ok {
		return false, nil // nothing was written: no word on whether it could be
	}
	return ok, wrap("lock", name, s.asked(ctx, "lock", err))
}

// Unlock gives the lock up (certmagic.Locker). An error means that it was not ours any more, or that others have to wait until it has run out.
func (s *Store) Unlock(ctx context.Context, name string) error {
	return wrap("unlock", name, s.asked(ctx, "unlock", s.locker.Unlock(ctx, name)))
}

// RenewLockLease fails if the lock is not ours any more (certmagic.LockLeaseRenewer). For how long does not matter: held locks are renewed as long as
// this process lives, and a long lease would outlive it by hours.
func (s *Store) RenewLockLease(ctx context.Context, name string, d time.Duration) error {
	if !s.shared {
		return s.locker.RenewLockLease(ctx, name, d) // which writes nothing, and must not pass for a write
	}
	return wrap("renew lock", name, s.asked(ctx, "lock", s.locker.RenewLockLease(ctx, name, d)))
}

func checkLock(name string) error {
	if name == "" || len(name) > maxKey || strings.ToValidUTF8(name, "") != name || strings.ContainsRune(name, 0) {
		return fmt.Errorf("certificate storage: %q cannot be a lock's name: %w", name, fs.ErrInvalid)
	}
	return nil
}

func wrap(what, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("certificate storage: %s %s: %w", what, key, err)
}

// leased gives locks the methods that certmagic knows.
type leased struct{ *locks }

// Lock waits for the lease.
func (l leased) Lock(ctx context.Context, name string) error {
	_, err := l.lock(ctx, name, true)
	return err
}

// TryLock takes the lease if it is free.
func (l leased) TryLock(ctx context.Context, name string) (bool, error) {
	return l.lock(ctx, name, false)
}

// Unlock gives the lease up.
func (l leased) Unlock(ctx context.Context, name string) error { return l.unlock(ctx, name) }

// RenewLockLease fails if the lease is somebody else's.
func (l leased) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	return l.check(ctx, name)
}

// fileLocks are FileStorage's own, which it renews itself.
type fileLocks struct{ *certmagic.FileStorage }

// Unlock removes the lock's file.
func (f fileLocks) Unlock(ctx context.Context, name string) error {
	err := f.FileStorage.Unlock(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return errNotHeld
	}
	return err
}

// RenewLockLease has nothing to do.
func (f fileLocks) RenewLockLease(context.Context, string, time.Duration) error { return nil }
