package directory

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/popgate/popgate/auth"
)

// A hider keeps passwords out of errors. Libraries put into theirs what they like: a whole DSN, what a server said.
type hider struct {
	mu      sync.Mutex
	secrets []string
}

// maxHidden bounds how many passwords are kept in mind, where a file with one changes.
const maxHidden = 16

// maxErrorText bounds what is shown of an error, which a server may have written.
const maxErrorText = 512

// add takes a text that no error may show.
func (h *hider) add(secrets ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range secrets {
		if s == "" || slices.Contains(h.secrets, s) {
			continue
		}
		h.secrets = append(h.secrets, s)
		if len(h.secrets) > maxHidden {
			h.secrets = h.secrets[1:]
		}
	}
}

// text is what s says without the secrets.
func (h *hider) text(s string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, secret := range h.secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			s = strings.ReplaceAll(s, form, (*auth.Secret)(nil).String())
		}
	}
	s = strings.Join(strings.Fields(s), " ") // some are of several lines
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "…"
	}
	return s
}

// clean is err as text, without the secrets. What it wraps is lost with it, for it may hold them; but that a context has
// ended can still be told.
func (h *hider) clean(err error) error {
	if err == nil {
		return nil
	}
	c := &cleanError{text: h.text(err.Error())}
	for _, ended := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, ended) {
			c.ended = ended
		}
	}
	return c
}

// A cleanError is a library's error without what it must not tell.
type cleanError struct {
	text  string
	ended error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.ended }
