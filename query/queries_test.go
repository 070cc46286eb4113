package query

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	_, err := w.Pool.Exec(context.Background(), sql, args...)
	w.must(err)
}

func (w *world) product(owner order.Owner, sku, name string) {
	w.Helper()
	w.exec(`INSERT INTO products (account, mode, sku, name, description, prices) VALUES ($1, $2, $3, $4, 'd', '{"EUR": 1999, "CNY": 15900}')`, owner.Account, owner.Mode, sku, name)
}

func decoded[T any](t *testing.T, a View, err error) (v T) {
	t.Helper()
	if err == nil {
		err = json.Unmarshal([]byte(a.Body), &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	if a.ETag == "" || a.Token == "" || a.Tier == "" {
		t.Errorf("incomplete View: %+v", a)
	}
	return v
}

func TestListOrders(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	var all []string // the newest first
	for i := range 7 {
		customer, status := "a", order.StatusPending
		if i%2 == 1 {
			customer, status = "b", order.StatusConfirmed
		}
		id := w.insert(mine, w.ids.Mint(begin.Add(time.Duration(i)*time.Minute), 7), customer, status)
		all = slices.Insert(all, 0, id.Format(order.PrefixOrder))
	}
	w.insert(otherOwner, w.ids.Mint(begin, 8), "a", order.StatusPending)
	w.insert(mineLive, w.ids.Mint(begin, 7), "a", order.StatusPending)
	pages := func(f orderFilter, limit int) (ids []string, n int) {
		t.Helper()
		for cursor := ""; ; n++ {
			a, err := p.ListOrders(t.Context(), mine, f, Page{limit, cursor}, anyToken)
			list := decoded[api.OrderList](t, a, err)
			for _, o := range list.Data {
				ids = append(ids, o.ID)
			}
			if list.NextCursor == nil {
				return ids, n + 1
			}
			cursor = *list.NextCursor
		}
	}
	for name, c := range map[string]struct {
		filter api.ListOrdersParams
		limit  int
		want   []string
		pages  int
	}{
		"all on one page":       {orderFilter{}, 20, all, 1},
		"an exact page is last": {orderFilter{}, 7, all, 1},
		"several pages":         {orderFilter{}, 2, all, 4},
		"one customer":          {orderFilter{CustomerRef: new("b")}, 2, []string{all[1], all[3], all[5]}, 2},
		"one status":            {orderFilter{Status: new(api.ListOrdersParamsStatusConfirmed)}, 20, []string{all[1], all[3], all[5]}, 1},
		"both":                  {orderFilter{Status: new(api.ListOrdersParamsStatusConfirmed), CustomerRef: new("a")}, 20, nil, 1},
		"from, itself included": {orderFilter{CreatedFrom: &rfc3339.Time{Time: begin.Add(5 * time.Minute)}}, 20, all[:2], 1},
		"to, itself not":        {orderFilter{CreatedTo: &rfc3339.Time{Time: begin.Add(2 * time.Minute)}}, 1, all[5:], 2},
		"a range":               {orderFilter{CreatedFrom: &rfc3339.Time{Time: begin.Add(time.Minute)}, CreatedTo: &rfc3339.Time{Time: begin.Add(3*time.Minute + time.Microsecond)}}, 20, all[4:6], 1},
		"before and after time": {orderFilter{CreatedFrom: &rfc3339.Time{Time: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)}, CreatedTo: &rfc3339.Time{Time: time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)}}, 20, all, 1},
		"nothing in that time":  {orderFilter{CreatedFrom: &rfc3339.Time{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}}, 20, nil, 1},
		"to the year 1":         {orderFilter{CreatedTo: new(rfc3339.Time)}, 20, nil, 1}, // absent and zero differ
		"from the year 1":       {orderFilter{CreatedFrom: new(rfc3339.Time)}, 20, all, 1},
		"no such customer":      {orderFilter{CustomerRef: new("' OR true --")}, 20, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, n := pages(c.filter, c.limit)
			if !slices.Equal(got, c.want) || n != c.pages {
				t.Errorf("%d pages of %v, want %d of %v", n, got, c.pages, c.want)
			}
		})
	}
	t.Run("equal pages have equal ETags", func(t *testing.T) {
		a, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 2}, anyToken)
		w.must(err)
		b, err := p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 2}, anyToken)
		w.must(err)
		if a.ETag != b.ETag {
			t.Errorf("%s and %s", a.ETag, b.ETag)
		}
		if empty, err := p.ListOrders(t.Context(), order.Owner{Account: 99, Mode: "test"}, orderFilter{}, Page{Limit: 2}, anyToken); err != nil || empty.Body != "{\"data\":[],\"next_cursor\":null}\n" {
			t.Errorf("%s, %v", empty.Body, err)
		}
	})
	t.Run("a cursor is good for its own list only", func(t *testing.T) {
		first := func(owner order.Owner, f orderFilter) string {
			a, err := p.ListOrders(t.Context(), owner, f, Page{Limit: 1}, anyToken)
			return *decoded[api.OrderList](t, a, err).NextCursor
		}
		cursor := first(mine, orderFilter{})
		refused := func(owner order.Owner, f orderFilter, cursor string) {
			t.Helper()
			_, err := p.ListOrders(t.Context(), owner, f, Page{1, cursor}, anyToken)
			wantCode(t, err, errcode.REQ012)
		}
		refused(otherOwner, orderFilter{}, cursor)
		refused(mineLive, orderFilter{}, cursor)
		refused(mine, orderFilter{Status: new(api.ListOrdersParamsStatusConfirmed)}, cursor)
		refused(mine, orderFilter{CustomerRef: new("a")}, cursor)
		refused(mine, orderFilter{CreatedFrom: &rfc3339.Time{Time: begin}}, cursor)
		refused(mine, orderFilter{CreatedTo: &rfc3339.Time{Time: begin.Add(time.Hour)}}, cursor)
		refused(mine, orderFilter{}, first(mine, orderFilter{CustomerRef: new("a")}))
		for i := range len(cursor) {
			changed := []byte(cursor)
			changed[i] ^= 1
			refused(mine, orderFilter{}, string(changed))
			refused(mine, orderFilter{}, cursor[:i]+cursor[i+1:])
		}
		for _, rubbish := range []string{".", "x", cursor + "A", cursor + ".", "." + cursor, strings.Repeat("A", 512), "%00", "ü"} {
			refused(mine, orderFilter{}, rubbish)
		}
		_, err := p.ListProducts(t.Context(), mine, api.ListProductsParams{}, Page{1, cursor}, anyToken)
		wantCode(t, err, errcode.REQ012)
		_, err = p.ListOrderEvents(t.Context(), mine, w.place(mine, 0), Page{1, cursor}, anyToken)
		wantCode(t, err, errcode.REQ012)
	})
}

// An event that was stored before orders had discounts is shown in the form that the contract has now.
func TestOldEventsAreShownInTheirPresentForm(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	id := w.place(mine, time.Hour)
	w.exec(`INSERT INTO order_events (account, mode, order_id, version, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash)
		VALUES (7, 'test', $1, 1, '0198f3c2-a4b5-7d3e-8c1f-000000000000', 'order.created', 1, '{"currency":"EUR","customer_ref":"c","lines":[{"sku":"A","name":"A","quantity":2,
		"unit_price":{"amount":5,"currency":"EUR"}}],"total":{"amount":10,"currency":"EUR"},"with_payment":true,"metadata":{}}', 'trace', 'placeOrder', 'key_1', now(), '', '')`, id[:])
	a, err := p.ListOrderEvents(t.Context(), mine, id, Page{Limit: 20}, anyToken)
	list := decoded[struct {
		Data []struct {
			SchemaVersion int32 `json:"schema_version"`
			Data          order.Created
		}
	}](t, a, err)
	eur := func(n int64) order.Money { return order.Money{Amount: n, Currency: "EUR"} }
	if len(list.Data) != 1 || list.Data[0].SchemaVersion != 2 || list.Data[0].Data.Amounts != (order.Amounts{Subtotal: eur(10), Discount: eur(0), Shipping: eur(0), Tax: eur(0), Total: eur(10)}) ||
		list.Data[0].Data.Lines[0].Discount != eur(0) || !strings.Contains(a.Body, `"coupon_code":null`) {
		t.Errorf("%s", a.Body)
	}
}

func TestListOrderEvents(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	id := w.place(mine, time.Hour)
	for version := range 5 {
		w.exec(`INSERT INTO order_events (account, mode, order_id, version, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash)
			VALUES (7, 'test', $1, $2, $3, 'order.cancel_requested', 1, '{"reason": "a", "n": 9007199254740991}', 'trace', 'cancelOrder', 'saga', '2026-11-23T06:00:00.123456Z', '', '')`,
			id[:], version+1, fmt.Sprintf("0198f3c2-a4b5-7d3e-8c1f-%012d", version))
	}
	var got []int64
	cursor := ""
	for {
		a, err := p.ListOrderEvents(t.Context(), mine, id, Page{2, cursor}, anyToken)
		list := decoded[struct {
			Data       []event `json:"data"`
			NextCursor *string `json:"next_cursor"`
		}](t, a, err)
		for _, e := range list.Data {
			got = append(got, e.Sequence)
		}
		if list.NextCursor == nil {
			break
		}
		cursor = *list.NextCursor
	}
	if !slices.Equal(got, []int64{1, 2, 3, 4, 5}) {
		t.Errorf("events %v", got)
	}
	a, err := p.ListOrderEvents(t.Context(), mine, id, Page{Limit: 1}, anyToken)
	w.must(err)
	want := `{"data":[{"cause":{"actor":"saga","operation":"cancelOrder","trace_id":"trace"},"created_at":"2026-11-23T06:00:00.123456Z",` +
		`"id":"evt_0198f3c2a4b57d3e8c1f000000000000","resource":"` + id.Format(order.PrefixOrder) + `","schema_version":1,"sequence":1,` +
		`"type":"order.cancel_requested","data":{"reason":"a","n":9007199254740991}}],"next_cursor":"`
	if !strings.HasPrefix(a.Body, want) {
		t.Errorf("body %s\nwant %s...", a.Body, want)
	}
	_, err = p.ListOrderEvents(t.Context(), mine, id, Page{1, "x"}, anyToken)
	wantCode(t, err, errcode.REQ012)
	_, err = p.ListOrderEvents(t.Context(), mine, w.ids.Mint(w.now(), 7), Page{Limit: 1}, anyToken)
	wantCode(t, err, errcode.ORD001)
}

func TestGetSaga(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	for name, c := range map[string]struct {
		steps string // name:status
		want  api.SagaState
	}{
		"no steps":                  {"", api.SagaStateDone},
		"just placed":               {"reserve_stock:pending authorize:pending", api.SagaStateRunning},
		"in doubt":                  {"reserve_stock:done authorize:in_doubt", api.SagaStateRunning},
		"confirmed":                 {"reserve_stock:done authorize:done confirm_stock:done capture:done", api.SagaStateDone},
		"reserved, nobody pays yet": {"reserve_stock:done", api.SagaStateDone},
		"a step failed and what was done goes back": {"reserve_stock:done authorize:failed cancel_reservation:pending", api.SagaStateCompensating},
		"the client wants out while a step runs":    {"reserve_stock:running authorize:skipped", api.SagaStateCompensating},
		"taken back":                                {"reserve_stock:done authorize:failed confirm_stock:skipped cancel_reservation:done", api.SagaStateDone},
	} {
		t.Run(name, func(t *testing.T) {
			id := w.place(mine, time.Hour)
			var stored []string
			for step := range strings.FieldsSeq(c.steps) {
				name, status, _ := strings.Cut(step, ":")
				stored = append(stored, fmt.Sprintf(`{"step":%q,"attempt":1,"undo":%t,"status":%q,"code":%q}`, name, slices.Contains([]string{"void", "refund", "cancel_reservation"}, name),
					strings.Replace(status, "in_doubt", "running", 1), map[bool]string{true: "PAY_006"}[status == "failed"]))
				if status == "in_doubt" {
					w.exec(`INSERT INTO payment_calls (account, mode, subject, payment_id, order_id, operation, attempt, amount, currency, method_token, tries, in_doubt, last_code, trace_id, deadline) VALUES (7, 'test', $1, $1, $1, $2, 1, 5, 'EUR', '', 3, true, 'PAY_003', '', now())`, id[:], name)
				}
			}
			w.exec(`INSERT INTO sagas (account, mode, order_id, steps) VALUES (7, 'test', $1, $2::text::json)`, id[:], "["+strings.Join(stored, ",")+"]")
			a, err := p.GetSaga(t.Context(), mine, id, anyToken)
			saga := decoded[api.Saga](t, a, err)
			if saga.State != c.want || len(saga.Steps) != len(strings.Fields(c.steps)) {
				t.Errorf("%s with %d steps, want %s", saga.State, len(saga.Steps), c.want)
			}
			for i, s := range saga.Steps {
				if !strings.HasPrefix(strings.Fields(c.steps)[i], string(s.Name)+":") || (s.Status == "failed" || s.Status == "in_doubt") != (s.LastError != nil && s.LastError.Message != "") {
					t.Errorf("step %d is %+v", i, s)
				}
			}
		})
	}
	_, err := p.GetSaga(t.Context(), mine, w.ids.Mint(w.now().Add(-time.Hour), 7), anyToken)
	wantCode(t, err, errcode.ORD001)
}

func TestProducts(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	for sku, name := range map[string]string{
		"LAMP-1": "Desk lamp", "LAMP-2": "Floor LAMP", "a.b_c": "100% wool", "SOFA": "Bed with lamp", "cn-1": "北欧 台灯", "cn-2": "台式电脑", "cn-3": "灯台", "cn-4": "灯台灯", "ÜB-1": "Über Straße",
	} {
		w.product(mine, sku, name)
	}
	w.product(otherOwner, "LAMP-0", "Desk lamp")
	skus := func(q string, limit int) (got []string) {
		t.Helper()
		for cursor := ""; ; {
			a, err := p.ListProducts(t.Context(), mine, api.ListProductsParams{Q: &q}, Page{limit, cursor}, anyToken)
			list := decoded[api.ProductList](t, a, err)
			for _, product := range list.Data {
				got = append(got, product.Sku)
			}
			if list.NextCursor == nil {
				return got
			}
			_, err = p.ListProducts(t.Context(), mine, api.ListProductsParams{Q: new(q + "x")}, Page{limit, *list.NextCursor}, anyToken)
			wantCode(t, err, errcode.REQ012)
			cursor = *list.NextCursor
		}
	}
	for q, want := range map[string]string{
		"": "LAMP-1 LAMP-2 SOFA a.b_c cn-1 cn-2 cn-3 cn-4 ÜB-1", " \u3000": "LAMP-1 LAMP-2 SOFA a.b_c cn-1 cn-2 cn-3 cn-4 ÜB-1",
		"lamp": "LAMP-1 LAMP-2 SOFA", "LaMp": "LAMP-1 LAMP-2 SOFA", "0%": "a.b_c", "_c": "a.b_c", "none": "",
		"lamp desk": "LAMP-1", "  desk   la ": "LAMP-1", "lamp-2 floor": "LAMP-2", "desk floor": "", "eskla": "", "mp l": "LAMP-1 LAMP-2 SOFA",
		"l": "LAMP-1 LAMP-2 SOFA", "s": "SOFA ÜB-1", "%": "", "1": "a.b_c", "k": "",
		"台灯": "cn-1 cn-4", "台": "cn-1 cn-2", "灯": "cn-3 cn-4", "电脑": "cn-2", "台灯 北欧": "cn-1", "灯台": "cn-3 cn-4", "über": "ÜB-1", "STRASSE": "", "straße": "ÜB-1",
		"台灯台": "", // its pairs all stand in a name, and it does not
	} {
		for _, limit := range []int{1, 2, 100} {
			if got := strings.Join(skus(q, limit), " "); got != want {
				t.Errorf("%q by %d: %s, want %s", q, limit, got, want)
			}
		}
	}
	a, err := p.GetProduct(t.Context(), mine, "LAMP-1", anyToken)
	product := decoded[api.Product](t, a, err)
	if fmt.Sprint(product.Prices) != "[{15900 CNY} {1999 EUR}]" || product.Version != 1 || !strings.HasPrefix(a.ETag, `"1-`) {
		t.Errorf("%s %+v", a.ETag, product)
	}
	_, err = p.GetProduct(t.Context(), mine, "LAMP-0", anyToken)
	wantCode(t, err, errcode.CAT001)
}

// The first character of a word is no pair of others, and a no-break space is a part of its word, in names and in texts.
func TestWordsOfASearch(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process(withoutReplicas)
	w.product(mine, "A", "^Cup")
	w.product(mine, "B", "x\u00a0y cup")
	w.product(mine, "C", "wide\u3000cup")
	for text, want := range map[string]string{
		"c": "B C", "^": "A", "^c": "A", "u": "", "x\u00a0y": "B", "y": "", "x": "B", "\u00a0": "", "\u3000cup": "A B C", "wide cup": "C", "  ": "A B C", "\u0085": "A B C",
	} {
		v, err := p.ListProducts(t.Context(), mine, api.ListProductsParams{Q: &text}, Page{Limit: 10}, anyToken)
		var skus []string
		for _, is := range decoded[struct{ Data []api.Product }](t, v, err).Data {
			skus = append(skus, is.Sku)
		}
		if got := strings.Join(skus, " "); got != want {
			t.Errorf("%q finds %q, not %q", text, got, want)
		}
	}
}

func TestGetInventory(t *testing.T) {
	t.Parallel()
	w := setup(t)
	p := w.process()
	w.exec(`INSERT INTO stock (account, mode, sku, on_hand, reserved) VALUES (7, 'test', 'LAMP', 120, 3)`)
	w.synced(w.ReplicaURL)
	a, err := p.GetInventory(t.Context(), mine, "LAMP", anyToken)
	if i := decoded[api.Inventory](t, a, err); i.Available != 117 || i.OnHand != 120 || i.Reserved != 3 || time.Since(i.AsOf.Time) > time.Minute || a.Tier != "replica" {
		t.Errorf("%+v by %s", i, a.Tier)
	}
	_, err = p.GetInventory(t.Context(), otherOwner, "LAMP", anyToken)
	wantCode(t, err, errcode.INV001)
}

// A 404 tells about the client's data: a reader that goes on with its token sees no older state.
func TestANotFoundCarriesAToken(t *testing.T) {
	t.Parallel()
	w := setup(t)
	lru, redis, replica, primary := w.process(), w.process(), w.process(withoutRedis), w.process(withoutReplicas, withoutRedis)
	unknown := w.ids.Mint(w.now().Add(-time.Hour), 7)
	var lsn uint64
	w.must(w.Pool.QueryRow(t.Context(), `SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint`).Scan(&lsn))
	w.synced(w.ReplicaURL)
	check := func(t *testing.T, a View, err error, code errcode.Code, tier string, rev int64) {
		t.Helper()
		wantCode(t, err, code)
		if tok := w.tokenOf(a); a.Tier != tier || tok.LSN < lsn || tok.Timeline != 1 || tok.Rev != rev || len(a.Body) > 0 || a.ETag != "" {
			t.Errorf("%+v with token %+v, want tier %s", a, tok, tier)
		}
	}
	cached := map[string]func(p *process) (View, errcode.Code, error){
		"order": func(p *process) (View, errcode.Code, error) {
			a, err := p.GetOrder(t.Context(), mine, unknown, anyToken)
			return a, errcode.ORD001, err
		},
		"product": func(p *process) (View, errcode.Code, error) {
			a, err := p.GetProduct(t.Context(), mine, "NONE", anyToken)
			return a, errcode.CAT001, err
		},
	}
	if len(cached) != len(resources) {
		t.Errorf("%d of %d resources are tried", len(cached), len(resources))
	}
	for name, get := range cached {
		for _, c := range []struct {
			p    *process
			tier string
		}{{lru, "replica"}, {lru, "lru"}, {redis, "redis"}, {replica, "replica"}, {primary, "primary"}} {
			t.Run(name+" by "+c.tier, func(t *testing.T) {
				a, code, err := get(c.p)
				check(t, a, err, code, c.tier, 0)
				next, _ := w.signer.Parse(a.Token)
				if _, err = c.p.ListOrders(t.Context(), mine, orderFilter{}, Page{Limit: 1}, next); err != nil {
					t.Errorf("its token is of no use: %v", err)
				}
			})
		}
	}
	for name, p := range map[string]*process{"replica": replica, "primary": primary} {
		t.Run("what is not cached by "+name, func(t *testing.T) {
			a, err := p.GetSaga(t.Context(), mine, unknown, anyToken)
			check(t, a, err, errcode.ORD001, name, 0)
			a, err = p.ListOrderEvents(t.Context(), mine, unknown, Page{Limit: 1}, anyToken)
			check(t, a, err, errcode.ORD001, name, 0)
			a, err = p.GetInventory(t.Context(), mine, "NONE", anyToken)
			check(t, a, err, errcode.INV001, name, 0)
		})
	}
	w.advance(400 * time.Millisecond)
	if a, _ := lru.GetOrder(t.Context(), mine, unknown, anyToken); a.Tier != "lru" {
		t.Errorf("by %s", a.Tier)
	}
	t.Run("a forged id: its token asks for nothing", func(t *testing.T) {
		forged := unknown
		forged[15]++
		for _, read := range []func() (View, error){
			func() (View, error) { return lru.GetOrder(t.Context(), mine, forged, anyToken) },
			func() (View, error) { return lru.GetSaga(t.Context(), mine, forged, anyToken) },
			func() (View, error) { return lru.ListOrderEvents(t.Context(), mine, forged, Page{Limit: 1}, anyToken) },
		} {
			a, err := read()
			wantCode(t, err, errcode.ORD001)
			if tok := w.tokenOf(a); tok != (token.Token{}) || a.Token == "" || a.Tier != "" {
				t.Errorf("%+v with token %+v", a, tok)
			}
		}
	})
}

func TestKeysOfResources(t *testing.T) {
	for _, k := range []key{orders.row(mine, order.NewIDs(nil).Mint(time.Now(), 7), ""), products.row(mineLive, order.ID{}, "prd_ord_.x")} {
		if got, ok := parseKey(order.Owner{Account: k.account, Mode: k.mode.String()}, string(k.appendRowName(nil))); !ok || got != k {
			t.Errorf("%v is read as %v, %v", k, got, ok)
		}
	}
	skuOfMine := products.row(mine, order.ID{}, "LAMP")
	for _, owner := range []order.Owner{mineLive, {Account: 8, Mode: "test"}, {Account: 77, Mode: "test"}} { // a token that has seen one row has seen no other
		if name := products.row(owner, order.ID{}, "LAMP").tokenName(); skuOfMine.is(name) || name == skuOfMine.tokenName() || !products.row(owner, order.ID{}, "LAMP").is(name) {
			t.Errorf("%q names the row of another owner", name)
		}
	}
	for _, name := range []string{"", "ord_", "ord_1", "pay_0198f3c2a4b57d3e8c1f000000000000", "LAMP"} {
		if k, ok := parseKey(mine, name); ok {
			t.Errorf("%q is read as %v", name, k)
		}
	}
	if coupon := string(order.AppendRow(nil, "cpn_", mine, "LAMP")); coupon != "cpn_"+strings.TrimPrefix(skuOfMine.tokenName(), order.PrefixProduct) {
		t.Errorf("%q and %q: rows of two kinds differ by the prefix", coupon, skuOfMine.tokenName())
	}
	prefixes := map[string]bool{}
	for i := range resources {
		r := &resources[i]
		if r.operation == "" || r.prefix == "" || r.notFound == "" || r.read == nil || prefixes[r.prefix] {
			t.Errorf("incomplete, or its prefix is taken: %+v", r)
		}
		prefixes[r.prefix] = true
		if !r.ownIDs {
			if name := kind(i).row(mine, order.ID{}, "SUMMER").tokenName(); !strings.HasPrefix(name, r.prefix) { // else two kinds have one name
				t.Errorf("%q is the token's name of a row of %s", name, r.prefix)
			}
		}
	}
}
