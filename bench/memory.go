package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// copies makes orders and returns their paths: one of three lines is placed, the others are copies of its row under ids of ours.
func (b *readBench) copies(ctx context.Context, n int) []string {
	w := dial(b.addr)
	defer func() { _ = w.Close() }()
	draft := b.draft(0)
	draft.Lines = append(draft.Lines, api.PlaceOrderLine{Sku: b.skus[1], Quantity: 3})
	body := try(json.Marshal(draft))
	request := fmt.Appendf(nil, "POST /v1/orders HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
		b.addr, b.authorization(), uuid.NewString(), len(body), body)
	for must(w.do(request)); w.retryable(); must(w.do(request)) {
		pause(ctx, 100*time.Millisecond)
	}
	if !w.hasStatus("202") {
		must(fmt.Errorf("place over HTTP: %s%s", w.head, w.body))
	}
	var placed api.Order
	must(json.Unmarshal(w.body, &placed))
	ids, paths, own := make([]uuid.UUID, n), make([]string, n), order.NewIDs(app.SecretFor(secret, "ids"))
	for i := range ids {
		id := own.Mint(time.Now(), b.owner.Account)
		ids[i], paths[i] = uuid.UUID(id), "/v1/orders/"+id.Format(order.PrefixOrder)
	}
	original, ok := order.Parse(order.PrefixOrder, placed.ID)
	if !ok {
		must(fmt.Errorf("an id that is none: %s", placed.ID))
	}
	must(pg.InTx(ctx, b.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica") // no change by hand: the caches are not told of it
		if err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object('id', copy))).* "+
				"FROM orders o, unnest($1::uuid[]) copy WHERE o.id = $2", ids, uuid.UUID(original))
		}
		return err
	}))
	replica := try(pgx.Connect(ctx, os.Getenv("ORDERGATE_TEST_REPLICA")))
	defer func() { _ = replica.Close(ctx) }()
	for there := false; !there; pause(ctx, 10*time.Millisecond) {
		must(replica.QueryRow(ctx, "SELECT count(*) > 0 FROM orders WHERE id = $1", ids[n-1]).Scan(&there))
	}
	return paths
}

// readOnce reads each path, once unless the machine has too much to do.
func (b *readBench) readOnce(ctx context.Context, server *process, paths []string) {
	next := make(chan string, len(paths))
	for _, path := range paths {
		next <- path
	}
	overHTTP(ctx, server.addr, readClients, func() bool { return len(next) > 0 }, func(_ int, w *wire) error {
		select {
		case path := <-next:
			err := w.do(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, server.addr, b.authorization()))
			switch {
			case err != nil, w.hasStatus("200"):
				return err
			case w.retryable():
				next <- path
				return errRefused
			}
			return fmt.Errorf("read over HTTP: %s%s", w.head, w.body)
		default:
			return nil
		}
	})
}

// fill fills the gateway's LRU, once, and measures what its entries take. What a first read leaves besides, of connections and pools, is
// made before.
func (b *readBench) fill(ctx context.Context) []figure {
	if b.filled != nil {
		return b.filled
	}
	first, entries := 2000, 47_500
	if b.pace.rounds == quick.rounds {
		first, entries = 50, 500
	}
	b.readOnce(ctx, b.serving, b.copies(ctx, first))
	heap := func() float64 {
		b.serving.collect()
		return b.serving.metric("go_memstats_heap_alloc_bytes")
	}
	paths, before := b.copies(ctx, entries), heap()
	b.readOnce(ctx, b.serving, paths)
	each, payload := (heap()-before)/float64(entries), float64(len(b.answer(paths[0]).Body))
	b.filled = []figure{{
		Name: "bytes per cached order / its payload", Value: round(each / payload), Goal: "<= 1.25", Load: loadNow(),
		Note: fmt.Sprintf("%.0f / %.0f bytes, %d orders of 3 lines", each, payload, entries),
	}}
	return b.filled
}

// measureMemory measures the entries of the LRU, and beside that a gateway that does nothing.
func measureMemory(ctx context.Context, b *readBench) []figure {
	idle := 20 * time.Second
	if b.pace.rounds == quick.rounds {
		idle = time.Second
	}
	addr, begin := freeAddr(), time.Now()
	server := b.child(ctx, addr, []string{"ORDERGATE_ADDR=" + addr, b.spans}, program, "serve")
	defer server.end()
	figures := b.fill(ctx)
	pause(ctx, idle-time.Since(begin))
	return append(figures, figure{
		Name: "RSS of an idle gateway, MB", Value: round(server.memory().rss / 1024), Goal: "<= 64", Load: loadNow(),
		Note: fmt.Sprintf("after %.0f s; of the one with a full LRU %.0f", time.Since(begin).Seconds(), b.serving.memory().rss/1024),
	})
}
