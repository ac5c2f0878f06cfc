package storage

import (
	"bytes"
	"context"
	"fmt"
	"testing"
)

// BenchmarkStore measures what a handshake for a name that is not in memory waits for (load), an order (lock) and a listing of 1,000 names.
func BenchmarkStore(b *testing.B) {
	value := bytes.Repeat([]byte("x"), 3000) // a chain of two in PEM
	for _, v := range variants(b) {
		v.config.LocalCopy = false
		s, err := Open(v.config, b.TempDir(), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		ctx := b.Context()
		for i := range 1000 {
			if err := s.Store(ctx, fmt.Sprintf("certificates/i/n%d/n.crt", i), value); err != nil {
				b.Fatal(err)
			}
		}
		for name, act := range map[string]func(context.Context) error{
			"load":  func(ctx context.Context) error { _, err := s.Load(ctx, "certificates/i/n1/n.crt"); return err },
			"store": func(ctx context.Context) error { return s.Store(ctx, "certificates/i/n2/n.crt", value) },
			"list":  func(ctx context.Context) error { _, err := s.List(ctx, "certificates/i", false); return err },
			"lock": func(ctx context.Context) error {
				if err := s.Lock(ctx, "bench"); err != nil {
					return err
				}
				return s.Unlock(ctx, "bench")
			},
		} {
			if name == "lock" && !s.shared {
				continue // each leaves a goroutine of certmagic's behind for 5 s
			}
			b.Run(v.name+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if err := act(ctx); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
