package wforce

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxConns bounds the connections to the server, and so what is asked at once: others wait within their time.
	maxConns = 64
	// idleFor is how long a connection is kept for the next question. Dovecot keeps its own for 10 seconds.
	idleFor = 30 * time.Second
)

// A View asks as one configuration says. It does not change; many may use it at once. That of a Config without a URL, and
// the nil one, ask nobody.
type View struct {
	keeper           *Keeper
	config           Config
	nonce            string
	password, apiKey string
	http             *http.Client // nil asks nobody
	health           *health
}

// newHTTPClient makes one that goes where it is told and nowhere else, and keeps connections open.
func newHTTPClient(t *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: t, MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxConns, IdleConnTimeout: idleFor,
			DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
			WriteBufferSize: 2 << 10, ReadBufferSize: 2 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errUnsent wraps why a request cannot have come to the server: no connection came about.
var errUnsent = errors.New("connect")

// A silence is an error of a server that gave no answer; other errors are about the answer it gave.
type silence struct{ cause error }

// Error is the cause's.
func (s *silence) Error() string { return s.cause.Error() }

// Unwrap gives the cause.
func (s *silence) Unwrap() error { return s.cause }

// post makes one call, and returns what was answered with a 20x. again says that the server may be told twice: then a
// connection that it had closed meanwhile is replaced by a new one.
func (v *View) post(ctx context.Context, command string, body []byte, again bool) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, v.config.Timeout, fmt.Errorf("no answer within %s", v.config.Timeout))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.config.url(command), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "popgate")
	if again {
		req.Header["Idempotency-Key"] = nil // says to the transport that it may, and is not sent
	}
	if v.password != "" {
		req.SetBasicAuth("popgate", v.password)
	}
	if v.apiKey != "" {
		req.Header.Set(v.config.APIKeyHeader, v.apiKey)
	}
	res, err := v.http.Do(req)
	if err != nil {
		return nil, &silence{callError(ctx, err)}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, &silence{callError(ctx, err)}
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	case res.StatusCode/10 != 20: // as Dovecot has it
		return nil, fmt.Errorf("it answers with HTTP status %d%s", res.StatusCode, reasonOf(answer))
	}
	return answer, nil
}

// callError is what went wrong, without the URL, which the log has anyway.
func callError(ctx context.Context, err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if ctx.Err() != nil && !isDial(err) {
		return context.Cause(ctx)
	}
	if isDial(err) {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	return err
}

// allow asks for the status of a login.
func (v *View) allow(ctx context.Context, body []byte) (int64, error) {
	begin := time.Now()
	if err := v.health.ask(begin); err != nil {
		v.keeper.metrics.call(commandAllow, resultSpared, 0)
		return 0, err
	}
	var status int64
	answer, err := v.post(ctx, commandAllow, body, true)
	if err == nil {
		status, err = parseAllow(answer)
	}
	v.judge(ctx, commandAllow, err, time.Since(begin))
	return status, err
}

// judge notes how a call ended. That the client went away meanwhile says nothing about the server.
func (v *View) judge(ctx context.Context, command string, err error, took time.Duration) {
	var none *silence
	switch {
	case err == nil:
		v.noted(command, resultOK, nil, took)
	case !errors.As(err, &none):
		v.noted(command, resultBad, err, took)
	case ctx.Err() == nil:
		v.noted(command, resultSilent, err, took)
	}
}
