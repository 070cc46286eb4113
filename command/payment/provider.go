package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// doubtError leaves the operation in doubt: it may have happened.
type doubtError struct {
	code  errcode.Code // PAY_006: the provider failed; PAY_003: it did not respond
	cause error
}

func (d doubtError) Error() string { return fmt.Sprintf("%s: %v", d.code, d.cause) }
func (d doubtError) Unwrap() error { return d.cause }

// provider is the payment provider's contract (openapi/psp.yaml) as we use it.
type provider struct{ client *psp.ClientWithResponses }

const (
	maxResponse = 1 << 20 // bytes of a response that are read
	ledgerPage  = 1000    // entries, the contract's most: each some 300 bytes
)

// newProvider returns an adapter for the provider at url, with at most the given number of connections.
func newProvider(url string, connections int) (*provider, error) {
	c, err := psp.NewClientWithResponses(url, psp.WithHTTPClient(limitedClient{&http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: 2 * connections, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}))
	if err != nil {
		return nil, fmt.Errorf("payment provider: %w", err)
	}
	return &provider{c}, nil
}

// limitedClient reads at most maxResponse of a response.
type limitedClient struct{ *http.Client }

func (c limitedClient) Do(r *http.Request) (*http.Response, error) {
	res, err := c.Client.Do(r) //nolint:gosec // G704: the provider's address is configuration
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxResponse)
	}
	return res, err
}

// do requests an operation under its key. It may be repeated. An error is a doubtError.
func (p *provider) do(ctx context.Context, key string, kind Operation, payment string, amount order.Money, methodToken string) (Outcome, error) {
	body := psp.OperationRequest{Kind: psp.Kind(kind), Payment: payment, Amount: psp.Money(amount)}
	if kind == Authorize {
		body.MethodToken = &methodToken
	}
	res, err := p.client.PutOperationWithResponse(ctx, key, body)
	if err != nil {
		return Outcome{}, noOutcome(err)
	}
	if no := res.ApplicationProblemJSON422; no != nil && no.Key != nil && *no.Key == key {
		return Outcome{Code: errcode.PAY006}, nil // the payment's state does not allow it: nothing happened
	}
	return definite(key, res.StatusCode(), res.JSON200)
}

// cancelKey cancels a key: the provider refuses later requests under it. The result is the definite outcome: PAY_003 if the key was
// cancelled, and the operation's own outcome if it had one already. An error is a doubtError.
func (p *provider) cancelKey(ctx context.Context, key string) (Outcome, error) {
	res, err := p.client.CancelOperationWithResponse(ctx, key)
	if err != nil {
		return Outcome{}, noOutcome(err)
	}
	return definite(key, res.StatusCode(), res.JSON200)
}

// ledger reads entries above a sequence, those of one payment if it is given. next is nil at the end. An error is a doubtError.
func (p *provider) ledger(ctx context.Context, payment *string, after int64) (entries []psp.LedgerEntry, next *int64, err error) {
	res, err := p.client.ListLedgerWithResponse(ctx, &psp.ListLedgerParams{Payment: payment, After: &after, Limit: new(int32(ledgerPage))})
	switch {
	case err != nil:
		return nil, nil, noOutcome(err)
	case res.JSON200 == nil || res.JSON200.Data == nil: // for example a late second response on the same connection
		return nil, nil, doubtError{errcode.PAY006, fmt.Errorf("the provider responded with status %d and no ledger", res.StatusCode())}
	}
	for _, e := range res.JSON200.Data {
		if e.Sequence <= after || payment != nil && (e.Payment == nil || *e.Payment != *payment) {
			return nil, nil, doubtError{errcode.PAY006, errors.New("the provider responded with another part of its ledger")}
		}
		after = e.Sequence
	}
	return res.JSON200.Data, res.JSON200.Next, nil
}

// standing reads what a payment has at the provider. An error is a doubtError.
func (p *provider) standing(ctx context.Context, payment string) (s pay.Standing, err error) {
	for after, more := int64(0), true; more; {
		entries, next, err := p.ledger(ctx, &payment, after)
		if err != nil {
			return s, err
		}
		for _, e := range entries {
			if e.Status == psp.StatusSucceeded && e.Kind != nil && e.Amount != nil {
				s = s.Add(string(*e.Kind), order.Money(*e.Amount))
			}
		}
		if more = next != nil; more {
			after = *next
		}
	}
	return s, nil
}

// maxText bounds what is kept of a text of the provider's, in bytes.
const maxText = 500

// cleaned is a text of the provider's as we can store it: without NUL, which PostgreSQL does not take, and cut. An outcome that cannot be
// written would leave its order waiting for ever.
func cleaned(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}

// definite is the outcome that a response shows, if it is definite and about the key.
func definite(key string, status int, op *psp.Operation) (Outcome, error) {
	if status != http.StatusOK || op == nil {
		return Outcome{}, doubtError{errcode.PAY006, fmt.Errorf("the provider responded with status %d", status)}
	}
	if op.Key != key { // for example a late second response on the same connection
		return Outcome{}, doubtError{errcode.PAY006, errors.New("the provider responded under another key")}
	}
	o := Outcome{Reference: cleaned(op.Reference)}
	if op.DeclineReason != nil {
		o.DeclineReason = cleaned(*op.DeclineReason)
	}
	switch op.Status {
	case psp.StatusSucceeded:
	case psp.StatusDeclined:
		o.Code = errcode.PAY007
	case psp.StatusCancelled:
		o.Code = errcode.PAY003
	default:
		return Outcome{}, doubtError{errcode.PAY006, fmt.Errorf("the provider responded with operation status %q", op.Status)}
	}
	return o, nil
}

// noOutcome is the doubt without a readable response: PAY_006 after one that is too long or no JSON, PAY_003 without any.
func noOutcome(err error) error {
	_, notJSON := errors.AsType[*json.SyntaxError](err)
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	if notJSON || tooLong {
		return doubtError{errcode.PAY006, err}
	}
	return doubtError{errcode.PAY003, err}
}
