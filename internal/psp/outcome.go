package psp

import (
	"fmt"
	"time"

	contract "github.com/ordergate/ordergate/gen/psp"
)

// record is the one outcome of a key, an entry of the ledger and a line of its file. It never changes.
type record struct {
	contract.Operation
	Sequence int64 `json:"sequence"`
	// Request is null if the key was cancelled unseen.
	Request *contract.OperationRequest `json:"request"`
	// Refused by the payment's state: PUT answers 422 with the decline reason as its code.
	Refused bool `json:"refused"`

	receipt *receipt
}

// operation is what is known of a key. Before its outcome that is in memory only, so a restart frees the key.
type operation struct {
	request  *contract.OperationRequest // the first one seen
	failures int                        // 500s given on purpose
	outcome  *record
}

// payment is what the succeeded operations of one payment add up to.
type payment struct {
	authorized *contract.Money
	voided     bool
	captured   int64
	refunded   int64
	ledger     []*record
}

// entry returns what a map has under a key, from now on something.
func entry[T any](m map[string]*T, key string) *T {
	if m[key] == nil {
		m[key] = new(T)
	}
	return m[key]
}

// decide gives a key without an outcome that of its request. s.mu is held.
func (s *Simulator) decide(key string, op *operation, token string) {
	switch token {
	case "", "pm_ok", "pm_slow", "pm_duplicate", "pm_flaky", "pm_timeout_charged":
		code := entry(s.payments, op.request.Payment).refuses(op.request)
		if code == "" {
			s.settle(key, op, contract.StatusSucceeded, "", false)
		} else {
			s.settle(key, op, contract.StatusDeclined, string(code), true)
		}
	case "pm_declined":
		s.settle(key, op, contract.StatusDeclined, "insufficient_funds", false)
	default:
		s.settle(key, op, contract.StatusDeclined, "invalid_method", false)
	}
}

// settle makes an outcome the key's own and sends it to the file. Nobody may answer it, or anything built on it, before
// its receipt is done; what is decided on top of it comes after it in the file. s.mu is held.
func (s *Simulator) settle(key string, op *operation, status contract.Status, reason string, refused bool) {
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
	r.receipt = s.journal.append(r)
	s.apply(r)
}

// apply adds an outcome to the state, in the same way when it is made and when it is read from the file.
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

// refuses returns why the payment's state does not allow an operation; nothing if it does.
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
