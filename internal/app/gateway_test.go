package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/couponsdb"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/verify"
	"github.com/ordergate/ordergate/order"
)

const (
	aliceKey = "og_test_alice_key_for_tests_only"
	bobKey   = "og_test_bob_key_for_tests_only"
)

// gateway is a whole gateway in this process on a database of its own: API, worker, payment simulator.
type gateway struct {
	t          testing.TB
	db         *pgtest.DB
	cfg        Config
	components *Components
	url        string
	psp        *httptest.Server
	stopWork   func()
	broken     bool // on purpose: nothing is verified at the end
}

// startGateway starts one; change may alter its configuration.
func startGateway(t testing.TB, change func(*Config, *pgtest.DB)) *gateway {
	t.Helper()
	g := &gateway{t: t, db: pgtest.New(t)}
	simulator, err := psp.New(psp.Config{Dir: t.TempDir(), Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	g.psp = httptest.NewServer(simulator.Handler())
	t.Cleanup(func() {
		g.psp.CloseClientConnections()
		g.psp.Close()
		_ = simulator.Close()
	})
	if g.cfg, err = ReadConfig(os.Environ(), nil); err != nil {
		t.Fatal(err)
	}
	g.cfg.PrimaryURL, g.cfg.ReplicaURLs, g.cfg.RedisURL, g.cfg.RedisPrefix = g.db.PrimaryURL, []string{g.db.ReplicaURL}, g.db.RedisURL, g.db.RedisPrefix
	g.cfg.PSPURL, g.cfg.Secret, g.cfg.MaxConnections, g.cfg.PaymentTimeout = g.psp.URL, fmt.Sprintf("%064d", 7), 16, 4*time.Second
	g.cfg.ProviderSecret, g.cfg.Env = fmt.Sprintf("%064d", 8), development
	if change != nil {
		change(&g.cfg, g.db)
	}
	if err = errors.Join(Check(g.cfg, "serve"), Check(g.cfg, "worker")); err != nil {
		t.Fatal(err)
	}
	g.components = g.assemble()
	g.stopWork = g.background(g.components.Work)
	g.url = g.serve(g.components)
	t.Cleanup(func() { // while the worker works
		if g.broken || t.Failed() {
			return
		}
		for _, v := range g.verify(verify.Config{}) {
			t.Error(v)
		}
	})
	return g
}

// verify returns what `ordergate verify` finds, each with the invariant's name before it.
func (g *gateway) verify(c verify.Config) (found []string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also for the end of a test
	defer cancel()
	cfg := g.cfg
	cfg.PrimaryURL, cfg.PSPURL = g.db.PrimaryURL, g.psp.URL
	begin := time.Now()
	report, err := verifyOnce(ctx, cfg, c)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Logf("verified in %v", time.Since(begin))
	for _, r := range report.Invariants {
		for _, v := range r.First {
			found = append(found, r.Name+": "+v.ID+" "+v.What)
		}
		if r.Violations > 0 && len(r.First) == 0 || r.NotChecked != "" {
			found = append(found, fmt.Sprint(r))
		}
	}
	return found
}

func (g *gateway) assemble() *Components {
	g.t.Helper()
	registry := prometheus.NewRegistry()
	tel := &telemetry.Telemetry{Log: zap.NewNop(), Tracer: otel.Tracer("ordergate"), Registry: registry}
	c, err := Assemble(g.t.Context(), g.cfg, tel)
	if err != nil {
		g.t.Fatal(err)
	}
	c.faults = true // for requests that ask for one
	g.t.Cleanup(c.Close)
	g.t.Cleanup(func() {
		families, err := registry.Gather()
		if err != nil {
			g.t.Error(err)
		}
		for _, f := range families {
			if f.GetName() == "ordergate_undeclared_answers_total" {
				g.t.Errorf("answers that the contract does not list: %v", f.GetMetric())
			}
		}
	})
	return c
}

// background runs a component until the test or the returned function ends it.
func (g *gateway) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			g.t.Errorf("a component ended: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	g.t.Cleanup(stop)
	return stop
}

// serve answers the API for two accounts: alice (1) and bob (2).
func (g *gateway) serve(c *Components) string {
	key := func(account int32) *edge.Key {
		return &edge.Key{ID: fmt.Sprint("key_", account), Owner: order.Owner{Account: account, Mode: "test"}, Scopes: Scopes}
	}
	s, err := c.API(map[string]*edge.Key{aliceKey: key(1), bobKey: key(2)})
	if err != nil {
		g.t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	g.t.Cleanup(srv.Close)
	return srv.URL
}

// stock makes a product of alice's with a price of 10.00 EUR.
func (g *gateway) stock(sku string, onHand int64) {
	g.t.Helper()
	it := order.Item{Owner: order.Owner{Account: 1, Mode: "test"}, SKU: sku}
	ids := order.NewIDs(SecretFor(g.cfg.Secret, "ids"))
	rec := order.Recorder{NewID: func() order.ID { return ids.Mint(time.Now(), 1) }, Now: time.Now(), Cause: order.Cause{Actor: "operator"}}
	p := catalogue.New(rec.Now)
	p.Name, p.Active, p.Prices = sku, true, map[string]int64{"EUR": 1000}
	if err := pg.InTx(g.t.Context(), g.db.Pool, func(tx pgx.Tx) error {
		return errors.Join(catalogue.Products{it: p}.Write(g.t.Context(), tx), inventory.Open(g.t.Context(), tx, rec, inventory.Opening{Item: it, OnHand: onHand, LowAt: -1}))
	}); err != nil {
		g.t.Fatal(err)
	}
}

// coupon makes a coupon of alice's.
func (g *gateway) coupon(code, rules string, limited bool) {
	g.t.Helper()
	if _, err := couponsdb.New(g.db.Pool).InsertCoupons(g.t.Context(), couponsdb.InsertCouponsParams{
		Account: 1, Mode: "test", Codes: []string{code}, Rules: [][]byte{[]byte(rules)}, Limited: []bool{limited},
	}); err != nil {
		g.t.Fatal(err)
	}
}

// answer is a response of the gateway.
type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		sagaBody

		ID        string `json:"id"`
		Code      string `json:"code"`
		Status    string `json:"status"`
		Version   int64  `json:"version"`
		Rejection *struct {
			Code          string           `json:"code"`
			DeclineReason string           `json:"decline_reason"`
			Skus          []order.ShortSKU `json:"skus"`
		} `json:"rejection"`
		PaymentStatus string            `json:"payment_status"`
		Available     int64             `json:"available"`
		OnHand        int64             `json:"on_hand"`
		Data          []json.RawMessage `json:"data"`
	}
}

type sagaBody struct {
	State string `json:"state"`
	Steps []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
	} `json:"steps"`
}

var keyNumber atomic.Int64

// do sends a request as alice; headers are names and values in turn.
func (g *gateway) do(method, path string, body any, headers ...string) answer {
	g.t.Helper()
	var b []byte
	switch body := body.(type) {
	case nil:
	case string:
		b = []byte(body)
	default:
		b, _ = json.Marshal(body)
	}
	r, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path, bytes.NewReader(b))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+aliceKey)
	switch method {
	case http.MethodPatch:
		r.Header.Set("Content-Type", "application/merge-patch+json")
	case http.MethodPost:
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", fmt.Sprintf("key-%08d", keyNumber.Add(1)))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

func draft(sku string, quantity int, methodToken string) map[string]any {
	w := map[string]any{"currency": "EUR", "customer_ref": "c-1", "lines": []map[string]any{{"sku": sku, "quantity": quantity}}}
	if methodToken != "" {
		w["payment"] = map[string]string{"method_token": methodToken}
	}
	return w
}

// isBusy tells that the machine was too busy for the request, which may be sent again.
func (a answer) isBusy() bool {
	return a.status == http.StatusServiceUnavailable || a.status == http.StatusGatewayTimeout
}

// read gets a state that must be there, again while the machine is too busy for it.
func (g *gateway) read(path, token string) (a answer) {
	g.t.Helper()
	until(g.t, "GET "+path, func() bool {
		a = g.do("GET", path, nil, "X-Consistency-Token", token)
		return !a.isBusy()
	})
	if a.status != http.StatusOK {
		g.t.Fatal(path, a.raw)
	}
	return a
}

// persist sends a command again, under its key, while the machine is too busy for it.
func (g *gateway) persist(path string, body any, headers ...string) (a answer) {
	g.t.Helper()
	headers = append([]string{"Idempotency-Key", fmt.Sprintf("persist-%08d", keyNumber.Add(1))}, headers...)
	until(g.t, "POST "+path, func() bool {
		a = g.do("POST", path, body, headers...)
		return !a.isBusy()
	})
	return a
}

// reserved places an order that waits for its payment.
func (g *gateway) reserved(sku string) (id string) {
	g.t.Helper()
	a := g.persist("/v1/orders", draft(sku, 1, ""), "Prefer", "wait=10")
	if a.body.Status != "reserved" {
		g.t.Fatal(a.raw)
	}
	return a.body.ID
}

// pay pays an order and waits for the outcome, which must have the status.
func (g *gateway) pay(orderID, methodToken string, status int, headers ...string) answer {
	g.t.Helper()
	a := g.persist("/v1/orders/"+orderID+"/payments", map[string]string{"method_token": methodToken}, append([]string{"Prefer", "wait=10"}, headers...)...)
	if a.status != status {
		g.t.Fatalf("%s: %d, want %d: %s", methodToken, a.status, status, a.raw)
	}
	return a
}

// refund gives an amount of a payment back, or the rest of it if that is 0. It waits for the outcome.
func (g *gateway) refund(paymentID string, amount int64, headers ...string) answer {
	g.t.Helper()
	body := map[string]any{"reason": "broken"}
	if amount > 0 {
		body["amount"] = order.Money{Amount: amount, Currency: "EUR"}
	}
	return g.do("POST", "/v1/payments/"+paymentID+"/refunds", body, append([]string{"Prefer", "wait=10"}, headers...)...)
}

// expire lets the reservation of an order run out.
func (g *gateway) expire(orderID string) {
	g.t.Helper()
	id, _ := order.Parse(order.PrefixOrder, orderID)
	if _, err := g.db.Pool.Exec(g.t.Context(), "UPDATE stock_reservations SET expires_at = now() WHERE order_id = $1", uuid.UUID(id)); err != nil {
		g.t.Fatal(err)
	}
}

// until polls until ok or 20 s are over.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come true in 20 s", what)
		}
	}
}

// consistent checks that stock, payments, the provider's ledger and the orders tell the same: nothing oversold, held for nothing,
// charged for nothing or charged twice. All orders must have ended.
func (g *gateway) consistent() {
	g.t.Helper()
	for what, query := range map[string]string{
		"orders that have not ended": `SELECT count(*) FROM orders WHERE status IN ('pending') OR status = 'reserved' AND (state->>'with_payment')::boolean`,
		"stock that is held without a reservation": `SELECT count(*) FROM stock s WHERE s.reserved <> COALESCE((SELECT sum(l.quantity) FROM stock_reservation_lines l
			JOIN stock_reservations r USING (account, mode, order_id, attempt) WHERE r.status = 'held' AND (l.account, l.mode, l.sku) = (s.account, s.mode, s.sku)), 0)`,
		"reservations that disagree with their order": `SELECT count(*) FROM stock_reservations r JOIN orders o ON (o.account, o.mode, o.id) = (r.account, r.mode, r.order_id)
			WHERE (o.status IN ('confirmed', 'completed')) <> (r.status = 'confirmed') OR (o.status = 'reserved') <> (r.status = 'held')`,
		"payments that disagree with their order": `SELECT count(*) FROM payments p JOIN orders o ON (o.account, o.mode, o.id) = (p.account, p.mode, p.order_id)
			WHERE (o.status IN ('confirmed', 'completed')) <> (p.status = 'captured' AND p.refunded = 0) OR p.refund_pending <> 0 OR p.status IN ('pending', 'authorized')`,
		"steps that are in flight":       `SELECT count(*) FROM saga_steps WHERE status = 'running'`,
		"calls that are still due":       `SELECT count(*) FROM payment_calls WHERE next_at IS NOT NULL OR in_doubt`,
		"messages that are parked":       `SELECT count(*) FROM parked_messages`,
		"orders whose history has a gap": `SELECT count(*) FROM orders o WHERE o.version <> (SELECT count(*) FROM order_events e WHERE (e.account, e.mode, e.order_id) = (o.account, o.mode, o.id))`,
	} {
		var n int
		if err := g.db.Pool.QueryRow(g.t.Context(), query).Scan(&n); err != nil || n != 0 {
			g.t.Errorf("%d %s (%v)", n, what, err)
		}
	}
	charged := map[string]int64{}
	for _, e := range g.ledger() {
		if e.Status == "succeeded" {
			switch e.Kind {
			case "capture":
				charged[e.Payment] += e.Amount.Amount
			case "refund":
				charged[e.Payment] -= e.Amount.Amount
			}
		}
	}
	rows, err := g.db.Pool.Query(g.t.Context(), `SELECT p.id, p.amount, o.status FROM payments p JOIN orders o ON (o.account, o.mode, o.id) = (p.account, p.mode, p.order_id)`)
	if err != nil {
		g.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id [16]byte
		var amount int64
		var status string
		if err = rows.Scan(&id, &amount, &status); err != nil {
			g.t.Fatal(err)
		}
		if status != "confirmed" && status != "completed" {
			amount = 0
		}
		if text := order.ID(id).Format(order.PrefixPayment); charged[text] != amount {
			g.t.Errorf("payment %s of a %s order: the provider has %d, we have %d", text, status, charged[text], amount)
		}
	}
}

type ledgerEntry struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"`
	Payment string `json:"payment"`
	Status  string `json:"status"`
	Amount  struct {
		Amount int64 `json:"amount"`
	} `json:"amount"`
}

// ledger reads the provider's whole ledger.
func (g *gateway) ledger() (all []ledgerEntry) {
	g.t.Helper()
	for after := int64(0); ; {
		res, err := http.Get(fmt.Sprintf("%s/v1/ledger?limit=100&after=%d", g.psp.URL, after))
		if err != nil {
			g.t.Fatal(err)
		}
		var page struct {
			Data []ledgerEntry `json:"data"`
			Next *int64        `json:"next"`
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			g.t.Fatal(res.Status, err)
		}
		all = append(all, page.Data...)
		if page.Next == nil {
			return all
		}
		after = *page.Next
	}
}
