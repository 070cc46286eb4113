package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/contracttest"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/signature"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// TestEveryListedCodeIsProvoked runs the contract's suite and then what a black box cannot do: each failure on purpose on each operation that can
// meet it, and once really: broken keys, databases and servers. It prints the matrix of operations and codes, and fails below 100 %.
func TestEveryListedCodeIsProvoked(t *testing.T) {
	t.Parallel()
	ops := operations(t)
	m := newMatrix(ops)
	client := &http.Client{Transport: m}
	g := startGateway(t, nil)
	g.sampleCatalogue()
	contracttest.RunWith(t, contracttest.Options{BaseURL: g.url, Key: aliceKey, HTTP: client, NoPages: true})

	place := func(methodToken string) string {
		a := g.persist("/v1/orders", draft(firstSKU, 1, methodToken)) // what follows opens the primary's breaker now and then
		if a.status != http.StatusAccepted {
			t.Fatal(a.raw)
		}
		return a.body.ID
	}
	var id, paymentID string
	// ready makes an order that waits for its payment, and a captured payment of another order.
	ready := func() {
		t.Helper()
		paid := g.reserved(firstSKU)
		paymentID = g.pay(paid, "pm_ok", http.StatusCreated).body.ID
		id = g.reserved(firstSKU)
	}
	ready()
	shipment, refund := g.components.ids.Mint(time.Now(), 1).Format(order.PrefixShipment), g.components.ids.Mint(time.Now(), 1).Format(order.PrefixRefund) // of nobody
	byName := func(id string) operation {
		return ops[slices.IndexFunc(ops, func(op operation) bool { return op.OperationID == id })]
	}
	cancel, pay, placing, quote := byName("cancelOrder"), byName("payOrder"), byName("placeOrder"), byName("quoteOrder")
	way := bySuite
	send := func(url, key string, op operation, headers ...string) string {
		r, err := http.NewRequestWithContext(by(t.Context(), way), op.Method, url+strings.NewReplacer("{order_id}", id, "{payment_id}", paymentID, "{shipment_id}", shipment, "{refund_id}", refund, "{sku}", firstSKU, "{code}", "PAY_003", "{provider}", "psp").Replace(op.path), strings.NewReader(op.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("If-Match", "*")
		r.Header.Set("Content-Type", op.mediaType)
		if op.keyed() {
			r.Header.Set("Idempotency-Key", fmt.Sprintf("code-%08d", keyNumber.Add(1)))
		}
		if op.signed() {
			r.Header.Set(signature.Header, signature.Sign(g.cfg.ProviderSecret, time.Now(), []byte(op.body)))
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		res, err := client.Do(r)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		var problem struct {
			Code string `json:"code"`
		}
		_ = json.NewDecoder(res.Body).Decode(&problem)
		return problem.Code
	}
	until(t, "an order of more than was just found short is refused at once", func() bool {
		more := placing
		body, _ := json.Marshal(draft(firstSKU, 9999, "")) // maps always can
		more.body = string(body)
		return send(g.url, aliceKey, more) == "INV_002"
	})
	each := func(code, url, key string, which func(operation) bool, headers ...string) {
		t.Helper()
		var wg sync.WaitGroup
		for _, op := range ops {
			if which(op) {
				wg.Go(func() {
					if got := send(url, key, op, headers...); got != code {
						t.Errorf("%s %v: %s, want %s", op.OperationID, headers, got, code)
					}
				})
			}
		}
		wg.Wait()
	}
	all := func(operation) bool { return true }
	closed := func(op operation) bool { return (op.Security == nil || len(*op.Security) > 0) && !op.signed() }
	reads := func(op operation) bool { return closed(op) && op.Method == http.MethodGet }

	// Failures on purpose: each operation that lists the code meets them.
	ready()
	for name, code := range map[faults.Name]string{
		faults.Panic: "SYS_001", faults.PrimaryAway: "SYS_002", faults.Deadline: "SYS_003", faults.Behind: "SYS_004", faults.Draining: "SYS_005",
		faults.CommitUnknown: "SYS_006", faults.CommitLost: "SYS_006", faults.InProgress: "IDEM_003", faults.Rate: "RATE_001", faults.QueueFull: "RATE_003",
		faults.ProviderAway: "PAY_008",
	} {
		which := func(op operation) bool { return slices.Contains(op.Codes, code) }
		if name == faults.CommitUnknown || name == faults.ProviderAway { // orders are cancelled and paid really, one after the other
			for _, op := range ops {
				if which(op) {
					ready()
					each(code, g.url, aliceKey, func(other operation) bool { return other.OperationID == op.OperationID }, faults.Header, string(name))
				}
			}
			continue
		}
		each(code, g.url, aliceKey, which, faults.Header, string(name))
	}

	// Keys that are no good or used up, a bug in every handler, a database of keys that is down, one that hangs.
	way = byServer
	owner, past := order.Owner{Account: 1, Mode: "test"}, time.Now().Add(-time.Hour)
	const narrow, expired, revoked, unknown = "og_test_narrow_key_for_tests", "og_test_expired_key_for_tests", "og_test_revoked_key_for_tests", "og_test_unknown_key_for_tests"
	const limited = "og_test_limited_key_for_tests"
	broken := func(find func(context.Context, []byte) (*edge.Key, error)) string {
		s := edge.New(edge.Config{
			Auth: edge.NewAuthenticator(find, nil, 8, map[string]*edge.Key{
				aliceKey: {ID: "key_1", Owner: owner, Scopes: Scopes}, narrow: {ID: "key_2", Owner: owner},
				expired: {ID: "key_3", Owner: owner, Scopes: Scopes, ExpiresAt: &past}, revoked: {ID: "key_4", Owner: owner, Scopes: Scopes, RevokedAt: &past},
				limited: {ID: "key_5", Owner: owner, Scopes: Scopes, Limit: rate.Limit{Requests: 1, Window: time.Hour}},
			}, nil, time.Now, nil),
			ProviderSecrets: map[string]string{payment.Provider: g.cfg.ProviderSecret},
			Signer:          token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 }, Log: zap.NewNop(), Tracer: noop.NewTracerProvider().Tracer(""),
			Registry: prometheus.NewRegistry(), Strict: true,
		})
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		return server.URL
	}
	down := broken(func(context.Context, []byte) (*edge.Key, error) { return nil, errors.New("the database is down") })
	each("AUTH_003", down, expired, closed)
	each("AUTH_004", down, revoked, closed)
	each("AUTH_005", down, narrow, closed)
	each("SYS_001", down, aliceKey, closed)
	each("SYS_001", down, aliceKey, operation.signed)
	each("SYS_002", down, unknown, closed)
	if code := send(down, limited, cancel); code != "SYS_001" {
		t.Errorf("the one request that the limit allows: %s", code)
	}
	each("RATE_001", down, limited, closed)
	const lookUps = 8 // at once, of keys that are not known
	entered, release := make(chan struct{}, lookUps), make(chan struct{})
	hanging := broken(func(context.Context, []byte) (*edge.Key, error) {
		entered <- struct{}{}
		<-release
		return nil, nil
	})
	var waiting sync.WaitGroup
	for i := range lookUps {
		waiting.Go(func() { send(hanging, fmt.Sprint(unknown, i), cancel) })
	}
	for range lookUps {
		<-entered
	}
	each("RATE_003", hanging, unknown, closed)
	close(release)
	waiting.Wait()

	// A state that nobody has seen yet, and a server that stops.
	ahead := token.NewSigner(SecretFor(g.cfg.Secret, "tokens")).Sign(token.Token{Timeline: 1, LSN: 1 << 60})
	each("SYS_004", g.url, aliceKey, reads, "X-Consistency-Token", ahead)
	stopping, err := g.assemble().API(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), "test", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	g.background(func(context.Context) error { return stopping.Serve(ctx, l, stopping, 5*time.Second) })
	until(t, "the server stops", func() bool { return send("http://"+l.Addr().String(), aliceKey, cancel) == "SYS_005" })
	each("SYS_005", "http://"+l.Addr().String(), aliceKey, all)

	// Really, a command that meets a locked table.
	way = byOutage
	other := g.serve(g.assemble()) // in one process the second waits for the first
	unlock, seen := g.lockKeys(), map[string]bool{}
	until(t, "a command is in progress and times out", func() bool {
		key, first := fmt.Sprintf("code-%08d", keyNumber.Add(1)), make(chan string, 1)
		go func() { first <- send(g.url, aliceKey, placing, "Idempotency-Key", key) }()
		for {
			select {
			case code := <-first:
				seen[code] = true
				return seen["IDEM_003"] && seen["SYS_003"]
			default:
				seen[send(other, aliceKey, placing, "Idempotency-Key", key)] = true
			}
		}
	})
	must(t, unlock())

	// Likewise a change without a key, and a quote, which waits for no row but for a primary that is silent.
	keyless := func(op operation) bool { return op.Method == http.MethodPatch }
	unlock = g.lock("products, order_events")
	each("SYS_003", g.url, aliceKey, keyless)
	var silent *pgtest.TCPProxy
	primary := g.cfg.PrimaryURL
	silent, g.cfg.PrimaryURL = pgtest.Proxy(t, g.db.PrimaryURL)
	beyond := g.serve(g.assemble())
	silent.Freeze()
	if code := send(beyond, aliceKey, quote); code != "SYS_003" {
		t.Errorf("a quote of a silent primary: %s", code)
	}
	silent.Cut()
	g.cfg.PrimaryURL = primary
	must(t, unlock())

	g.provokeCallbackCodes(func(url, body string, headers ...string) string {
		callback := ops[slices.IndexFunc(ops, operation.signed)]
		callback.body = cmp.Or(body, callback.body)
		if slices.Contains(headers, "Unknown") {
			callback.path += "?unknown=x"
		}
		return send(url, aliceKey, callback, headers...)
	})

	// A COMMIT without an answer, after which another session has the key, or of a change that has none.
	var proxy *pgtest.TCPProxy
	proxy, g.cfg.PrimaryURL = pgtest.Proxy(t, g.db.PrimaryURL)
	behind := g.serve(g.assemble())
	until(t, "a command has an unknown outcome", func() bool {
		return g.cutAtCommit(proxy, func() string { return send(behind, aliceKey, placing) }) == "SYS_006"
	})
	for _, op := range ops {
		if keyless(op) || op.signed() {
			until(t, op.OperationID+" has an unknown outcome", func() bool {
				cut := proxy.CutAfter(pgtest.PipelinedCommit)
				if send(behind, aliceKey, op) != "SYS_006" {
					return false
				}
				<-cut
				return true
			})
		}
	}
	id = place("pm_slow")
	until(t, "a cancellation meets a capture", func() bool {
		var saga sagaBody
		_ = json.Unmarshal([]byte(g.do("GET", "/v1/orders/"+id+"/saga", nil).raw), &saga)
		for _, step := range saga.Steps {
			if step.Name == "capture" && step.Status == "running" {
				return send(g.url, aliceKey, cancel) == "ORD_009"
			} else if step.Name == "capture" && step.Status == "done" {
				id = place("pm_slow")
			}
		}
		return false
	})

	// A reservation that ran out, and a provider that gives no definite outcome to anybody.
	id = g.reserved(firstSKU)
	g.expire(id)
	until(t, "the order is rejected", func() bool { return g.do("GET", "/v1/orders/"+id, nil).body.Status == "rejected" })
	if code := send(g.url, aliceKey, pay); code != "INV_003" {
		t.Errorf("paying an expired order: %s", code)
	}
	failing := startGateway(t, nil)
	failing.stock(firstSKU, 1000)
	id = failing.reserved(firstSKU)
	failing.broken = true // its payments never end
	failing.psp.CloseClientConnections()
	failing.psp.Close()
	for range 30 {
		failing.do("POST", "/v1/orders", draft(firstSKU, 1, "pm_ok"))
	}
	until(t, "the provider's breaker opens", func() bool { return failing.components.providerOpen() })
	if code := send(failing.url, aliceKey, pay); code != "PAY_008" {
		t.Errorf("paying while the provider's breaker is open: %s", code)
	}
	m.check(t)
}

// provokeCallbackCodes provokes what only a provider with the secret meets. send signs the body; an empty one is that of the example.
func (g *gateway) provokeCallbackCodes(send func(url, body string, headers ...string) string) {
	g.t.Helper()
	want := func(code, got string) {
		g.t.Helper()
		if got != code {
			g.t.Errorf("a callback is %s, want %s", got, code)
		}
	}
	want("", send(g.url, ""))
	want("REQ_001", send(g.url, "broken"))
	want("REQ_002", send(g.url, "{}"))
	want("REQ_003", send(g.url, "", "Unknown", "x"))
	want("REQ_007", send(g.url, "", "Accept", "image/png"))
	want("REQ_008", send(g.url, strings.Repeat(" ", edge.MaxBody+1)))
	want("REQ_009", send(g.url, "", "Content-Type", "text/plain"))

	// A database that answers nothing, and one that makes all wait until they are too many.
	proxy, url := pgtest.Proxy(g.t, g.db.PrimaryURL)
	cfg := g.cfg
	g.cfg.PrimaryURL = url
	silent := g.serve(g.assemble())
	g.cfg = cfg
	proxy.Freeze()
	want("SYS_003", send(silent, ""))
	proxy.Heal()
	ctx := context.WithoutCancel(g.t.Context())
	tx, err := g.db.Pool.Begin(ctx)
	must(g.t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = tx.Exec(ctx, "LOCK TABLE provider_callbacks IN EXCLUSIVE MODE")
	must(g.t, err)
	var mu sync.Mutex
	seen := map[string]bool{}
	until(g.t, "callbacks wait in vain, for the table and for their turn", func() bool {
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				code := send(g.url, fmt.Sprintf(`{"id":"evt_%d","type":"t","operation":{"key":"k","status":"succeeded"}}`, i))
				mu.Lock()
				defer mu.Unlock()
				seen[code] = true
			})
		}
		all.Wait()
		return seen["SYS_002"] && seen["RATE_003"]
	})
}

// lockKeys lets every command with a key wait where it stores it until unlock is called.
func (g *gateway) lockKeys() (unlock func() error) { return g.lock("idempotency_keys") }

// lock lets everything wait that writes to tables until unlock is called, or until the test ends: an open transaction would keep the pool
// from closing.
func (g *gateway) lock(tables string) (unlock func() error) {
	g.t.Helper()
	ctx := context.WithoutCancel(g.t.Context())
	tx, err := g.db.Pool.Begin(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = tx.Rollback(ctx) })
	if _, err = tx.Exec(ctx, "LOCK TABLE "+tables+" IN EXCLUSIVE MODE"); err != nil {
		g.t.Fatal(err)
	}
	return func() error { return tx.Rollback(ctx) }
}

// cutAtCommit sends a command, cuts its connection between COMMIT and the answer, and gives its key to another session at that moment, as
// if the COMMIT still waited for a standby. It returns the command's answer.
func (g *gateway) cutAtCommit(proxy *pgtest.TCPProxy, send func() string) string {
	g.t.Helper()
	ctx, unlock := g.t.Context(), g.lockKeys()
	cut, answered := proxy.CutAfter(pgtest.PipelinedCommit), make(chan string, 1)
	go func() { answered <- send() }()
	var key int64
	until(g.t, "the command holds its key and waits for the table", func() bool {
		return g.db.Pool.QueryRow(ctx, `SELECT classid::bigint << 32 | objid::bigint FROM pg_locks WHERE granted AND locktype = 'advisory' AND objsubid = 1
			AND pid IN (SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'idempotency_keys'::regclass)`).Scan(&key) == nil || len(answered) > 0
	})
	locked := make(chan error, 1)
	other, err := g.db.Pool.Begin(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = other.Rollback(context.WithoutCancel(ctx)) }()
	go func() {
		_, err := other.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", key)
		locked <- err
	}()
	until(g.t, "another session waits for the key", func() bool {
		return g.count("pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") > 0 || len(locked) > 0
	})
	if err = errors.Join(unlock(), <-locked); err != nil {
		g.t.Fatal(err)
	}
	code := <-answered
	if code == "SYS_006" {
		<-cut
	}
	return code
}

// sampleCatalogue gives alice the coupons and the catalogue of `run`, with one product that is not for sale and one that nobody can pay.
func (g *gateway) sampleCatalogue() {
	g.t.Helper()
	conn, err := g.db.Pool.Acquire(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Release()
	if _, err = loadSample(g.t.Context(), conn.Conn(), order.NewIDs(SecretFor(g.cfg.Secret, "ids")), 1); err != nil {
		g.t.Fatal(err)
	}
	if _, err = conn.Exec(g.t.Context(), `UPDATE products SET active = sku <> 'BAG-0009', prices = CASE sku WHEN 'BAG-0008' THEN '{"CNY": 900000000, "EUR": 900000000}' ELSE prices END`); err != nil {
		g.t.Fatal(err)
	}
}

// operation is one of the contract, with the examples of its parameters in its path and query.
type operation struct {
	OperationID string              `json:"operationId"` //nolint:tagliatelle // OpenAPI's name
	Method      string              `json:"-"`
	Security    *[]any              `json:"security"`
	Parameters  []parameter         `json:"parameters"`
	RequestBody *examples           `json:"requestBody"` //nolint:tagliatelle // OpenAPI's name
	Responses   map[string]examples `json:"responses"`
	Codes       []string            `json:"x-error-codes"`
	path, body  string
	mediaType   string // of the body
}

// keyed tells whether the operation takes an Idempotency-Key.
func (op operation) keyed() bool {
	return slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.Name == "Idempotency-Key" })
}

// signed tells whether a provider signs the operation's body.
func (op operation) signed() bool {
	return op.Security != nil && slices.ContainsFunc(*op.Security, func(requirement any) bool {
		schemes, _ := requirement.(map[string]any)
		return schemes["signature"] != nil
	})
}

type examples struct {
	Content map[string]struct {
		Example json.RawMessage `json:"example"`
	} `json:"content"`
}

type parameter struct {
	Ref     string `json:"$ref"`
	Name    string `json:"name"`
	In      string `json:"in"`
	Example any    `json:"example"`
}

// operations reads the contract, sorted by operationId.
func operations(t *testing.T) []operation {
	t.Helper()
	var doc struct {
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Parameters map[string]parameter `json:"parameters"`
		} `json:"components"`
	}
	if err := json.Unmarshal(api.OpenAPIJSON, &doc); err != nil {
		t.Fatal(err)
	}
	all := map[string]operation{}
	for path, item := range doc.Paths {
		for method, op := range item {
			op.Method, op.path = strings.ToUpper(method), path
			for i, p := range op.Parameters {
				if p.Ref != "" {
					op.Parameters[i] = doc.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")]
				}
			}
			if op.RequestBody != nil {
				for mediaType, content := range op.RequestBody.Content { // it has one
					op.mediaType, op.body = mediaType, string(content.Example)
				}
			}
			all[op.OperationID] = op
		}
	}
	sorted := []operation{}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, all[id])
	}
	return sorted
}
