package certs

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

// TestOtherProcessAnswers is TestOtherNodeAnswers with nodes that share nothing but the storage: within one process certmagic knows its
// challenges by heart. A orders and cannot be reached, the issuer comes to B.
func TestOtherProcessAnswers(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, _ *servers.Server, c Config) {
		idle := c
		idle.ACME.Domains, idle.ACME.OnDemand.Names = nil, []string{"idle.{domain}"}
		b, _ := startRig(t, t.TempDir(), idle, nil)
		b.log.wait(t, "listening")

		a := node{Config: c, StateDir: t.TempDir()}
		a.Config.ACME.HTTPAddress = freeAddress(t)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"="+string(must(json.Marshal(a))))
		said := new(output)
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		store := must(Offline(c, t.TempDir()))
		defer func() { _ = store.Close() }()
		eventually(t, "A's certificate in the storage", func() bool {
			list, err := store.List(t.Context())
			return err == nil && len(list) == 1 && list[0].Name == "mail.example.org" && !list[0].NotAfter.IsZero()
		})
		v := b.use(c, Listener{Name: "pop3s"})
		shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
		if got := p.orders(); got != 1 {
			t.Errorf("got %d orders, want A's alone; it says %q", got, said)
		}
	})
}
