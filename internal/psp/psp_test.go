package psp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	contract "github.com/ordergate/ordergate/gen/psp"
)

// provider is a simulator behind HTTP whose waits are announced and end only when released.
type provider struct {
	*Simulator
	t       *testing.T
	url     string
	client  *contract.ClientWithResponses
	waits   chan time.Duration
	release chan struct{}
}

func setup(t *testing.T) *provider {
	t.Helper()
	t.Parallel()
	return start(t, Config{Dir: t.TempDir()})
}

func start(t *testing.T, cfg Config) *provider {
	t.Helper()
	cfg.Log = zap.NewNop()
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.clock = func() time.Time { return now }
	p := &provider{Simulator: s, t: t, waits: make(chan time.Duration, 1), release: make(chan struct{})}
	s.wait = func(end <-chan struct{}, d time.Duration) {
		p.waits <- d
		select {
		case <-end:
		case <-p.release:
		}
	}
	server := httptest.NewServer(s.Handler())
	p.url = server.URL
	p.client, err = contract.NewClientWithResponses(p.url, contract.WithHTTPClient(&http.Client{Transport: newOracle(t), Timeout: 20 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// oracle fails the test on an answer that openapi/psp.yaml does not have.
type oracle struct {
	t *testing.T
	*http.Transport
}

var compiling sync.Mutex // a compiler is for one at a time

var compiler = sync.OnceValues(func() (*jsonschema.Compiler, error) {
	text, err := os.ReadFile("../../openapi/psp.yaml")
	if err != nil {
		return nil, err
	}
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	return c, c.AddResource("psp.yaml", doc)
})

func newOracle(t *testing.T) oracle {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return oracle{t, transport}
}

func (o oracle) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := o.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if err := o.check(r, answer, body); err != nil {
		o.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return answer, nil
}

func (o oracle) check(r *http.Request, answer *http.Response, body []byte) error {
	compiling.Lock()
	defer compiling.Unlock()
	c, err := compiler()
	if err != nil {
		return err
	}
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1/operations/") {
		path = "/v1/operations/{key}"
	}
	escape := strings.NewReplacer("/", "~1").Replace
	responses := map[int]string{400: "components/responses/Invalid", 500: "components/responses/Internal"}
	where := responses[answer.StatusCode]
	if where == "" {
		where = fmt.Sprintf("paths/%s/%s/responses/%d", escape(path), strings.ToLower(r.Method), answer.StatusCode)
	}
	schema, err := c.Compile("psp.yaml#/" + where + "/content/" + escape(answer.Header.Get("Content-Type")) + "/schema")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func request(kind contract.Kind, payment string, amount int64, token string) contract.OperationRequest {
	r := contract.OperationRequest{Kind: kind, Payment: payment, Amount: contract.Money{Amount: amount, Currency: "EUR"}}
	if token != "" {
		r.MethodToken = &token
	}
	return r
}

func authorize(payment, token string) contract.OperationRequest {
	return request(contract.KindAuthorize, payment, 1000, token)
}

func (p *provider) put(key string, r contract.OperationRequest) *contract.PutOperationResponse {
	p.t.Helper()
	answer, err := p.client.PutOperationWithResponse(p.t.Context(), key, r)
	if err != nil {
		p.t.Error(err) // not Fatal: tests call this beside their own goroutine
		return &contract.PutOperationResponse{}
	}
	return answer
}

// outcome puts what in one word the answer says: a status, a status with its reason, or a problem's HTTP status and code.
func (p *provider) outcome(key string, r contract.OperationRequest) string {
	p.t.Helper()
	return word(p.put(key, r))
}

func word(answer *contract.PutOperationResponse) string {
	if op := answer.JSON200; op != nil {
		if op.DeclineReason != nil {
			return string(op.Status) + " " + *op.DeclineReason
		}
		return string(op.Status)
	}
	for _, problem := range []*contract.Problem{
		answer.ApplicationProblemJSON400, answer.ApplicationProblemJSON409, answer.ApplicationProblemJSON413,
		answer.ApplicationProblemJSON415, answer.ApplicationProblemJSON422, answer.ApplicationProblemJSON500,
	} {
		if problem != nil {
			return fmt.Sprint(answer.StatusCode(), " ", problem.Code)
		}
	}
	return answer.Status()
}

// abandon puts a request whose client leaves once the simulator waits, and returns for how long it meant to.
func (p *provider) abandon(key string, r contract.OperationRequest) time.Duration {
	p.t.Helper()
	ctx, leave := context.WithCancel(p.t.Context())
	defer leave()
	ended := make(chan error, 1)
	go func() {
		_, err := p.client.PutOperationWithResponse(ctx, key, r)
		ended <- err
	}()
	d := <-p.waits
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		p.t.Fatalf("the request that is never answered ended with %v", err)
	}
	return d
}

func (p *provider) get(key string) *contract.GetOperationResponse {
	p.t.Helper()
	answer, err := p.client.GetOperationWithResponse(p.t.Context(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	return answer
}

func (p *provider) cancel(key string) *contract.Operation {
	p.t.Helper()
	answer, err := p.client.CancelOperationWithResponse(p.t.Context(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	if answer.JSON200 == nil || answer.JSON200.Key != key {
		p.t.Fatalf("DELETE %s: %s", key, answer.Body)
	}
	return answer.JSON200
}

func (p *provider) entries(params contract.ListLedgerParams) *contract.Ledger {
	p.t.Helper()
	answer, err := p.client.ListLedgerWithResponse(p.t.Context(), &params)
	if err != nil {
		p.t.Fatal(err)
	}
	if answer.JSON200 == nil {
		p.t.Fatalf("ledger: %s", answer.Body)
	}
	return answer.JSON200
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestTokensThatAnswer(t *testing.T) {
	p := setup(t)
	for token, want := range map[string][]string{
		"pm_ok":       {"succeeded", "succeeded"},
		"pm_declined": {"declined insufficient_funds", "declined insufficient_funds"},
		"pm_unheard":  {"declined invalid_method", "declined invalid_method"},
		"pm_flaky":    {"500 internal", "500 internal", "succeeded", "succeeded"},
		"pm_error":    {"500 internal", "500 internal", "500 internal", "500 internal"},
	} {
		for i, want := range want {
			equal(t, fmt.Sprint(token, " answer ", i+1), p.outcome(token, authorize(token, token)), want)
		}
	}
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 4)
	equal(t, "GET of pm_error", p.get("pm_error").StatusCode(), http.StatusNotFound)
}

func TestSlowAndLateApproveAfterTheirTime(t *testing.T) {
	for token, d := range map[string]time.Duration{"pm_slow": 2500 * time.Millisecond, "pm_late": 30 * time.Second} {
		t.Run(token, func(t *testing.T) {
			p := setup(t)
			close(p.release)
			equal(t, "outcome", p.outcome("k", authorize("pay", token)), "succeeded")
			equal(t, "wait", <-p.waits, d)
			equal(t, "replay", p.outcome("k", authorize("pay", token)), "succeeded")
			equal(t, "replay's waits", len(p.waits), 0)
		})
	}
}

func TestSlowGoesOnWhenItsClientLeft(t *testing.T) {
	p := setup(t)
	p.abandon("k", authorize("pay", "pm_slow"))
	equal(t, "GET meanwhile", p.get("k").StatusCode(), http.StatusNotFound)
	close(p.release)
	equal(t, "outcome", p.outcome("k", authorize("pay", "pm_slow")), "succeeded")
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 1)
}

func TestCancelWinsAgainstSlow(t *testing.T) {
	p := setup(t)
	answer := make(chan *contract.PutOperationResponse)
	go func() { answer <- p.put("k", authorize("pay", "pm_slow")) }()
	<-p.waits
	op := p.cancel("k")
	equal(t, "DELETE", op.Status, contract.StatusCancelled)
	equal(t, "its kind", *op.Kind, contract.KindAuthorize)
	close(p.release)
	equal(t, "PUT", word(<-answer), "cancelled")
	equal(t, "capture", p.outcome("c", request(contract.KindCapture, "pay", 1000, "")), "422 not_authorized")
}

func TestDuplicateIsTakenForTheNextAnswer(t *testing.T) {
	p := setup(t)
	equal(t, "first", p.outcome("k", authorize("pay", "pm_duplicate")), "succeeded")
	equal(t, "the next answer's key", p.put("other", authorize("pay2", "pm_ok")).JSON200.Key, "k")
	equal(t, "the lost request", p.get("other").StatusCode(), http.StatusNotFound)
	equal(t, "the same again", p.put("other", authorize("pay2", "pm_ok")).JSON200.Key, "other")
	equal(t, "replay", p.put("k", authorize("pay", "pm_duplicate")).JSON200.Key, "k")
	equal(t, "after the replay", p.put("other", authorize("pay2", "pm_ok")).JSON200.Key, "other")
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 2)
}

func TestDuplicateSendsTheSameBytesTwice(t *testing.T) {
	p := setup(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	body := `{"kind":"authorize","payment":"pay","amount":{"amount":1000,"currency":"EUR"},"method_token":"pm_duplicate"}`
	put := fmt.Sprintf("PUT /v1/operations/k HTTP/1.1\r\nHost: psp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(conn, put+"GET /livez HTTP/1.1\r\nHost: psp\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	sent, err := io.ReadAll(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	half := len(sent) / 2
	if !bytes.HasPrefix(sent, []byte("HTTP/1.1 200 OK\r\n")) || !bytes.Equal(sent[:half], sent[half:]) {
		t.Errorf("sent %q", sent)
	}
}

func TestTimeoutCharged(t *testing.T) {
	p := setup(t)
	equal(t, "wait", p.abandon("k", authorize("pay", "pm_timeout_charged")), time.Minute)
	equal(t, "GET", p.get("k").JSON200.Status, contract.StatusSucceeded)
	equal(t, "DELETE", p.cancel("k").Status, contract.StatusSucceeded)
	equal(t, "second", p.outcome("k", authorize("pay", "pm_timeout_charged")), "succeeded")
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 1)
}

func TestTimeoutRecordsNothing(t *testing.T) {
	p := setup(t)
	for range 2 {
		equal(t, "wait", p.abandon("k", authorize("pay", "pm_timeout")), time.Minute)
	}
	equal(t, "GET", p.get("k").StatusCode(), http.StatusNotFound)
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 0)
	equal(t, "DELETE", p.cancel("k").Status, contract.StatusCancelled)
	equal(t, "PUT of a cancelled key", p.outcome("k", authorize("pay", "pm_timeout")), "cancelled")
}

func TestSilenceEndsWithoutAnAnswer(t *testing.T) {
	p := setup(t)
	close(p.release)
	answer, err := p.client.PutOperationWithResponse(t.Context(), "k", authorize("pay", "pm_timeout"))
	if err == nil {
		t.Errorf("answered %s", answer.Status())
	}
}

func TestReplayIsTheSameAnswer(t *testing.T) {
	p := setup(t)
	first := p.put("k", authorize("pay", "pm_ok"))
	for what, body := range map[string][]byte{"PUT": p.put("k", authorize("pay", "pm_ok")).Body, "GET": p.get("k").Body} {
		if !bytes.Equal(first.Body, body) {
			t.Errorf("%s answers %s after %s", what, body, first.Body)
		}
	}
	for _, other := range []contract.OperationRequest{
		authorize("pay", "pm_declined"), authorize("other", "pm_ok"), request(contract.KindAuthorize, "pay", 1, "pm_ok"), request(contract.KindCapture, "pay", 1000, ""),
	} {
		equal(t, "other body", p.outcome("k", other), "409 key_reused")
	}
	p.outcome("pending", authorize("pay2", "pm_error"))
	equal(t, "other body while nothing is definite", p.outcome("pending", authorize("pay2", "pm_ok")), "409 key_reused")
}

func TestTombstone(t *testing.T) {
	p := setup(t)
	op := p.cancel("unseen")
	if op.Status != contract.StatusCancelled || op.Kind != nil || op.Payment != nil || op.Amount != nil {
		t.Errorf("DELETE of an unseen key: %+v", op)
	}
	equal(t, "late PUT", p.outcome("unseen", authorize("pay", "pm_ok")), "cancelled")
	equal(t, "late PUT of another body", p.outcome("unseen", authorize("pay2", "pm_ok")), "cancelled")
	equal(t, "DELETE again", p.cancel("unseen").Reference, op.Reference)

	equal(t, "PUT", p.outcome("k", authorize("pay", "pm_ok")), "succeeded")
	equal(t, "DELETE after it", p.cancel("k").Status, contract.StatusSucceeded)
	equal(t, "entries", len(p.entries(contract.ListLedgerParams{}).Data), 2)
}

func TestPaymentRules(t *testing.T) {
	type step struct {
		kind   contract.Kind
		amount int64
		want   string
	}
	const a, c, v, r = contract.KindAuthorize, contract.KindCapture, contract.KindVoid, contract.KindRefund
	for name, steps := range map[string][]step{
		"nothing without an authorization": {{c, 1000, "422 not_authorized"}, {v, 1000, "422 not_authorized"}, {r, 1, "422 not_authorized"}},
		"one authorization":                {{a, 1000, "succeeded"}, {a, 1000, "422 already_authorized"}},
		"capture of all, once":             {{a, 1000, "succeeded"}, {c, 1001, "422 amount_exceeds_authorized"}, {c, 1000, "succeeded"}, {c, 1, "422 already_captured"}},
		"capture of a part ends it":        {{a, 1000, "succeeded"}, {c, 400, "succeeded"}, {c, 1, "422 already_captured"}, {r, 401, "422 amount_exceeds_refundable"}, {r, 400, "succeeded"}},
		"void of all, once":                {{a, 1000, "succeeded"}, {v, 999, "422 amount_not_authorized"}, {v, 1000, "succeeded"}, {v, 1000, "422 already_voided"}},
		"no capture after a void":          {{a, 1000, "succeeded"}, {v, 1000, "succeeded"}, {c, 1000, "422 already_voided"}, {r, 1, "422 not_captured"}, {a, 1000, "422 already_authorized"}},
		"no void after a capture":          {{a, 1000, "succeeded"}, {c, 1000, "succeeded"}, {v, 1000, "422 already_captured"}},
		"refunds up to the capture":        {{a, 1000, "succeeded"}, {r, 1, "422 not_captured"}, {c, 1000, "succeeded"}, {r, 600, "succeeded"}, {r, 401, "422 amount_exceeds_refundable"}, {r, 400, "succeeded"}, {r, 1, "422 amount_exceeds_refundable"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := setup(t)
			for i, step := range steps {
				token := ""
				if step.kind == a {
					token = "pm_ok"
				}
				key, body := fmt.Sprint("k", i), request(step.kind, "pay", step.amount, token)
				equal(t, fmt.Sprint(i, " ", step.kind), p.outcome(key, body), step.want)
				code, refused := strings.CutPrefix(step.want, "422 ")
				if refused {
					equal(t, "GET's reason", *p.get(key).JSON200.DeclineReason, code)
					equal(t, "DELETE's status", p.cancel(key).Status, contract.StatusDeclined)
				}
			}
		})
	}
}

func TestRefusalIsRemembered(t *testing.T) {
	p := setup(t)
	capture := request(contract.KindCapture, "pay", 1000, "")
	equal(t, "too early", p.outcome("early", capture), "422 not_authorized")
	equal(t, "authorize", p.outcome("a", authorize("pay", "pm_ok")), "succeeded")
	dollars := capture
	dollars.Amount.Currency = "USD"
	equal(t, "another currency", p.outcome("usd", dollars), "422 currency_mismatch")
	equal(t, "the early key again", p.outcome("early", capture), "422 not_authorized")
	equal(t, "a new key", p.outcome("c", capture), "succeeded")
	equal(t, "problem names its key", *p.put("early", capture).ApplicationProblemJSON422.Key, "early")
}

func TestConcurrentAuthorizations(t *testing.T) {
	p := setup(t)
	run := func(key func(int) string, payment string) map[string]int {
		var all sync.WaitGroup
		var mu sync.Mutex
		count := map[string]int{}
		for i := range 200 {
			all.Go(func() {
				got := word(p.put(key(i), authorize(payment, "pm_ok")))
				mu.Lock()
				defer mu.Unlock()
				count[got]++
			})
		}
		all.Wait()
		return count
	}
	equal(t, "one key", run(func(int) string { return "k" }, "pay")["succeeded"], 200)
	equal(t, "its entries", len(p.entries(contract.ListLedgerParams{}).Data), 1)
	equal(t, "one payment", run(func(i int) string { return fmt.Sprint("k", i) }, "pay2")["succeeded"], 1)
}

func TestLedgerPages(t *testing.T) {
	p := setup(t)
	for i := range 5 {
		p.outcome(fmt.Sprint("k", i), authorize(fmt.Sprint("pay", i%2), "pm_declined"))
	}
	limit, seen := int32(2), []int64{}
	for after := new(int64); after != nil; {
		page := p.entries(contract.ListLedgerParams{After: after, Limit: &limit})
		for _, e := range page.Data {
			seen = append(seen, e.Sequence)
		}
		after = page.Next
	}
	equal(t, "pages", fmt.Sprint(seen), "[1 2 3 4 5]")
	payment := "pay1"
	page := p.entries(contract.ListLedgerParams{Payment: &payment, Limit: &limit})
	equal(t, "of a payment", fmt.Sprint(page.Data[0].Key, page.Data[1].Key, page.Next), "k1k3<nil>")
	payment = "nobody"
	equal(t, "of an unknown payment", len(p.entries(contract.ListLedgerParams{Payment: &payment}).Data), 0)
}

func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "psp.jsonl")
	var before []byte
	t.Run("before", func(t *testing.T) {
		p := start(t, Config{Dir: dir})
		p.outcome("a", authorize("pay", "pm_ok"))
		p.outcome("early", request(contract.KindRefund, "pay", 1, ""))
		p.outcome("c", request(contract.KindCapture, "pay", 1000, ""))
		p.outcome("r", request(contract.KindRefund, "pay", 600, ""))
		p.outcome("d", authorize("pay2", "pm_declined"))
		p.cancel("t")
		lines, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "lines before Close", bytes.Count(lines, []byte("\n")), 6)
		before = p.put("a", authorize("pay", "pm_ok")).Body
		if _, err := New(Config{Dir: dir, Log: zap.NewNop()}); err == nil {
			t.Error("a second process opened the file")
		}
	})
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(whole, whole[:100]...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("after a torn line", func(t *testing.T) {
		p := start(t, Config{Dir: dir})
		if body := p.put("a", authorize("pay", "pm_ok")).Body; !bytes.Equal(before, body) {
			t.Errorf("answers %s after %s", body, before)
		}
		equal(t, "other body", p.outcome("a", authorize("pay", "pm_declined")), "409 key_reused")
		equal(t, "refusal", p.outcome("early", request(contract.KindRefund, "pay", 1, "")), "422 not_captured")
		equal(t, "decline", p.outcome("d", authorize("pay2", "pm_declined")), "declined insufficient_funds")
		equal(t, "tombstone", p.outcome("t", authorize("pay3", "pm_ok")), "cancelled")
		equal(t, "refund above the rest", p.outcome("r2", request(contract.KindRefund, "pay", 401, "")), "422 amount_exceeds_refundable")
		equal(t, "refund of the rest", p.outcome("r3", request(contract.KindRefund, "pay", 400, "")), "succeeded")
		entries := p.entries(contract.ListLedgerParams{}).Data
		equal(t, "last sequence", entries[len(entries)-1].Sequence, 8)
	})
	t.Run("once more", func(t *testing.T) {
		equal(t, "entries", len(start(t, Config{Dir: dir}).entries(contract.ListLedgerParams{}).Data), 8)
	})
	if err := os.WriteFile(file, append([]byte("{\n"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir, Log: zap.NewNop()}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a damaged line in the middle: %v", err)
	}
}

func TestNothingIsAnsweredThatIsNotWritten(t *testing.T) {
	p := setup(t)
	if err := p.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		equal(t, "PUT", p.outcome("k", authorize("pay", "pm_ok")), "500 internal")
	}
	equal(t, "GET", p.get("k").StatusCode(), http.StatusInternalServerError)
	answer, err := p.client.ListLedgerWithResponse(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "ledger", answer.StatusCode(), http.StatusInternalServerError)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Serve(t.Context(), l); !errors.Is(err, errLedger) {
		t.Errorf("it serves on: %v", err)
	}
}

func TestInvalidRequests(t *testing.T) {
	p := setup(t)
	const good = `{"kind":"capture","payment":"pay","amount":{"amount":1,"currency":"EUR"}}`
	for name, c := range map[string]struct {
		method, path, media, body string
		status                    int
		code                      contract.ProblemCode
	}{
		"no such path":          {"GET", "/v1/nothing", "", "", 404, contract.ProblemCodeNotFound},
		"method":                {"POST", "/v1/ledger", "", "", 405, contract.ProblemCodeMethodNotAllowed},
		"limit is no number":    {"GET", "/v1/ledger?limit=x", "", "", 400, contract.ProblemCodeInvalidRequest},
		"limit too great":       {"GET", "/v1/ledger?limit=1001", "", "", 400, contract.ProblemCodeInvalidRequest},
		"payment of the ledger": {"GET", "/v1/ledger?payment=a%20b", "", "", 400, contract.ProblemCodeInvalidRequest},
		"key":                   {"PUT", "/v1/operations/a%2Fb", "application/json", good, 400, contract.ProblemCodeInvalidRequest},
		"key of GET":            {"GET", "/v1/operations/a%20b", "", "", 400, contract.ProblemCodeInvalidRequest},
		"key of DELETE":         {"DELETE", "/v1/operations/" + strings.Repeat("k", 129), "", "", 400, contract.ProblemCodeInvalidRequest},
		"media type":            {"PUT", "/v1/operations/k", "text/plain", good, 415, contract.ProblemCodeUnsupportedMediaType},
		"no body":               {"PUT", "/v1/operations/k", "application/json", "", 400, contract.ProblemCodeInvalidRequest},
		"null":                  {"PUT", "/v1/operations/k", "application/json", "null", 400, contract.ProblemCodeInvalidRequest},
		"unknown member":        {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, `{"k`, `{"x":1,"k`, 1), 400, contract.ProblemCodeInvalidRequest},
		"repeated member":       {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, `{"k`, `{"payment":"p","k`, 1), 400, contract.ProblemCodeInvalidRequest},
		"second document":       {"PUT", "/v1/operations/k", "application/json", good + good, 400, contract.ProblemCodeInvalidRequest},
		"kind":                  {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, "capture", "steal", 1), 400, contract.ProblemCodeInvalidRequest},
		"payment":               {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, `"pay"`, `"p y"`, 1), 400, contract.ProblemCodeInvalidRequest},
		"amount":                {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, `:1,`, `:0,`, 1), 400, contract.ProblemCodeInvalidRequest},
		"currency":              {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, "EUR", "eur", 1), 400, contract.ProblemCodeInvalidRequest},
		"authorize, no token":   {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, "capture", "authorize", 1), 400, contract.ProblemCodeInvalidRequest},
		"capture with a token":  {"PUT", "/v1/operations/k", "application/json", strings.Replace(good, `{"k`, `{"method_token":"pm_ok","k`, 1), 400, contract.ProblemCodeInvalidRequest},
		"more than 64 KiB":      {"PUT", "/v1/operations/k", "application/json", strings.Repeat(" ", 64<<10) + good, 413, contract.ProblemCodeTooLarge},
		"exactly 64 KiB passes": {"PUT", "/v1/operations/k", "application/json", strings.Repeat(" ", 64<<10-len(good)) + good, 422, contract.ProblemCodeNotAuthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(c.method, p.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", c.media)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			if err := errors.Join(err, answer.Body.Close()); err != nil {
				t.Fatal(err)
			}
			equal(t, "status", answer.StatusCode, c.status)
			equal(t, "media type", answer.Header.Get("Content-Type"), "application/problem+json")
			if !bytes.Contains(body, []byte(`"code":"`+string(c.code)+`"`)) {
				t.Errorf("body %s, want code %s", body, c.code)
			}
		})
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	for _, token := range []string{"pm_timeout", "pm_late", "pm_slow"} {
		t.Run(token, func(t *testing.T) {
			p := setup(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			defer end()
			served := make(chan error, 1)
			go func() { served <- p.Serve(ctx, l) }()
			client, err := contract.NewClientWithResponses("http://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(5 * time.Second); ; {
				answer, err := client.GetLiveWithResponse(ctx)
				if err == nil && answer.JSON200 != nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("does not serve: ", err)
				}
			}
			silent := make(chan error, 1)
			go func() {
				_, err := client.PutOperationWithResponse(t.Context(), "k", authorize("pay", token))
				silent <- err
			}()
			<-p.waits
			end()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if err := <-silent; err == nil {
				t.Error("the silent request was answered")
			}
			equal(t, "outcomes", len(p.ledger), 0)
		})
	}
}
