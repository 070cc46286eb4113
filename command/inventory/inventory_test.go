package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

var (
	alice = order.Owner{Account: 1, Mode: "test"}
	ids   = order.NewIDs([]byte("k"))

	testRec = order.Recorder{NewID: func() order.ID { return ids.Mint(time.Now(), 1) }, Now: time.Now(), Cause: order.Cause{Actor: "key_1"}}
)

func item(sku string) order.Item { return order.Item{Owner: alice, SKU: sku} }

type fixture struct {
	*Inventory
	t *testing.T
}

func setup(t *testing.T, onHand int64) fixture {
	t.Helper()
	db := pgtest.New(t)
	err := pg.InTx(t.Context(), db.Pool, func(tx pgx.Tx) error {
		return Open(t.Context(), tx, testRec, Opening{item("A"), onHand, -1}, Opening{item("B"), onHand, -1})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{New(Config{Pool: db.Pool, IDs: ids, TTL: time.Hour, Wake: func() {}, Log: zap.NewNop()}), t}
}

// handle takes commands as one batch and returns the replies' kinds.
func (f fixture) handle(commands ...sent) string {
	f.t.Helper()
	if err := f.apply(commands...); err != nil {
		f.t.Fatal(err)
	}
	return f.outbox()
}

func (f fixture) apply(commands ...sent) error {
	return f.applyUntil(func() {}, commands...)
}

// applyUntil takes commands in a transaction that commits when hold returns.
func (f fixture) applyUntil(hold func(), commands ...sent) error {
	return pg.InTx(f.t.Context(), f.cfg.Pool, func(tx pgx.Tx) error {
		h, err := f.Handle(f.t.Context(), tx, messages(commands), false)
		if err == nil {
			err = h.Ends.Last.Send(f.t.Context(), tx)
		}
		hold()
		if err == nil && len(h.Blocked) > 0 {
			err = errors.New("blocked")
		}
		return err
	})
}

func messages(commands []sent) []bus.Message {
	msgs := make([]bus.Message, len(commands))
	for i, c := range commands {
		m := outbox.New(TopicCommands, c.kind, order.Ref{Owner: alice, ID: c.id}, outbox.Cause{ID: ids.Mint(time.Now(), 1), Now: time.Now()}, Command{1, c.lines})
		payload, _ := json.Marshal(m.Envelope)
		msgs[i] = bus.Message{ID: m.ID, Topic: m.Topic, Key: m.OrderID, Payload: payload}
	}
	return msgs
}

// outbox takes what was sent and returns its kinds, in order.
func (f fixture) outbox() string {
	f.t.Helper()
	rows, err := f.cfg.Pool.Query(f.t.Context(), `WITH sent AS (DELETE FROM outbox RETURNING id, payload)
		SELECT replace(payload::jsonb->>'type', 'inventory.', '') FROM sent ORDER BY id`)
	if err != nil {
		f.t.Fatal(err)
	}
	kinds, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.Join(kinds, " ")
}

func (f fixture) level(sku string) (s string) {
	f.t.Helper()
	if err := f.cfg.Pool.QueryRow(f.t.Context(), "SELECT on_hand || ' ' || reserved FROM stock WHERE sku = $1", sku).Scan(&s); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// sent is a command about an order.
type sent struct {
	kind  string
	id    order.ID
	lines []Line
}

func reserve(id order.ID, quantity int64) sent {
	return sent{Reserve, id, []Line{{"B", quantity}, {"A", quantity}}}
}

func TestCommandsEndAsTheyMust(t *testing.T) {
	t.Parallel()
	id := ids.Mint(time.Now(), 1)
	r, c, x := reserve(id, 2), sent{kind: Confirm, id: id}, sent{kind: Cancel, id: id}
	for _, test := range []struct {
		name     string
		commands []sent
		replies  string
		level    string
	}{
		{"reserved pieces are held", []sent{r}, "reserved", "3 2"},
		{"a repeated reserve says nothing again", []sent{r, r}, "reserved", "3 2"},
		{"confirmed pieces are gone", []sent{r, c}, "reserved confirmed", "1 0"},
		{"a repeated confirm says nothing again", []sent{r, c, c}, "reserved confirmed", "1 0"},
		{"a cancelled reservation is free", []sent{r, x}, "reserved cancelled", "3 0"},
		{"a confirmed one is given back", []sent{r, c, x}, "reserved confirmed cancelled", "3 0"},
		{"a cancel is not given back twice", []sent{r, c, x, x}, "reserved confirmed cancelled", "3 0"},
		{"a confirm after a cancel is refused", []sent{r, x, c}, "reserved cancelled confirm_refused", "3 0"},
		{"a confirm of nothing is refused", []sent{c}, "confirm_refused", "3 0"},
		{"a cancel before its reserve refuses it", []sent{x, r}, "cancelled reserve_refused", "3 0"},
		{"what does not fit is refused as a whole", []sent{reserve(id, 4)}, "reserve_refused", "3 0"},
		{"a refused one can be cancelled", []sent{reserve(id, 4), x}, "reserve_refused cancelled", "3 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, 3)
			var replies []string
			for _, cmd := range test.commands {
				if kinds := f.handle(cmd); kinds != "" {
					replies = append(replies, kinds)
				}
			}
			if got := strings.Join(replies, " "); got != test.replies || f.level("A") != test.level || f.level("B") != test.level {
				t.Errorf("%s, A %s, B %s", got, f.level("A"), f.level("B"))
			}
		})
	}
}

// TestTheFirstOfTwoCommandsAtOnceDecides: a transaction has taken one command and has not committed when another takes the second one of
// the same reservation. It waits, and decides on what the first left. Where both make the reservation, the second fails on its key and comes
// again, as every message does.
func TestTheFirstOfTwoCommandsAtOnceDecides(t *testing.T) {
	t.Parallel()
	id := ids.Mint(time.Now(), 1)
	r, c, x, e := reserve(id, 2), sent{kind: Confirm, id: id}, sent{kind: Cancel, id: id}, sent{kind: Expire, id: id}
	for name, test := range map[string]struct {
		before        []sent
		first, second sent
		replies       string
		level         string
		status        string
	}{
		"a cancel before its reserve refuses it":  {nil, x, r, "cancelled reserve_refused", "3 0", StatusCancelled},
		"a cancel after its reserve frees it":     {nil, r, x, "reserved cancelled", "3 0", StatusCancelled},
		"a reserve twice holds once":              {nil, r, r, "reserved", "3 2", StatusHeld},
		"a confirm before the expiry takes":       {[]sent{r}, c, e, "confirmed", "1 0", StatusConfirmed},
		"an expiry before the confirm refuses it": {[]sent{r}, e, c, "expired confirm_refused", "3 0", StatusExpired},
		"a confirm before a cancel is given back": {[]sent{r}, c, x, "confirmed cancelled", "3 0", StatusCancelled},
		"a cancel before the confirm refuses it":  {[]sent{r}, x, c, "cancelled confirm_refused", "3 0", StatusCancelled},
		"an expiry before a cancel frees once":    {[]sent{r}, e, x, "expired cancelled", "3 0", StatusExpired},
		"a cancel before the expiry frees once":   {[]sent{r}, x, e, "cancelled", "3 0", StatusCancelled},
		"a confirm twice takes once":              {[]sent{r}, c, c, "confirmed", "1 0", StatusConfirmed},
		"an expiry twice frees once":              {[]sent{r}, e, e, "expired", "3 0", StatusExpired},
		"a cancel twice gives back only once":     {[]sent{r, c}, x, x, "cancelled", "3 0", StatusCancelled},
		"an expiry after a cancel gives nothing":  {[]sent{r, c}, x, e, "cancelled", "3 0", StatusCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, 3)
			for _, before := range test.before {
				f.handle(before)
			}
			taken, commit := make(chan struct{}), make(chan struct{})
			first, second := make(chan error, 1), make(chan error, 1)
			go func() { first <- f.applyUntil(func() { close(taken); <-commit }, test.first) }()
			<-taken
			go func() { second <- f.apply(test.second) }()
			for end, waiting := time.Now().Add(20*time.Second), 0; waiting == 0; <-time.After(time.Millisecond) {
				err := f.cfg.Pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()").Scan(&waiting)
				if err != nil || time.Now().After(end) {
					t.Fatal("the second does not wait for the first", err)
				}
			}
			close(commit)
			err := <-second
			if taken, ok := errors.AsType[*pgconn.PgError](err); ok && taken.Code == "23505" && test.before == nil {
				err = f.apply(test.second)
			}
			if err = errors.Join(<-first, err); err != nil {
				t.Fatal(err)
			}
			var status string
			if err := f.cfg.Pool.QueryRow(t.Context(), "SELECT status FROM stock_reservations").Scan(&status); err != nil {
				t.Fatal(err)
			}
			if got := f.outbox(); got != test.replies || f.level("A") != test.level || f.level("B") != test.level || status != test.status {
				t.Errorf("%s, %s, A %s, B %s", got, status, f.level("A"), f.level("B"))
			}
		})
	}
}

func TestBatchRefusesOnlyWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	f := setup(t, 5)
	var batch []sent
	for _, quantity := range []int64{2, 2, 2, 1, 1} {
		batch = append(batch, reserve(ids.Mint(time.Now(), 1), quantity))
	}
	if got := f.handle(batch...); got != "reserved reserved reserve_refused reserved reserve_refused" {
		t.Error(got)
	}
	if f.level("A") != "5 5" {
		t.Error(f.level("A"))
	}
}

func TestExpireIsDecidedOnTheStatus(t *testing.T) {
	t.Parallel()
	f := setup(t, 5)
	late, confirmedLate := ids.Mint(time.Now(), 1), ids.Mint(time.Now(), 1)
	f.handle(reserve(late, 1), reserve(confirmedLate, 2))
	f.handle(sent{kind: Confirm, id: confirmedLate})
	if n, err := f.Expire(t.Context()); n != 0 || err != nil {
		t.Error("nothing is late:", n, err)
	}
	if _, err := f.cfg.Pool.Exec(t.Context(), "UPDATE stock_reservations SET expires_at = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	n, err := f.Expire(t.Context())
	again, _ := f.Expire(t.Context())
	if n != 1 || again != 0 || err != nil {
		t.Error("each is sent once:", n, again, err)
	}
	if got := f.outbox(); got != "expire" {
		t.Errorf("sent %q", got)
	}
	expire := func(id order.ID) string { return f.handle(sent{kind: Expire, id: id}) }
	if got := expire(late) + expire(late) + expire(confirmedLate) + expire(ids.Mint(time.Now(), 1)); got != "expired" || f.level("A") != "3 0" {
		t.Error(got, f.level("A"))
	}
	if got := f.handle(sent{kind: Confirm, id: late}); got != "confirm_refused" {
		t.Error(got)
	}
}

// A jump of the database's clock leaves reservations that were made in the future. They last as long as they were to; one that was made
// under a longer time of life keeps it.
func TestReservationsSurviveAJumpOfTheClock(t *testing.T) {
	t.Parallel()
	f := setup(t, 5)
	jumped, longer := ids.Mint(time.Now(), 1), ids.Mint(time.Now(), 1)
	f.handle(reserve(jumped, 1), reserve(longer, 1))
	for id, statement := range map[order.ID]string{
		jumped: "UPDATE stock_reservations SET created_at = created_at + interval '5 hours', expires_at = expires_at + interval '5 hours' WHERE order_id = $1",
		longer: "UPDATE stock_reservations SET expires_at = expires_at + interval '5 hours' WHERE order_id = $1",
	} {
		if _, err := f.cfg.Pool.Exec(t.Context(), statement, id[:]); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := f.Expire(t.Context()); n != 0 || err != nil {
		t.Error(n, err)
	}
	left := func(id order.ID) (hours float64) {
		if err := f.cfg.Pool.QueryRow(t.Context(), "SELECT extract(epoch FROM expires_at - now()) / 3600 FROM stock_reservations WHERE order_id = $1", id[:]).Scan(&hours); err != nil {
			t.Fatal(err)
		}
		return hours
	}
	if j, l := left(jumped), left(longer); j > 1.01 || j < 0.9 || l < 5 { // the time of life is an hour
		t.Errorf("they last %.2f and %.2f hours", j, l)
	}
}

// A hand in the database may leave a reservation whose stock cannot be moved. It fails alone, in its own command; if the row is gone and has
// events, it waits until `ordergate replay` has brought the row back.
func TestStockThatCannotBeMovedIsAnError(t *testing.T) {
	t.Parallel()
	for statement, want := range map[string]string{
		"UPDATE stock SET reserved = 0 WHERE sku = 'A'": "1 of 2 rows of stock",
		"DELETE FROM stock WHERE sku = 'A'":             "blocked",
	} {
		f := setup(t, 5)
		broken, sound := ids.Mint(time.Now(), 1), ids.Mint(time.Now(), 1)
		f.handle(reserve(broken, 1), sent{Reserve, sound, []Line{{"B", 1}}})
		for _, s := range []string{statement, "UPDATE stock_reservations SET expires_at = now() - interval '1 second'"} {
			if _, err := f.cfg.Pool.Exec(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := f.Expire(t.Context()); n != 2 || err != nil {
			t.Errorf("%s: %d sent, %v", statement, n, err)
		}
		f.outbox()
		if err := f.apply(sent{kind: Expire, id: broken}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", statement, err)
		}
		if got := f.handle(sent{kind: Expire, id: sound}); got != "expired" || f.level("B") != "5 1" {
			t.Errorf("%s: the other one: %s, B %s", statement, got, f.level("B"))
		}
	}
}

// A server that falls silent ends no connection: only our own limit tells that it is away.
func TestASilentDatabaseIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()
	proxy, pool := pgtest.New(t).BehindProxy(t)
	inv := New(Config{Pool: pool, IDs: ids, TTL: time.Hour, Wake: func() {}, Log: zap.NewNop()})
	if n, err := inv.Expire(t.Context()); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	proxy.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := inv.Expire(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("expiry waits for a silent database: %v", err)
	}
}

// TestLowStockIsToldOnce: each move that takes what can still be sold from above the threshold to it or below is an event, and no other.
// With the adjustments these events are the chain of the stock row.
func TestLowStockIsToldOnce(t *testing.T) {
	t.Parallel()
	f := setup(t, 5)
	lowAt := func(sku string, n int64) {
		t.Helper()
		f.change(sku, func(l *Level) error { l.SetLowAt(testRec, n); return nil })
	}
	adjust := func(delta int64) {
		t.Helper()
		f.change("A", func(l *Level) error { return l.Adjust(testRec, testRec.NewID(), delta, "counted") })
	}
	lowAt("A", 3)
	id := func() order.ID { return ids.Mint(time.Now(), 1) }
	first, second := id(), id()
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"above it: none", func() { f.handle(reserve(first, 1)) }, ""},
		{"to it", func() { f.handle(reserve(second, 1)) }, "low 5 2 3 3"},
		{"below it: no other", func() { f.handle(reserve(id(), 1)) }, ""},
		{"a confirmation sells what was held: none", func() { f.handle(sent{kind: Confirm, id: first}) }, ""},
		{"a cancellation brings it back to the threshold, not above: none", func() { f.handle(sent{kind: Cancel, id: second}) }, ""},
		{"an adjustment above: its own event", func() { adjust(3) }, "adjusted 7 1"},
		{"an adjustment to below", func() { adjust(-5) }, "adjusted 2 1, low 2 1 1 3"},
		{"a threshold at it says nothing again", func() { lowAt("A", 1) }, ""},
		{"a threshold below it: none", func() { lowAt("A", 0) }, ""},
		{"a batch that crosses twice: each time", func() {
			r := id()
			f.handle(reserve(r, 1))
			f.outbox()
			f.handle(sent{kind: Cancel, id: r}, reserve(id(), 1))
		}, "low 2 2 0 0, low 2 2 0 0"},
		{"no threshold", func() { lowAt("A", -1); adjust(1); adjust(-1) }, "adjusted 3 2, adjusted 2 2"},
	} {
		before := len(f.history("A"))
		step.do()
		f.outbox()
		var words []string
		for _, e := range f.history("A")[before:] {
			var d struct {
				OnHand    int64  `json:"on_hand"`
				Reserved  int64  `json:"reserved"`
				Available *int64 `json:"available"`
				LowAt     int64  `json:"low_stock_at"`
			}
			if err := json.Unmarshal(e.Payload, &d); err != nil {
				t.Fatal(err)
			}
			word := fmt.Sprint(strings.TrimPrefix(e.Type, "inventory."), " ", d.OnHand, " ", d.Reserved)
			if d.Available != nil {
				word += fmt.Sprint(" ", *d.Available, " ", d.LowAt)
			}
			words = append(words, word)
		}
		if got := strings.Join(words, ", "); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	history := f.history("A")
	if err := (order.Resource{Owner: alice, Kind: order.KindInventory, ID: "A"}).Verify(history); err != nil {
		t.Error(err)
	}
	var version int64
	var hash []byte
	if err := f.cfg.Pool.QueryRow(t.Context(), "SELECT version, head_hash FROM stock WHERE sku = 'A'").Scan(&version, &hash); err != nil {
		t.Fatal(err)
	}
	if last := history[len(history)-1]; version != last.Version || string(hash) != string(last.Hash) {
		t.Errorf("the row is at version %d, the last event %d", version, last.Version)
	}
	if cause := history[1].Cause; cause.Operation != TopicCommands || cause.Actor != "saga" {
		t.Errorf("%+v", cause)
	}
}

// change changes a level in a transaction of its own.
func (f fixture) change(sku string, change func(*Level) error) {
	f.t.Helper()
	if err := pg.InTx(f.t.Context(), f.cfg.Pool, func(tx pgx.Tx) error {
		stock, err := Lock(f.t.Context(), tx, []order.Item{item(sku)}, false)
		if err == nil {
			err = change(stock[item(sku)])
		}
		if err != nil {
			return err
		}
		return stock.Write(f.t.Context(), tx)
	}); err != nil {
		f.t.Fatal(err)
	}
}

// history are the events of a sku's stock.
func (f fixture) history(sku string) []order.Event {
	f.t.Helper()
	rows, err := f.cfg.Pool.Query(f.t.Context(), `SELECT sequence, id, type, schema_version, payload, trace_id, operation, actor, created_at, prev_hash, hash
		FROM resource_events WHERE kind = 'inventory' AND resource = $1 ORDER BY sequence`, sku)
	if err != nil {
		f.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e order.Event, err error) {
		var payload string
		err = row.Scan(&e.Version, (*[16]byte)(&e.ID), &e.Type, &e.Schema, &payload, &e.Cause.TraceID, &e.Cause.Operation, &e.Cause.Actor, &e.At, &e.PrevHash, &e.Hash)
		e.Payload = []byte(payload)
		return e, err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// A reservation that another transaction holds keeps only the commands of its order waiting.
func TestAHeldReservationDelaysOnlyItsOrder(t *testing.T) {
	t.Parallel()
	f := setup(t, 5)
	heldOrder, free := ids.Mint(time.Now(), 1), ids.Mint(time.Now(), 1)
	f.handle(reserve(heldOrder, 1), reserve(free, 1))
	holder, err := f.cfg.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err = holder.Exec(t.Context(), "SELECT FROM stock_reservations WHERE order_id = $1 FOR UPDATE", heldOrder[:]); err != nil {
		t.Fatal(err)
	}
	msgs := messages([]sent{{kind: Cancel, id: heldOrder}, {kind: Cancel, id: free}, {kind: Cancel, id: ids.Mint(time.Now(), 1)}})
	if err = pg.InPipeline(t.Context(), f.cfg.Pool, func(*pgx.Batch) {}, func(tx pgx.Tx, ends *pg.Ends) error {
		h, err := f.Handle(t.Context(), tx, msgs, true)
		*ends = h.Ends
		if len(h.Blocked) != 1 || h.Blocked[0].ID != msgs[0].ID {
			t.Errorf("%d are blocked", len(h.Blocked))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := f.outbox(); got != "cancelled cancelled" {
		t.Error(got)
	}
}
