package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/verify"
	"github.com/ordergate/ordergate/order"
)

// busy is how long the load lasts at least beside which `ordergate verify` looks. On a machine with other work it lasts until it has made all that it
// is to make, at most patience.
const (
	busy     = 4 * time.Second
	patience = time.Minute
)

// verifiable starts a gateway with an order in each state, and stops its worker. orders has their ids by how they were made.
func verifiable(t *testing.T) (g *gateway, orders map[string]uuid.UUID) {
	t.Helper()
	g = startGateway(t, func(c *Config, _ *pgtest.DB) { c.PaymentTimeout, c.ReservationTTL = time.Second, 3*time.Second })
	g.stock("A", 100)
	g.stock("SCARCE", 1)
	g.coupon("LIMITED", `{"percentage": 20, "total": 100}`, true)
	discounted := func(reference, token string) map[string]any {
		w := draft("A", 1, token)
		w["coupon_code"], w["reference"] = "LIMITED", reference
		return w
	}
	orders = map[string]uuid.UUID{}
	var mu sync.Mutex
	place := func(name string, body map[string]any, want string) string {
		a := g.do("POST", "/v1/orders", body, "Prefer", "wait=10")
		id, ok := order.Parse(order.PrefixOrder, a.body.ID)
		if !ok || a.body.Status != want {
			t.Errorf("%s: %s", name, a.raw)
		}
		mu.Lock()
		defer mu.Unlock()
		orders[name] = uuid.UUID(id)
		return a.body.ID
	}
	cancel := func(id string) {
		if a := g.do("POST", "/v1/orders/"+id+"/cancel", "", "Prefer", "wait=10"); a.body.Status != "cancelled" {
			t.Errorf("cancel: %s", a.raw)
		}
	}
	var wg sync.WaitGroup
	for _, f := range []func(){
		func() { place("confirmed", draft("A", 2, "pm_ok"), "confirmed") },
		func() { place("declined", discounted("PO-1", "pm_declined"), "rejected") },
		func() { place("discounted", discounted("PO-2", "pm_ok"), "confirmed") },
		func() { place("timed out", draft("A", 1, "pm_timeout"), "rejected") },
		func() { place("failing", draft("A", 1, "pm_error"), "rejected") },
		func() { place("short", draft("SCARCE", 2, "pm_ok"), "rejected") },
		func() { cancel(place("refunded", draft("A", 1, "pm_ok"), "confirmed")) },
		func() { cancel(place("cancelled", draft("A", 1, ""), "reserved")) },
		func() { cancel(place("cancelled late", draft("A", 1, "pm_flaky"), "confirmed")) },
		func() {
			id := place("expired", draft("A", 1, ""), "reserved")
			until(t, "expiry", func() bool { return g.do("GET", "/v1/orders/"+id, nil).body.Status == "rejected" })
		},
	} {
		wg.Go(f)
	}
	wg.Wait()
	place("reserved", draft("A", 3, ""), "reserved")
	pay := func(token string, status int) string {
		id := order.ID(orders["second card"]).Format(order.PrefixOrder)
		a := g.do("POST", "/v1/orders/"+id+"/payments", map[string]string{"method_token": token}, "Prefer", "wait=10")
		if a.status != status {
			t.Errorf("%s: %d %s", token, a.status, a.raw)
		}
		return "/v1/payments/" + a.body.ID + "/refunds"
	}
	place("second card", draft("A", 1, ""), "reserved")
	pay("pm_declined", http.StatusUnprocessableEntity)
	refunds := pay("pm_ok", http.StatusCreated)
	refund := map[string]any{"amount": order.Money{Amount: 300, Currency: "EUR"}, "reason": "broken"}
	if a := g.do("POST", refunds, refund, "Prefer", "wait=10"); a.status != http.StatusCreated || a.body.Status != "succeeded" {
		t.Errorf("refund: %s", a.raw)
	}
	post := func(status int, path string, body any) answer {
		a := g.do("POST", path, body)
		if a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.raw)
		}
		return a
	}
	ship := func(name string, quantity int) string {
		path := "/v1/orders/" + place(name, draft("A", 2, "pm_ok"), "confirmed") + "/shipments"
		return post(http.StatusCreated, path, map[string]any{
			"lines": []map[string]any{{"sku": "A", "quantity": quantity}}, "tracking": map[string]any{"carrier": "DHL", "number": "1"},
		}).body.ID
	}
	ship("shipped", 2)
	for _, id := range []string{ship("partly delivered", 1), ship("completed", 2)} {
		post(http.StatusOK, "/v1/shipments/"+id+"/deliver", "")
	}
	post(http.StatusCreated, "/v1/products", map[string]any{"sku": "NEW", "name": "n", "prices": []order.Money{{Amount: 5, Currency: "EUR"}}, "low_stock_at": 4})
	for _, delta := range []int{6, -2} { // to the threshold
		post(http.StatusCreated, "/v1/inventory/NEW/adjustments", map[string]any{"delta": delta, "reason": `"delta":7 "id":"adj_"`})
	}
	if a := g.do("PATCH", "/v1/products/NEW", `{"low_stock_at":3}`, "If-Match", "*"); a.status != http.StatusOK {
		t.Errorf("patch: %s", a.raw)
	}
	until(t, "an empty outbox", func() bool { return g.count("outbox") == 0 })
	g.stopWork()
	a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"))
	id, _ := order.Parse(order.PrefixOrder, a.body.ID)
	orders["pending"] = uuid.UUID(id)
	if a = g.do("POST", refunds, refund); a.status != http.StatusAccepted {
		t.Errorf("refund: %s", a.raw)
	}
	g.broken = true
	if t.Failed() {
		t.FailNow()
	}
	return g, orders
}

// step is a change by hand of a step of an order's saga.
func step(name, from, to string) string {
	return fmt.Sprintf(`UPDATE sagas SET steps = regexp_replace(steps::text, '("step":"%s","attempt":1[^}]*"status":)"%s"', '\1"%s"')::json
		WHERE order_id = $1 AND steps::text LIKE '%%"%[1]s"%%'`, name, from, to)
}

// waiting puts the message of an order's second event into the outbox again. e has its right shard and payload.
func waiting(topic, shard, payload string) string {
	return fmt.Sprintf(`INSERT INTO outbox (shard, topic, key, message_id, trace_id, payload)
		SELECT %s, '%s', e.key, e.id, '', %s FROM (
			SELECT v.id, v.key, o.shard, jsonb_build_object('id', v.id, 'type', 'order.changed', 'schema', 1, 'account', 1, 'mode', 'test', 'order_id', v.key,
				'trace_id', '', 'created_at', '2026-01-01T00:00:00Z', 'data', '{}'::jsonb)::text AS payload
			FROM orders o JOIN (SELECT id, order_id, version, 'ord_' || replace(order_id::text, '-', '') AS key FROM order_events) v ON v.order_id = o.id
			WHERE o.id = $1 AND v.version = 2
		) e`, shard, topic, payload)
}

// of chooses the events of a kind that an order has.
func of(kind string) string {
	return fmt.Sprintf(`kind = '%[1]s' AND resource IN (SELECT '%s_' || replace(id::text, '-', '') FROM %[1]ss WHERE order_id = $1)`, kind,
		map[string]string{"payment": "pay", "refund": "ref", "shipment": "shp"}[kind])
}

// names of the invariants that were found violated, once each.
func names(found []string) (all []string) {
	for _, f := range found {
		name, _, _ := strings.Cut(f, ":")
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestVerify: a healthy installation is clean, whatever became of its orders. Damage by hand is found by the invariant that it
// breaks and by no other, and none hides another.
func TestVerify(t *testing.T) {
	t.Parallel()
	g, orders := verifiable(t)
	quick := verify.Config{OutboxLimit: time.Millisecond, PageSize: 3} // so that every walk has many pages
	if found := g.verify(quick); len(found) > 0 {
		t.Fatalf("a healthy installation:\n%s", strings.Join(found, "\n"))
	}
	tables := strings.Fields(`orders order_events order_addresses idempotency_keys outbox inbox parked_messages sagas stock stock_reservations
		stock_reservation_lines payments refunds payment_calls products resource_events shipments coupons coupon_redemptions order_references`)
	exec := func(t *testing.T, sql string, args ...any) {
		t.Helper()
		if tag, err := g.db.Pool.Exec(t.Context(), sql, args...); err != nil || tag.RowsAffected() == 0 && !strings.Contains(sql, "TABLE") {
			t.Fatalf("%s: %v %v", sql, tag, err)
		}
	}
	for _, table := range tables {
		exec(t, "CREATE TABLE kept_"+table+" AS TABLE "+table)
	}
	type brk struct{ name, invariant, order, sql string } // an event that is gone is missing in the fold, too
	breaks := []brk{
		{"an event was changed", "events", "confirmed", `UPDATE order_events SET trace_id = 'x' WHERE order_id = $1 AND version = 2`},
		{"an event is gone", "events orders", "refunded", `WITH e AS (DELETE FROM order_events WHERE order_id = $1 AND version = 3 RETURNING *)
			INSERT INTO order_events SELECT account, mode, order_id, 1000, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash FROM e`},
		{"two events have one id", "events", "declined", `UPDATE order_events SET id = (SELECT id FROM order_events WHERE order_id = $1 AND version = 1) WHERE order_id = $1 AND version = 2`},
		{"two events of an order and a payment have one id", "events resource_events", "declined", `UPDATE resource_events SET id = (SELECT id FROM order_events WHERE order_id = $1 AND version = 1) WHERE ` + of("payment") + ` AND sequence = 1`},
		{"an event of a payment was changed", "resource_events", "confirmed", `UPDATE resource_events SET trace_id = 'x' WHERE ` + of("payment") + ` AND sequence = 2`},
		{"an event of a shipment was changed", "resource_events", "shipped", `UPDATE resource_events SET payload = payload || ' ' WHERE ` + of("shipment")},
		{"an event of stock is gone", "idempotency resource_events stock", "", `DELETE FROM resource_events WHERE resource = 'NEW' AND sequence = 1`},
		{"the last event of a refund is gone", "resources", "second card", `DELETE FROM resource_events WHERE ` + of("refund") + ` AND type = 'refund.succeeded'`},
		{"a column of a payment is not the fold", "resources", "confirmed", `UPDATE payments SET reference = 'x' WHERE order_id = $1`},
		{"a time of a payment is not the fold", "resources", "confirmed", `UPDATE payments SET updated_at = updated_at + interval '1 microsecond' WHERE order_id = $1`},
		{"a payment has the time of an earlier refund", "resources", "second card", `UPDATE payments SET updated_at = (SELECT min(created_at) FROM refunds WHERE order_id = $1) WHERE order_id = $1`},
		{"the head of a refund is not the fold's", "resources", "refunded", `UPDATE refunds SET head_hash = 'x' WHERE order_id = $1`},
		{"a reason is not the fold", "resources", "second card", `UPDATE refunds SET reason = 'x' WHERE order_id = $1`},
		{"a tracking is not the fold", "resources", "shipped", `UPDATE shipments SET tracking = NULL WHERE order_id = $1`},
		{"a delivery has no time", "resources", "completed", `UPDATE shipments SET delivered_at = NULL WHERE order_id = $1`},
		{"a payment is gone", "payments provider resources", "confirmed", `DELETE FROM payments WHERE order_id = $1`},
		{"a failed payment has no row", "payments resources", "declined", `DELETE FROM payments WHERE order_id = $1`},
		{"a delivery without an event", "resources shipments", "shipped", `UPDATE shipments SET status = 'delivered' WHERE order_id = $1`},
		{"a shipment has more pieces", "resources shipments", "partly delivered", `UPDATE shipments SET lines = '[{"sku":"A","quantity":2}]' WHERE order_id = $1`},
		{"a shipment has another sku", "resources shipments", "shipped", `UPDATE shipments SET lines = '[{"sku":"A","quantity":2},{"sku":"B","quantity":1}]' WHERE order_id = $1`},
		{"a shipment cannot be read", "resources shipments", "shipped", `UPDATE shipments SET lines = '"x"' WHERE order_id = $1`},
		{"a shipment is gone", "resources shipments", "completed", `DELETE FROM shipments WHERE order_id = $1`},
		{"a shipment is gone without a trace", "shipments", "shipped", `WITH s AS (DELETE FROM shipments WHERE order_id = $1), e AS (DELETE FROM resource_events WHERE ` + of("shipment") + `)
			DELETE FROM idempotency_keys WHERE order_id = $1 AND operation = 'shipOrder'`},
		{"a shipment of another order", "resources shipments", "shipped", `UPDATE shipments SET order_id = (SELECT order_id FROM shipments WHERE status = 'delivered' LIMIT 1) WHERE order_id = $1`},
		{"a shipment without an order", "resources shipments", "", `INSERT INTO shipments (account, mode, id, order_id, lines, status, version, head_hash, created_at, updated_at) VALUES (1, 'test', gen_random_uuid(), '018f0000-0000-7000-8000-000000000000', '[]', 'shipped', 1, '', now(), now())`},
		{"an order forgot what it shipped", "orders shipments", "partly delivered", `UPDATE orders SET state = jsonb_set(state::jsonb, '{fulfillment_status}', '"unfulfilled"') WHERE id = $1`},
		{"an order counts another shipment", "orders shipments", "partly delivered", `UPDATE orders SET state = jsonb_set(state::jsonb, '{in_transit}', '1') WHERE id = $1`},
		{"an order that is delivered goes on", "orders shipments", "completed", `UPDATE orders SET status = 'confirmed', state = jsonb_set(state::jsonb, '{status}', '"confirmed"') WHERE id = $1`},
		{"an order that shipped is cancelled", "orders reservations saga shipments", "shipped", `UPDATE orders SET status = 'cancelled', state = jsonb_set(state::jsonb, '{status}', '"cancelled"') WHERE id = $1`},
		{"an order knows of a refund that is none", "orders payments", "second card", `UPDATE orders SET state = jsonb_set(state::jsonb, '{refunded}', '301') WHERE id = $1`},
		{"pieces came from nowhere", "stock", "", `UPDATE stock SET on_hand = on_hand + 1 WHERE sku = 'A'`},
		{"stock has another head", "stock", "", `UPDATE stock SET head_hash = 'x' WHERE sku = 'NEW'`},
		{"stock has another version", "stock", "", `UPDATE stock SET version = 1 WHERE sku = 'SCARCE' AND version <> 1 OR sku = 'NEW'`},
		{"stock has another threshold than its product", "stock", "", `UPDATE stock SET low_at = 4 WHERE sku = 'NEW'`},
		{"a product has no stock", "stock", "", `INSERT INTO products (account, mode, sku, name, description, prices) VALUES (1, 'test', 'B', '', '', '{}')`},
		{"an event of no stock", "resource_events stock", "", `INSERT INTO resource_events SELECT account, mode, kind, 'B', sequence, gen_random_uuid(), type, schema_version, payload, trace_id, '', actor, created_at, prev_hash, hash FROM resource_events WHERE resource = 'SCARCE' AND sequence = 1`},
		{"a column is not the fold", "orders", "confirmed", `UPDATE orders SET customer_ref = 'x' WHERE id = $1`},
		{"the state is not the fold", "orders", "short", `UPDATE orders SET state = jsonb_set(state::jsonb, '{metadata}', '{"a":"b"}') WHERE id = $1`},
		{"the head is not the fold's", "orders", "short", `UPDATE orders SET head_hash = 'x' WHERE id = $1`},
		{"stock is reserved for nothing", "stock", "", `UPDATE stock SET reserved = reserved + 1 WHERE sku = 'A'`},
		{"stock is held without a level", "stock", "", `DELETE FROM stock WHERE sku = 'A'`},
		{"lines without a header", "stock", "", `INSERT INTO stock_reservation_lines VALUES (1, 'test', '018f0000-0000-7000-8000-000000000000', 1, 'A', 1)`},
		{"the reservation of a confirmed order was given back", "reservations stock", "confirmed", `UPDATE stock_reservations SET status = 'cancelled' WHERE order_id = $1`},
		{"a rejected order has its pieces", "reservations stock", "declined", `UPDATE stock_reservations SET status = 'confirmed' WHERE order_id = $1`},
		{"an expiry nobody was told of", "reservations", "reserved", `WITH r AS (UPDATE stock_reservations SET status = 'expired' WHERE order_id = $1 RETURNING account)
			UPDATE stock SET reserved = reserved - 3 FROM r WHERE sku = 'A'`},
		{"a reservation has fewer pieces than the order", "reservations stock", "confirmed", `UPDATE stock_reservation_lines SET quantity = 1 WHERE order_id = $1`},
		{"a reservation is gone", "reservations", "refunded", `WITH l AS (DELETE FROM stock_reservation_lines WHERE order_id = $1) DELETE FROM stock_reservations WHERE order_id = $1`},
		{"a reservation without an order", "reservations", "", `INSERT INTO stock_reservations (account, mode, order_id, attempt, status, expires_at) VALUES (1, 'test', '018f0000-0000-7000-8000-000000000000', 1, 'expired', now())`},
		{"a paid order is charged nothing", "payments", "confirmed", `UPDATE payments SET refunded = amount WHERE order_id = $1`},
		{"a cancelled order is charged", "payments", "refunded", `UPDATE payments SET refunded = 0 WHERE order_id = $1`},
		{"a part is charged", "payments", "confirmed", `UPDATE payments SET refunded = 1 WHERE order_id = $1`},
		{"a refund waits for nobody", "payments", "confirmed", `UPDATE payments SET refund_pending = 5 WHERE order_id = $1`},
		{"a refund was counted twice", "payments", "second card", `UPDATE payments SET refunded = 600 WHERE order_id = $1 AND attempt = 2`},
		{"a refund is not counted", "payments resources", "second card", `UPDATE refunds SET status = 'succeeded' WHERE order_id = $1`},
		{"a pending refund has no call", "payments", "second card", `DELETE FROM payment_calls WHERE order_id = $1 AND operation = 'refund' AND next_at IS NOT NULL`},
		{"a refund without a payment", "payments resources", "", `INSERT INTO refunds (account, mode, id, payment_id, order_id, amount, currency, reason, status, failure_code, decline_reason, reference, version, head_hash, created_at, updated_at) VALUES (1, 'test', gen_random_uuid(), gen_random_uuid(), '018f0000-0000-7000-8000-000000000000', 5, 'EUR', '', 'failed', '', '', '', 1, '', now(), now())`},
		{"the order was not told of a refund", "payments provider resources", "second card", `WITH c AS (UPDATE payment_calls SET next_at = NULL WHERE order_id = $1 AND operation = 'refund'),
			r AS (UPDATE refunds SET status = 'succeeded' WHERE order_id = $1) UPDATE payments SET refunded = 600, refund_pending = 0 WHERE order_id = $1 AND attempt = 2`},
		{"an outcome in doubt", "payments", "confirmed", `UPDATE payment_calls SET in_doubt = true WHERE order_id = $1 AND operation = 'capture'`},
		{"a payment without an order", "payments resources", "", `INSERT INTO payments (account, mode, id, order_id, attempt, amount, currency, status, failure_code, decline_reason, reference, version, head_hash, created_at, updated_at) VALUES (1, 'test', gen_random_uuid(), '018f0000-0000-7000-8000-000000000000', 1, 5, 'EUR', 'pending', '', '', '', 1, '', now(), now())`},
		{"a call without an order", "payments", "", `INSERT INTO payment_calls (account, mode, subject, operation, payment_id, order_id, attempt, amount, currency, method_token, trace_id)
			VALUES (1, 'test', gen_random_uuid(), 'capture', gen_random_uuid(), '018f0000-0000-7000-8000-000000000000', 1, 5, 'EUR', '', '')`},
		{"the provider knows the payment by another id", "provider resources", "confirmed", `UPDATE payments SET id = gen_random_uuid() WHERE order_id = $1`},
		{"a call is of another amount", "provider", "confirmed", `UPDATE payment_calls SET amount = 999 WHERE order_id = $1 AND operation = 'capture'`},
		{"a key is gone", "idempotency", "confirmed", `DELETE FROM idempotency_keys WHERE order_id = $1`},
		{"an order has two keys", "idempotency", "confirmed", `INSERT INTO idempotency_keys SELECT account, mode, operation, 'another-key', request_hash, status, code, content_type, etag, location, body, order_id FROM idempotency_keys WHERE order_id = $1 AND operation = 'placeOrder'`},
		{"a key has no order", "idempotency", "confirmed", `INSERT INTO idempotency_keys SELECT account, mode, operation, 'another-key', request_hash, status, code, content_type, etag, location, body, NULL FROM idempotency_keys WHERE order_id = $1 AND operation = 'placeOrder'`},
		{"a result about no order", "idempotency", "cancelled", `UPDATE idempotency_keys SET order_id = '018f0000-0000-7000-8000-000000000000' WHERE order_id = $1 AND operation = 'cancelOrder'`},
		{"a use of a coupon too many", "coupons", "", `UPDATE coupons SET used = used + 1`},
		{"the use of a coupon is gone", "coupons", "discounted", `WITH r AS (DELETE FROM coupon_redemptions WHERE order_id = $1) UPDATE coupons SET used = used - 1`},
		{"a rejected order has its coupon", "coupons", "declined", `WITH r AS (INSERT INTO coupon_redemptions SELECT account, mode, 'LIMITED', id, customer_ref FROM orders WHERE id = $1)
			UPDATE coupons SET used = used + 1`},
		{"an order's coupon counts for another customer", "coupons", "discounted", `UPDATE coupon_redemptions SET customer_ref = 'x' WHERE order_id = $1`},
		{"an order uses a coupon that does not exist", "coupons", "", `DELETE FROM coupons`},
		{"a reference is free", "references", "declined", `DELETE FROM order_references WHERE order_id = $1`},
		{"a reference is another order's", "references", "discounted", `UPDATE order_references SET order_id = gen_random_uuid() WHERE order_id = $1`},
		{"a key of a product that is none", "idempotency", "", `UPDATE idempotency_keys SET location = '/v1/products/B' WHERE operation = 'createProduct'`},
		{"an adjustment has another id", "idempotency", "", `UPDATE idempotency_keys SET body = convert_to(replace(convert_from(body, 'UTF8'), '"id":"adj_0', '"id":"adj_f'), 'UTF8') WHERE operation = 'adjustInventory'`},
		{"an event was not published", "messages", "confirmed", `DELETE FROM inbox WHERE message_id = (SELECT id FROM order_events WHERE order_id = $1 AND version = 2)`},
		{"a handled message stays", "messages", "confirmed", waiting("orders", `e.shard`, `e.payload`)},
		{"a message for nobody", "messages", "confirmed", waiting("nobody", `e.shard`, `e.payload`)},
		{"a message in another shard", "messages", "confirmed", waiting("orders", `(e.shard + 1) % 256`, `e.payload`)},
		{"a torn message", "messages", "confirmed", waiting("orders", `e.shard`, `left(e.payload, 50)`)},
		{"a message with another one's envelope", "messages", "confirmed", waiting("orders", `e.shard`, `replace(e.payload, e.id::text, gen_random_uuid()::text)`)},
		{"a message about no order", "messages", "confirmed", waiting("orders", `e.shard`, `replace(e.payload, '"mode": "test"', '"mode": "live"')`)},
		{"a step runs at the end", "saga", "refunded", step("confirm_stock", "done", "running")},
		{"a step was not taken", "saga", "confirmed", step("authorize", "done", "skipped")},
		{"a capture was not taken back", "saga", "refunded", step("refund", "done", "failed")},
		{"no such step", "saga", "confirmed", `UPDATE sagas SET steps = replace(steps::text, ']', ',{"step":"dance","attempt":1,"status":"done"}]')::json WHERE order_id = $1`},
		{"a step is there twice", "saga", "confirmed", `UPDATE sagas SET steps = replace(steps::text, ']', ',{"step":"capture","attempt":1,"status":"done"}]')::json WHERE order_id = $1`},
		{"a token stays", "saga", "confirmed", `UPDATE sagas SET steps = replace(steps::text, '{"step":"authorize"', '{"input":"pm_ok","step":"authorize"')::json WHERE order_id = $1`},
		{"the command of a step is lost", "saga", "pending", `DELETE FROM outbox WHERE topic = 'inventory.commands' AND key = 'ord_' || replace($1::uuid::text, '-', '')`},
		{"steps without an order", "saga", "", `INSERT INTO sagas (account, mode, order_id, steps) VALUES (1, 'test', '018f0000-0000-7000-8000-000000000000', '[{"step":"reserve_stock","attempt":1,"status":"done"}]')`},
	}
	for _, operation := range []string{"payOrder", "refundPayment", "shipOrder", "deliverShipment", "adjustInventory"} {
		rows := ` WHERE status < 300 AND operation = '` + operation + `'`
		breaks = append(breaks,
			brk{"a key of " + operation + " is gone", "idempotency", "", `DELETE FROM idempotency_keys` + rows},
			brk{"what " + operation + " made has two keys", "idempotency", "", `INSERT INTO idempotency_keys SELECT account, mode, operation, key || '-', request_hash, status, code, content_type, etag, location, body, order_id FROM idempotency_keys` + rows},
			brk{"a key of " + operation + " has no result", "idempotency", "", `UPDATE idempotency_keys SET location = '', body = ''` + rows},
		)
	}
	phrases := map[string]string{ // of breaks that could be found for another reason
		"a handled message stays": "was handled by all consumers and is still in the outbox", "a message for nobody": `nobody consumes topic "nobody"`,
		"a message in another shard": "it is in shard", "a torn message": "decode envelope", "a message with another one's envelope": "its envelope is message",
		"a cancelled order is charged": "0 are refunded and 0 wait for it, and its refunds give 1000 and 0", "a refund waits for nobody": "5 wait for it",
		"two events of an order and a payment have one id": "several events have this id", "a reason is not the fold": "reason is not what its events give",
		"an order knows of a refund that is none": "300 of its payments are refunded, and it knows of 301", "a product has no stock": "has no stock",
		"pieces came from nowhere": "pieces are on hand, and adjustments of 100 less", "an event of no stock": "it has events or reservations and no stock",
		"stock has another head": "are not those of event 3", "stock has another threshold than its product": "its low_at is 4, and low_stock_at of the product 3",
		"a time of a payment is not the fold": "updated_at is", "a shipment has another sku": "its shipments have B, which is not ordered",
		"a shipment of another order":      "its fulfillment status is shipped, and its shipments give unfulfilled",
		"an order counts another shipment": "1 shipments are under way by its own count, and 0 are",
		"a message about no order":         "there is no such order", "the state is not the fold": "state is not what its events give: metadata",
	}
	for name := range phrases {
		if !slices.ContainsFunc(breaks, func(b brk) bool { return b.name == name }) {
			t.Errorf("no break is %q", name)
		}
	}
	t.Run("each invariant has a way to break it and is documented", func(t *testing.T) {
		report, err := verifyOnce(t.Context(), g.cfg, quick)
		must(t, err)
		docs, err := os.ReadFile("../../docs/running.md")
		must(t, err)
		for _, i := range report.Invariants {
			if !slices.ContainsFunc(breaks, func(b brk) bool { return b.invariant == i.Name }) {
				t.Errorf("nothing breaks %s", i.Name)
			}
			if !bytes.Contains(docs, []byte("| `"+i.Name+"` |")) {
				t.Errorf("docs/running.md has no row of %s", i.Name)
			}
		}
	})
	do := func(t *testing.T, b brk) {
		t.Helper()
		if b.order == "" {
			exec(t, b.sql)
		} else {
			exec(t, b.sql, orders[b.order])
		}
	}
	restore := func(t *testing.T) {
		t.Helper()
		exec(t, "TRUNCATE TABLE "+strings.Join(tables, ", "))
		for _, table := range tables {
			exec(t, "INSERT INTO "+table+" TABLE kept_"+table)
		}
	}
	for _, b := range breaks {
		t.Run(b.name, func(t *testing.T) {
			do(t, b)
			defer restore(t)
			found := g.verify(quick)
			if got := names(found); !slices.Equal(got, strings.Fields(b.invariant)) {
				t.Errorf("found %v, want %s:\n%s", got, b.invariant, strings.Join(found, "\n"))
			}
			if all := strings.Join(found, "\n"); !strings.Contains(all, phrases[b.name]) {
				t.Errorf("%s lacks %q", all, phrases[b.name])
			}
		})
	}
	t.Run("events without an order", func(t *testing.T) {
		defer restore(t)
		o := &order.Order{ID: order.ID(uuid.Must(uuid.NewV7()))}
		e := o.Record(order.Recorder{NewID: func() order.ID { return order.ID(uuid.Must(uuid.NewV7())) }, Now: time.Now().Add(-8 * 24 * time.Hour)}, order.Cancelled{})
		e.ID = order.ID(uuid.MustParse("018f0000-0000-7000-8000-000000000000")) // older than the inbox
		exec(t, `INSERT INTO order_events VALUES (1, 'test', $1, 1, $2, $3, 1, $4, '', '', '', $5, '', $6)`, uuid.UUID(o.ID), uuid.UUID(e.ID), e.Type, string(e.Payload), e.At, e.Hash)
		found := g.verify(quick)
		if got := names(found); !slices.Contains(got, "orders") || !strings.Contains(strings.Join(found, "\n"), "no row in orders") {
			t.Errorf("found %v", found)
		}
	})
	t.Run("events that this program cannot read", func(t *testing.T) {
		rec := order.Recorder{NewID: func() order.ID { return order.ID(uuid.Must(uuid.NewV7())) }, Now: time.Now()}
		for name, e := range map[string]order.ResourceEvent{
			"version 2: refund.done of unknown schema version 9":    {Event: order.Event{Type: "refund.done", Schema: 9, Payload: []byte("{}")}},
			"is of type payment.voided, and it is of kind refund":   {Event: order.Event{Type: "payment.voided", Schema: 1, Payload: []byte("{}")}},
			`events cannot be folded: sequence 2: unknown event ty`: {Event: order.Event{Type: "refund.done", Schema: 1, Payload: []byte("{}")}},
		} {
			func() {
				defer restore(t)
				var resource string
				var head order.Head
				must(t, g.db.Pool.QueryRow(t.Context(), `SELECT 'ref_' || replace(id::text, '-', ''), version, head_hash FROM refunds WHERE status = 'pending'`).
					Scan(&resource, &head.Version, &head.Hash))
				next := head.Next(order.Resource{Kind: order.KindRefund, ID: resource}, rec, e.Type, e.Schema, json.RawMessage(e.Payload))
				exec(t, `INSERT INTO resource_events VALUES (1, 'test', 'refund', $1, $2, $3, $4, $5, $6, '', '', '', $7, $8, $9)`, resource, next.Version,
					uuid.UUID(next.Event.ID), next.Type, next.Schema, string(next.Payload), next.At, next.PrevHash, next.Hash)
				found := g.verify(quick)
				if got := names(found); !slices.Contains(got, "resources") || !strings.Contains(strings.Join(found, "\n"), name) {
					t.Errorf("%q is not found: %q", name, found)
				}
			}()
		}
	})
	t.Run("all at once", func(t *testing.T) {
		defer restore(t)
		for _, name := range []string{
			"an event was changed", "a column is not the fold", "stock is reserved for nothing", "a rejected order has its pieces", "a refund waits for nobody",
			"the provider knows the payment by another id", "a key is gone", "an event was not published", "a step runs at the end",
			"an event of a shipment was changed", "a delivery without an event",
		} {
			do(t, breaks[slices.IndexFunc(breaks, func(b brk) bool { return b.name == name })])
		}
		if got := names(g.verify(quick)); len(got) != 12 {
			t.Errorf("found %v", got)
		}
	})
	t.Run("a ledger that lost an entry and has another twice", func(t *testing.T) {
		entries := ledgerOf(t, g.psp.URL)
		var succeeded []int
		for i, e := range entries {
			switch e["status"] {
			case "succeeded":
				succeeded = append(succeeded, i)
			case "cancelled":
				e["payment"] = nil // as if the key had been cancelled before its request came
			}
		}
		lost, twice := entries[succeeded[1]], entries[succeeded[0]]
		entries[succeeded[1]] = maps.Clone(twice)
		entries[succeeded[1]]["sequence"] = lost["sequence"]
		target, err := url.Parse(g.psp.URL)
		must(t, err)
		provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/ledger" {
				httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
				return
			}
			after, _ := strconv.ParseFloat(r.URL.Query().Get("after"), 64)
			payment := r.URL.Query().Get("payment")
			page := slices.DeleteFunc(slices.Clone(entries), func(e map[string]any) bool {
				return e["sequence"].(float64) <= after || payment != "" && payment != e["payment"]
			})
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"data": page, "next": nil})
		}))
		defer provider.Close()
		defer func(simulator *httptest.Server) { g.psp = simulator }(g.psp)
		g.psp = provider
		found := g.verify(quick)
		slices.Sort(found)
		want := []string{
			fmt.Sprintf("provider: %v it has a definite outcome, and the provider's ledger has it 0 times", lost["key"]),
			fmt.Sprintf("provider: %v it has a definite outcome, and the provider's ledger has it 2 times", twice["key"]),
		}
		slices.Sort(want)
		if !slices.Equal(found, want) {
			t.Errorf("found %q\nwant %q", found, want)
		}
	})
	t.Run("money that moved at the provider without us", func(t *testing.T) {
		var id uuid.UUID
		var all int64
		if err := g.db.Pool.QueryRow(t.Context(), `SELECT id, amount FROM payments WHERE order_id = $1`, orders["confirmed"]).Scan(&id, &all); err != nil {
			t.Fatal(err)
		}
		payment, lost := order.ID(id).Format(order.PrefixPayment), order.NewIDs([]byte("k")).Mint(time.Now(), 1).Format(order.PrefixRefund)
		// The last one is as a failover leaves it that loses a refund: nothing is charged any more, of a payment that is wanted.
		for i, key := range []string{payment + "-refund", "by-hand", lost + "-refund"} {
			amount := []int64{900, 900, all - 1800}[i]
			put(t, g, key, fmt.Sprintf(`{"kind":"refund","payment":%q,"amount":{"amount":%d,"currency":"EUR"}}`, payment, amount))
			found := g.verify(quick)
			if got := names(found); !slices.Equal(got, []string{"provider"}) || len(found) != i+1 ||
				!strings.Contains(found[i], key+" it succeeded at the provider, and we have no such call") {
				t.Errorf("found %v", found)
			}
		}
	})
}

func ledgerOf(t *testing.T, url string) []map[string]any {
	t.Helper()
	res, err := http.Get(url + "/v1/ledger?limit=1000")
	must(t, err)
	defer res.Body.Close()
	var page struct {
		Data []map[string]any `json:"data"`
	}
	must(t, json.NewDecoder(res.Body).Decode(&page))
	return page.Data
}

func put(t testing.TB, g *gateway, key, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, g.psp.URL+"/v1/operations/"+key, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	res.Body.Close()
}

// TestVerifyWhileOrdersComeIn: a busy installation is clean at every moment, whatever its clients do.
func TestVerifyWhileOrdersComeIn(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.PaymentTimeout, c.ReservationTTL = time.Second, time.Second })
	g.stock("A", 1000)
	var wg sync.WaitGroup
	var over atomic.Bool
	defer wg.Wait()
	defer over.Store(true)
	for i, token := range []string{"pm_ok", "pm_flaky", "pm_declined", "pm_error", "pm_duplicate", "pm_slow", "", "", "pm_ok", "pm_ok"} {
		wg.Go(func() {
			for n := 0; !over.Load(); n++ {
				a := g.do("POST", "/v1/orders", draft("A", 2, token), "Prefer", fmt.Sprint("wait=", (n+i)%2))
				path := "/v1/orders/" + a.body.ID
				if a.status/100 != 2 {
					continue
				}
				if token == "" {
					paid := g.do("POST", path+"/payments", `{"method_token":"pm_ok"}`, "Prefer", "wait=1")
					for range n % 3 {
						g.do("POST", "/v1/payments/"+paid.body.ID+"/refunds", `{"reason":"r","amount":{"amount":1,"currency":"EUR"}}`)
					}
				}
				g.do("PATCH", path, `{"metadata":{"n":"1"}}`, "If-Match", "*")
				if n%3 == 0 {
					g.do("POST", path+"/cancel", "")
				}
				for range n % 3 {
					shipment := g.do("POST", path+"/shipments", `{"lines":[{"sku":"A","quantity":1}]}`)
					if n%2 == 0 && shipment.status == http.StatusCreated {
						g.do("POST", "/v1/shipments/"+shipment.body.ID+"/deliver", "")
					}
				}
			}
		})
	}
	wg.Go(func() {
		for n := 0; !over.Load(); n++ {
			sku := fmt.Sprint("N", n)
			g.do("POST", "/v1/products", fmt.Sprintf(`{"sku":%q,"name":"n","prices":[{"amount":5,"currency":"EUR"}],"low_stock_at":1}`, sku))
			g.do("PATCH", "/v1/products/A", fmt.Sprintf(`{"low_stock_at":%d}`, n%2*5000), "If-Match", "*")
			for _, sku := range []string{sku, "A"} {
				g.do("POST", "/v1/inventory/"+sku+"/adjustments", fmt.Sprintf(`{"delta":%d,"reason":"r"}`, 20-n%30))
			}
		}
	})
	missing := func() (tables []string) {
		for _, table := range []string{"shipments WHERE status = 'delivered'", "shipments WHERE status = 'shipped'", "refunds", "orders WHERE status = 'completed'", "resource_events WHERE type = 'inventory.low'"} {
			if g.count(table) == 0 {
				tables = append(tables, table)
			}
		}
		return tables
	}
	rounds, begin := 0, time.Now()
	for ; time.Since(begin) < busy || len(missing()) > 0 && time.Since(begin) < patience; rounds++ {
		for _, v := range g.verify(verify.Config{}) {
			t.Error(v)
		}
	}
	over.Store(true)
	wg.Wait()
	t.Logf("%d rounds, %d orders", rounds, g.count("orders"))
	for _, table := range missing() {
		t.Errorf("the load made no %s", table)
	}
}

// TestVerifySubcommand: its exit status and its two forms of output.
func TestVerifySubcommand(t *testing.T) {
	g := startGateway(t, nil)
	g.stock("A", 1)
	g.broken = true
	for name, value := range map[string]string{"ORDERGATE_PRIMARY_URL": g.db.PrimaryURL, "ORDERGATE_PSP_URL": g.psp.URL, "ORDERGATE_DATA_DIR": t.TempDir()} {
		t.Setenv(name, value)
	}
	main := func(args ...string) (string, int) {
		var out, logs bytes.Buffer
		err := Main(t.Context(), append([]string{"verify"}, args...), nil, &out, &logs)
		if logs.Len() > 0 {
			t.Errorf("it logs %s", &logs)
		}
		if err == nil {
			return out.String(), 0
		}
		return out.String() + err.Error(), ExitStatus(err)
	}
	if out, status := main(); status != 0 || strings.Contains(out, "not checked") || strings.Count(out, "\n") != 15 {
		t.Errorf("%d %s", status, out)
	}
	if _, err := g.db.Pool.Exec(t.Context(), `UPDATE stock SET reserved = 1`); err != nil {
		t.Fatal(err)
	}
	if out, status := main(); status != 1 || !strings.Contains(out, "\nstock: 1\n  A  of 1 pieces 1 are reserved") {
		t.Errorf("%d %s", status, out)
	}
	out, status := main("--json")
	var report verify.Report
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&report); status != 1 || err != nil || report.Violations() != 1 {
		t.Errorf("%d %v %s", status, err, out)
	}
	if out, status = main("-psp", "http://127.0.0.1:1"); status != 2 || !strings.Contains(out, "cannot read the provider's ledger") {
		t.Errorf("a provider that is away: %d %s", status, out)
	}
	t.Setenv("ORDERGATE_PRIMARY_URL", g.db.ReplicaURL)
	if out, status = main(); status != 2 || !strings.Contains(out, "the server is a standby") {
		t.Errorf("a standby: %d %s", status, out)
	}
	t.Setenv("ORDERGATE_PRIMARY_URL", g.db.PrimaryURL)
	if _, status = main("nonsense"); status != 2 {
		t.Errorf("an argument too many: %d", status)
	}
	t.Setenv("ORDERGATE_PSP_URL", "")
	if out, _ = main(); !strings.Contains(out, "not checked") {
		t.Errorf("without a provider: %s", out)
	}
	t.Setenv("ORDERGATE_PRIMARY_URL", "")
	if out, status = main(); status != 2 || !strings.Contains(out, "no stack runs in") || !strings.Contains(out, "or set ORDERGATE_DATA_DIR to the folder that it printed as Data") {
		t.Errorf("without settings: %d %s", status, out)
	}
}
