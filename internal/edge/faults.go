package edge

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/token"
)

// readFault stores the failure that the request asks for. A request without a test key meets none; where no key is needed, it is read for this.
// REQ_003 for a name that is none; SYS_005 at once for faults.Draining, as a process that stops refuses.
func (s *Server) readFault(ctx context.Context, r *request) error {
	asked, key := faults.Name(r.http.Header.Get(faults.Header)), r.key
	if asked != "" && r.op.Scopes == nil {
		if found, _, err := s.cfg.Auth.authenticate(ctx, first(r.http.Header, "Authorization"), r.began); err == nil {
			key = found
		}
	}
	switch {
	case asked == "", key.Owner.Mode != "test":
		return nil
	case !slices.Contains(faults.Names, asked):
		names := make([]string, len(faults.Names))
		for i, name := range faults.Names {
			names[i] = string(name)
		}
		return apierr.E(errcode.REQ003, apierr.Faults(apierr.Fault{
			Pointer: "/header/" + faults.Header, Rule: errcode.RuleEnum, Expected: strings.Join(names, ", "),
		}))
	case asked == faults.Draining:
		return drain(r)
	case asked == faults.Rate && r.op.Scopes != nil:
		b := cmp.Or(key.bucket, rate.NewBucket(rate.Limit{Requests: 1, Window: time.Second})) // a key without a limit has this one
		return r.limited(b, b.UsedUp())
	}
	r.fault = asked
	return nil
}

// withFault lets the handler of the request meet its failure.
func (s *Server) withFault(ctx context.Context, r *request) context.Context {
	switch r.fault {
	case faults.Panic:
		panic(faults.Err)
	case faults.Behind: // a state that no server has reached
		r.token = token.Token{Timeline: s.cfg.Timeline(), LSN: 1 << 60}
	default:
	}
	return faults.With(ctx, r.fault)
}
