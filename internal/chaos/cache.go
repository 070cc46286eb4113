package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// attack is how much the part cache does.
type attack struct {
	forged  int           // ids that never were
	skus    int           // that never were
	crowd   int           // clients of a hot key
	rounds  int           // hot keys, one after another
	sustain time.Duration // of reads of one key
	keys    int           // that expire at one instant
	herd    int           // clients of those
	hot     int           // keys that are read all the time
	scan    int           // cold products that are read once
}

// What docs/caching.md says of entries.
const (
	refreshAfter = 1500 * time.Millisecond // of an entry in a process
	redisFor     = 10 * time.Second        // of an entry in Redis
	redisAtLeast = 8 * time.Second         // likewise: they end apart
	goneAfter    = redisFor + time.Second  // no cache has a key that nobody has read for so long
)

const (
	attackers = 64  // clients that ask for what is not there
	regulars  = 32  // clients of the hot set; as many read the cold products
	asks      = 4   // of each key in each process when all expire
	growth    = 64  // MB that two processes may grow by while they are attacked: 700 bytes an id would be more
	oftenHit  = 0.9 // of the hot set's hits are left during a scan
)

// Names of products.
const (
	hotSet   = "HOT"    // read all the time
	cold     = "COLD"   // read once
	hotKey   = "HOTKEY" // read by a crowd, one at a time
	expiring = "MANY"
)

// cache attacks two processes of the API with what caches fail at: keys that are not there, a hot key that expires, all keys that expire at
// once, and a scan. The processes' own counters say how often they went to a database.
func cache(ctx context.Context, c *campaign) (err error) {
	i, err := c.install(ctx, ordinary, 30*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.remove(ctx)) }()
	if err = i.twoServers(ctx, c.replicaURL); err != nil {
		return err
	}
	for prefix, n := range map[string]int{hotSet: c.hot, cold: c.scan, expiring: c.keys, hotKey: c.rounds + 1} {
		if err = i.insertProducts(ctx, prefix, n); err != nil {
			return err
		}
	}
	var gone time.Time
	for _, each := range []func(context.Context) (row, error){
		i.scanned,
		func(ctx context.Context) (row, error) { // while what it fills expires
			if err := i.fill(ctx); err != nil {
				return row{}, err
			}
			gone = time.Now().Add(goneAfter)
			return i.forgedIDs(ctx)
		},
		i.unknownSKUs,
		func(ctx context.Context) (row, error) {
			pauseUntil(ctx, gone)
			return i.hotKeys(ctx)
		},
		i.allAtOnce, i.sustained,
	} {
		r, err := each(ctx)
		if err != nil {
			return err
		}
		i.report(r)
	}
	return nil
}

// makeProducts inserts products of an account.
const makeProducts = `WITH added AS (
	INSERT INTO products (account, mode, sku, name, description, prices)
	SELECT a.id, 'test', $1 || '-' || lpad(n::text, 6, '0'), $1, '', '{"EUR": 1000}' FROM accounts a, generate_series(0, $2::integer - 1) n
	WHERE a.name = $3 RETURNING 1)
SELECT count(*) FROM added`

// countProducts counts the products of a name.
const countProducts = `SELECT count(*) FROM products WHERE name = $1`

// insertProducts makes products and waits until the replica has them.
func (i *installation) insertProducts(ctx context.Context, prefix string, n int) error {
	if _, err := i.inDatabase(ctx, makeProducts, prefix, n, account); err != nil {
		return err
	}
	return i.awaitReplica(ctx, countProducts, int64(n), prefix)
}

func (i *installation) product(prefix string, n, process int) read {
	return read{i.apis[process], fmt.Sprintf("/v1/products/%s-%06d", prefix, n)}
}

// scanned reads a hot set while another client reads many products once: what is read once must not displace what is read all the time.
func (i *installation) scanned(ctx context.Context) (r row, err error) {
	hot := func(k int) read { return i.product(hotSet, k%i.c.hot, 0) }
	i.crowd(ctx, regulars, upTo(4*i.c.hot), hot) // the caches have them then
	before := i.crowd(ctx, regulars, upTo(40*i.c.hot), hot)
	var during *tally
	var regular sync.WaitGroup
	end := make(chan struct{})
	regular.Go(func() { during = i.crowd(ctx, regulars, until(end), hot) })
	scan := i.crowd(ctx, regulars, upTo(i.c.scan), func(k int) read { return i.product(cold, k, 0) })
	close(end)
	regular.Wait()
	was, is := before.share("lru"), during.share("lru")
	r = row{name: "a scan", broken: slices.Concat(before.broken(http.StatusOK), during.broken(http.StatusOK), scan.broken(http.StatusOK))}
	r.counts = fmt.Sprintf("%d hot keys, %d cold ones: hits in the process %.3f before, %.3f of %d reads meanwhile", i.c.hot, i.c.scan, was, is, len(during.took))
	switch {
	case was < 0.5:
		r.broken = append(r.broken, "the hot set was not in the cache: this proves nothing")
	case is < oftenHit*was:
		r.broken = append(r.broken, fmt.Sprintf("a scan brought the hits of the hot set from %.3f to %.3f", was, is))
	}
	return r, nil
}

// fill has both processes read what is to expire.
func (i *installation) fill(ctx context.Context) error {
	filled := i.crowd(ctx, regulars, upTo(len(i.apis)*i.c.rounds), func(k int) read { return i.product(hotKey, k/len(i.apis), k%len(i.apis)) })
	all := i.crowd(ctx, regulars, upTo(len(i.apis)*i.c.keys), func(k int) read { return i.product(expiring, k/len(i.apis), k%len(i.apis)) })
	if broken := append(filled.broken(http.StatusOK), all.broken(http.StatusOK)...); len(broken) > 0 {
		return fmt.Errorf("fill the caches: %v", broken)
	}
	return nil
}

// forgedPaths lead to rows by an id of ours.
var forgedPaths = []string{
	"/v1/orders/ord_%s", "/v1/orders/ord_%s/saga", "/v1/orders/ord_%s/events", "/v1/orders/ord_%s/payments", "/v1/orders/ord_%s/shipments",
	"/v1/payments/pay_%s", "/v1/refunds/ref_%s", "/v1/shipments/shp_%s",
}

// forgedID has the time of now, as if it was just given out, and random digits.
func forgedID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	for n, ms := 5, time.Now().UnixMilli(); n >= 0; n, ms = n-1, ms>>8 {
		id[n] = byte(ms)
	}
	id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
	return hex.EncodeToString(id[:])
}

// forgedIDs asks for ids that were never given out.
func (i *installation) forgedIDs(ctx context.Context) (row, error) {
	return i.absent(ctx, "ids that never were", i.c.forged, func(k int) string { return fmt.Sprintf(forgedPaths[k%len(forgedPaths)], forgedID()) })
}

// skuPaths lead to rows by a sku.
var skuPaths = []string{"/v1/products/%s", "/v1/inventory/%s"}

// awaitFilter waits until a process knows which skus there are, anew after all that insertProducts made. It reads them meanwhile.
func (i *installation) awaitFilter(ctx context.Context, addr string) error {
	for end := time.Now().Add(time.Minute); ; {
		answer := i.sendTo(ctx, addr, "GET", "/v1/products/NO-"+rand.Text(), "", "", false)
		if answer.status == http.StatusNotFound && answer.header.Get("X-Served-By") == "" {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%s does not know which skus there are: %v", addr, answer)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// unknownSKUs asks for skus that nobody has made. A process knows them by a filter, which it reads anew 5 s after the one before at the earliest:
// many products were just made by hand. The filter is good for 2 s after a sign of the change feed, which comes each second. On a machine that is too busy for that all of them reach a database, so there is another try.
func (i *installation) unknownSKUs(ctx context.Context) (r row, err error) {
	var failed []string
	for range 3 {
		for _, addr := range i.apis {
			if err = i.awaitFilter(ctx, addr); err != nil {
				return r, err
			}
		}
		path := func(k int) string { return fmt.Sprintf(skuPaths[k%len(skuPaths)], "NO-"+rand.Text()) }
		if r, err = i.absent(ctx, "skus that never were", i.c.skus, path); err != nil || len(r.broken) == 0 {
			break
		}
		failed = append(failed, r.broken...)
	}
	if len(failed) > 0 {
		r.counts += "; tries that failed: " + strings.Join(failed, "; ")
	}
	return r, err
}

// absent asks for what is not there, for each thing once. Next to none may reach a database, and none may stay in memory.
func (i *installation) absent(ctx context.Context, name string, n int, path func(k int) string) (r row, err error) {
	of := func(k int) read { return read{i.apis[k/len(forgedPaths)%len(i.apis)], path(k)} } // each process has each path
	i.crowd(ctx, attackers, upTo(n/10), of)                                                 // connections and heaps have their size then
	before, err := i.resident()
	if err != nil {
		return r, err
	}
	var t *tally
	l, err := i.during(ctx, func() { t = i.crowd(ctx, attackers, upTo(n), of) })
	if err != nil {
		return r, err
	}
	after, err := i.resident()
	if err != nil {
		return r, err
	}
	r = row{name: name, broken: t.broken(http.StatusNotFound)}
	r.counts = fmt.Sprintf("%d requests by %d clients, %v, memory %d MB before, %d MB after%v", n, attackers, l, before, after, t.turned)
	if l.databases()*100 >= n {
		r.broken = append(r.broken, fmt.Sprintf("%d of %d requests for what is not there reached a database", l.databases(), n))
	}
	if after > before+growth {
		r.broken = append(r.broken, fmt.Sprintf("the processes grew from %d to %d MB", before, after))
	}
	return r, nil
}

// hotKeys lets a crowd ask at one instant for a key that has just expired everywhere, several times. A process asks Redis and a database
// once for all its callers. A lock in Redis lets one process ask the database for all; another waits 50 ms for it, and then asks itself.
func (i *installation) hotKeys(ctx context.Context) (r row, err error) {
	burst := func(prefix string, n int) *tally {
		t, start := newTally(), make(chan struct{})
		var all sync.WaitGroup
		for k := range i.c.crowd {
			all.Go(func() {
				<-start
				i.one(ctx, t, i.product(prefix, n, k%len(i.apis)))
			})
		}
		close(start)
		all.Wait()
		return t
	}
	burst(hotSet, 0) // each client has its connection then
	var each []int
	for n := range i.c.rounds {
		var t *tally
		l, err := i.during(ctx, func() { t = burst(hotKey, n) })
		if err != nil {
			return r, err
		}
		each = append(each, l.databases())
		r.broken = append(r.broken, t.broken(http.StatusOK)...)
	}
	r.name = "a hot key expires"
	r.counts = fmt.Sprintf("%d clients of %d processes at one instant, %d times: %v loads of a database", i.c.crowd, len(i.apis), i.c.rounds, each)
	r.broken = append(r.broken, loadedOnce(each, len(i.apis))...)
	return r, nil
}

// loadedOnce judges how often each of some expired keys was loaded: never more often than there are processes, and most of them once. A lock's
// holder that takes longer than 50 ms makes it two.
func loadedOnce(each []int, processes int) (broken []string) {
	several := 0
	for _, n := range each {
		if n > 1 {
			several++
		}
	}
	if slices.Min(each) == 0 {
		broken = append(broken, "a key was still in a cache: this proves nothing")
	}
	if slices.Max(each) > processes || 2*several > len(each) {
		broken = append(broken, fmt.Sprintf("expired keys were loaded %v times, not once", each))
	}
	return broken
}

// allAtOnce asks for all keys when all have expired, several times each in each process. Some are loaded by both: those of which the lock's
// holder, or Redis, took longer than 50 ms.
func (i *installation) allAtOnce(ctx context.Context) (r row, err error) {
	n := i.c.keys * len(i.apis) * asks
	of := func(k int) read { return i.product(expiring, k/asks/len(i.apis), k%len(i.apis)) }
	var t *tally
	l, err := i.during(ctx, func() { t = i.crowd(ctx, i.c.herd, upTo(n), of) })
	if err != nil {
		return r, err
	}
	r = row{name: "all keys expire at once", broken: t.broken(http.StatusOK)}
	r.counts = fmt.Sprintf("%d keys, %d reads by %d clients, %v, %.2f a key, p99 %v%v",
		i.c.keys, n, i.c.herd, l, float64(l.databases())/float64(i.c.keys), t.p99(), t.turned)
	switch {
	case l.databases() < i.c.keys:
		r.broken = append(r.broken, "some keys were still in a cache: this proves nothing")
	case 2*l.databases() > 3*i.c.keys: // without the lock in Redis each process would load each key
		r.broken = append(r.broken, fmt.Sprintf("%d keys were loaded %d times by %d processes", i.c.keys, l.databases(), len(i.apis)))
	}
	if l.primary*10 > l.databases() {
		r.broken = append(r.broken, fmt.Sprintf("%d of %d loads fell on the primary", l.primary, l.databases()))
	}
	return r, nil
}

// sustained has a crowd read one key for a while. A process loads its entry anew when that is 1.5 s old, from Redis, which has it for 8 to 10 s. When
// that is over each process may load it, if the lock's holder takes longer than 50 ms; once more if Redis does not answer in time.
func (i *installation) sustained(ctx context.Context) (r row, err error) {
	var t *tally
	l, err := i.during(ctx, func() {
		end := make(chan struct{})
		time.AfterFunc(i.c.sustain, func() { close(end) })
		t = i.crowd(ctx, i.c.crowd, until(end), func(k int) read { return i.product(hotKey, i.c.rounds, k%len(i.apis)) })
	})
	if err != nil {
		return r, err
	}
	most := func(lives time.Duration) int { return len(i.apis) * (1 + int((i.c.sustain+time.Second)/lives)) }
	r = row{name: "a hot key is read on", broken: t.broken(http.StatusOK)}
	allowed := most(redisAtLeast) + len(i.apis)
	r.counts = fmt.Sprintf("%d clients, %d reads in %v, %.4f of them hits in the process, %.4f of them in Redis, %v; %d are allowed, %d would be without Redis",
		i.c.crowd, len(t.took), i.c.sustain, t.share("lru"), t.share("redis"), l, allowed, most(refreshAfter))
	if l.databases() > allowed {
		r.broken = append(r.broken, fmt.Sprintf("a key was loaded %d times in %v", l.databases(), i.c.sustain))
	}
	return r, nil
}
