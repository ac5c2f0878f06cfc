package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/popgate/popgate/proxy/certs"
)

// ErrNoGateway says that no gateway answers on a socket.
var ErrNoGateway = errors.New("no gateway answers there")

// maxAnswer bounds what a client reads: some hundred thousand certificates.
const maxAnswer = 256 << 20

// A Client asks a running gateway through its socket. Its methods may be called at once.
type Client struct {
	path string
	http *http.Client
}

// Dial finds the gateway at path. Its error is ErrNoGateway where none runs; other errors, such as fs.ErrPermission, leave
// that open.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%s: %w", path, ErrNoGateway)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open %s: %w; be root, or a member of the socket's group", path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	_ = conn.Close()
	c := &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}}}
	return c, nil
}

// List gives the gateway's certificates.
func (c *Client) List(ctx context.Context) ([]certs.Status, error) {
	var list []Certificate
	if err := c.call(ctx, http.MethodGet, "/v1/certs", &list); err != nil {
		return nil, err
	}
	all := make([]certs.Status, len(list))
	for i, s := range list {
		all[i] = certs.Status(s)
	}
	return all, nil
}

// Renew has the gateway renew the certificate of a name now, and waits until that is done.
func (c *Client) Renew(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/certs/"+url.PathEscape(name)+"/renew", nil)
}

// Export gives the certificate of a name, with its chain, and its private key.
func (c *Client) Export(ctx context.Context, name string) (certPEM, keyPEM []byte, err error) {
	var e exported
	if err := c.call(ctx, http.MethodPost, "/v1/certs/"+url.PathEscape(name)+"/export", &e); err != nil {
		return nil, nil, err
	}
	return e.Certificate, e.Key, nil
}

// call makes a request and decodes the answer into v, where that is not nil. An error of the gateway's is returned in its words.
func (c *Client) call(ctx context.Context, method, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://popgate"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err // its URL is of no use to anybody
		}
		return fmt.Errorf("ask the gateway at %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode >= http.StatusBadRequest {
		var f failure
		if err := body.Decode(&f); err != nil || f.Error == "" {
			return fmt.Errorf("the gateway at %s answers %s: is it of another version?", c.path, resp.Status)
		}
		return errors.New(f.Error)
	}
	if v == nil {
		return nil
	}
	if err := body.Decode(v); err != nil {
		return fmt.Errorf("read the answer of the gateway at %s: %w", c.path, err)
	}
	return nil
}
