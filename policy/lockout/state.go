package lockout

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/popgate/popgate/policy/statefile"
)

// The files in the Keeper's folder, and what the state begins with.
const (
	keyFile   = "lockout.key"
	stateFile = "lockout.state"
	magic     = "pglock1\n"
)

// The sizes of what is in the state: a known-good pair, and a lockout.
const (
	knownSize  = 8 + 4
	recordSize = 8 + 8 + 8 + 16 + 4 + 4
)

// errCorrupt is the error for a state that was not written whole by a Keeper with the same key.
var errCorrupt = errors.New("it is damaged, or was written with another key")

// Load reads what an earlier Keeper has saved, and makes the key of the digests where there is none. It comes before
// anything else the Keeper is asked for. What cannot be read is logged, and the Keeper starts without it; where no key
// can be kept, nothing is saved either.
func (k *Keeper) Load() {
	if k.dir == "" {
		return
	}
	statefile.Tidy(k.path(keyFile))
	statefile.Tidy(k.path(stateFile))
	made, err := k.loadKey()
	if err != nil {
		k.log.Warn("lockouts and known-good users are kept in memory only", "error", err)
		k.dir = ""
		return
	}
	data, err := readBounded(k.path(stateFile), k.stateBound())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil && made {
		err = errCorrupt // its key is gone
	}
	if err == nil {
		err = k.decode(data)
	}
	if err != nil {
		k.log.Warn("lockouts and known-good users of before the start are lost: beginning without them",
			"error", fmt.Errorf("load %s: %w", k.path(stateFile), err))
	}
}

// Save writes the state, whole or not at all. Run does so by itself.
func (k *Keeper) Save() error {
	if k.dir == "" {
		return errors.New("save lockouts: there is no folder for state")
	}
	k.saving.Lock()
	defer k.saving.Unlock()
	return statefile.Write(k.path(stateFile), k.encode())
}

// loadKey reads the key of the digests, or makes and writes one.
func (k *Keeper) loadKey() (made bool, err error) {
	if k.cluster != nil {
		return false, nil // it is the cluster's
	}
	path := k.path(keyFile)
	data, err := readBounded(path, keySize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && len(data) == keySize:
		copy(k.hasher.names[:], data)
		k.hasher.ready()
		clear(data)
		k.warnOpen(path)
		return false, nil
	case err == nil || errors.Is(err, errCorrupt):
		k.log.Warn("the key of lockouts and known-good users is damaged: making a new one", "file", path)
	default:
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, statefile.Write(path, k.hasher.names[:])
}

// warnOpen says so where others can read the key.
func (k *Keeper) warnOpen(path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		k.log.Warn("others can read the key of lockouts and known-good users: run chmod 600 on it", "file", path)
	}
}

func (k *Keeper) stateBound() int64 {
	return int64(len(magic) + 8 + sha256.Size + k.known.most()*knownSize + k.lockouts.most()*recordSize)
}

// encode is the state: magic, the number of known-good pairs and them, that of lockouts and them, HMAC-SHA-256 of it all.
func (k *Keeper) encode() []byte {
	now, c := k.now(), k.config()
	b := append(make([]byte, 0, len(magic)+8+sha256.Size+k.known.len()*knownSize), magic...)
	b = binary.BigEndian.AppendUint32(b, 0)
	n := uint32(0)
	k.known.each(func(key Key, g *known) {
		if now-g.success < int64(c.KnownFor) {
			b = binary.BigEndian.AppendUint64(b, uint64(key))
			b = binary.BigEndian.AppendUint32(b, uint32(g.success/int64(time.Second)))
			n++
		}
	})
	binary.BigEndian.PutUint32(b[len(magic):], n)
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, 0)
	n = 0
	k.lockouts.each(func(_ Key, r *record) {
		if !r.removed && (!r.ended || now-r.until < int64(c.MaxDuration)) {
			b = r.append(b)
			n++
		}
	})
	binary.BigEndian.PutUint32(b[at:], n)
	return append(b, k.seal(b)...)
}

func (k *Keeper) seal(b []byte) []byte {
	mac := hmac.New(sha256.New, k.hasher.names[:])
	mac.Write(b)
	return mac.Sum(nil)
}

// append writes all of r but the user's name.
func (r *record) append(b []byte) []byte {
	addr := r.network.Addr()
	flags := byte(0)
	for i, set := range [...]bool{addr.Is4(), r.ended, r.removed, r.heard} {
		if set {
			flags |= 1 << i
		}
	}
	a := addr.As16()
	b = binary.BigEndian.AppendUint64(b, uint64(r.since))
	b = binary.BigEndian.AppendUint64(b, uint64(r.until))
	b = binary.BigEndian.AppendUint64(b, uint64(r.user))
	b = append(b, a[:]...)
	b = append(b, byte(r.network.Bits()), flags, r.level, byte(slices.Index(causes[:], r.cause)))
	return binary.BigEndian.AppendUint32(b, uint32(r.failures))
}

// decode takes up what encode has written; nothing of it, where any of it is wrong.
func (k *Keeper) decode(data []byte) error {
	if len(data) < len(magic)+8+sha256.Size || string(data[:len(magic)]) != magic {
		return errCorrupt
	}
	body := data[:len(data)-sha256.Size]
	if !hmac.Equal(data[len(body):], k.seal(body)) {
		return errCorrupt
	}
	pairs, rest, ok := elements(body[len(magic):], knownSize)
	if !ok {
		return errCorrupt
	}
	locks, rest, ok := elements(rest, recordSize)
	if !ok || len(rest) > 0 {
		return errCorrupt
	}
	records := make([]record, 0, len(locks)/recordSize)
	for b := range slices.Chunk(locks, recordSize) {
		r, err := readRecord(b)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	k.takeUp(pairs, records)
	return nil
}

// takeUp remembers what was saved. Times to come, which a clock that was set back makes of those past, are now.
func (k *Keeper) takeUp(pairs []byte, records []record) {
	now := k.now()
	for b := range slices.Chunk(pairs, knownSize) {
		key := Key(binary.BigEndian.Uint64(b))
		s := k.known.lock(key)
		s.use(key).success = min(int64(binary.BigEndian.Uint32(b[8:]))*int64(time.Second), now)
		s.mu.Unlock()
	}
	for _, r := range records {
		r.notAhead(now)
		key := k.key(&r)
		s := k.lockouts.lock(key)
		k.keep(s, key, r)
		s.mu.Unlock()
	}
}

// notAhead has a lockout that began later than now begin now, and last as long.
func (r *record) notAhead(now int64) {
	if ahead := r.since - now; ahead > 0 {
		r.since, r.until = now, r.until-ahead
	}
}

// key is what a lockout is kept by.
func (k *Keeper) key(r *record) Key {
	key := k.hasher.ofNetwork(r.network)
	if r.user != 0 {
		key = pair(key, r.user)
	}
	return key
}

// elements cuts a number of elements of one size off b, that number before them.
func elements(b []byte, size int) (of, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := int64(binary.BigEndian.Uint32(b)) * int64(size)
	if b = b[4:]; n > int64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func readRecord(b []byte) (record, error) {
	r := record{
		since:    int64(binary.BigEndian.Uint64(b)),
		until:    int64(binary.BigEndian.Uint64(b[8:])),
		user:     Key(binary.BigEndian.Uint64(b[16:])),
		ended:    b[41]&2 != 0,
		removed:  b[41]&4 != 0,
		heard:    b[41]&8 != 0,
		level:    b[42],
		failures: int(binary.BigEndian.Uint32(b[44:])),
	}
	addr := netip.AddrFrom16([16]byte(b[24:40]))
	if b[41]&1 != 0 {
		addr = addr.Unmap()
	}
	network, err := addr.Prefix(int(b[40]))
	if err != nil || int(b[43]) >= len(causes) || r.since < 0 || r.until < r.since {
		return record{}, errCorrupt
	}
	r.network, r.cause = network, causes[b[43]]
	return r, nil
}

// readBounded reads a file of at most so many bytes; a longer one is errCorrupt.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = errCorrupt
	}
	return data, err
}
