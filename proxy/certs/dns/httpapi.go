package dns

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// An api sends JSON to one HTTP service and tries again, a few times, what may pass by itself.
type api struct {
	client  *http.Client
	timeout time.Duration
	pause   time.Duration // before the first repetition; doubled each time
}

const (
	apiTries  = 3
	maxAnswer = 16 << 10
)

// newAPI makes an api that believes the CA in caFile, or those the system believes.
func newAPI(caFile string, timeout time.Duration) (*api, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	// A connection kept for the next certificate would be dead by then.
	t.DisableKeepAlives = true
	if caFile != "" {
		data, err := readSecret(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM", caFile)
		}
	}
	return &api{timeout: timeout, pause: 200 * time.Millisecond, client: &http.Client{
		Transport: t,
		// The secrets in the headers are for the configured server and nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// post sends body and gives the answer's, whose status was 2xx. The error of any other status shows the beginning of the answer.
func (a *api) post(ctx context.Context, url string, header http.Header, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	pause := a.pause
	for try := 1; ; try++ {
		answer, again, err := a.once(ctx, url, header, data)
		if err == nil || !again || try == apiTries || ctx.Err() != nil {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
			pause *= 2
		}
	}
}

func (a *api) once(ctx context.Context, url string, header http.Header, data []byte) (answer []byte, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, false, err
	}
	req.Header = header.Clone()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "popgate")
	resp, err := a.client.Do(req)
	if err != nil {
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return nil, false, fmt.Errorf("%w: write the CA's certificate as ca_file", err)
		}
		return nil, true, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, true, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	if resp.StatusCode/100 == 2 {
		return answer, false, nil
	}
	err = &statusError{url: url, status: resp.StatusCode, answer: answer}
	return nil, resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode/100 == 5, err
}

// A statusError is an answer that is no success.
type statusError struct {
	url    string
	status int
	answer []byte
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s answered %d %s", e.url, e.status, http.StatusText(e.status))
	if e.status/100 == 3 {
		text += " (redirects are not followed: write the address where it leads)"
	}
	if len(e.answer) > 0 {
		text += ": " + excerpt(e.answer)
	}
	return text
}

// excerpt shows the end of what a stranger wrote, on one line and safe for logs: a program's last words are those that matter.
func excerpt(output []byte) string {
	const most = 500
	output = bytes.TrimSpace(output)
	if len(output) > most {
		return fmt.Sprintf("…%q", output[len(output)-most:])
	}
	return fmt.Sprintf("%q", output)
}
