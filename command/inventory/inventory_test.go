package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/order"
)

var (
	alice = order.Owner{Account: 1, Mode: "test"}
	ids   = order.NewIDs([]byte("k"))
)

type fixture struct {
	*Inventory
	t *testing.T
}

func setup(t *testing.T, onHand int64) fixture {
	t.Helper()
	db := pgtest.New(t)
	err := inventorydb.New(db.Pool).InsertStock(t.Context(), inventorydb.InsertStockParams{
		Account: 1, Mode: "test", Skus: []string{"A", "B"}, OnHand: []int64{onHand, onHand},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fixture{New(Config{Pool: db.Pool, IDs: ids, TTL: time.Hour, Wake: func() {}, Log: zap.NewNop()}), t}
}

// handle takes commands as one batch and returns the replies' kinds, in order.
func (f fixture) handle(commands ...sent) string {
	f.t.Helper()
	msgs := make([]bus.Message, len(commands))
	for i, c := range commands {
		m := outbox.New(TopicCommands, c.kind, order.Ref{Owner: alice, ID: c.id}, outbox.Cause{ID: ids.Mint(time.Now(), 1), Now: time.Now()}, Command{1, c.lines})
		payload, _ := json.Marshal(m.Envelope)
		msgs[i] = bus.Message{ID: m.ID, Topic: m.Topic, Key: m.OrderID, Payload: payload}
	}
	var kinds []string
	err := pg.InTx(f.t.Context(), f.cfg.Pool, func(tx pgx.Tx) error {
		if _, err := f.Handle(f.t.Context(), tx, msgs); err != nil {
			return err
		}
		rows, err := tx.Query(f.t.Context(), "DELETE FROM outbox RETURNING id, replace(payload::jsonb->>'type', 'inventory.', '')")
		if err != nil {
			return err
		}
		byID, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
			ID   int64
			Kind string
		}])
		for _, r := range byID {
			kinds = append(kinds, r.Kind)
		}
		return err
	})
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
		t.Error(n, again, err)
	}
	if got := fmt.Sprint(f.level("A"), " ", f.handle(sent{kind: Confirm, id: late})); got != "3 0 confirm_refused" && got != "3 0 expired confirm_refused" {
		t.Error(got)
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
