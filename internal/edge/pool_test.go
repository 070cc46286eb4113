package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/command"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/signature"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// telling are handlers that respond with all that they were given of a request, in the contract's own operations.
type telling struct {
	handlers
	kept *keptStrings
}

// keptStrings are the texts of requests that a handler keeps beyond them, as commands do, and what they were.
type keptStrings struct {
	sync.Mutex
	kept, copies [][]string
}

func (k *keptStrings) keep(r *request) {
	e := r.envelope()
	kept := []string{e.Key, e.IfMatch, e.Problem.TraceID, e.Problem.Instance, e.Actor, r.sku, r.page.Cursor, r.raw, r.ifNoneMatch}
	copies := make([]string, len(kept))
	for i, text := range kept {
		copies[i] = strings.Clone(text)
	}
	k.Lock()
	defer k.Unlock()
	k.kept, k.copies = append(k.kept, kept), append(k.copies, copies)
}

func (t telling) all(r *request, operation string, own ...any) string {
	t.kept.keep(r)
	e := r.envelope()
	text, _ := json.Marshal(map[string]any{
		"operation": operation, "owner": fmt.Sprint(e.Owner), "actor": e.Actor, "key": e.Key, "if_match": e.IfMatch, "chinese": e.Problem.Chinese, "instance": e.Problem.Instance,
		"order": r.orderID, "payment": r.paymentID, "refund": r.refundID, "shipment": r.shipmentID, "sku": r.sku, "page": fmt.Sprint(r.page),
		"token": fmt.Sprint(r.token), "if_none_match": r.ifNoneMatch, "raw": r.raw, "own": own, "fault": r.fault, "code": r.code, "cause": fmt.Sprint(r.cause),
		"tier": r.tier, "problem_token": r.problemToken, "retry_after": r.retryAfter,
	})
	return string(text)
}

// view is a query's: found in a tier that the id chooses, with a token of its own.
func (t telling) view(r *request, operation string, own ...any) (response, error) {
	v := query.View{Body: t.all(r, operation, own...), ETag: `"3-9f2c61d07a3be410"`, Token: t.sign(token.Token{LSN: 1 + uint64(r.orderID[15])}), Tier: "lru", Age: 1}
	switch r.orderID[15] % 4 {
	case 1:
		v.Tier = "redis"
	case 2:
		return r.queryResponse(query.View{Token: v.Token, Tier: "replica"}, apierr.E(errcode.ORD001))
	case 3:
		return r.queryResponse(query.View{}, fmt.Errorf("the primary: %w", errRead))
	}
	return r.queryResponse(v, nil)
}

// command is a command's result, with a revision that the order chooses.
func (t telling) command(ctx context.Context, r *request, status int, operation string, body any) (response, error) {
	rev := int64(r.orderID[15])
	made := command.Result{
		Status: status, ContentType: "application/json", Location: "/v1/orders/" + r.orderID.Format(order.PrefixOrder), Replayed: rev%2 == 1,
		Body: view.Body{Bytes: []byte(t.all(r, operation, body)), ETag: fmt.Sprintf(`"%d"`, rev)}, OrderID: r.orderID, Rev: rev, LSN: uint64(len(r.raw)),
	}
	if rev%4 == 2 {
		return t.commandResponse(ctx, r, command.Result{LSN: 7}, apierr.E(errcode.ORD002), nil)
	}
	return t.commandResponse(ctx, r, made, nil, func(_ context.Context, e command.Envelope, accepted command.Result, within time.Duration) command.Result {
		accepted.Body.Bytes = fmt.Appendf(nil, "%s %v %s", e.Key, within, accepted.Body.Bytes)
		return accepted
	})
}

func (t telling) GetOrder(ctx context.Context, r *request, p api.GetOrderParams) (response, error) {
	if faults.In(ctx) == faults.PrimaryAway {
		return response{}, apierr.E(errcode.SYS002, apierr.Cause(faults.Err))
	}
	return t.view(r, "getOrder", p)
}

func (t telling) ListOrders(_ context.Context, r *request, p api.ListOrdersParams) (response, error) {
	return t.view(r, "listOrders", p)
}

func (t telling) GetProduct(_ context.Context, r *request) (response, error) {
	return t.view(r, "getProduct")
}

func (t telling) GetRefund(_ context.Context, r *request) (response, error) {
	return t.view(r, "getRefund")
}

func (t telling) GetShipment(_ context.Context, r *request) (response, error) {
	return t.view(r, "getShipment")
}

func (t telling) GetPayment(_ context.Context, r *request) (response, error) {
	return t.view(r, "getPayment")
}

func (t telling) PlaceOrder(ctx context.Context, r *request, body api.PlaceOrder) (response, error) {
	return t.command(ctx, r, http.StatusAccepted, "placeOrder", body)
}

func (t telling) CancelOrder(ctx context.Context, r *request, body *api.CancelOrder) (response, error) {
	return t.command(ctx, r, http.StatusAccepted, "cancelOrder", body)
}

func (t telling) UpdateOrder(ctx context.Context, r *request, patch api.MergePatch) (response, error) {
	return t.command(ctx, r, http.StatusOK, "updateOrder", string(patch))
}

func (t telling) TakeProviderCallback(_ context.Context, r *request, p api.TakeProviderCallbackParams, body api.ProviderCallback) (response, error) {
	if text := t.all(r, "takeProviderCallback", p, body); !strings.Contains(text, "evt") {
		return response{}, errors.New("it is another body")
	}
	return response{status: http.StatusNoContent}, nil
}

func (t telling) StreamOrder(_ context.Context, r *request, p api.StreamOrderParams) (response, error) {
	data := []byte(t.all(r, "streamOrder", p))
	r.add("Content-Type", "text/event-stream")
	r.add("X-Consistency-Token", t.sign(token.Token{LSN: 1 + uint64(r.orderID[15])}))
	news := query.News{Token: "t", Final: true, Events: []query.StreamEvent{{Sequence: 1, Type: "told", Data: data}}}
	if r.orderID[15]%2 == 1 { // its end comes with the second read, after the request
		news.Final = false
	}
	return response{status: http.StatusOK, stream: &stream{news: news, changed: closedChannel(), leave: func() {},
		read: func(context.Context, int64, token.Token) (query.News, error) { return query.News{Final: true}, nil }}}, nil
}

// tellingServer serves by the telling handlers. All of its requests come at the same instant. log takes the events of all requests.
func tellingServer(kept *keptStrings, log io.Writer) *Server {
	now := func() time.Time { return time.Unix(1_800_000_000, 0).UTC() }
	sink := zapcore.Lock(zapcore.AddSync(log))
	key := func(id string, account int32, limit int64, scopes ...string) *Key {
		return &Key{ID: id, Owner: order.Owner{Account: account, Mode: "test"}, Scopes: scopes, Limit: rate.Limit{Requests: limit, Window: time.Second}}
	}
	s := newServer(Config{
		Signer: token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 }, Tracer: noop.NewTracerProvider().Tracer(""), Registry: prometheus.NewRegistry(),
		Auth: NewAuthenticator(func(context.Context, []byte) (*Key, error) { return nil, nil }, nil, 64, map[string]*Key{
			poolKeys[0]: key("key_a", 11, 1_000_000, "orders:read", "orders:write", "payments:read", "refunds:read", "catalog:read", "shipments:read"),
			poolKeys[1]: key("key_b", 22, 0, "orders:read", "orders:write", "payments:read", "refunds:read", "catalog:read", "shipments:read"),
			poolKeys[2]: key("key_c", 33, 500_000, "shipments:read"),
		}, nil, now, nil),
		ProviderSecrets: map[string]string{"psp": "shared"}, Origins: []string{"https://pages.example"},
		Log: zap.New(zapcore.NewCore(telemetry.Encoder(), sink, zap.InfoLevel)), AccessLog: sink, Now: now, Strict: true, Faults: true, LocalOnly: true,
	})
	var operations []*operation
	for _, o := range api.Operations[*request, response](telling{handlers{s}, kept}) {
		operations = append(operations, &operation{Operation: o})
	}
	s.register(operations)
	return s
}

var poolKeys = [...]string{"og_test_a_key_of_the_pool_1", "og_test_a_key_of_the_pool_2", "og_test_a_key_of_the_pool_3"}

// sent is a request of a client.
type sent struct {
	method, path string
	headers      []string // names and values in turn
	body         string
	chunked      bool
}

func (c sent) String() string {
	return fmt.Sprintf("%s %s %.300q %.60s", c.method, c.path, c.headers, c.body)
}

// result is what a client and the log say of one request, without what differs whenever it is sent: Date, the trace id, and how many tokens the key has
// left.
type result struct {
	status               int
	headers, body, event string
}

// firstOf is the result of a request that is alone on a server of its own.
func (c sent) firstOf(t *testing.T, client *http.Client, traceID string) result {
	t.Helper()
	var log bytes.Buffer
	url, stop := serving(t, tellingServer(new(keptStrings), &log))
	got, _, _, err := c.do(t.Context(), client, url, traceID)
	client.CloseIdleConnections() // a server that stops waits for one on which nothing was sent
	stop()
	if err != nil {
		t.Fatal(c, err)
	}
	logged, err := events(log.String())
	if got.event = logged[traceID]; err != nil || len(logged) != 1 || got.event == "" {
		t.Fatal(c, err, log.String())
	}
	return got
}

var (
	madeID    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	tokenLeft = regexp.MustCompile(`r=([1-9]\d*)`) // 0 is that of a failure on purpose
	stack     = regexp.MustCompile(`(panic: )[^"]*`)
)

// do sends a request with a trace id of the client's, or with none. It returns the result, which has no event yet, the request's trace id, and how many
// tokens its key has left.
func (c sent) do(ctx context.Context, client *http.Client, url, traceID string) (got result, id, left string, err error) {
	body := io.Reader(http.NoBody)
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	if c.chunked {
		body = io.MultiReader(body)
	}
	hr, err := http.NewRequestWithContext(ctx, c.method, url+c.path, body)
	if err != nil {
		return got, "", "", err
	}
	for i := 0; i < len(c.headers); i += 2 {
		hr.Header.Add(c.headers[i], c.headers[i+1])
		if c.headers[i] == "Host" {
			hr.Host = c.headers[i+1]
		}
	}
	if traceID != "" {
		hr.Header.Set("X-Trace-ID", traceID)
	}
	w, err := client.Do(hr)
	if err != nil {
		return got, "", "", err
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		return got, "", "", err
	}
	id = w.Header.Get("X-Trace-ID")
	if traceID != "" && id != traceID || traceID == "" && !madeID.MatchString(id) {
		return got, "", "", fmt.Errorf("its trace id is %q, and %q was sent", id, traceID)
	}
	if found := tokenLeft.FindStringSubmatch(w.Header.Get("RateLimit")); found != nil {
		left = found[1]
		w.Header.Set("RateLimit", tokenLeft.ReplaceAllString(w.Header.Get("RateLimit"), "r=N"))
	}
	w.Header.Del("Date")
	got.headers = strings.ReplaceAll(fmt.Sprint(w.Header, w.ContentLength, w.TransferEncoding, w.Close), id, "ID")
	got.status, got.body = w.StatusCode, strings.ReplaceAll(string(text), id, "ID")
	return got, id, left, nil
}

// events are the events of a log by their trace id, without it. Two of one id are an error.
func events(log string) (map[string]string, error) {
	all := map[string]string{}
	for line := range strings.Lines(log) {
		var event struct {
			TraceID string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		if all[event.TraceID] != "" {
			return nil, fmt.Errorf("%s has two events", event.TraceID)
		}
		all[event.TraceID] = stack.ReplaceAllString(strings.ReplaceAll(line, event.TraceID, "ID"), "$1")
	}
	return all, nil
}

// serving runs a server until stop, which waits for the streams, too.
func serving(t *testing.T, s *Server) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l, s, 0) }()
	return "http://" + l.Addr().String(), func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// poolRequests are requests of every kind, each of several keys, orders, languages and tokens.
func poolRequests() (all []sent) {
	signer := token.NewSigner([]byte("k"))
	add := func(method, path, body string, headers ...string) {
		all = append(all, sent{method, path, headers, body, false})
	}
	languages := []string{"en", "zh-CN", "de, zh;q=0.5"}
	const json, patch = "application/json", "application/merge-patch+json"
	for i := range 24 {
		hex := fmt.Sprintf("0198f3c2a4b57d3e8c1f2a3b4c5d%04x", i)
		at, id, seen := "/v1/orders/ord_"+hex, []string{"Authorization", "Bearer " + poolKeys[i/4%2]}, signer.Sign(token.Token{Timeline: 1, LSN: uint64(i)})
		with := func(more ...string) []string {
			return append(append(slices.Clone(id), "Accept-Language", languages[i%3]), more...)
		}
		idem := fmt.Sprintf("idempotency-key-%d", i)
		add("GET", at, "", with("X-Consistency-Token", seen)...)
		add("GET", at, "", with("If-None-Match", `"3-9f2c61d07a3be410"`)...)
		add("GET", at, "", with("If-None-Match", fmt.Sprintf(`"another-%d"`, i), "Origin", "https://pages.example")...)
		add("HEAD", at, "", with()...)
		add("GET", fmt.Sprintf("%s?version=%d", at, 1+i), "", with()...)
		add("GET", at+"?version=x&as_of=y&z=1", "", with()...)
		add("GET", fmt.Sprintf("/v1/orders?limit=%d&customer_ref=c%d", 1+i, i), "", with()...)
		add("GET", fmt.Sprintf("/v1/products/SKU-%d", i), "", with()...)
		add("GET", "/v1/refunds/ref_"+hex, "", with()...)
		add("GET", "/v1/payments/pay_"+hex, "", with("X-Consistency-Token", "1.forged")...)
		add("GET", "/v1/shipments/shp_"+hex, "", "Authorization", "Bearer "+poolKeys[2])
		add("GET", at, "", "Authorization", "Bearer "+poolKeys[2]) // it lacks the scope
		add("GET", at, "", "Authorization", fmt.Sprintf("Bearer og_test_an_unknown_key_%d", i), "Accept-Language", languages[i%3])
		add("GET", at, "")
		add("GET", at, "", with(faults.Header, []string{"primary-away", "panic", "rate", "draining", "none of them"}[i%5])...)
		add("GET", at, "", with("Accept", "image/png")...)
		add("GET", fmt.Sprintf("/v1/errors/ORD_%03d", 1+i%12), "", "Accept-Language", languages[i%3])
		add("GET", fmt.Sprintf("/v1/nothing/%d", i), "", with()...)
		add("DELETE", at, "", with()...)
		add("GET", at, "", with("Host", "shop.example")...)
		add("OPTIONS", at, "", "Origin", "https://pages.example", "Access-Control-Request-Method", "PATCH")
		add("GET", at+"/stream", "", with()...)
		add("GET", at+"/stream", "", with("Last-Event-ID", strconv.Itoa(i))...)
		add("GET", at+"/stream", "", with("Last-Event-ID", "x")...)
		placed := fmt.Sprintf(`{"currency":"EUR","customer_ref":"c%d","lines":[{"sku":"A%d","quantity":%d}]}`, i, i, 1+i)
		add("POST", "/v1/orders", placed, with("Content-Type", json, "Idempotency-Key", idem, "Prefer", fmt.Sprintf("wait=%d", i%4))...)
		add("POST", "/v1/orders", placed[:30+i], with("Content-Type", json, "Idempotency-Key", idem)...)
		add("POST", "/v1/orders", strings.Replace(placed, "EUR", strings.Repeat("x", 9000+i), 1), with("Content-Type", json, "Idempotency-Key", idem)...)
		add("POST", "/v1/orders", placed, with("Content-Type", json)...)
		add("POST", "/v1/orders", placed, with("Content-Type", "text/plain", "Idempotency-Key", idem)...)
		all[len(all)-5].chunked = i%2 == 0
		add("POST", at+"/cancel", "", with("Idempotency-Key", idem)...)
		add("POST", at+"/cancel", fmt.Sprintf(`{"reason":"reason %d"}`, i), with("Content-Type", json, "Idempotency-Key", idem)...)
		add("PATCH", at, fmt.Sprintf(`{"reference":"r%d"}`, i), with("Content-Type", patch, "If-Match", fmt.Sprintf(`"%d"`, i))...)
		add("PATCH", at, "{}", with("Content-Type", json)...)
		callback := fmt.Sprintf(`{"id":"evt_%d","type":"charge.succeeded","key":"k%d"}`, i, i)
		good := signature.Sign("shared", time.Unix(1_800_000_000, 0), []byte(callback))
		add("POST", "/v1/provider-callbacks/psp", callback, "Content-Type", json, signature.Header, good)
		add("POST", "/v1/provider-callbacks/psp", callback, "Content-Type", json, signature.Header, fmt.Sprintf("t=%d,v1=0", i))
		add("POST", "/v1/provider-callbacks/other", callback, "Content-Type", json)
	}
	return all
}

// TestARequestOfThePoolIsAsGoodAsNew: many different requests at once, over HTTP, have each the status, headers, body and event in the log of the same
// request that is alone on a server of its own. What a handler keeps of them stays, and no token of a key is given out twice.
func TestARequestOfThePoolIsAsGoodAsNew(t *testing.T) {
	t.Parallel()
	const clients, rounds = 16, 3
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	all := poolRequests()
	alone, statuses := make([]result, len(all)), map[int]int{}
	for i, c := range all {
		alone[i] = c.firstOf(t, client, fmt.Sprintf("trace-of-a-client-%018d", i)) // as long as one that is made
		statuses[alone[i].status]++
	}
	for _, status := range []int{200, 202, 204, 304, 400, 401, 403, 404, 405, 406, 409, 415, 429, 500, 503} {
		if statuses[status] == 0 {
			t.Errorf("no request ends in %d", status)
		}
	}

	type ended struct {
		request  int
		id, left string
		result
	}
	var log bytes.Buffer
	kept := new(keptStrings)
	url, stop := serving(t, tellingServer(kept, &log))
	results, queue := make([]ended, rounds*len(all)), make(chan int)
	var senders sync.WaitGroup
	for range clients {
		senders.Go(func() {
			for n := range queue {
				i, traceID := results[n].request, ""
				if n%2 == 0 {
					traceID = fmt.Sprintf("trace-of-a-client-%018d", n)
				}
				var err error
				if results[n].result, results[n].id, results[n].left, err = all[i].do(t.Context(), client, url, traceID); err != nil {
					t.Error(all[i], err)
				}
			}
		})
	}
	for n := range results {
		results[n].request = n % len(all)
	}
	for _, n := range rand.Perm(len(results)) {
		queue <- n
	}
	close(queue)
	senders.Wait()
	client.CloseIdleConnections()
	stop()

	logged, err := events(log.String())
	if err != nil || len(logged) != len(results) {
		t.Errorf("%d events of %d requests, %v", len(logged), len(results), err)
	}
	lefts := map[string]int{}
	for _, got := range results {
		got.event = logged[got.id]
		if want := alone[got.request]; got.result != want && !t.Failed() {
			t.Errorf("%v\ngot  %+v\nwant %+v", all[got.request], got.result, want)
		}
		if lefts[got.left]++; got.left != "" && lefts[got.left] > 1 {
			t.Errorf("two requests are told that %s are left", got.left)
		}
	}
	for i := range kept.kept {
		if !slices.Equal(kept.kept[i], kept.copies[i]) {
			t.Fatalf("a handler kept %q of a request, which is %q now", kept.copies[i], kept.kept[i])
		}
	}
}
