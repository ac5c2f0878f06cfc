package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/files"
)

// errUnasked is what a service of the format nginx is not even asked without.
var errUnasked = errors.New("a service of the format nginx can be asked with the user's password only")

// An httpSource asks one service.
type httpSource struct {
	config HTTPConfig
	target target
	conns  *httpConns
	log    *slog.Logger
}

// Lookup asks the service.
func (h *httpSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	answer, err := h.lookup(ctx, q)
	if err != nil && !errors.Is(err, auth.ErrUnknownUser) && !errors.Is(err, auth.ErrWrongPassword) {
		return Answer{}, fmt.Errorf("ask %s: %w", h.target.hostport, err)
	}
	return answer, err
}

func (h *httpSource) lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	var secret []byte
	told := h.config.Format == formatNginx || h.config.SendPassword
	if told {
		secret = q.Secret.Reveal()
	}
	if told && q.Secret != nil && len(secret) == 0 {
		// Anybody can send it: it must neither look like a fault of the service's, nor like a question without a password.
		return Answer{}, fmt.Errorf("an empty password: %w", auth.ErrWrongPassword)
	}
	extra, err := h.headers()
	if err != nil {
		return Answer{}, err
	}
	if h.config.Format == formatJSON {
		return h.lookupJSON(ctx, q, secret, extra)
	}
	if len(secret) == 0 {
		return Answer{}, asContent(errUnasked)
	}
	return h.lookupNginx(ctx, q, secret, extra)
}

// headers writes the configured headers.
func (h *httpSource) headers() (string, error) {
	var b strings.Builder
	for _, one := range h.config.Headers {
		value := one.Value
		if one.ValueFile != "" {
			var err error
			if value, err = files.Secret(one.ValueFile); err != nil {
				return "", fmt.Errorf("header %s: %w", one.Name, err)
			}
			if hasControl(value) {
				return "", fmt.Errorf("header %s: %s has a control byte", one.Name, one.ValueFile)
			}
		}
		b.WriteString(one.Name + ": " + value + "\r\n")
	}
	return b.String(), nil
}

// Close ends what connections are kept.
func (h *httpSource) Close() error {
	h.conns.close()
	return nil
}

// maxWait is the longest pause that a service can ask for.
const maxWait = time.Hour

// seconds reads what a service writes for a pause; what is no number is none, as nginx has it.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxWait)
}

// refused is the error of a service that does not let a user in. What it says is for our log only, and only where it does not
// say the password.
func refused(text string, secret []byte) error {
	if text == "" || len(secret) > 0 && strings.Contains(text, string(secret)) {
		return auth.ErrWrongPassword
	}
	return fmt.Errorf("%w: the service says %q", auth.ErrWrongPassword, clip(text))
}
