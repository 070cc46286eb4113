package psp

import (
	"fmt"
	"time"

	contract "github.com/ordergate/ordergate/gen/psp"
)

// record is the one outcome of a key, an entry of the ledger and a line of its file. It is immutable.
type record struct {
	contract.Operation
	Sequence int64 `json:"sequence"`
	// Request is null if the key was cancelled before any request.
	Request *contract.OperationRequest `json:"request"`
	// Refused means that the payment's state refused the request: PUT gives 422 with the decline reason as its code.
	Refused bool `json:"refused"`
}

// operation is the state of a key. Until there is an outcome it is in memory only, so a restart frees the key.
type operation struct {
	request  *contract.OperationRequest // the first one seen
	failures int                        // deliberate 500s so far
	outcome  *record
}

// payment is the sum of the succeeded operations of one payment.
type payment struct {
	authorized *contract.Money
	voided     bool
	captured   int64
	refunded   int64
	ledger     []*record
}

// entry returns the value of a key, and makes it if it is missing.
func entry[T any](m map[string]*T, key string) *T {
	if m[key] == nil {
		m[key] = new(T)
	}
	return m[key]
}

// decide gives a key the outcome of its request. The key has no outcome yet; s.mu is held.
func (s *Simulator) decide(key string, op *operation, token string) {
	switch token {
	case "", "pm_ok", "pm_slow", "pm_late", "pm_duplicate", "pm_flaky", "pm_timeout_charged":
		code := entry(s.payments, op.request.Payment).refuses(op.request)
		if code == "" {
			s.setOutcome(key, op, contract.StatusSucceeded, "", false)
		} else {
			s.setOutcome(key, op, contract.StatusDeclined, string(code), true)
		}
	case "pm_declined":
		s.setOutcome(key, op, contract.StatusDeclined, "insufficient_funds", false)
	default:
		s.setOutcome(key, op, contract.StatusDeclined, "invalid_method", false)
	}
}

// setOutcome gives a key its outcome. No response may show it, or depend on it, before sync has returned. s.mu is held.
func (s *Simulator) setOutcome(key string, op *operation, status contract.Status, reason string, refused bool) {
	r := &record{Sequence: int64(len(s.ledger)) + 1, Request: op.request, Refused: refused}
	r.Operation = contract.Operation{
		Key: key, Status: status, Reference: fmt.Sprintf("sim_%012d", r.Sequence), CreatedAt: s.clock().UTC().Truncate(time.Microsecond),
	}
	if op.request != nil {
		r.Kind, r.Payment, r.Amount = &op.request.Kind, &op.request.Payment, &op.request.Amount
	}
	if reason != "" {
		r.DeclineReason = &reason
	}
	s.apply(r)
}

// apply adds an outcome to the state, both when it is made and when it is read from the file.
func (s *Simulator) apply(r *record) {
	s.ledger = append(s.ledger, r)
	op := entry(s.operations, r.Key)
	op.request, op.outcome = r.Request, r
	if r.Request == nil {
		return
	}
	p := entry(s.payments, r.Request.Payment)
	p.ledger = append(p.ledger, r)
	if r.Status != contract.StatusSucceeded {
		return
	}
	switch r.Request.Kind {
	case contract.KindAuthorize:
		p.authorized = &r.Request.Amount
	case contract.KindCapture:
		p.captured = r.Request.Amount.Amount
	case contract.KindVoid:
		p.voided = true
	case contract.KindRefund:
		p.refunded += r.Request.Amount.Amount
	}
}

// refuses returns the reason why the payment's state does not allow an operation; "" if it does.
func (p *payment) refuses(r *contract.OperationRequest) contract.ProblemCode {
	amount := r.Amount.Amount
	switch {
	case r.Kind == contract.KindAuthorize && p.authorized != nil:
		return contract.ProblemCodeAlreadyAuthorized
	case r.Kind == contract.KindAuthorize:
		return ""
	case p.authorized == nil:
		return contract.ProblemCodeNotAuthorized
	case r.Amount.Currency != p.authorized.Currency:
		return contract.ProblemCodeCurrencyMismatch
	case r.Kind == contract.KindRefund && p.captured == 0:
		return contract.ProblemCodeNotCaptured
	case r.Kind == contract.KindRefund && amount > p.captured-p.refunded:
		return contract.ProblemCodeAmountExceedsRefundable
	case r.Kind == contract.KindRefund:
		return ""
	case p.captured > 0:
		return contract.ProblemCodeAlreadyCaptured
	case p.voided:
		return contract.ProblemCodeAlreadyVoided
	case r.Kind == contract.KindCapture && amount > p.authorized.Amount:
		return contract.ProblemCodeAmountExceedsAuthorized
	case r.Kind == contract.KindVoid && amount != p.authorized.Amount:
		return contract.ProblemCodeAmountNotAuthorized
	}
	return ""
}
