package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/bus"
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
func (f fixture) handle(commands ...Command) string {
	f.t.Helper()
	msgs := make([]bus.Message, len(commands))
	for i, c := range commands {
		c.Owner, c.Attempt = alice, 1
		payload, _ := json.Marshal(c)
		msgs[i] = bus.Message{ID: uuid.New(), Topic: TopicCommands, Key: c.OrderID.Format(order.PrefixOrder), Payload: payload}
	}
	var kinds []string
	err := pg.InTx(f.t.Context(), f.cfg.Pool, func(tx pgx.Tx) error {
		if _, err := f.Handle(f.t.Context(), tx, msgs); err != nil {
			return err
		}
		rows, err := tx.Query(f.t.Context(), "DELETE FROM outbox RETURNING id, payload::jsonb->>'kind'")
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

func reserve(id order.ID, quantity int64) Command {
	return Command{Kind: Reserve, OrderID: id, Lines: []Line{{"B", quantity}, {"A", quantity}}}
}

func TestCommandsEndAsTheyMust(t *testing.T) {
	t.Parallel()
	id := ids.Mint(time.Now(), 1)
	r, c, x := reserve(id, 2), Command{Kind: Confirm, OrderID: id}, Command{Kind: Cancel, OrderID: id}
	for _, test := range []struct {
		name     string
		commands []Command
		replies  string
		level    string
	}{
		{"reserved pieces are held", []Command{r}, "reserved", "3 2"},
		{"a repeated reserve says nothing again", []Command{r, r}, "reserved", "3 2"},
		{"confirmed pieces are gone", []Command{r, c}, "reserved confirmed", "1 0"},
		{"a repeated confirm says nothing again", []Command{r, c, c}, "reserved confirmed", "1 0"},
		{"a cancelled reservation is free", []Command{r, x}, "reserved cancelled", "3 0"},
		{"a confirmed one is given back", []Command{r, c, x}, "reserved confirmed cancelled", "3 0"},
		{"a cancel is not given back twice", []Command{r, c, x, x}, "reserved confirmed cancelled", "3 0"},
		{"a confirm after a cancel is refused", []Command{r, x, c}, "reserved cancelled confirm_refused", "3 0"},
		{"a confirm of nothing is refused", []Command{c}, "confirm_refused", "3 0"},
		{"a cancel before its reserve refuses it", []Command{x, r}, "cancelled reserve_refused", "3 0"},
		{"what does not fit is refused as a whole", []Command{reserve(id, 4)}, "reserve_refused", "3 0"},
		{"a refused one can be cancelled", []Command{reserve(id, 4), x}, "reserve_refused cancelled", "3 0"},
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
	var batch []Command
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
	f.handle(Command{Kind: Confirm, OrderID: confirmedLate})
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
	if got := fmt.Sprint(f.level("A"), " ", f.handle(Command{Kind: Confirm, OrderID: late})); got != "3 0 confirm_refused" && got != "3 0 expired confirm_refused" {
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
