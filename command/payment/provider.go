package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/order"
)

// outcome is a provider's definite answer. code is empty if the operation was done.
type outcome struct {
	code          errcode.Code
	declineReason string
	reference     string
}

// doubtError is an answer that is neither yes nor no: the operation may have happened.
type doubtError struct {
	code  errcode.Code // PAY_006: the provider failed; PAY_003: it did not answer
	cause error
}

func (d doubtError) Error() string { return fmt.Sprintf("%s: %v", d.code, d.cause) }
func (d doubtError) Unwrap() error { return d.cause }

// provider is the payment provider's contract (openapi/psp.yaml) as we use it.
type provider struct{ client *psp.ClientWithResponses }

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// newProvider returns an adapter for the provider at url, with at most the given number of connections.
func newProvider(url string, connections int) (*provider, error) {
	c, err := psp.NewClientWithResponses(url, psp.WithHTTPClient(bounded{&http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: 2 * connections, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}))
	if err != nil {
		return nil, fmt.Errorf("payment provider: %w", err)
	}
	return &provider{c}, nil
}

// bounded keeps an answer from filling the memory.
type bounded struct{ *http.Client }

func (b bounded) Do(r *http.Request) (*http.Response, error) {
	res, err := b.Client.Do(r) //nolint:gosec // G704: the provider's address is configuration
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

// do asks for an operation under its key. Repeating it is safe. An error is a doubtError.
func (p *provider) do(ctx context.Context, key string, kind Operation, payment string, amount order.Money, methodToken string) (outcome, error) {
	body := psp.OperationRequest{Kind: psp.Kind(kind), Payment: payment, Amount: psp.Money(amount)}
	if kind == Authorize {
		body.MethodToken = &methodToken
	}
	res, err := p.client.PutOperationWithResponse(ctx, key, body)
	if err != nil {
		return outcome{}, unanswered(err)
	}
	if no := res.ApplicationProblemJSON422; no != nil && no.Key != nil && *no.Key == key {
		return outcome{code: errcode.PAY006}, nil // the provider says that it is impossible: nothing happened
	}
	return definite(key, res.StatusCode(), res.JSON200)
}

// forget cancels by key: a late request with the key is refused from then on. The answer is the definite outcome: a cancelled
// operation has the code PAY_003, one that was already definite its own. An error is a doubtError.
func (p *provider) forget(ctx context.Context, key string) (outcome, error) {
	res, err := p.client.CancelOperationWithResponse(ctx, key)
	if err != nil {
		return outcome{}, unanswered(err)
	}
	return definite(key, res.StatusCode(), res.JSON200)
}

func definite(key string, status int, op *psp.Operation) (outcome, error) {
	if status != http.StatusOK || op == nil {
		return outcome{}, doubtError{errcode.PAY006, fmt.Errorf("provider answered %d", status)}
	}
	if op.Key != key { // for example a late second answer on the same connection
		return outcome{}, doubtError{errcode.PAY006, errors.New("provider answered under another key")}
	}
	o := outcome{reference: op.Reference}
	if op.DeclineReason != nil {
		o.declineReason = *op.DeclineReason
	}
	switch op.Status {
	case psp.StatusSucceeded:
	case psp.StatusDeclined:
		o.code = errcode.PAY007
	case psp.StatusCancelled:
		o.code = errcode.PAY003
	default:
		return outcome{}, doubtError{errcode.PAY006, fmt.Errorf("provider answered status %q", op.Status)}
	}
	return o, nil
}

// unanswered: a transport error or a time-out says nothing about the operation; an answer that is not JSON is a failing provider.
func unanswered(err error) error {
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return doubtError{errcode.PAY006, err}
	}
	return doubtError{errcode.PAY003, err}
}
