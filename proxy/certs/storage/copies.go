package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// copies are this gateway's own copies of the certificates it has used, records as they are in the storage: encrypted if
// they are there. certmagic has a LocalCache for this; it answers from the copy first, so that a certificate that another
// gateway replaced because its key was stolen would go on being served here after a restart. This one asks the storage first.
type copies struct {
	*files
}

func openCopies(dir string) (*copies, error) {
	f, err := openFiles(dir)
	return &copies{f}, err
}

// sites begins the folders of certificates: certmagic's own, and others beside it for further certificates of the same names.
const sites = "certificates"

// copied says that a record is needed to serve: certificates with their keys and what belongs to them. Accounts stay where they are.
func copied(key string) bool { return strings.HasPrefix(key, sites) && strings.Contains(key, "/") }

func (c *copies) keep(ctx context.Context, key string, record []byte) error {
	if !copied(key) {
		return nil
	}
	if old, err := c.load(ctx, key); err == nil && bytes.Equal(old, record) {
		return nil
	}
	return c.store(ctx, key, record)
}

func (c *copies) drop(ctx context.Context, key string) error {
	if !strings.HasPrefix(key, sites) {
		return nil
	}
	return c.remove(ctx, key)
}

// standIn gives the copy for a record that the storage failed to give, for the reason why.
func (c *copies) standIn(ctx context.Context, key string, why error) ([]byte, error) {
	record, err := c.load(ctx, key)
	if err == nil {
		return record, nil
	}
	// certmagic asks for a name's certificate from each issuer, and takes any error but "not there" for the end. What another
	// issuer gave is all that is needed; where nothing is known of the name, nobody must believe that it has no certificate.
	if errors.Is(err, fs.ErrNotExist) && c.otherIssuer(key) {
		return nil, fs.ErrNotExist
	}
	return nil, why
}

// otherIssuer says that there is the same file of another issuer: certificates/ISSUER/NAME/FILE.
func (c *copies) otherIssuer(key string) bool {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return false
	}
	issuers, err := os.ReadDir(c.Filename(parts[0]))
	if err != nil {
		return false
	}
	for _, issuer := range issuers {
		if _, err := os.Stat(filepath.Join(c.Filename(parts[0]), issuer.Name(), parts[2], parts[3])); err == nil {
			return true
		}
	}
	return false
}

// prune deletes copies of what the storage has no more, which another gateway deleted there.
func (c *copies) prune(ctx context.Context, b backend) error {
	own, err := c.keys(ctx, "", true)
	if err != nil || len(own) == 0 {
		return err
	}
	all, err := b.keys(ctx, "", true)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(all))
	for _, key := range all {
		there[key] = true
	}
	for _, key := range own {
		if !there[key] {
			err = errors.Join(err, c.drop(ctx, key))
		}
	}
	if err != nil {
		return fmt.Errorf("delete copies of what is no more: %w", err)
	}
	return nil
}
