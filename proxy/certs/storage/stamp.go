package storage

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
)

// Stamp tells two openings of one Config apart, where a file that it names had other contents in between: keys for encryption, and
// what the connections to Redis go by. The other passwords are not of it, they are read for each connection.
func (c Config) Stamp() (stamp [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range append([]string{c.Redis.TLSCA, c.Redis.TLSCert, c.Redis.TLSKey, c.Redis.SentinelPasswordFile}, c.EncryptionKeyFiles...) {
		if name != "" {
			addFile(h, name)
		}
	}
	h.Sum(stamp[:0])
	return stamp
}

// addFile adds a file's contents, or that it cannot be read: Open says so then.
func addFile(h hash.Hash, name string) {
	fmt.Fprintf(h, "%d %s\n", len(name), name)
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // not to wait at a FIFO
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return
	}
	n, _ := io.Copy(h, io.LimitReader(f, maxValue)) // what could be read counts
	fmt.Fprintf(h, "\n%d\n", n)
}
