package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/ordergate/ordergate/command/catalogue"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
	"github.com/ordergate/ordergate/sql"
)

var (
	alice   = order.Owner{Account: 1, Mode: "test"}
	testIDs = order.NewIDs([]byte("k"))
)

// bundle is a migrated database with a product, and Commands on it.
type bundle struct {
	*Commands
	t  *testing.T
	db *pgtest.DB
	n  int // keys given out
}

func setup(t *testing.T, pool *pgxpool.Pool, db *pgtest.DB) *bundle {
	t.Helper()
	rec := Envelope{Owner: alice, Operation: "test", Actor: "key_1"}.recorder(testIDs, time.Now())
	products, openings := catalogue.Products{}, []inventory.Opening{}
	for _, sku := range []string{"A", "B"} {
		p, it := catalogue.New(rec.Now), order.Item{Owner: alice, SKU: sku}
		p.Name, p.Active, p.Prices = sku, true, map[string]int64{"EUR": 100}
		products[it], openings = p, append(openings, inventory.Opening{Item: it, OnHand: 100, LowAt: -1})
	}
	if err := pg.InTx(t.Context(), db.Pool, func(tx pgx.Tx) error {
		return errors.Join(products.Write(t.Context(), tx), inventory.Open(t.Context(), tx, rec, openings...))
	}); err != nil {
		t.Fatal(err)
	}
	c := New(Config{Pool: pool, IDs: testIDs, Now: time.Now, Wake: func() {}, Tracer: noop.NewTracerProvider().Tracer("")})
	return &bundle{Commands: c, t: t, db: db}
}

// connect is a pool as the program makes it.
func connect(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pg.Connect(t.Context(), url, 12, pg.Session, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// alone runs a call past the queue, as another process would.
func (b *bundle) alone(one *call) { b.executeBatch(b.t.Context(), []*call{one}, tryOptions{try: 1}) }

// call makes a call under a new key, or the given one.
func (b *bundle) call(operation string, op operation, key ...string) *call {
	b.n++
	e := Envelope{Owner: alice, Operation: operation, Key: fmt.Sprint("key-number-", b.n), Actor: "key_1"}
	if len(key) > 0 {
		e.Key = key[0]
	}
	_, span := b.cfg.Tracer.Start(b.t.Context(), "call")
	b.t.Cleanup(func() { span.End() })
	return &call{Envelope: e, op: op, needs: op.needs(), hash: e.hash(fmt.Append(nil, op)), deadline: time.Now().Add(Budget), span: span, ended: make(chan struct{})}
}

// executeAll puts calls into the queue at one moment and returns when all have ended.
func (b *bundle) executeAll(calls ...*call) {
	b.t.Helper()
	b.queue.atOnce(calls...)
	for _, one := range calls {
		<-one.ended
	}
}

func (b *bundle) place(sku string) operation {
	return placeOrder{alice, api.PlaceOrder{Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: sku, Quantity: 1}}}}
}

// placed places an order and returns it.
func (b *bundle) placed() order.Ref {
	b.t.Helper()
	c := b.call("placeOrder", b.place("A"))
	b.executeAll(c)
	if c.err != nil {
		b.t.Fatal(c.err)
	}
	return order.Ref{Owner: alice, ID: c.result.OrderID}
}

// confirmed places an order of some pieces of A and confirms it, as the saga does at its end.
func (b *bundle) confirmed(quantity int32) order.Ref {
	b.t.Helper()
	place := b.place("A").(placeOrder)
	place.Lines[0].Quantity = quantity
	placed := b.call("placeOrder", place)
	b.executeAll(placed)
	ref := order.Ref{Owner: alice, ID: placed.result.OrderID}
	confirmed := b.call("confirm", confirm{ref})
	b.executeAll(confirmed)
	if got := ends([]*call{placed, confirmed}); got != "202, 200" {
		b.t.Fatal(got, placed.err, confirmed.err)
	}
	return ref
}

// shipped ships pieces of A of an order and returns the shipment.
func (b *bundle) shipped(o order.Ref, quantity int32) order.Ref {
	b.t.Helper()
	c := b.call("shipOrder", shipOrder{o, api.ShipOrder{Lines: []api.ShipOrderLine{{Sku: "A", Quantity: quantity}}}})
	b.executeAll(c)
	if got(c) != "201" {
		b.t.Fatal(got(c), c.err)
	}
	id, _ := order.Parse(order.PrefixShipment, strings.TrimPrefix(c.result.Location, "/v1/shipments/"))
	return order.Ref{Owner: alice, ID: id}
}

// confirm is an operation that ends the saga of an order.
type confirm struct{ ref order.Ref }

func (c confirm) needs() needs { return needs{orders: []order.Ref{c.ref}} }

func (c confirm) decide(l *loaded, rec order.Recorder) (effect, error) {
	change := l.orders[c.ref]
	for _, st := range change.steps {
		st.finish(statusDone, "", rec.Now)
	}
	change.record(rec, order.Paid{Amount: change.order.Total})
	change.record(rec, order.Confirmed{})
	return effect{orders: []*orderChange{change}, result: Result{Status: 200, ContentType: "application/json", Body: view.Raw([]byte("{}")), OrderID: c.ref.ID}}, nil
}

// paid gives an order a payment, captured, and returns it.
func (b *bundle) paid(o order.Ref) order.Ref {
	b.t.Helper()
	var p order.Ref
	if err := pg.InTx(b.t.Context(), b.db.Pool, func(tx pgx.Tx) error {
		rec := Envelope{Owner: alice}.recorder(testIDs, time.Now())
		opened, changes := payment.Start(o, 1, order.Money{Amount: 100, Currency: "EUR"}, "pm_ok", rec)
		p = opened.Ref
		changes.Events = append(changes.Events, opened.Record(rec, pay.Captured{}))
		return changes.Write(b.t.Context(), tx, time.Minute)
	}); err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bundle) count(query string) (n int) {
	b.t.Helper()
	if err := b.db.Pool.QueryRow(b.t.Context(), query).Scan(&n); err != nil {
		b.t.Fatal(query, err)
	}
	return n
}

// got is what a call ended with, in a word.
func got(c *call) string {
	if e, ok := errors.AsType[*apierr.Error](c.err); ok {
		return string(e.Code)
	}
	if c.err != nil || !c.done {
		return fmt.Sprintf("%t %v", c.done, c.err)
	}
	if c.result.Replayed {
		return fmt.Sprint("replayed ", c.result.Status)
	}
	return strconv.Itoa(c.result.Status)
}

func ends(calls []*call) string {
	all := make([]string, len(calls))
	for i, c := range calls {
		all[i] = got(c)
	}
	return strings.Join(all, ", ")
}

// annotate is an operation that looks at a payment and records an event of its order.
type annotate struct {
	payment, order order.Ref
}

func (a annotate) needs() needs {
	return needs{payments: []order.Ref{a.payment}, orders: []order.Ref{a.order}}
}

func (a annotate) decide(l *loaded, rec order.Recorder) (effect, error) {
	p, ok := l.payments[a.payment]
	if !ok {
		return effect{}, apierr.E(errcode.CAT001)
	}
	c := l.orders[a.order]
	c.record(rec, order.Updated{PaymentStatus: order.PaymentStatusPaid})
	return effect{orders: []*orderChange{c}, result: Result{Status: 200, ContentType: "application/json", Body: view.Raw([]byte(p.Status))}}, nil
}

func adjust(sku string, delta int64) adjustInventory {
	return adjustInventory{order.Item{Owner: alice, SKU: sku}, api.AdjustInventory{Delta: delta, Reason: "counted"}}
}

// poison is an operation whose row PostgreSQL refuses: NUL in a text.
type poison struct{ operation }

func (p poison) decide(l *loaded, rec order.Recorder) (effect, error) {
	e, err := p.operation.decide(l, rec)
	e.result.ContentType = "\x00"
	return e, err
}

// unwritable is an operation whose rows cannot be encoded: a panic after decide.
type unwritable struct{ placeOrder }

func (u unwritable) decide(l *loaded, rec order.Recorder) (effect, error) {
	e, err := u.placeOrder.decide(l, rec)
	e.orders[0].order = nil
	return e, err
}

// buggy is an operation that panics.
type buggy struct{ adjustInventory }

func (buggy) decide(*loaded, order.Recorder) (effect, error) { panic("a bug") }

func TestAMixedBatchIsOneTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	cancelled, paid := b.placed(), b.placed()
	pay := b.paid(paid)
	known := b.call("placeOrder", b.place("A"), "a-known-key")
	b.executeAll(known)
	held, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Rollback(context.WithoutCancel(t.Context())) }()
	other := b.call("placeOrder", b.place("A"), "a-held-key")
	if _, err = held.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", other.lockID()); err != nil {
		t.Fatal(err)
	}
	before := b.count("SELECT count(*) FROM orders")
	batch := func() []*call {
		return []*call{
			b.call("placeOrder", b.place("A"), "a-known-key"),
			b.call("placeOrder", b.place("B"), "a-known-key"),
			b.call("placeOrder", b.place("A"), "a-held-key"),
			b.call("placeOrder", b.place("A")),
			b.call("placeOrder", b.place("NONE")),
			b.call("cancelOrder", cancelOrder{ref: cancelled}),
			b.call("cancelOrder", cancelOrder{ref: order.Ref{Owner: alice, ID: testIDs.Mint(time.Now(), 1)}}),
			b.call("annotate", annotate{pay, paid}),
			b.call("adjust", adjust("B", -60)),
			b.call("adjust", adjust("B", -60)),
			b.call("adjust", adjust("B", -40)),
		}
	}
	calls := batch()
	calls = slices.Delete(calls, 1, 2) // its key is that of the one before: another batch
	b.executeAll(calls...)
	if got := ends(calls); got != "replayed 202, IDEM_003, 202, CAT_005, 202, ORD_001, 200, 201, INV_006, 201" {
		t.Error(got)
	}
	var keys []string
	for _, c := range calls[2:] {
		keys = append(keys, "'"+c.Key+"'")
	}
	if n := b.count("SELECT count(DISTINCT xmin::text) FROM idempotency_keys WHERE key IN (" + strings.Join(keys, ",") + ")"); n != 1 {
		t.Errorf("%d transactions", n)
	}
	if string(calls[0].result.Body.Bytes) != string(known.result.Body.Bytes) || calls[0].result.LSN == 0 {
		t.Errorf("replayed %s with LSN %d", calls[0].result.Body.Bytes, calls[0].result.LSN)
	}
	if n := b.count("SELECT on_hand FROM stock WHERE sku = 'B'"); n != 0 {
		t.Errorf("%d pieces of B", n)
	}
	// The consistency token of a write names the order's row as it is now: 0 would be satisfied by any older one.
	if placed, cancel := calls[2].result.Rev, calls[4].result.Rev; placed != 1 || int(cancel) != b.count("SELECT rev FROM orders WHERE id = '"+cancelled.ID.Format("")+"'") || calls[0].result.Rev != 0 {
		t.Errorf("revs %d and %d, of a replay %d", placed, cancel, calls[0].result.Rev)
	}
	if n := b.count("SELECT count(*) FROM orders") - before; n != 1 {
		t.Errorf("%d orders more", n)
	}
	if n := b.count("SELECT count(*) FROM order_events WHERE type = 'order.updated'"); n != 1 {
		t.Errorf("annotated %d times", n)
	}
	// A stored result is given at once, also while another repetition has the lock of its key.
	if _, err = held.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", known.lockID()); err != nil {
		t.Fatal(err)
	}
	again := []*call{batch()[0], b.call("placeOrder", b.place("A"), "a-held-key")}
	b.executeAll(again...)
	if got := ends(again); got != "replayed 202, IDEM_003" || string(again[0].result.Body.Bytes) != string(known.result.Body.Bytes) {
		t.Errorf("with the lock held: %s", got)
	}
	reused := batch()[1:2]
	b.executeAll(reused...)
	if got := ends(reused); got != "IDEM_002" {
		t.Error(got)
	}
	t.Run("a poisoned neighbour fails alone, and stored replays stay", func(t *testing.T) {
		for name, bad := range map[string]operation{
			"SQLSTATE 22": poison{adjust("B", 1)}, "a panic": buggy{}, "a panic after decide": unwritable{b.place("A").(placeOrder)},
		} {
			calls := []*call{
				b.call("placeOrder", b.place("A"), "a-known-key"),
				b.call("placeOrder", b.place("A")),
				b.call("adjust", bad),
				b.call("placeOrder", b.place("NONE")),
				b.call("placeOrder", b.place("A"), "a-held-key"),
				b.call("adjust", adjust("B", 5)),
				b.call("adjust", adjust("B", -1000)),
			}
			stock := b.count("SELECT on_hand FROM stock WHERE sku = 'B'")
			b.executeAll(calls...)
			if got := ends(calls); got != "replayed 202, 202, SYS_001, CAT_005, IDEM_003, 201, INV_006" {
				t.Errorf("%s: %s", name, got)
			}
			if n := b.count("SELECT on_hand FROM stock WHERE sku = 'B'") - stock; n != 5 {
				t.Errorf("%s: stock moved by %d", name, n)
			}
			if n := b.count("SELECT count(*) FROM idempotency_keys WHERE content_type = ''"); n != 0 {
				t.Errorf("%s: %d poisoned rows", name, n)
			}
		}
	})
}

func TestNextBatchKeepsKeysOrdersAndPaymentsApart(t *testing.T) {
	ref := func(n byte) order.Ref { return order.Ref{Owner: alice, ID: order.ID{n}} }
	one := func(name, key string, n needs) *call {
		return &call{Envelope: Envelope{Owner: alice, Operation: name, Key: key}, needs: n}
	}
	waiting := []*call{
		one("a", "1", needs{orders: []order.Ref{ref(1)}}),
		one("b", "1", needs{}),                            // another operation's key
		one("a", "1", needs{}),                            // the same key
		one("c", "2", needs{orders: []order.Ref{ref(1)}}), // the same order
		one("c", "3", needs{payments: []order.Ref{ref(2)}}),
		one("c", "4", needs{payments: []order.Ref{ref(2)}}),                              // the same payment
		one("c", "5", needs{orders: []order.Ref{ref(3)}, payments: []order.Ref{ref(1)}}), // behind the one that waits for order 1
		one("c", "6", needs{orders: []order.Ref{ref(3)}}),                                // may not overtake the one before
		one("d", "7", needs{stock: []order.Item{{Owner: alice, SKU: "A"}}}),
		one("d", "8", needs{stock: []order.Item{{Owner: alice, SKU: "A"}}}), // stock is shared
		one("e", "9", needs{shipments: []order.Ref{ref(4)}}),
		one("e", "10", needs{shipments: []order.Ref{ref(4)}}), // the same shipment
	}
	var batches []string
	for rest := waiting; len(rest) > 0; {
		var batch []*call
		batch, rest = nextBatch(rest, nil, namesOf)
		var names []string
		for _, c := range batch {
			names = append(names, strconv.Itoa(slices.Index(waiting, c)))
		}
		batches = append(batches, strings.Join(names, " "))
	}
	if got := strings.Join(batches, " | "); got != "0 1 4 8 9 10 | 2 3 5 11 | 6 | 7" {
		t.Error(got)
	}
	var many []*call
	for i := range 2*maxBatch + 1 {
		many = append(many, one("a", strconv.Itoa(i), needs{}))
	}
	if batch, rest := nextBatch(many, nil, namesOf); len(batch) != maxBatch || len(rest) != maxBatch+1 {
		t.Errorf("%d and %d", len(batch), len(rest))
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("write: %w", &pgconn.PgError{Code: code}) }
	first, second, third := tryOptions{try: 1, queued: true}, tryOptions{try: 2}, tryOptions{try: 3}
	for name, c := range map[string]struct {
		txErr   error
		options tryOptions
		alone   bool
		next    tryOptions
	}{
		"a value that cannot be stored":              {state("22021"), first, false, tryOptions{try: 1, apart: true}},
		"a constraint":                               {state("23514"), first, false, tryOptions{try: 1, apart: true}},
		"a constraint, alone":                        {state("23514"), first, true, tryOptions{}},
		"a constraint at COMMIT":                     {fmt.Errorf("%w: %w", pg.ErrRefusedAtCommit, state("23505")), first, false, tryOptions{}},
		"a panic":                                    {panics.ErrPanic, first, false, tryOptions{try: 1, apart: true}},
		"a panic, alone":                             {panics.ErrPanic, first, true, tryOptions{}},
		"a conflict":                                 {state("40001"), first, false, tryOptions{try: 1, apart: true}},
		"a conflict, alone":                          {state("40001"), first, true, second},
		"a conflict, alone for the third time":       {state("40001"), third, true, tryOptions{}},
		"a row that is gone":                         {state(pg.NoDataFound), first, false, tryOptions{try: 1, apart: true}},
		"a row that cannot be as it is":              {state(pg.InternalError), first, false, tryOptions{try: 1, apart: true}},
		"a row that is gone, alone":                  {state(pg.NoDataFound), first, true, tryOptions{}},
		"a deadlock":                                 {state("40P01"), first, false, second},
		"a deadlock again":                           {state("40P01"), second, false, tryOptions{try: 1, apart: true}},
		"a deadlock, alone":                          {state("40P01"), first, true, second},
		"a lock not had":                             {state("55P03"), first, false, tryOptions{try: 1, skipLocked: true}},
		"a lock not had, with SKIP LOCKED":           {state("55P03"), tryOptions{try: 2, skipLocked: true}, false, tryOptions{try: 1, apart: true}},
		"a lock not had, alone, however often":       {state("55P03"), tryOptions{try: 9}, true, tryOptions{try: 9}},
		"a full disk":                                {state("53100"), first, false, tryOptions{}},
		"a lost connection":                          {pg.ErrConnectionLost, first, false, tryOptions{}},
		"a time that is over":                        {pg.ErrTimeOver, first, false, tryOptions{}},
		"a transaction that the guard did not begin": {errNotBegun, first, false, tryOptions{}},
	} {
		if next := classify(c.txErr, c.options, c.alone); next != c.next {
			t.Errorf("%s: %+v", name, next)
		}
	}
}

// TestTwoWaysToOneOrder: a shipment's order is known only after a look-up; a call that names the same order goes into the next batch.
func TestTwoWaysToOneOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	o := b.confirmed(2)
	first, second := b.shipped(o, 1), b.shipped(o, 1)
	calls := []*call{
		b.call("deliverShipment", deliverShipment{first}), b.call("cancelOrder", cancelOrder{ref: o}), b.call("deliverShipment", deliverShipment{second}),
		b.call("deliverShipment", deliverShipment{order.Ref{Owner: alice, ID: o.ID}}), b.call("deliverShipment", deliverShipment{first}),
	}
	b.executeAll(calls...)
	if got := ends(calls); got != "200, ORD_002, 200, SHP_001, SHP_004" {
		t.Error(got)
	}
	if n := b.count("SELECT version FROM orders"); n != b.count("SELECT count(*) FROM order_events") || n < 3 {
		t.Errorf("version %d", n)
	}
}

// TestABlockedRowDelaysNobodyElse: a call of which a row is locked waits alone, up to its budget; the others of its batch go on.
func TestABlockedRowDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	locked, free := b.placed(), b.placed()
	tx, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = tx.Exec(t.Context(), "SELECT FROM orders WHERE id = $1 FOR UPDATE", pgtestID(locked.ID)); err != nil {
		t.Fatal(err)
	}
	calls := []*call{
		b.call("cancelOrder", cancelOrder{ref: locked}), b.call("cancelOrder", cancelOrder{ref: free}), b.call("placeOrder", b.place("A")), b.call("adjust", adjust("A", 1)),
	}
	b.executeAll(calls...)
	if got := ends(calls); got != "SYS_003, 202, 202, 201" {
		t.Error(got)
	}
	_ = tx.Rollback(t.Context())
	again := b.call("cancelOrder", cancelOrder{ref: locked}, calls[0].Key) // the key is free
	b.executeAll(again)
	if got := got(again); got != "202" {
		t.Error(got)
	}
}

// TestManyWaitersForOneRow: the second in the row's queue waits for its turn and then for the transaction that holds the row. The server
// tells all of them that they did not get the lock; none loses its connection for it.
func TestManyWaitersForOneRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	locked := b.placed()
	tx, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = tx.Exec(t.Context(), "SELECT FROM orders WHERE id = $1 FOR UPDATE", pgtestID(locked.ID)); err != nil {
		t.Fatal(err)
	}
	calls := make([]*call, 6)
	for i := range calls {
		calls[i] = b.call("cancelOrder", cancelOrder{ref: locked})
	}
	b.eachAlone(t.Context(), calls)
	ends := map[string]int{}
	for _, c := range calls {
		if ends[got(c)]++; errors.Is(c.err, pg.ErrConnectionLost) {
			t.Error(got(c), c.err)
		}
	}
	if ends["SYS_003"] < cap(b.Commands.alone) || ends["SYS_003"]+ends["RATE_003"] != len(calls) { // two connections are left to the queue
		t.Error(ends)
	}
}

// Rows that become free one after another delay their own calls, and nobody else.
func TestSeveralHeldRowsDelayNobodyElse(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	var calls []*call
	for i := range 4 {
		r := b.placed()
		time.AfterFunc(time.Duration(i+1)*240*time.Millisecond, b.hold("SELECT FROM orders WHERE id = $1 FOR UPDATE", pgtestID(r.ID)))
		calls = append(calls, b.call("cancelOrder", cancelOrder{ref: r}))
	}
	free := b.call("placeOrder", b.place("B"))
	go b.executeAll(append(calls, free)...)
	<-free.ended
	for _, c := range calls {
		select {
		case <-c.ended:
			t.Error("it waited for a held order")
		default:
		}
	}
	if got(free) != "202" {
		t.Error(got(free), free.err)
	}
	for _, c := range calls {
		if <-c.ended; errors.Is(c.err, pg.ErrConnectionLost) {
			t.Error(c.err)
		}
	}
}

// A command of the same order as another one of its batch, which the batch finds out, waits for that one alone.
func TestADeferredCallWaitsForNoBlockedOne(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	o := b.confirmed(3)
	first, second := b.shipped(o, 1), b.shipped(o, 2)
	defer b.hold("SELECT FROM stock WHERE sku = 'A' FOR UPDATE")()
	calls := []*call{b.call("deliverShipment", deliverShipment{first}), b.call("deliverShipment", deliverShipment{second}), b.call("adjust", adjust("A", 1))}
	b.executeAll(calls...)
	if got := ends(calls); got != "200, 200, SYS_003" {
		t.Error(got, calls[1].err)
	}
}

// The command of a batch that has least time left does not cut the others' writes and COMMIT short.
func TestAnOldNeighbour(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.placed()
	if _, err := db.Pool.Exec(t.Context(), `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
		CREATE TRIGGER slow AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION slow()`); err != nil {
		t.Fatal(err)
	}
	calls := []*call{b.call("placeOrder", b.place("A")), b.call("placeOrder", b.place("B"))}
	calls[0].deadline = time.Now().Add(leastTime + 20*time.Millisecond)
	b.executeAll(calls...)
	if got := ends(calls); got != "202, 202" {
		t.Error(got, calls[1].err)
	}
}

// TestAConflictIsDecidedAgain: somebody who takes no lock appends to an order between our reading and our writing.
func TestAConflictIsDecidedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		times int
		want  string
	}{
		{"once", 1, "202"},
		{"up to the last try", maxTries - 1, "202"},
		{"every time", maxTries + 5, "SYS_002"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			b := setup(t, connect(t, db.PrimaryURL), db)
			op := &conflicting{cancelOrder: cancelOrder{ref: b.placed()}, times: c.times}
			calls := []*call{b.call("cancelOrder", op), b.call("placeOrder", b.place("A"))}
			b.executeAll(calls...)
			if got := ends(calls); got != c.want+", 202" {
				t.Error(got)
			}
			if n := b.count("SELECT count(*) FROM orders"); n != 2 {
				t.Errorf("%d orders", n)
			}
		})
	}
}

// conflicting decides on another version than the row has, some times.
type conflicting struct {
	cancelOrder
	times int
}

func (c *conflicting) decide(l *loaded, rec order.Recorder) (effect, error) {
	if c.times--; c.times < 0 {
		return c.cancelOrder.decide(l, rec)
	}
	change := l.orders[c.ref]
	change.baseVersion++
	change.order.Version-- // its event has the place of one that is there
	return c.cancelOrder.decide(l, rec)
}

// TestCommitThatWasNotHeard: the connection is cut exactly between COMMIT and its answer.
func TestCommitThatWasNotHeard(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	proxy, url := pgtest.Proxy(t, db.PrimaryURL)
	b := setup(t, connect(t, url), db)
	batch := func() []*call {
		return []*call{b.call("placeOrder", b.place("A")), b.call("placeOrder", b.place("NONE")), b.call("adjust", adjust("A", 1))}
	}
	t.Run("what it wrote is found and answered as the first time", func(t *testing.T) {
		cut := proxy.CutAfter(pgtest.PipelinedCommit)
		calls := batch()
		b.executeAll(calls...)
		<-cut
		if got := ends(calls); got != "202, 422, 201" {
			t.Error(got)
		}
		for _, c := range calls {
			again := b.call(c.Operation, c.op, c.Key)
			b.executeAll(again)
			if !again.result.Replayed {
				t.Errorf("%s: %s", c.Operation, got(again))
			}
		}
	})
	t.Run("a COMMIT that never arrived changed nothing: SYS_002, and the key is free", func(t *testing.T) {
		orders := b.count("SELECT count(*) FROM orders")
		proxy.CutBefore(pgtest.PipelinedCommit)
		calls := batch()
		b.executeAll(calls...)
		if got := ends(calls); got != "SYS_002, SYS_002, SYS_002" {
			t.Error(got)
		}
		if n := b.count("SELECT count(*) FROM orders"); n != orders {
			t.Errorf("%d orders more", n-orders)
		}
		again := b.call("placeOrder", b.place("A"), calls[0].Key)
		b.executeAll(again)
		if got := got(again); got != "202" {
			t.Error(got)
		}
	})
	t.Run("a lock that is still held leaves it open: SYS_006", func(t *testing.T) {
		calls := batch()
		tx, err := db.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		row, err := db.Pool.Begin(t.Context()) // the batch waits for this row while it holds its keys
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = row.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err = row.Exec(t.Context(), "SELECT FROM stock WHERE sku = 'A' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		waiting := func(kind string) {
			t.Helper()
			for end := time.Now().Add(10 * time.Second); b.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = '"+kind+"'") == 0; {
				if time.Now().After(end) {
					t.Fatal("nobody waits for ", kind)
				}
			}
		}
		cut := proxy.CutAfter(pgtest.PipelinedCommit)
		ended, locked := make(chan struct{}), make(chan error, 1)
		go func() { defer close(ended); b.executeBatch(t.Context(), calls, tryOptions{try: 1}) }()
		waiting("transactionid")
		// As soon as the server has committed, another session holds one of the keys, as a COMMIT that still waits for a standby would.
		go func() {
			_, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", calls[0].lockID())
			locked <- err
		}()
		waiting("advisory")
		if err := errors.Join(row.Rollback(t.Context()), <-locked); err != nil {
			t.Fatal(err)
		}
		<-cut
		<-ended
		if got := ends(calls); got != "SYS_006, SYS_006, SYS_006" {
			t.Error(got)
		}
	})
}

// TestACommitThatNoStandbyHasIsNotAnswered: giving up on a COMMIT that waits for a synchronous standby makes it visible. Neither the
// look-up nor a repetition of the key may take that for safe.
func TestACommitThatNoStandbyHasIsNotAnswered(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts servers")
	}
	dir, err := devstack.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stack, err := devstack.Start(t.Context(), devstack.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { _, _ = stack.Stop(ctx), devstack.Remove(ctx, dir) })
	if err = sql.Migrate(ctx, stack.PrimaryURL); err != nil {
		t.Fatal(err)
	}
	superuser, err := pgxpool.New(ctx, stack.PrimaryURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(superuser.Close)
	db := &pgtest.DB{Pool: superuser}
	b := setup(t, connect(t, stack.PrimaryURL), db)
	until := func(query string) {
		t.Helper()
		for there, end := false, time.Now().Add(10*time.Second); !there; {
			if err := superuser.QueryRow(ctx, query).Scan(&there); err != nil || time.Now().After(end) {
				t.Fatal(query, err)
			}
		}
	}
	standby := func(names string) {
		t.Helper()
		for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()"} {
			if _, err := db.Pool.Exec(ctx, statement); err != nil {
				t.Fatal(err)
			}
		}
		until("SELECT count(*) = 1 FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = '" + names + "'")
	}
	run := func(calls ...*call) string {
		b.executeAll(calls...)
		return ends(calls)
	}
	earlier := b.call("placeOrder", b.place("A"))
	if got := run(earlier); got != "202" {
		t.Fatal(got)
	}
	standby("nobody")
	first := b.call("placeOrder", b.place("A"))
	again := func() *call { return b.call("placeOrder", first.op, first.Key) }
	for end := time.Now().Add(10 * time.Second); run(first) == "202"; first = b.call("placeOrder", b.place("A")) { // until the server asks for it
		if time.Now().After(end) {
			t.Fatal("a COMMIT waits for no standby")
		}
	}
	if got := got(first); got != "SYS_006" {
		t.Fatal("a COMMIT that no standby has: ", got)
	}
	until("SELECT count(*) = 1 FROM idempotency_keys WHERE key = '" + first.Key + "'") // the server has given up its wait
	until("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'")
	if got := run(again()); got != "SYS_006" {
		t.Error("its repetition: ", got)
	}
	if got := run(again(), b.call("adjust", poison{adjust("A", 1)})); got != "SYS_006, SYS_001" {
		t.Error("its repetition beside a call that is rolled back: ", got)
	}
	standby("")
	if got := run(again()); got != "replayed 202" {
		t.Error("its repetition where no standby is asked for: ", got)
	}
}

func TestAnOldNeighbourFailsAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	old, late, fresh := b.call("placeOrder", b.place("A")), b.call("placeOrder", b.place("A")), b.call("placeOrder", b.place("A"))
	old.deadline, late.deadline = time.Now().Add(leastTime/2), time.Now().Add(-time.Second)
	b.executeAll(old, late, fresh)
	if got := ends([]*call{old, late, fresh}); got != "RATE_003, RATE_003, 202" {
		t.Error(got)
	}
}

// TestATokenNamesARevisionOnlyIfItIsTheLatest: between a COMMIT and the look at the log's position another writer may commit. A token of
// that position with our revision would let a cache serve it to a client that has seen the other writer's.
func TestATokenNamesARevisionOnlyIfItIsTheLatest(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	ref := b.placed()
	at := func(rev int64) *orderChange {
		c := &orderChange{owner: ref.Owner, order: &order.Order{ID: ref.ID}, events: make([]order.Event, 1), baseVersion: 1, rev: rev}
		if lsn := position(t.Context(), b.cfg.Pool, &rows{orders: []*orderChange{c}}); lsn == 0 || lsn == token.NoPosition {
			t.Errorf("position %d", lsn)
		}
		return c
	}
	if at(1).superseded {
		t.Error("the only revision is superseded")
	}
	cancel := b.call("cancelOrder", cancelOrder{ref: ref})
	b.executeAll(cancel)
	if cancel.result.Rev != 2 || at(2).superseded {
		t.Errorf("a token of revision %d", cancel.result.Rev)
	}
	if !at(1).superseded {
		t.Error("an old revision is not superseded")
	}

	// A concurrent commit lands just before the log's position is read.
	config := b.cfg.Pool.Config()
	rivals := true
	config.ConnConfig.Tracer = concurrentWriter(func() (sql string, arguments []any) { return "UPDATE orders SET rev = rev + 1 WHERE $1", []any{rivals} })
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	c := b.cfg
	written := 0
	c.Pool, c.WriteThrough = pool, func(_ context.Context, states []Committed) { written += len(states) }
	raced := &bundle{Commands: New(c), t: t, db: db}
	run := func() (placed, awaited Result) {
		one := raced.call("placeOrder", raced.place("A"), fmt.Sprint("raced-", rivals))
		raced.executeAll(one)
		awaited = raced.await(t.Context(), one.result, time.Second, func(ctx context.Context) (Result, bool, error) {
			return raced.decidedOrder(ctx, alice, one.result, 201, func(*order.Order) bool { return true })
		})
		reply := outbox.New(inventory.TopicReplies, inventory.ReserveRefused, order.Ref{Owner: alice, ID: one.result.OrderID},
			outbox.Cause{ID: testIDs.Mint(time.Now(), 1), Now: time.Now()}, inventory.Reply{Attempt: 1})
		payload, _ := json.Marshal(reply.Envelope)
		var after func()
		if err := pg.InPipeline(t.Context(), pool, func(*pgx.Batch) {}, func(tx pgx.Tx, ends *pg.Ends) error {
			h, err := raced.Saga(pool, nil).handler(applyStockReply)(t.Context(), tx, []bus.Message{{ID: reply.ID, Topic: reply.Topic, Payload: payload}}, false)
			*ends, after = h.Ends, h.After
			return err
		}); err != nil {
			t.Fatal(err)
		}
		after()
		return one.result, awaited
	}
	if placed, awaited := run(); placed.Rev != 0 || placed.LSN == 0 || awaited.Rev != 0 || awaited.Status != 201 || written != 0 {
		t.Errorf("superseded: revisions %d and %d, %d states written through", placed.Rev, awaited.Rev, written)
	}
	rivals = false
	if placed, awaited := run(); placed.Rev != 1 || awaited.Rev != 1 || written != 2 {
		t.Errorf("without a concurrent writer: revisions %d and %d, %d states written through", placed.Rev, awaited.Rev, written)
	}
}

// concurrentWriter runs a statement at the moment before the log's position is read, behind a COMMIT.
type concurrentWriter func() (sql string, arguments []any)

func (concurrentWriter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (concurrentWriter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r concurrentWriter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	if i := slices.IndexFunc(d.Batch.QueuedQueries, func(q *pgx.QueuedQuery) bool { return q.SQL == ordersdb.FlushLSN }); i >= 0 {
		sql, arguments := r()
		d.Batch.QueuedQueries = slices.Insert(d.Batch.QueuedQueries, i, &pgx.QueuedQuery{SQL: sql, Arguments: arguments})
	}
	return ctx
}

func (concurrentWriter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (concurrentWriter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TestOwnQueueingIsNotThePrimarysFailure: commands that wait for a turn longer than their budget allows are refused with RATE_003, and
// the breaker stays closed.
func TestOwnQueueingIsNotThePrimarysFailure(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	pool := connect(t, db.PrimaryURL)
	b := setup(t, pool, db)
	taken, release := make(chan struct{}), make(chan struct{})
	var busy, all sync.WaitGroup
	for range pool.Config().MaxConns / 2 {
		busy.Go(func() {
			_ = b.guard.Do(t.Context(), func(context.Context) error { taken <- struct{}{}; <-release; return nil })
		})
		<-taken
	}
	calls := make([]*call, 100)
	for i := range calls {
		calls[i] = b.call("placeOrder", b.place("A"))
		all.Go(func() { b.alone(calls[i]) })
	}
	late := b.call("placeOrder", b.place("A")) // its turn comes, but too late for a transaction
	all.Wait()
	late.deadline = time.Now().Add(leastTime + 20*time.Millisecond)
	all.Go(func() { b.executeAll(late) })
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	all.Wait()
	busy.Wait()
	for _, c := range slices.Concat(calls, []*call{late}) {
		if got := got(c); got != "RATE_003" {
			t.Error(got, c.err)
		}
	}
	if c := b.call("placeOrder", b.place("A")); true { // an open breaker would refuse it
		b.executeAll(c)
		if got := got(c); got != "202" {
			t.Error(got)
		}
	}
}

// TestASilentPrimaryIsItsFailure: connections that get no answer keep their places in the pool for a while. That is no queue of ours.
func TestASilentPrimaryIsItsFailure(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	proxy, url := pgtest.Proxy(t, db.PrimaryURL)
	pool := connect(t, url)
	t.Cleanup(proxy.Cut) // else closing the pool would wait
	b := setup(t, pool, db)
	wave := func() map[string]int {
		ends := map[string]int{}
		calls := make([]*call, pool.Config().MaxConns/2)
		var all sync.WaitGroup
		for i := range calls {
			calls[i] = b.call("placeOrder", b.place("A"))
			all.Go(func() { b.executeAll(calls[i : i+1]...) })
		}
		all.Wait()
		for _, c := range calls {
			ends[got(c)]++
		}
		return ends
	}
	if ends := wave(); len(ends) != 1 || ends["202"] == 0 {
		t.Fatal(ends)
	}
	proxy.Freeze()
	for open, n := false, 0; !open; n++ {
		ends := wave()
		open = ends["SYS_002"] > 0
		if n > 20 {
			t.Fatal("wave ", n, ": ", ends)
		}
	}
}

// TestEveryColumnIsWritten: a column that rows.go forgets would be NULL in the array's place.
func TestEveryColumnIsWritten(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	b := setup(t, connect(t, db.PrimaryURL), db)
	b.placed()
	o := b.confirmed(2)
	b.executeAll(b.call("deliverShipment", deliverShipment{b.shipped(o, 1)}))
	b.executeAll(b.call("shipOrder", shipOrder{o, api.ShipOrder{Tracking: &api.ShipOrderTracking{Carrier: "c", Number: "n"}}}))
	for table, optional := range map[string][]string{
		"orders": nil, "order_events": nil, "idempotency_keys": nil, "outbox": nil, "sagas": nil, "saga_steps": {"started_at", "finished_at"},
		"shipments": {"tracking", "delivered_at"}, "resource_events": nil,
	} {
		rows, err := db.Pool.Query(t.Context(), "SELECT key FROM (SELECT (jsonb_each(to_jsonb(r))).* FROM "+table+" r) c WHERE value = 'null'")
		if err != nil {
			t.Fatal(err)
		}
		empty, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, column := range empty {
			if !slices.Contains(optional, column) {
				t.Errorf("%s.%s is null", table, column)
			}
		}
	}
	if err := outbox.Send(t.Context(), db.Pool, nil); err != nil {
		t.Error(err)
	}
}

func pgtestID(id order.ID) string { return id.Format("") }
