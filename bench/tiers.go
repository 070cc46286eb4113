package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/order"
)

// measureTiers compares gateways whose LRU cannot help with bare handlers that ask Redis, or the replica, for the same row and no more; and
// gateways with and without parts of the read side with each other.
func measureTiers(ctx context.Context, b *readBench) (figures []figure) {
	orders, skus := b.copies(ctx, 2000), slices.Clone(b.skus)
	for i, sku := range skus {
		skus[i] = "/v1/products/" + sku
	}
	answer := b.answer(b.orders[0])
	fromRedis := b.variant(ctx, variant{Name: "redis", LRUSize: noLRU, Redis: true, SKUsSeen: true}, orders, "redis")
	fromLRU := b.variant(ctx, variant{Name: "lru", LRUSize: wholeLRU, Redis: true, SKUsSeen: true}, orders[:200], "")
	fromReplica := b.variant(ctx, variant{Name: "replica", LRUSize: noLRU}, orders, "replica")
	checked := b.variant(ctx, variant{Name: "redis-bloom", LRUSize: noLRU, Redis: true, SKUsSeen: true}, skus, "redis")
	unchecked := b.variant(ctx, variant{Name: "redis-no-bloom", LRUSize: noLRU, Redis: true}, skus, "redis")
	checked.others, unchecked.others = 20, 20 // few keys: 2 entries of an LRU are some
	bareRedis, bareReplica := b.bare(ctx, "bare-redis", bareConfig{Answer: answer, From: "redis", Orders: orders}), b.bare(ctx, "bare-replica", bareConfig{Answer: answer, From: "replica", Orders: orders})
	for _, l := range []*leg{bareRedis, bareReplica} {
		l.targets, l.random = orders, true
	}
	legs := []*leg{fromRedis, bareRedis, fromReplica, bareReplica, fromLRU, checked, unchecked}
	for _, l := range legs {
		defer l.server.end()
		l.token = answer.Header["X-Consistency-Token"][0] // all entries are later: a token of one entry might be too new for the next
	}
	for missing := slices.Concat(orders, skus); len(missing) > 0; {
		b.readOnce(ctx, fromRedis.server, missing)
		kept := persist(ctx, missing)
		missing = slices.DeleteFunc(missing, func(path string) bool { return kept[path] })
	}
	awaitFilter(ctx, b, checked.server)
	takeTurns(ctx, "tiers", b.pace, readClients, legs...)

	id, _ := order.Parse(order.PrefixOrder, strings.TrimPrefix(orders[0], "/v1/orders/"))
	ids, begin := order.NewIDs(app.SecretFor(secret, "ids")), cpu()
	const checks = 200_000
	for range checks {
		if !ids.Genuine(id) {
			must(fmt.Errorf("%s is no id of ours", orders[0]))
		}
	}
	check := float64((cpu() - begin).Nanoseconds()) / checks / 1000
	return []figure{
		perRequest("Redis hit / a handler that does only that GET", "<= 1.15", fromRedis, bareRedis), perSecond(">= 0.87", fromRedis, bareRedis),
		perRequest("replica hit / a handler that does only that SELECT", "<= 1.15", fromReplica, bareReplica), perSecond(">= 0.87", fromReplica, bareReplica),
		perCPU("with the LRU / Redis only", ">= 2.5", fromLRU, fromRedis), perSecond(">= 2.5", fromLRU, fromRedis),
		perRequest("product from Redis, with the Bloom filter / without", "<= 1.02", checked, unchecked),
		{Name: "check of an id / CPU of a Redis hit", Value: round(check / fromRedis.total()), Goal: "<= 0.02", Load: loadNow(),
			Note: fmt.Sprintf("%s / %.1f us; a hit of the LRU has no check", short(check), fromRedis.total())},
	}
}

// persist keeps the entries of orders and products in Redis until the run ends, their 10 s are no matter here, and returns the paths that have one.
func persist(ctx context.Context, paths []string) map[string]bool {
	client := redis.NewClient(try(redis.ParseURL(os.Getenv("ORDERGATE_TEST_REDIS"))))
	defer func() { _ = client.Close() }()
	kept, wanted := map[string]bool{}, map[string]bool{}
	for _, path := range paths {
		wanted[path] = true
	}
	for all := client.Scan(ctx, 0, "bench:cache*}", 1000).Iterator(); all.Next(ctx); {
		row := strings.TrimSuffix(all.Val()[strings.LastIndexByte(all.Val(), ' ')+1:], "}")
		path := "/v1/orders/" + row
		if sku, is := strings.CutPrefix(row, order.PrefixProduct); is {
			path = "/v1/products/" + sku
		}
		if wanted[path] {
			kept[path] = try(client.Persist(ctx, all.Val()).Result()) || try(client.TTL(ctx, all.Val()).Result()) == -1
		}
	}
	return kept
}

// awaitFilter waits until a gateway knows which skus there are: then an unknown one takes no look-up, and its answer names no tier.
func awaitFilter(ctx context.Context, b *readBench, server *process) {
	w := dial(server.addr)
	defer func() { _ = w.Close() }()
	for n := range 500 {
		must(w.do(fmt.Appendf(nil, "GET /v1/products/NONE-%04d HTTP/1.1\r\nHost: %s\r\n%s\r\n", n, server.addr, b.authorization())))
		if w.hasStatus("404") && w.header("X-Served-By") == nil {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
	must(fmt.Errorf("%s has no filter of skus: %s", server.name, w.head))
}

// measureLoads reads keys at a steady rate at two instances, and counts how often they were loaded, and the reads that waited for a load.
func measureLoads(ctx context.Context, b *readBench) []figure {
	const (
		keys, clients = 500, 8                 // of each instance
		every         = 100 * time.Millisecond // each key, at each instance
		lruFor        = 1500 * time.Millisecond
		redisFor      = 10 * time.Second
	)
	lasts := 3 * redisFor
	if b.pace.rounds == quick.rounds {
		lasts = 500 * time.Millisecond
	}
	addr := freeAddr()
	second := b.child(ctx, addr, []string{"ORDERGATE_ADDR=" + addr, b.spans}, program, "serve")
	defer second.end()
	servers, paths := []*process{b.serving, second}, b.copies(ctx, keys)
	loads := func(tier string) (n float64) {
		for _, server := range servers {
			n += server.metric(`ordergate_read_load_seconds_count{tier="` + tier + `"}`)
		}
		return n
	}
	for _, server := range servers {
		b.readOnce(ctx, server, paths)
	}
	var reads, waited atomic.Int64
	longest := make(chan time.Duration, len(servers)*clients)
	fromRedis, fromReplica := loads("redis"), loads("replica")+loads("primary")
	g, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		for client := range clients {
			g.Go(func() error {
				w, most := dial(server.addr), time.Duration(0)
				defer func() { _ = w.Close(); longest <- most }()
				for i, begin := 0, time.Now(); time.Since(begin) < lasts && ctx.Err() == nil; i++ {
					pause(ctx, time.Until(begin.Add(time.Duration(i)*every*clients/keys)))
					sent := time.Now()
					if err := w.do(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", paths[(i*clients+client)%keys], server.addr, b.authorization())); err != nil {
						return err
					}
					if reads.Add(1); string(w.header("X-Served-By")) == "lru" {
						most = max(most, time.Since(sent))
					} else {
						waited.Add(1)
					}
				}
				return nil
			})
		}
	}
	must(g.Wait())
	most := time.Duration(0)
	for range cap(longest) {
		most = max(most, <-longest)
	}
	fromRedis, fromReplica = loads("redis")-fromRedis, loads("replica")+loads("primary")-fromReplica
	perWindow := func(n float64, window time.Duration, places int) float64 {
		return round(n / float64(keys*places) / (lasts.Seconds() / window.Seconds()))
	}
	note := fmt.Sprintf("%d keys, %d reads at 2 instances in %.0f s", keys, reads.Load(), lasts.Seconds())
	return []figure{
		{Name: "loads of a database per key and 10 s, the TTL in Redis", Value: perWindow(fromReplica, redisFor, 1), Goal: "<= 1.05", Load: loadNow(), Note: note},
		{Name: "loads of Redis per key, instance and 1.5 s, after which the LRU looks again", Value: perWindow(fromRedis, lruFor, len(servers)), Goal: "<= 1.05", Load: loadNow(), Note: note},
		{Name: "reads that waited for a load", Value: float64(waited.Load()), Goal: "<= 0", Load: loadNow(), Note: fmt.Sprintf("the longest hit took %.1f ms", float64(most.Microseconds())/1000)},
	}
}
