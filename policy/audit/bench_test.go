package audit

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/popgate/popgate/auth"
)

// typical is a record with all that a login has.
func typical() *Event {
	return &Event{
		Name: LoginAccepted, Session: "kq3v5m2c7d", Listener: "pop3s",
		Client: netip.MustParseAddrPort("192.0.2.7:51234"),
		TLS: TLSOf(&auth.TLS{
			Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519MLKEM768", ServerName: "mail.example.org",
		}),
		User: "anna@example.org", Tenant: "example", Backend: "old", Server: "10.0.0.5:110", Mechanism: auth.User,
	}
}

// BenchmarkRecord is what a login pays for its record on a disk that is not busy, by many logins at once.
func BenchmarkRecord(b *testing.B) {
	l := New("gw1", nil, nil)
	start(b, l, Config{Path: filepath.Join(b.TempDir(), "audit.jsonl"), OnFailure: Refuse})
	ctx := b.Context()
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		ev := typical()
		for pb.Next() {
			if err := l.Record(ctx, ev); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkRecordAlone is one login after the other: each waits for a write of its own.
func BenchmarkRecordAlone(b *testing.B) {
	l := New("gw1", nil, nil)
	start(b, l, Config{Path: filepath.Join(b.TempDir(), "audit.jsonl"), OnFailure: Refuse})
	ctx, ev := b.Context(), typical()
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Record(ctx, ev); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkRefused is a connection turned away in a flood from many networks.
func BenchmarkRefused(b *testing.B) {
	l := New("gw1", nil, nil)
	useWriter(l, &plainWriter{}, Drop)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Refused(Refusal{Reason: TooManySessions, Network: network(i % 4000)})
	}
}
