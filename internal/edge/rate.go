package edge

import (
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rate"
)

// countRequest takes a token of the request's key, and tells so in the headers of every answer to it. RATE_001 if there was none.
func (s *Server) countRequest(r *request) error {
	if b := r.key.bucket; b != nil {
		return r.limited(b, b.Take(s.cfg.Auth.sinceStart(r.now)))
	}
	return nil
}

func (r *request) limited(b *rate.Bucket, s rate.State) error {
	h := r.response.Header()
	r.bytes = s.AppendHeader(r.bytes[:0])
	r.limit[0] = r.keep(r.bytes)
	h["Ratelimit-Policy"], h["Ratelimit"] = b.Policy(), r.limit[:]
	if s.Wait == 0 {
		return nil
	}
	r.retryAfter = rate.Seconds(s.Wait)
	return apierr.E(errcode.RATE001)
}
