package storage

import (
	"context"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
)

// A backend keeps records by name, as they are given. A name that is not there gives fs.ErrNotExist itself: a socket that is not there
// has that in its error too, and is something else.
// It is wide because certmagic's own interface is; Store checks names, encrypts, and bounds the time before it gets here.
type backend interface {
	load(ctx context.Context, key string) ([]byte, error)
	store(ctx context.Context, key string, record []byte) error
	// replace stores record if what is there is old, nil for nothing, and says whether it did.
	replace(ctx context.Context, key string, old, record []byte) (bool, error)
	// remove deletes key and all below it.
	remove(ctx context.Context, key string) error
	// stat tells of a record, or of a folder if there are records below it.
	stat(ctx context.Context, key string) (certmagic.KeyInfo, error)
	// keys lists the records below a folder in their order, "" for all; of each folder in it one is enough if deep is not set.
	keys(ctx context.Context, folder string, deep bool) ([]string, error)
	// health fails if the storage is away or takes no writes.
	health(ctx context.Context) error
	close()
}

// span is the range [from, to) of bytewise ordered names that are below folder.
func span(folder string) (from, to string) {
	if folder == "" {
		return "", "\xff" // names are UTF-8, which has no such byte
	}
	return folder + "/", folder + "0" // what comes after the slash
}

// listing makes what certmagic's List gives out of the ordered names of records: what is right below folder, or with
// deep all that is below, folders included, as certmagic.FileStorage has it.
func listing(folder string, keys []string, deep bool) []string {
	prefix := ""
	if folder != "" {
		prefix = folder + "/"
	}
	var all []string
	seen := make(map[string]bool)
	for _, key := range keys {
		for at := len(prefix); ; at++ {
			next := strings.IndexByte(key[at:], '/')
			entry := key
			if next >= 0 {
				entry = key[:at+next]
			}
			if !seen[entry] {
				seen[entry] = true
				all = append(all, entry)
			}
			if next < 0 || !deep {
				break
			}
			at += next
		}
	}
	slices.Sort(all)
	return all
}
