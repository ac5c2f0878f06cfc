package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/popgate/popgate/proxy/certs"
)

// Certificates are the gateway's, as certs.Keeper has them and as a Client gives them from afar.
type Certificates interface {
	List(ctx context.Context) ([]certs.Status, error)
	Renew(ctx context.Context, name string) error
	Export(ctx context.Context, name string) (certPEM, keyPEM []byte, err error)
}

// Certificate is a certificate's state as JSON.
type Certificate struct {
	Name        string    `json:"name"`
	Names       []string  `json:"names"`
	Source      string    `json:"source"`
	Issuer      string    `json:"issuer,omitempty"`
	KeyType     string    `json:"key_type,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// exported is a certificate with its private key.
type exported struct {
	Certificate []byte `json:"certificate"` // PEM; base64 in JSON
	Key         []byte `json:"key"`
}

// ServeCertificates is the resource below /v1/certs.
func ServeCertificates(c Certificates) Resource {
	return func(mux *http.ServeMux) { certificates(mux, c) }
}

func certificates(mux *http.ServeMux, c Certificates) {
	mux.HandleFunc("GET /v1/certs", func(w http.ResponseWriter, r *http.Request) {
		all, err := c.List(r.Context())
		if err != nil {
			refuse(w, codeOf(err), err)
			return
		}
		list := make([]Certificate, len(all))
		for i, s := range all {
			list[i] = Certificate(s)
		}
		answer(w, list)
	})
	mux.HandleFunc("POST /v1/certs/{name}/renew", func(w http.ResponseWriter, r *http.Request) {
		// An order takes as long as the CA likes.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // at worst the client hears of a timeout
		if err := c.Renew(r.Context(), r.PathValue("name")); err != nil {
			refuse(w, codeOf(err), err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	// A GET would do, but what hands out a key is not to be followed by accident.
	mux.HandleFunc("POST /v1/certs/{name}/export", func(w http.ResponseWriter, r *http.Request) {
		cert, key, err := c.Export(r.Context(), r.PathValue("name"))
		if err != nil {
			refuse(w, codeOf(err), err)
			return
		}
		answer(w, exported{Certificate: cert, Key: key})
	})
}

// codeOf tells what the asker got wrong from what went wrong here.
func codeOf(err error) int {
	switch {
	case errors.Is(err, certs.ErrUnknownName):
		return http.StatusNotFound
	case errors.Is(err, certs.ErrNotManaged):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}
