package command

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

// TestMergePatches has the examples of RFC 7396.
func TestMergePatches(t *testing.T) {
	for _, c := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":9007199254740991,"b":"<&>"}`, `{"c":-9007199254740991}`, `{"a":9007199254740991,"b":"<&>","c":-9007199254740991}`},
	} {
		patched, err := applyPatch(json.RawMessage(c.target), api.MergePatch(c.patch))
		var got, want any
		_ = json.Unmarshal(patched, &got)
		_ = json.Unmarshal([]byte(c.want), &want)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || strings.Contains(string(patched), "e+") {
			t.Errorf("%s patched by %s: %s, %v", c.target, c.patch, patched, err)
		}
	}
}

func patching(ifMatch, patch string) updateProduct {
	u := updateProduct{Envelope{Owner: alice, IfMatch: ifMatch}, order.Item{Owner: alice, SKU: "A"}, api.MergePatch(patch), nil}
	_ = json.Unmarshal([]byte(patch), &u.members)
	return u
}

func create(sku string) createProduct {
	return createProduct{order.Item{Owner: alice, SKU: sku}, map[string]int64{"EUR": 1}, api.CreateProduct{Sku: sku, Name: sku}}
}

func TestUpdateProductDecides(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	rec := Envelope{Owner: alice}.recorder(testIDs, now.Add(time.Hour))
	it := order.Item{Owner: alice, SKU: "A"}
	product := func() *catalogue.Product {
		return &catalogue.Product{
			Product: order.Product{Name: "A", Active: true, Prices: map[string]int64{"EUR": 1, "CNY": 8}}, LowStockAt: new(int64(3)),
			Version: 1, Rev: 1, CreatedAt: now, UpdatedAt: now,
		}
	}
	body, err := productBody(it, product())
	if err != nil {
		t.Fatal(err)
	}
	tag := body.ETag
	for name, c := range map[string]struct {
		op   updateProduct
		want string
	}{
		"no If-Match":                   {patching("", `{"name":"B"}`), "REQ_011"},
		"another state":                 {patching(`"1-x"`, `{"name":"B"}`), "REQ_010"},
		"a weak tag":                    {patching("W/"+tag, `{"name":"B"}`), "REQ_010"},
		"a list of tags":                {patching(`"x" , `+tag, `{"name":"B"}`), "2 B EUR:1 CNY:8 3"},
		"any state":                     {patching("*", `{"active":false}`), "2 A inactive EUR:1 CNY:8 3"},
		"nothing":                       {patching(tag, `{}`), "1 A EUR:1 CNY:8 3"},
		"what it is already":            {patching(tag, `{"name":"A","prices":[{"amount":1,"currency":"EUR"},{"amount":8,"currency":"CNY"}]}`), "1 A EUR:1 CNY:8 3"},
		"a threshold less":              {patching(tag, `{"low_stock_at":null}`), "2 A EUR:1 CNY:8 -1"},
		"prices are replaced":           {patching(tag, `{"prices":[{"amount":2,"currency":"EUR"}]}`), "2 A EUR:2 3"},
		"a currency twice":              {patching(tag, `{"name":"B","prices":[{"amount":2,"currency":"EUR"},{"amount":3,"currency":"EUR"}]}`), "REQ_002"},
		"a refusal comes before faults": {patching(`"x"`, `{"prices":[{"amount":2,"currency":"EUR"},{"amount":3,"currency":"EUR"}]}`), "REQ_010"},
	} {
		t.Run(name, func(t *testing.T) {
			p := product()
			got := decided(c.op, &loaded{catalogue: catalogue.Products{it: p}})
			if got == "" {
				words := []string{strconv.FormatInt(p.Version, 10), p.Name}
				if !p.Active {
					words = append(words, "inactive")
				}
				for _, currency := range []string{"EUR", "CNY"} {
					if amount, ok := p.Prices[currency]; ok {
						words = append(words, fmt.Sprint(currency, ":", amount))
					}
				}
				got = strings.Join(append(words, strconv.FormatInt(catalogue.LowAt(p.LowStockAt), 10)), " ")
			} else if p.Version != 1 || p.Name != "A" || p.Changed() {
				t.Error("a refused change is written:", p)
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if p.Changed() != (p.Version == 2) {
				t.Errorf("written: %v, version %d", p.Changed(), p.Version)
			}
		})
	}
	if got := decided(patching("", `{}`), &loaded{}); got != "CAT_001" { // 404 comes before 428
		t.Error(got)
	}
	if n := patching("*", `{"name":"B"}`).needs(); len(n.stock) != 0 || len(n.catalogue) != 1 {
		t.Errorf("a new name needs %+v", n)
	}
	if n := patching("*", `{"low_stock_at":null}`).needs(); len(n.stock) != 1 {
		t.Errorf("a new threshold needs %+v", n)
	}
	unchanged, err := patching(tag, `{}`).decide(&loaded{catalogue: catalogue.Products{it: product()}}, rec)
	if err != nil || string(unchanged.result.Body.Bytes) != string(body.Bytes) || unchanged.result.Body.ETag != tag || unchanged.result.Status != 200 {
		t.Error(unchanged.result, err)
	}
}

// Of several creations of one sku one is made, in one batch and side by side. Its stock row comes with it.
func TestASkuIsCreatedOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	calls := []*call{b.call("createProduct", create("C")), b.call("createProduct", create("C")), b.call("createProduct", create("A"))}
	b.executeAll(calls...)
	if got := ends(calls); got != "201, CAT_002, CAT_002" {
		t.Error("in one batch:", got)
	}
	if calls[0].result.Rev != 1 || calls[0].result.Row(order.Owner{Account: 1, Mode: "test"}) != "prd_1.test.C" {
		t.Errorf("%+v", calls[0].result)
	}
	for round := range 5 {
		sku := fmt.Sprint("D-", round)
		var side []*call
		for range 8 {
			side = append(side, b.call("createProduct", create(sku)))
		}
		var wg sync.WaitGroup
		for _, one := range side {
			wg.Go(func() { b.alone(one) })
		}
		wg.Wait()
		all := strings.Split(ends(side), ", ")
		slices.Sort(all)
		if got := strings.Join(all, ", "); got != "201, "+strings.Repeat("CAT_002, ", 6)+"CAT_002" {
			t.Error("side by side:", got)
		}
		if n := b.count("SELECT count(*) FROM stock WHERE on_hand = 0 AND sku = '" + sku + "'"); n != 1 {
			t.Errorf("%d stock rows", n)
		}
	}
}

// Of several changes of one state one is made, in one batch and side by side. Each change of any state counts, and one UPDATE one revision.
func TestAStateIsChangedOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	tag := func() string {
		one := b.call("updateProduct", patching("*", `{}`), "")
		b.executeAll(one)
		if one.err != nil || one.result.Rev != 0 {
			t.Fatal(one.result, one.err)
		}
		return one.result.Body.ETag
	}
	state := func() (version, rev int) {
		return b.count("SELECT version FROM products WHERE sku = 'A'"), b.count("SELECT rev FROM products WHERE sku = 'A'")
	}
	calls := []*call{b.call("updateProduct", patching(tag(), `{"name":"1"}`), ""), b.call("updateProduct", patching(tag(), `{"name":"2"}`), ""), b.call("updateProduct", patching("*", `{"name":"3"}`), "")}
	b.executeAll(calls...)
	if version, rev := state(); ends(calls) != "200, REQ_010, 200" || version != 3 || rev != 2 || calls[2].result.Rev != 2 {
		t.Error("in one batch:", ends(calls), version, rev, calls[2].result.Rev)
	}
	now := tag()
	var side []*call
	for i := range 8 {
		side = append(side, b.call("updateProduct", patching(now, fmt.Sprintf(`{"name":"side %d"}`, i)), ""))
	}
	var wg sync.WaitGroup
	for _, one := range side {
		wg.Go(func() { b.alone(one) })
	}
	wg.Wait()
	if version, rev := state(); strings.Count(ends(side), "200") != 1 || strings.Count(ends(side), "REQ_010") != 7 || version != 4 || rev != 3 {
		t.Error("side by side:", ends(side), version, rev)
	}
	if n := b.count("SELECT count(*) FROM idempotency_keys"); n != 0 {
		t.Errorf("%d keys of commands without one", n)
	}
}

// A refused adjustment and one that PostgreSQL refuses leave no event and no piece behind, and those beside them stay a chain, in whatever
// order they go alone after the poisoned one.
func TestAdjustmentsOfABatch(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	calls := []*call{
		b.call("adjustInventory", adjust("B", -60)), b.call("adjustInventory", adjust("B", -60)), b.call("adjustInventory", poison{adjust("A", 7)}),
		b.call("adjustInventory", adjust("NONE", 1)), b.call("adjustInventory", adjust("B", -40)), b.call("adjustInventory", adjust("B", 1<<53-1)),
		b.call("adjustInventory", adjust("B", 1)),
	}
	b.executeAll(calls...)
	got := strings.Split(ends(calls), ", ")
	if got[2] != "SYS_001" || got[3] != "INV_001" {
		t.Error(got)
	}
	sum := b.count("SELECT COALESCE(sum((payload::jsonb->>'delta')::bigint), 0) FROM resource_events WHERE resource = 'B' AND type = 'inventory.adjusted'")
	if n := b.count("SELECT on_hand FROM stock WHERE sku = 'B'"); n != sum || n < 0 {
		t.Errorf("%d on hand, %d by events", n, sum)
	}
	if n := b.count("SELECT count(*) FROM stock s JOIN resource_events e ON e.resource = s.sku AND e.sequence = s.version AND e.hash = s.head_hash WHERE s.sku = 'B'"); n != 1 {
		t.Error("the row is not at the head of its events")
	}
	made := 0
	for _, one := range got {
		if one == "201" {
			made++
		}
	}
	if n := b.count("SELECT count(*) FROM resource_events WHERE resource = 'B'"); n != 1+made { // the opening stock is the first
		t.Errorf("%d events of %d adjustments", n, made)
	}
}

// A product with a threshold hands it to its stock: when it is created, and when it is changed.
func TestThresholdsGoToTheStock(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	low := create("C")
	low.LowStockAt = new(int64(5))
	do := func(op operation) {
		t.Helper()
		one := b.call("test", op)
		b.executeAll(one)
		if one.err != nil {
			t.Fatal(one.err)
		}
	}
	lows := func() int { return b.count("SELECT count(*) FROM resource_events WHERE type = 'inventory.low'") }
	do(low)
	do(adjust("C", 9))
	if n := b.count("SELECT low_at FROM stock WHERE sku = 'C'"); n != 5 || lows() != 0 {
		t.Errorf("low_at %d, %d events", n, lows())
	}
	do(adjust("C", -4))
	if lows() != 1 {
		t.Errorf("%d events after it fell to the threshold", lows())
	}
	for _, step := range []struct {
		patch string
		low   int
	}{{`{"low_stock_at":null}`, 1}, {`{"low_stock_at":4}`, 1}, {`{"low_stock_at":5}`, 2}, {`{"low_stock_at":6}`, 2}, {`{"name":"x"}`, 2}} {
		u := patching("*", step.patch)
		u.item.SKU = "C"
		do(u)
		if lows() != step.low {
			t.Errorf("%d events after %s, want %d", lows(), step.patch, step.low)
		}
	}
	if n := b.count("SELECT low_at FROM stock WHERE sku = 'C'"); n != 6 {
		t.Errorf("low_at %d", n)
	}
	if n := b.count("SELECT count(*) FROM stock WHERE sku = 'A' AND low_at = -1"); n != 1 {
		t.Error("A has a threshold")
	}
}

// A token may name a product's revision only if no other one followed before the log's position was read.
func TestALaterRevisionOfAProductIsNoticed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	for _, later := range []bool{false, true} {
		var products catalogue.Products
		if err := pg.InTx(t.Context(), db.Pool, func(tx pgx.Tx) (err error) {
			it := order.Item{Owner: alice, SKU: "A"}
			found := newLoaded()
			if err = found.load(t.Context(), tx, needs{catalogue: []order.Item{it}}, false); err != nil {
				return err
			}
			products = found.catalogue
			products[it].Touch(time.Now())
			return products.Write(t.Context(), tx)
		}); err != nil {
			t.Fatal(err)
		}
		if later {
			if _, err := db.Pool.Exec(t.Context(), "UPDATE products SET rev = rev + 1 WHERE sku = 'A'"); err != nil {
				t.Fatal(err)
			}
		}
		written := 0
		w := b.writer
		w.cfg.WriteThrough = func(_ context.Context, states []Committed) { written += len(states) }
		r := &rows{products: products}
		w.afterCommit(t.Context(), r, position(t.Context(), b.cfg.Pool, r))
		if superseded := products[order.Item{Owner: alice, SKU: "A"}].Superseded; superseded != later || (written == 0) != later {
			t.Errorf("later %v: superseded %v, %d written through", later, superseded, written)
		}
	}
}

// A change that waits for two rows which others hold ends in time, without a connection lost.
func TestAChangeThatWaitsForTwoRowsEndsInTime(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	held, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(context.WithoutCancel(t.Context())) }()
	for _, table := range []string{"stock", "products"} {
		if _, err = held.Exec(t.Context(), "SELECT FROM "+table+" WHERE sku = 'A' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		one := b.call("updateProduct", patching("*", `{"low_stock_at":1}`), "")
		begin := time.Now()
		b.executeAll(one)
		if took := time.Since(begin); got(one) != "SYS_003" || took > Budget+100*time.Millisecond {
			t.Error(table, got(one), took, one.err)
		}
	}
}
