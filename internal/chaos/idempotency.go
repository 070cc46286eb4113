package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ordergate/ordergate/internal/failpoint"
)

// idempotency sends requests again and again: one after another, at one instant, after an answer that was lost with its connection or with
// its process, and while old keys are deleted. Each key has one order, and each repetition gets the same bytes.
func idempotency(ctx context.Context, c *campaign) (err error) {
	i, err := c.install(ctx, killable, 8*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.remove(ctx)) }()
	for _, each := range []func(context.Context) (row, error){i.repeats, i.pairs, i.lostConnections, i.lostProcesses, i.purge} {
		r, err := each(ctx)
		if err != nil {
			return err
		}
		i.report(r)
	}
	r := row{name: "verify", counts: "all invariants"}
	if found := i.verify(ctx); found != "" {
		r.broken = append(r.broken, found)
	}
	i.report(r)
	return nil
}

// create sends the nth order of a customer under its key. One in four is paid.
func (i *installation) create(ctx context.Context, customer string, n int) response {
	token := ""
	if n%4 == 0 {
		token = "pm_ok"
	}
	return i.send(ctx, "POST", "/v1/orders", fmt.Sprintf("%s-%06d", customer, n), placing(customer, n, token), false)
}

// decided is create, repeated until it is decided.
func (i *installation) decided(ctx context.Context, customer string, n int) (answer response, refused int) {
	for end := time.Now().Add(time.Minute); ; refused++ {
		answer = i.create(ctx, customer, n)
		if !answer.undecided() || time.Now().After(end) || ctx.Err() != nil {
			return answer, refused
		}
		<-time.After(10 * time.Millisecond)
	}
}

// answers are all decided answers by the number of their order.
type answers struct {
	mu    sync.Mutex
	first map[int]response // the first that came, whichever that is
	fresh map[int]int      // how many were not replayed
	total int
	row   *row
}

func newAnswers(r *row) *answers {
	return &answers{first: map[int]response{}, fresh: map[int]int{}, row: r}
}

// add compares an answer with the others of its order.
func (a *answers) add(n int, answer response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total++
	if answer.status != http.StatusAccepted {
		a.row.broken = append(a.row.broken, fmt.Sprintf("order %d was answered %v", n, answer))
		return
	}
	if !answer.replayed() {
		a.fresh[n]++
	}
	if first, is := a.first[n]; !is {
		a.first[n] = answer
	} else if !first.same(answer) {
		a.row.broken = append(a.row.broken, fmt.Sprintf("order %d was answered %v, and then %v", n, first, answer))
	}
}

// count compares a customer's orders with the answers: one for each number. With fresh, exactly one answer of each was the first.
func (a *answers) count(ctx context.Context, i *installation, customer string, numbers int, fresh bool) error {
	all, err := i.orders(ctx, customer)
	if err != nil {
		return err
	}
	if len(all) != numbers || len(a.first) != numbers {
		a.row.broken = append(a.row.broken, fmt.Sprintf("%d keys, %d of them answered, have %d orders", numbers, len(a.first), len(all)))
	}
	for n, answer := range a.first {
		if _, is := all[answer.id()]; !is {
			a.row.broken = append(a.row.broken, fmt.Sprintf("order %d was answered %v, and is lost", n, answer))
		}
		if fresh && a.fresh[n] != 1 || a.fresh[n] > 1 {
			a.row.broken = append(a.row.broken, fmt.Sprintf("order %d was answered %d times without Idempotency-Replayed", n, a.fresh[n]))
		}
	}
	return nil
}

// repeats sends each create one to five times, in random order, by many clients.
func (i *installation) repeats(ctx context.Context) (r row, err error) {
	r.name = "repetitions"
	random := mathrand.New(mathrand.NewPCG(1, 2))
	sends := make([]int, 0, 3*i.c.creates)
	for n := range i.c.creates {
		for range 1 + random.IntN(5) {
			sends = append(sends, n)
		}
	}
	random.Shuffle(len(sends), func(x, y int) { sends[x], sends[y] = sends[y], sends[x] })
	got := newAnswers(&r)
	refused := i.each(ctx, "repetitions", sends, func(n int) int {
		answer, refused := i.decided(ctx, "repeats", n)
		got.add(n, answer)
		return refused
	})
	r.counts = fmt.Sprintf("%d creates, %d requests, %d refused for a moment", i.c.creates, len(sends)+refused, refused)
	return r, got.count(ctx, i, "repeats", i.c.creates, true)
}

// each has the clients work on a list, and returns the sum of what they counted.
func (i *installation) each(ctx context.Context, what string, list []int, work func(n int) int) (sum int) {
	next := make(chan int)
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range i.c.clients {
		clients.Go(func() {
			for n := range next {
				counted := work(n)
				mu.Lock()
				sum += counted
				mu.Unlock()
			}
		})
	}
	last := time.Now()
	for done, n := range list {
		if ctx.Err() != nil {
			break
		}
		if next <- n; time.Since(last) > 10*time.Second {
			last = time.Now()
			i.c.progress("%s: %s: %d of %d", i.c.name, what, done+1, len(list))
		}
	}
	close(next)
	clients.Wait()
	return sum
}

// pairs sends each create twice at one instant.
func (i *installation) pairs(ctx context.Context) (r row, err error) {
	r.name = "pairs at one instant"
	got := newAnswers(&r)
	var mu sync.Mutex
	inFlight := 0
	numbers := make([]int, i.c.pairs)
	for n := range numbers {
		numbers[n] = n
	}
	i.each(ctx, "pairs", numbers, func(n int) int {
		var pair [2]response
		var ready, both sync.WaitGroup
		ready.Add(2)
		for k := range pair {
			both.Go(func() {
				ready.Done()
				ready.Wait()
				pair[k] = i.create(ctx, "pairs", n)
			})
		}
		both.Wait()
		for _, answer := range pair {
			if answer.undecided() {
				mu.Lock()
				if answer.code() == "IDEM_003" {
					inFlight++
				}
				mu.Unlock()
				answer, _ = i.decided(ctx, "pairs", n) // now it is a repetition
			}
			got.add(n, answer)
		}
		return 0
	})
	r.counts = fmt.Sprintf("%d pairs, %d had IDEM_003 first", i.c.pairs, inFlight)
	return r, got.count(ctx, i, "pairs", i.c.pairs, true)
}

// lostConnections sends each create over a connection that is closed before the answer is read: at once, or up to 20 ms later.
func (i *installation) lostConnections(ctx context.Context) (r row, err error) {
	r.name = "answers lost with the connection"
	got := newAnswers(&r)
	numbers := make([]int, i.c.lost)
	for n := range numbers {
		numbers[n] = n
	}
	unsent := i.each(ctx, r.name, numbers, func(n int) int {
		unsent := 0
		if err := i.sendAndLeave(ctx, "lost", n, time.Duration(n%20)*time.Millisecond); err != nil {
			unsent = 1
		}
		for range 2 {
			answer, _ := i.decided(ctx, "lost", n)
			got.add(n, answer)
		}
		return unsent
	})
	replays := 0
	for n := range i.c.lost {
		if got.fresh[n] == 0 {
			replays++
		}
	}
	r.counts = fmt.Sprintf("%d creates cut, %d had been taken", i.c.lost-unsent, replays)
	if i.c.lost > 10 && replays == 0 {
		r.broken = append(r.broken, "no answer was lost after its COMMIT: this proves nothing")
	}
	return r, got.count(ctx, i, "lost", i.c.lost, false)
}

// sendAndLeave sends a create and closes the connection without reading.
func (i *installation) sendAndLeave(ctx context.Context, customer string, n int, after time.Duration) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", i.api)
	if err != nil {
		return err
	}
	defer conn.Close()
	body := placing(customer, n, map[bool]string{true: "pm_ok"}[n%4 == 0])
	w := bufio.NewWriter(conn)
	fmt.Fprintf(w, "POST /v1/orders HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nIdempotency-Key: %s-%06d\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", i.api, i.key, customer, n, len(body), body)
	if err := w.Flush(); err != nil {
		return err
	}
	<-time.After(after)
	return nil
}

// lostProcesses kills the API between the result and its answer.
func (i *installation) lostProcesses(ctx context.Context) (r row, err error) {
	r.name = "answers lost with the process"
	got := newAnswers(&r)
	for n := range i.c.lostKills {
		i.kill("serve")
		if err = i.start([]string{"serve"}, fmt.Sprintf("ORDERGATE_FAILPOINTS=%s=kill", failpoint.CommandAnswered)); err != nil {
			return r, err
		}
		if err = await(ctx, i.api); err != nil {
			return r, err
		}
		if lost := i.create(ctx, "killed", n); lost.status != 0 || !i.process("serve").endsKilled() {
			r.broken = append(r.broken, fmt.Sprintf("create %d was answered %v by a process that was to be killed", n, lost))
			continue
		}
		if err = i.start([]string{"serve"}); err != nil {
			return r, err
		}
		for range 2 {
			answer, _ := i.decided(ctx, "killed", n)
			got.add(n, answer)
			if !answer.replayed() {
				r.broken = append(r.broken, fmt.Sprintf("create %d was committed, and is answered anew", n))
			}
		}
	}
	r.counts = fmt.Sprintf("%d kills after COMMIT", i.c.lostKills)
	return r, got.count(ctx, i, "killed", i.c.lostKills, false)
}

// makeOld adds keys to the account of which the time was over an hour ago, of a command that refused.
const makeOld = `WITH added AS (
	INSERT INTO idempotency_keys (account, mode, operation, key, request_hash, status, code, content_type, etag, location, body, created_at)
	SELECT a.id, 'test', 'cancelOrder', 'old-key-' || n, '\x00', 422, 'ORD_002', 'application/problem+json', '', '', '\x7b7d', now() - interval '49 hours'
	FROM accounts a, generate_series(1, $1::integer) n WHERE a.name = $2 RETURNING 1)
SELECT count(*) FROM added`

// countOld counts the keys of which the time is over.
const countOld = `SELECT count(*) FROM idempotency_keys WHERE created_at < now() - interval '48 hours'`

// purge repeats young creates while the worker deletes old keys.
func (i *installation) purge(ctx context.Context) (r row, err error) {
	r.name = "repetitions while old keys are deleted"
	got := newAnswers(&r)
	keys := i.c.pairs
	numbers := make([]int, keys)
	for n := range numbers {
		numbers[n] = n
	}
	repeat := func(n int) int {
		answer, _ := i.decided(ctx, "purge", n)
		got.add(n, answer)
		return 0
	}
	i.each(ctx, r.name, numbers, repeat)
	old, err := i.inDatabase(ctx, makeOld, i.c.oldKeys, account)
	if err != nil {
		return r, err
	}
	i.kill("worker") // the next one begins with maintenance
	if err = i.start([]string{"worker"}); err != nil {
		return r, err
	}
	rounds, left := 1, old
	for end := time.Now().Add(5 * time.Minute); left > 0; {
		if time.Now().After(end) || ctx.Err() != nil {
			r.broken = append(r.broken, fmt.Sprintf("%d of %d old keys are left", left, old))
			break
		}
		i.each(ctx, r.name, numbers, repeat)
		if left, err = i.inDatabase(ctx, countOld); err != nil {
			return r, err
		}
		if left > 0 && left < old {
			rounds++
		}
	}
	r.counts = fmt.Sprintf("%d young keys, %d repetitions, %d old keys deleted in %d rounds", keys, got.total-keys, old-left, rounds)
	return r, got.count(ctx, i, "purge", keys, true)
}
