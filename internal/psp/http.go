package psp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"regexp"
	"sort"
	"time"
	"unicode/utf8"

	strict "github.com/go-json-experiment/json"
	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	contract "github.com/ordergate/ordergate/gen/psp"
)

const (
	slowness  = 2500 * time.Millisecond // delay of pm_slow
	lateness  = 30 * time.Second        // delay of pm_late
	silence   = 60 * time.Second        // time until a request without a response is disconnected
	nextWait  = time.Second             // time that pm_duplicate waits for the request that gets the wrong response
	bodyLimit = 64 << 10                // bytes
)

var (
	keyPattern      = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	paymentPattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	currencyPattern = regexp.MustCompile(`^[A-Z]{3}$`)
)

// Handler serves the contract. It sets no time-outs; the server does.
func (s *Simulator) Handler() http.Handler {
	e := echo.New()
	e.Binder = binder{}
	e.HTTPErrorHandler = s.render
	contract.RegisterHandlers(e, contract.NewStrictHandler(s, nil))
	return e
}

// PutOperation gives the key its outcome, unless it has one, and returns it once it is durable. It is safe to repeat.
func (s *Simulator) PutOperation(ctx context.Context, request contract.PutOperationRequestObject) (contract.PutOperationResponseObject, error) {
	if err := validate(request.Key, request.Body); err != nil {
		return nil, err
	}
	token := s.faults.token(request.Key, *cmp.Or(request.Body.MethodToken, new("")))
	outcome, first, err := s.perform(request.Key, request.Body, token)
	if err != nil {
		return nil, err
	}
	if outcome == nil {
		return nil, s.silent(ctx)
	}
	if err := s.sync(outcome.Sequence); err != nil {
		return nil, err
	}
	switch {
	case first && token == "pm_timeout_charged": //nolint:gosec // G101: the name of a test, no credential
		return nil, s.silent(ctx)
	case outcome.Refused:
		code := contract.ProblemCode(*outcome.DeclineReason)
		return nil, problem{http.StatusUnprocessableEntity, code, "The payment's state does not allow it."}
	case first && token == "pm_duplicate":
		return twice(outcome.Operation), nil
	}
	return contract.PutOperation200JSONResponse(outcome.Operation), nil
}

// perform returns the outcome of the key, and whether this request decided it. No outcome and no error means that the request gets no
// response.
func (s *Simulator) perform(key string, request *contract.OperationRequest, token string) (_ *record, first bool, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op := entry(s.operations, key)
	switch {
	case op.outcome != nil && op.outcome.Status == contract.StatusCancelled:
		return op.outcome, false, nil
	case op.request != nil && !reflect.DeepEqual(op.request, request):
		return nil, false, errKeyReused
	case op.outcome != nil:
		return op.outcome, false, nil
	}
	op.request = request
	switch token {
	case "pm_error":
		return nil, false, errInternal
	case "pm_flaky":
		if op.failures < 2 {
			op.failures++
			return nil, false, errInternal
		}
	case "pm_timeout":
		return nil, false, nil
	case "pm_slow", "pm_late":
		delay := slowness
		if token == "pm_late" {
			delay = lateness
		}
		s.mu.Unlock()
		s.wait(s.ending, delay) // also if the client leaves
		s.mu.Lock()
		if op.outcome != nil || s.ends() {
			return op.outcome, false, nil
		}
	}
	s.decide(key, op, token)
	return op.outcome, true, nil
}

// ends tells whether the simulator was asked to end.
func (s *Simulator) ends() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

// silent holds the request, then drops its connection. It does not return.
func (s *Simulator) silent(ctx context.Context) error {
	s.wait(ctx.Done(), silence)
	panic(http.ErrAbortHandler)
}

// GetOperation returns the outcome of a key once it is durable, and 404 while there is none.
func (s *Simulator) GetOperation(_ context.Context, request contract.GetOperationRequestObject) (contract.GetOperationResponseObject, error) {
	if !keyPattern.MatchString(request.Key) {
		return nil, errKey
	}
	s.mu.Lock()
	outcome := entry(s.operations, request.Key).outcome
	s.mu.Unlock()
	if outcome == nil {
		return nil, errNothingYet
	}
	return contract.GetOperation200JSONResponse(outcome.Operation), s.sync(outcome.Sequence)
}

// CancelOperation leaves a tombstone under a key that has no outcome, and returns the key's outcome once it is durable. It is safe to
// repeat.
func (s *Simulator) CancelOperation(_ context.Context, request contract.CancelOperationRequestObject) (contract.CancelOperationResponseObject, error) {
	if !keyPattern.MatchString(request.Key) {
		return nil, errKey
	}
	s.mu.Lock()
	op := entry(s.operations, request.Key)
	if op.outcome == nil {
		s.setOutcome(request.Key, op, contract.StatusCancelled, "", false)
	}
	outcome := op.outcome
	s.mu.Unlock()
	return contract.CancelOperation200JSONResponse(outcome.Operation), s.sync(outcome.Sequence)
}

// ListLedger returns a page of the ledger once all of the page is durable.
func (s *Simulator) ListLedger(_ context.Context, request contract.ListLedgerRequestObject) (contract.ListLedgerResponseObject, error) {
	after, limit := *cmp.Or(request.Params.After, new(int64)), int(*cmp.Or(request.Params.Limit, new(int32(100))))
	id := request.Params.Payment
	if after < 0 || limit < 1 || limit > 1000 || id != nil && !paymentPattern.MatchString(*id) {
		return nil, errParameter
	}
	s.mu.Lock()
	entries := s.ledger
	if id != nil {
		entries = nil
		if p := s.payments[*id]; p != nil {
			entries = p.ledger
		}
	}
	s.mu.Unlock()
	entries = entries[sort.Search(len(entries), func(i int) bool { return entries[i].Sequence > after }):]
	page := contract.ListLedger200JSONResponse{Data: []contract.LedgerEntry{}}
	if len(entries) > limit {
		entries = entries[:limit]
		page.Next = &entries[limit-1].Sequence
	}
	last := int64(0)
	for _, r := range entries {
		last = r.Sequence
		page.Data = append(page.Data, contract.LedgerEntry{
			Sequence: r.Sequence, Key: r.Key, Kind: r.Kind, Payment: r.Payment, Amount: r.Amount, Status: r.Status, CreatedAt: r.CreatedAt,
		})
	}
	return page, s.sync(last)
}

// GetLive tells that the process runs.
func (s *Simulator) GetLive(context.Context, contract.GetLiveRequestObject) (contract.GetLiveResponseObject, error) {
	return contract.GetLive200JSONResponse{Status: "ok"}, nil
}

// twice is the response of pm_duplicate. It is sent a second time as the response to the next request on the connection, which is read
// and lost, and without a next request after nextWait.
type twice contract.Operation

// VisitPutOperationResponse takes the connection from the server and ends it.
func (t twice) VisitPutOperationResponse(w http.ResponseWriter) error {
	body, err := json.Marshal(contract.Operation(t))
	if err != nil {
		return err
	}
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	// From here on an error means that the client left.
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(nextWait))
	_, _ = conn.Write(response)
	if next, err := http.ReadRequest(buffered.Reader); err == nil {
		_, _ = io.Copy(io.Discard, next.Body) // closing with bytes unread would reset the connection
	}
	_ = conn.SetDeadline(time.Now().Add(nextWait))
	_, _ = conn.Write(response)
	return nil
}

func validate(key string, r *contract.OperationRequest) error {
	switch {
	case !keyPattern.MatchString(key):
		return errKey
	case !r.Kind.Valid():
		return invalid("kind must be authorize, capture, void or refund.")
	case !paymentPattern.MatchString(r.Payment):
		return invalid("payment must match " + paymentPattern.String())
	case r.Amount.Amount < 1 || r.Amount.Amount > 1<<53-1:
		return invalid("amount.amount must be from 1 to 2^53-1.")
	case !currencyPattern.MatchString(r.Amount.Currency):
		return invalid("amount.currency must match " + currencyPattern.String())
	case (r.Kind == contract.KindAuthorize) != (r.MethodToken != nil):
		return invalid("method_token is required to authorize and refused otherwise.")
	case r.MethodToken != nil && (*r.MethodToken == "" || utf8.RuneCountInString(*r.MethodToken) > 255):
		return invalid("method_token must have from 1 to 255 characters.")
	}
	return nil
}

// binder accepts a JSON body of at most 64 KiB without unknown, repeated or differently cased members. It reads the body to its end:
// only then the server notices that the client of a silent request leaves.
type binder struct{}

func (binder) Bind(target any, c echo.Context) error {
	if media, _, err := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType)); err != nil || media != echo.MIMEApplicationJSON {
		return errMediaType
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Response().Writer, c.Request().Body, bodyLimit))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return errTooLarge
	}
	if err != nil || strict.Unmarshal(body, target, strict.RejectUnknownMembers(true)) != nil {
		return invalid("The body must be the JSON object of the contract.")
	}
	return nil
}

// problem is an error with a response.
type problem struct {
	status  int
	code    contract.ProblemCode
	message string
}

func (p problem) Error() string { return string(p.code) }

func invalid(message string) problem {
	return problem{http.StatusBadRequest, contract.ProblemCodeInvalidRequest, message}
}

var (
	errKey        = invalid("key must match " + keyPattern.String())
	errParameter  = invalid("A parameter does not fit the contract.")
	errNothingYet = problem{http.StatusNotFound, contract.ProblemCodeNotFound, "Nothing definite under this key yet."}
	errPath       = problem{http.StatusNotFound, contract.ProblemCodeNotFound, "No such path."}
	errMethod     = problem{http.StatusMethodNotAllowed, contract.ProblemCodeMethodNotAllowed, "The method is not allowed here."}
	errKeyReused  = problem{http.StatusConflict, contract.ProblemCodeKeyReused, "The key was used with another body."}
	errTooLarge   = problem{http.StatusRequestEntityTooLarge, contract.ProblemCodeTooLarge, "The body is above 64 KiB."}
	errMediaType  = problem{http.StatusUnsupportedMediaType, contract.ProblemCodeUnsupportedMediaType, "The body must be application/json."}
	errInternal   = problem{http.StatusInternalServerError, contract.ProblemCodeInternal, "Something failed; the outcome is not known."}
)

// refusals are the problems for echo's own errors.
var refusals = map[int]problem{http.StatusNotFound: errPath, http.StatusMethodNotAllowed: errMethod, http.StatusBadRequest: errParameter}

// render writes the response of every error. An error that is no problem and not echo's is an internal failure, and is logged.
func (s *Simulator) render(err error, c echo.Context) {
	p, ok := errors.AsType[problem](err)
	if refused, is := errors.AsType[*echo.HTTPError](err); !ok && is {
		p, ok = refusals[refused.Code]
	}
	if !ok {
		p = errInternal
		s.log.Error("psp request", zap.String("method", c.Request().Method), zap.String("route", c.Path()), zap.Error(err))
	}
	body := contract.Problem{Code: p.code, Message: p.message}
	if key := c.Param("key"); keyPattern.MatchString(key) {
		body.Key = &key
	}
	c.Response().Header().Set(echo.HeaderContentType, "application/problem+json")
	_ = c.JSON(p.status, body) // fails only if the client left
}
