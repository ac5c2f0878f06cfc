package admin

import (
	"context"
	"net/http"

	"github.com/popgate/popgate/policy/legacy"
)

// ServeLegacy is the resource /v1/legacy: who uses the legacy lane, as list gives it (legacy.Keeper.List).
func ServeLegacy(list func() []legacy.Use) Resource {
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /v1/legacy", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, append([]legacy.Use{}, list()...)) // none are [], not null
		})
	}
}

// Legacy gives who uses the legacy lane, the latest first.
func (c *Client) Legacy(ctx context.Context) ([]legacy.Use, error) {
	var list []legacy.Use
	err := c.call(ctx, http.MethodGet, "/v1/legacy", &list)
	return list, err
}
