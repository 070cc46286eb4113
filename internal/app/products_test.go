package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/order"
)

const mergePatch = "application/merge-patch+json"

// at sends a request to another instance.
func (g *gateway) at(url string) *gateway {
	other := *g
	other.url = url
	return &other
}

// A change is read at once with its token, by every instance, whatever its caches hold; the answer of the change is that of the read, to the
// byte.
func TestChangesOfProductsAreReadAtOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	other := g.at(g.serve(g.assemble()))
	everywhere := func(sku string, written answer) {
		t.Helper()
		token := written.header.Get("X-Consistency-Token")
		for i, instance := range []*gateway{g, other, g, other} {
			read := instance.do("GET", "/v1/products/"+sku, nil, "X-Consistency-Token", token)
			if read.status != http.StatusOK || read.raw != written.raw || read.header.Get("ETag") != written.header.Get("ETag") {
				t.Errorf("read %d: %d %s %s, written %s %s", i, read.status, read.header.Get("ETag"), read.raw, written.header.Get("ETag"), written.raw)
			}
		}
		if tier := g.do("GET", "/v1/products/"+sku, nil, "X-Consistency-Token", token).header.Get("X-Served-By"); tier != "lru" {
			t.Error("the writer serves its own change from", tier)
		}
	}
	for n := range 5 {
		sku := fmt.Sprint("CUP-", n)
		for _, instance := range []*gateway{g, other} {
			if a := instance.do("GET", "/v1/products/"+sku, nil); a.status != http.StatusNotFound {
				t.Fatal(a.raw)
			}
		}
		made := g.do("POST", "/v1/products", `{"sku":"`+sku+`","name":"Cup","prices":[{"amount":700,"currency":"EUR"},{"amount":1100,"currency":"JPY"}]}`)
		if made.status != http.StatusCreated {
			t.Fatal(made.raw)
		}
		everywhere(sku, made)
		for i := range 3 {
			instance := []*gateway{g, other}[i%2]
			changed := instance.do("PATCH", "/v1/products/"+sku, fmt.Sprintf(`{"name":"Cup %d"}`, i), "Content-Type", mergePatch, "If-Match", made.header.Get("ETag"))
			if changed.status != http.StatusOK {
				t.Fatal(changed.raw)
			}
			token := changed.header.Get("X-Consistency-Token")
			for _, reader := range []*gateway{g, other} {
				if read := reader.do("GET", "/v1/products/"+sku, nil, "X-Consistency-Token", token); read.raw != changed.raw {
					t.Errorf("read %s after %s", read.raw, changed.raw)
				}
			}
			made = changed
		}
		// Readers without a token hear of it, too.
		until(t, "both instances show the change", func() bool {
			return g.do("GET", "/v1/products/"+sku, nil).raw == made.raw && other.do("GET", "/v1/products/"+sku, nil).raw == made.raw
		})
	}
}

// The price of an order is the product's of the moment, and a product that was taken from sale cannot be ordered.
func TestOrdersFollowTheCatalogue(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	patch := func(body string) {
		t.Helper()
		if a := g.do("PATCH", "/v1/products/POT", body, "Content-Type", mergePatch, "If-Match", "*"); a.status != http.StatusOK {
			t.Fatal(a.raw)
		}
	}
	if a := g.do("POST", "/v1/products", `{"sku":"POT","name":"Pot","prices":[{"amount":700,"currency":"EUR"}],"low_stock_at":2}`); a.status != http.StatusCreated {
		t.Fatal(a.raw)
	}
	total := func(a answer) int64 {
		var o api.Order
		_ = json.Unmarshal([]byte(a.raw), &o)
		return o.Total.Amount
	}
	if a := g.do("POST", "/v1/inventory/POT/adjustments", `{"delta":4,"reason":"delivery"}`); a.status != http.StatusCreated {
		t.Fatal(a.raw)
	}
	if a := g.do("POST", "/v1/orders", draft("POT", 1, ""), "Prefer", "wait=10"); a.status != http.StatusCreated || total(a) != 700 {
		t.Error(a.raw)
	}
	patch(`{"prices":[{"amount":800,"currency":"EUR"}]}`)
	if a := g.do("POST", "/v1/orders", draft("POT", 1, "pm_ok"), "Prefer", "wait=10"); a.status != http.StatusCreated || total(a) != 800 {
		t.Error(a.raw)
	}
	patch(`{"active":false}`)
	if a := g.do("POST", "/v1/orders", draft("POT", 1, "pm_ok")); a.body.Code != "CAT_003" {
		t.Error(a.raw)
	}
	// The reservations took it from four pieces to two: it is low. Held pieces cannot be taken off.
	if n := g.count("resource_events WHERE resource = 'POT' AND type = 'inventory.low'"); n != 1 {
		t.Errorf("%d events of low stock", n)
	}
	if a := g.do("POST", "/v1/inventory/POT/adjustments", `{"delta":-3,"reason":"lost"}`); a.body.Code != "INV_006" {
		t.Error(a.raw)
	}
	if a := g.do("POST", "/v1/inventory/POT/adjustments", `{"delta":-2,"reason":"lost"}`); a.status != http.StatusCreated {
		t.Error(a.raw)
	}
}

// Products of another account are not there, and a key without the scope may change nothing.
func TestForeignProductsAreNotThere(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	mine := g.do("POST", "/v1/products", `{"sku":"MINE","name":"Mine","prices":[{"amount":1,"currency":"EUR"}]}`)
	if a := g.do("POST", "/v1/inventory/MINE/adjustments", `{"delta":3,"reason":"delivery"}`); mine.status != http.StatusCreated || a.status != http.StatusCreated {
		t.Fatal(mine.raw, a.raw)
	}
	bob := []string{"Authorization", "Bearer " + bobKey}
	if a := g.do("PATCH", "/v1/products/MINE", `{"active":false}`, append(bob, "Content-Type", mergePatch, "If-Match", "*")...); a.status != 404 || a.body.Code != "CAT_001" {
		t.Error(a.raw)
	}
	if a := g.do("POST", "/v1/inventory/MINE/adjustments", `{"delta":-1,"reason":"x"}`, bob...); a.status != 404 || a.body.Code != "INV_001" {
		t.Error(a.raw)
	}
	if a := g.do("POST", "/v1/products", `{"sku":"MINE","name":"Bob's","prices":[{"amount":1,"currency":"EUR"}]}`, bob...); a.status != http.StatusCreated {
		t.Error("skus are unique in an account:", a.raw)
	}
	if a := g.do("GET", "/v1/products/MINE", nil, "X-Consistency-Token", mine.header.Get("X-Consistency-Token")); a.raw != mine.raw {
		t.Error(a.raw)
	}
	if n := g.count("stock WHERE account = 1 AND sku = 'MINE' AND on_hand = 3"); n != 1 {
		t.Error("the stock moved")
	}
}

// Many adjustments of one sku at once lose no piece, and their events are one chain.
func TestAdjustmentsOfOneSkuAtOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("HOT", 100)
	if a := g.do("PATCH", "/v1/products/HOT", `{"low_stock_at":200}`, "Content-Type", mergePatch, "If-Match", "*"); a.status != http.StatusOK { // it is low at once
		t.Fatal(a.raw)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var levels []int
	for i := range 40 {
		wg.Go(func() {
			delta := 1 - 2*(i%2)
			a := g.do("POST", "/v1/inventory/HOT/adjustments", fmt.Sprintf(`{"delta":%d,"reason":"counted"}`, delta))
			var made api.Adjustment
			if _ = json.Unmarshal([]byte(a.raw), &made); a.status == http.StatusCreated {
				mu.Lock()
				defer mu.Unlock()
				levels = append(levels, delta)
			} else if a.status < 500 {
				t.Error(a.raw)
			}
		})
	}
	wg.Wait()
	onHand := 100
	for _, delta := range levels {
		onHand += delta
	}
	if n := g.count(fmt.Sprintf("stock WHERE sku = 'HOT' AND on_hand = %d AND version = %d", onHand, len(levels)+2)); n != 1 {
		t.Errorf("not %d pieces at version %d", onHand, len(levels)+2)
	}
	rows, err := g.db.Pool.Query(t.Context(), `SELECT sequence, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash
		FROM resource_events WHERE resource = 'HOT' ORDER BY sequence`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var history []order.Event
	for rows.Next() {
		var e order.Event
		var payload string
		if err = rows.Scan(&e.Version, (*[16]byte)(&e.ID), &e.Type, &e.Schema, &payload, &e.Cause.TraceID, &e.Cause.Operation, &e.Cause.Actor, &e.At, &e.PrevHash, &e.Hash); err != nil {
			t.Fatal(err)
		}
		e.Payload = []byte(payload)
		history = append(history, e)
	}
	if err = (order.Resource{Owner: order.Owner{Account: 1, Mode: "test"}, Kind: order.KindInventory, ID: "HOT"}).Verify(history); err != nil {
		t.Error(err)
	}
	if len(history) < 3 || history[1].Type != "inventory.low" {
		t.Errorf("%d events", len(history))
	}
	// The data of each is what the contract says of its type.
	var contract struct {
		Components struct {
			Schemas map[string]struct {
				Required []string `json:"required"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err = json.Unmarshal(api.OpenAPIJSON, &contract); err != nil {
		t.Fatal(err)
	}
	for _, e := range history {
		var data map[string]any
		_ = json.Unmarshal(e.Payload, &data)
		required := contract.Components.Schemas[map[string]string{"inventory.adjusted": "InventoryAdjustedData", "inventory.low": "InventoryLowData"}[e.Type]].Required
		for name := range data {
			if !slices.Contains(required, name) {
				t.Errorf("%s has %s", e.Type, name)
			}
		}
		if len(data) != len(required) || len(required) == 0 {
			t.Errorf("%s has %v, and the contract %v", e.Type, data, required)
		}
	}
}

// A fault of a product's form is found before anything is stored: the corrected body may have the same key.
func TestACurrencyTwiceLeavesTheKeyFree(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	create := func(prices string) answer {
		return g.do("POST", "/v1/products", `{"sku":"POT","name":"Pot","prices":[`+prices+`]}`, "Idempotency-Key", "one-and-the-same")
	}
	eur, cny := `{"amount":1,"currency":"EUR"}`, `{"amount":8,"currency":"CNY"}`
	a := create(eur + "," + eur + "," + cny + "," + cny)
	if a.body.Code != "REQ_002" || a.header.Get("X-Consistency-Token") != "" || !strings.Contains(a.raw, `"/prices/1/currency"`) || !strings.Contains(a.raw, `"/prices/3/currency"`) {
		t.Error(a.status, a.raw)
	}
	if a = create(eur + "," + cny); a.status != http.StatusCreated {
		t.Error(a.status, a.raw)
	}
}

// TestTheETagOfStockIsItsBytes: what the answer does not show, as the level at which stock is low, does not change its ETag.
func TestTheETagOfStockIsItsBytes(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("POT", 100)
	read := func(lowAt int) answer { // as the change left it
		a := g.do("PATCH", "/v1/products/POT", fmt.Sprintf(`{"low_stock_at":%d}`, lowAt), "Content-Type", mergePatch, "If-Match", "*")
		return g.do("GET", "/v1/inventory/POT", nil, "X-Consistency-Token", a.header.Get("X-Consistency-Token"))
	}
	before, after := read(3), read(5)
	if before.status != 200 || after.raw != before.raw || after.header.Get("ETag") != before.header.Get("ETag") {
		t.Errorf("%s %s became %s %s", before.raw, before.header.Get("ETag"), after.raw, after.header.Get("ETag"))
	}
}
