package dns

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A hook is the service behind a webhook. It writes down what it gets.
type hook struct {
	mu     sync.Mutex
	got    []string
	status []int // of the answers, in turn; 204 after the last
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Authorization")+" "+string(body))
	if len(h.status) > 0 {
		w.WriteHeader(h.status[0])
		_, _ = w.Write([]byte("no\nsuch zone"))
		h.status = h.status[1:]
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func webhookAt(t *testing.T, h http.Handler) *webhook {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	c := DefaultConfig()
	c.Provider = ProviderWebhook
	c.Webhook = Webhook{URL: s.URL + "/acme", TokenFile: writeFile(t, "token-1\n"), CAFile: writeFile(t, caOf(s))}
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.(*webhook).api.pause = 1
	return p.(*webhook)
}

func TestWebhook(t *testing.T) {
	h := &hook{status: []int{502, 429}} // passes by itself
	p := webhookAt(t, h)
	if _, err := p.AppendRecords(t.Context(), "_acme-challenge.example.org.", txt("@", "value")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.config.TokenFile, []byte("token-2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.org", txt("_acme-challenge", "value")); err != nil {
		t.Fatal(err)
	}
	present := `POST /acme application/json Bearer token-1 {"action":"present","fqdn":"_acme-challenge.example.org.","value":"value","ttl":60}`
	cleanup := `POST /acme application/json Bearer token-2 {"action":"cleanup","fqdn":"_acme-challenge.example.org.","value":"value","ttl":60}`
	if want := []string{present, present, present, cleanup}; !slices.Equal(h.got, want) {
		t.Errorf("the service got\n%s\nwant\n%s", strings.Join(h.got, "\n"), strings.Join(want, "\n"))
	}

	h.got, h.status = nil, []int{404}
	_, err := p.AppendRecords(t.Context(), "example.org", txt("_acme-challenge", "value"))
	wantError(t, err, "present the record of _acme-challenge.example.org by webhook", "404 Not Found", `"no\nsuch zone"`)
	if len(h.got) != 1 {
		t.Errorf("a refusal was tried %d times", len(h.got))
	}
	if strings.Contains(err.Error(), "token") {
		t.Errorf("error shows the token: %v", err)
	}
}

func TestWebhookTrouble(t *testing.T) {
	t.Run("caller gone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		p := webhookAt(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked++
			// The server notices that the client has gone only once all of the request is read.
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		}))
		_, err := p.AppendRecords(ctx, "example.org", txt("a", "value"))
		if !errors.Is(err, context.Canceled) || asked != 1 {
			t.Errorf("got %v after %d requests, want the caller's end after one", err, asked)
		}
	})
	t.Run("down", func(t *testing.T) {
		p := webhookAt(t, &hook{})
		p.config.URL = "https://127.0.0.1:" + freePort(t)
		_, err := p.AppendRecords(t.Context(), "example.org", txt("a", "value"))
		wantError(t, err, "connection refused")
	})
	c := DefaultConfig()
	c.Provider = ProviderWebhook
	for name, tt := range map[string]struct {
		hook Webhook
		want string
	}{
		"two tokens":    {Webhook{TokenFile: writeFile(t, "one\ntwo")}, "more than one token"},
		"no token":      {Webhook{TokenFile: writeFile(t, "\n")}, "is empty"},
		"no token file": {Webhook{TokenFile: t.TempDir() + "/none"}, "webhook.token_file: "},
		"no CA":         {Webhook{CAFile: writeFile(t, "nothing")}, "webhook.ca_file "},
		"no CA file":    {Webhook{CAFile: t.TempDir() + "/none"}, "webhook.ca_file: "},
		"a huge token":  {Webhook{TokenFile: writeFile(t, strings.Repeat("x", maxSecret+1))}, "which is no secret"},
	} {
		c.Webhook = tt.hook
		_, err := New(c, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "two") {
			t.Errorf("%s: error shows the file: %v", name, err)
		}
	}
}
