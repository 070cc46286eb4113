package edge

import (
	"context"
	"net/http"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/signature"
)

// signatureAge is how far the time of a signature may be from ours, in both directions.
const signatureAge = 5 * time.Minute

// checkSignature checks the provider's signature over the bytes of the body: REQ_005 if there is no such provider, AUTH_007 if the
// signature is missing, wrong or too old, or if the provider has no secret here.
func (s *Server) checkSignature(r *request) error {
	secret, known := s.cfg.ProviderSecrets[r.path.Param("provider")]
	if !known {
		return apierr.E(errcode.REQ005)
	}
	if err := signature.Verify(secret, r.http.Header.Get(signature.Header), []byte(r.raw), s.now(), signatureAge); err != nil {
		return apierr.E(errcode.AUTH007, apierr.Cause(err))
	}
	return nil
}

// TakeProviderCallback returns 204 once the callback is stored.
func (h handlers) TakeProviderCallback(ctx context.Context, r *request, p api.TakeProviderCallbackParams, body api.ProviderCallback) (response, error) {
	return response{status: http.StatusNoContent}, h.cfg.Commands.TakeProviderCallback(ctx, p.Provider, body, []byte(r.raw))
}
