package edge

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

var errUndeclared = errors.New("edge: the contract does not list the answer")

// declares tells whether the contract lists an answer of the operation. One without a code is no refusal.
func (o *operation) declares(status int, code errcode.Code) bool {
	if code == "" {
		return slices.Contains(o.Statuses, status)
	}
	info, _ := errcode.Lookup(code)
	return status == info.Status && slices.Contains(o.Codes, code)
}

// send writes a finished response. Every response passes here, stored ones and the beginnings of streams, too. One that the contract does not
// list is counted and logged with its request. A strict server sends SYS_001 instead of it; then sent is false.
func (s *Server) send(r *request, w response) (sent bool) {
	op := r.op
	if op == nil {
		op = &s.elsewhere
	}
	if sent = op.declares(w.status, r.code); !sent {
		s.metrics.undeclared.WithLabelValues(op.ID, strconv.Itoa(w.status), string(r.code)).Inc()
		r.cause = errors.Join(fmt.Errorf("%w %d %s of %s", errUndeclared, w.status, r.code, op.ID), r.cause)
		if sent = !s.cfg.Strict && w.status != 0; !sent { // 0: a handler forgot its response
			w = s.problem(r, apierr.E(errcode.SYS001, apierr.Cause(r.cause)))
		}
	}
	w.write(r)
	return sent
}
