package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
)

// List gives a Status for each certificate of the view in force: files, then what popgate obtains, then what the local CA issued. It
// works while the storage is down.
func (k *Keeper) List(ctx context.Context) ([]Status, error) {
	v := k.view.Load()
	if v == nil {
		return nil, nil
	}
	var all []Status
	for _, s := range v.table.Load().sources {
		st := statusOf(s.cert, SourceFile)
		if v.local != nil {
			st.Source, st.NextRenewal = SourceLocal, renewAt(st.NotBefore, st.NotAfter)
		}
		all = append(all, st)
	}
	return all, ctx.Err()
}

// Renew orders a new certificate for a name that popgate obtains, now and whatever the age of the one it has, and returns once that is
// in force. The error is ErrUnknownName, ErrNotManaged, the order's, or that of ctx; the order goes on when ctx ends.
func (k *Keeper) Renew(ctx context.Context, name string) error {
	name, err := normal(name)
	if err != nil {
		return err
	}
	all, err := k.List(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		if slices.Contains(st.Names, name) {
			return fmt.Errorf("%s: %w", name, ErrNotManaged)
		}
	}
	return fmt.Errorf("%s: %w", name, ErrUnknownName)
}

// Export gives the certificate that clients get for a name, with its chain, and its key, both in PEM. The error is ErrUnknownName where
// there is none. Of an ECDSA and an RSA certificate it gives the first one.
func (k *Keeper) Export(_ context.Context, name string) (certPEM, keyPEM []byte, err error) {
	name, err = normal(name)
	if err != nil {
		return nil, nil, err
	}
	v := k.view.Load()
	if v == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
	}
	found := v.table.Load().find(name)
	if found == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
	}
	var chain bytes.Buffer
	for _, der := range found[0].Certificate {
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(found[0].PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("export the key of %s: %w", name, err)
	}
	return chain.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
