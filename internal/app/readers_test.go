package app

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

// TestThePoolsOfTheReadSideCannotWrite: by PostgreSQL's word, and the look at a new connection to the primary still works.
func TestThePoolsOfTheReadSideCannotWrite(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pgtest.New(t)
	tel, err := telemetry.New(ctx, func(string) string { return "" }, zapcore.ErrorLevel, zapcore.AddSync(t.Output()))
	must(t, err)
	// The primary stands for a replica, too: a standby refuses every write anyway.
	c, err := Assemble(ctx, Config{PrimaryURL: db.PrimaryURL, ReplicaURLs: []string{db.PrimaryURL, db.ReplicaURL}, MaxConnections: 4, Secret: "secret"}, tel)
	must(t, err)
	defer c.Close()
	const insert = `INSERT INTO inbox (consumer, message_id) VALUES ('c', gen_random_uuid())`
	for i, pool := range append(c.replicas, c.reads) {
		_, err := pool.Exec(ctx, insert)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != pg.ReadOnlyTransaction {
			t.Errorf("pool %d: %v", i, err)
		}
	}
	if _, err = c.Primary.Exec(ctx, insert); err != nil {
		t.Errorf("the write side: %v", err)
	}
	c.timeline.Store(0)
	c.reads.Reset()
	must(t, c.reads.Ping(ctx))
	if c.timeline.Load() == 0 {
		t.Error("a new connection of the readers did not tell its timeline")
	}
	c.timeline.Store(9)
	c.reads.Reset()
	if err = c.reads.Ping(ctx); err == nil {
		t.Error("a server on an older timeline is read from as the primary")
	}
}

// TestWhatIsNotYoursIsNotRead: every read of what an account has refuses a key without its scope, and shows another account and the other mode
// nothing, whatever they know of it: its id, its filters, the cursor of its page, its token, its ETag. The caches have it all.
func TestWhatIsNotYoursIsNotRead(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 20)
	const live = "og_live_alice_key_for_tests_only"
	keys := map[string]*edge.Key{
		aliceKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes},
		bobKey:   {ID: "key_2", Owner: order.Owner{Account: 2, Mode: "test"}, Scopes: Scopes},
		live:     {ID: "key_3", Owner: order.Owner{Account: 1, Mode: "live"}, Scopes: Scopes},
	}
	without := func(scope string) string { return "og_test_without_" + strings.ReplaceAll(scope, ":", "_") }
	for _, scope := range Scopes {
		keys[without(scope)] = &edge.Key{ID: "key_4", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: slices.DeleteFunc(slices.Clone(Scopes), func(s string) bool { return s == scope })}
	}
	server, err := g.assemble().API(keys)
	must(t, err)
	srv := httptest.NewServer(server)
	t.Cleanup(srv.Close)
	g.url = srv.URL

	w := draft("A", 2, "")
	w["reference"] = "PO-1"
	placed := g.do("POST", "/v1/orders", w, "Prefer", "wait=10")
	g.do("POST", "/v1/orders", draft("A", 1, ""), "Prefer", "wait=10")
	g.pay(placed.body.ID, "pm_declined", http.StatusUnprocessableEntity)
	payment := g.pay(placed.body.ID, "pm_ok", http.StatusCreated).body.ID
	refund := g.refund(payment, 300).body.ID
	g.refund(payment, 300)
	part := `{"lines":[{"sku":"A","quantity":1}]}`
	shipment := g.do("POST", "/v1/orders/"+placed.body.ID+"/shipments", part).body.ID
	g.do("POST", "/v1/orders/"+placed.body.ID+"/shipments", part)
	g.do("POST", "/v1/products", `{"sku":"B","name":"B","prices":[{"amount":1,"currency":"EUR"}]}`)
	ids := strings.NewReplacer("{order_id}", placed.body.ID, "{payment_id}", payment, "{refund_id}", refund, "{shipment_id}", shipment, "{sku}", "A")
	notFound := map[string]string{"{order_id}": "ORD_001", "{payment_id}": "PAY_001", "{refund_id}": "RFD_002", "{shipment_id}": "SHP_001", "{sku}": "CAT_001"}
	filters := map[string][]string{
		"listOrders": {"customer_ref=c-1", "reference=PO-1", "status=reserved"}, "listRefunds": {"payment_id=" + payment}, "listProducts": {"q=A"},
		"getOrder": {"version=1", "as_of=" + time.Now().UTC().Format(time.RFC3339Nano)},
	}
	reads := 0
	for _, op := range operations(t) {
		if op.Method != http.MethodGet || op.Security != nil && len(*op.Security) == 0 {
			continue
		}
		reads++
		path, code := ids.Replace(op.path), ""
		for name, c := range notFound {
			if strings.Contains(op.path, name) {
				code = c
			}
		}
		if op.OperationID == "getInventory" {
			code = "INV_001"
		}
		for _, scope := range op.scopes() {
			if a := g.do("GET", path, nil, "Authorization", "Bearer "+without(scope)); a.status != http.StatusForbidden || a.body.Code != "AUTH_005" {
				t.Errorf("%s without %s: %d %s", op.OperationID, scope, a.status, a.raw)
			}
		}
		var mine answer
		if op.OperationID != "streamOrder" { // it goes on
			until(t, op.OperationID+" is answered", func() bool { // a replica may be behind
				mine = g.do("GET", path, nil)
				return mine.status == http.StatusOK
			})
		}
		var first struct {
			NextCursor string `json:"next_cursor"`
		}
		if strings.HasPrefix(op.OperationID, "list") {
			until(t, op.OperationID+" has more than one page", func() bool {
				return json.Unmarshal([]byte(g.do("GET", path+"?limit=1", nil).raw), &first) == nil && first.NextCursor != ""
			})
		}
		for name, key := range map[string]string{"another account": bobKey, "the other mode": live} {
			ask := func(query string) answer {
				return g.do("GET", path+query, nil, "Authorization", "Bearer "+key, "X-Consistency-Token", mine.header.Get("X-Consistency-Token"), "If-None-Match", mine.header.Get("ETag"))
			}
			queries := []string{""}
			for _, f := range filters[op.OperationID] {
				queries = append(queries, "?"+f)
			}
			for _, query := range queries {
				switch a := ask(query); {
				case code != "" && (a.status != http.StatusNotFound || a.body.Code != code || a.header.Get("ETag") != ""):
					t.Errorf("%s%s as %s: %d %s", op.OperationID, query, name, a.status, a.raw)
				case code == "" && a.raw != "{\"data\":[],\"next_cursor\":null}\n":
					t.Errorf("%s%s as %s: %d %s", op.OperationID, query, name, a.status, a.raw)
				}
			}
			if first.NextCursor != "" {
				want := "REQ_012"
				if code != "" && !strings.HasPrefix(op.OperationID, "listOrderEvents") {
					want = code
				}
				if a := ask("?cursor=" + first.NextCursor); a.body.Code != want {
					t.Errorf("%s of a cursor as %s: %d %s, want %s", op.OperationID, name, a.status, a.raw, want)
				}
			}
		}
	}
	if reads < 15 {
		t.Errorf("%d reads are tried", reads)
	}
}
