package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	shedRounds   = 3
	shedMost     = 6000 // connections
	shedOverload = 4
)

// kinds of requests of the mix, by their priority: the first is refused last.
const (
	kindCancel = iota
	kindPlace
	kindList
	kindsOfLoad
)

var kindNames = [kindsOfLoad]string{"cancels", "placed", "lists"}

// crowd sends requests at the times that a load has them come, whether those before are answered or not, each over a connection that is idle, or a new
// one. With as many clients as it is told to have, it is a closed loop: each sends again when it was answered.
type crowd struct {
	g       *gateway
	random  *rand.Rand
	rate    float64 // requests/s; 0: a closed loop of clients
	clients int
	warm    time.Duration // before what is counted: the gateway finds out what it can bear
	measure time.Duration

	begin, next time.Time
	conns       []*crowdConn
	idle        []*crowdConn
	orders      []string // that may be cancelled
	waiting     int
	late        []time.Duration // that requests were sent
	kinds       [kindsOfLoad]tally
	failed      map[string]int // answers that are neither what was asked for nor RATE_003
}

// tally is what became of the requests of a kind that were counted.
type tally struct{ accepted, refused []time.Duration }

type crowdConn struct {
	fd   int
	kind int
	due  time.Time
	in   []byte
}

// request is the next one of the mix: a tenth cancels, three tenths lists, and orders.
func (c *crowd) request(conn *crowdConn, due time.Time) []byte {
	conn.due, conn.in = due, conn.in[:0]
	const head = "%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"
	n := c.g.sent.Add(1)
	switch at := c.random.IntN(10); {
	case at == 0 && len(c.orders) > 0:
		conn.kind = kindCancel
		last := len(c.orders) - 1
		id := c.orders[last]
		c.orders = c.orders[:last]
		return fmt.Appendf(nil, head+"Idempotency-Key: shed-%012d\r\nContent-Length: 0\r\n\r\n", "POST /v1/orders/"+id+"/cancel", c.g.addr, c.g.key, n)
	case at <= 6:
		conn.kind = kindPlace
		body := try(json.Marshal(c.g.draft(n)))
		return fmt.Appendf(nil, head+"Content-Type: application/json\r\nIdempotency-Key: shed-%012d\r\nContent-Length: %d\r\n\r\n%s",
			"POST /v1/orders", c.g.addr, c.g.key, n, len(body), body)
	default:
		conn.kind = kindList
		return fmt.Appendf(nil, head+"\r\n", fmt.Sprintf("GET /v1/orders?limit=20&customer_ref=c-%d", n%1000), c.g.addr, c.g.key)
	}
}

// received takes what a connection has got, and tells whether its answer is complete; then it is counted.
func (c *crowd) received(conn *crowdConn, now time.Time) (complete bool, err error) {
	end := bytes.Index(conn.in, []byte("\r\n\r\n"))
	if end < 0 {
		return false, nil
	}
	head := conn.in[:end]
	field := func(name string) string {
		_, rest, _ := bytes.Cut(head, []byte("\r\n"+name+": "))
		value, _, _ := bytes.Cut(rest, []byte("\r\n"))
		return string(value)
	}
	length, err := strconv.Atoi(field("Content-Length"))
	if err != nil {
		return false, err
	}
	if len(conn.in) < end+4+length {
		return false, nil
	}
	body := conn.in[end+4:]
	took, counted, t := now.Sub(conn.due), conn.due.Sub(c.begin) > c.warm, &c.kinds[conn.kind]
	switch status := string(head[len("HTTP/1.1 "):][:3]); {
	case status == "202" || status == "200":
		if counted {
			t.accepted = append(t.accepted, took)
		}
		if conn.kind == kindPlace {
			c.g.accepted.Add(1)
			c.orders = append(c.orders, field("Location")[len("/v1/orders/"):])
		}
	case status == "503" && bytes.Contains(body, []byte(`"code":"RATE_003"`)) && field("Retry-After") != "":
		if counted {
			t.refused = append(t.refused, took)
		}
	case isRetryable(body) && (status == "503" || status == "504" || status == "429"): // the limits of keys are Redis', which may be late
		_, rest, _ := bytes.Cut(body, []byte(`"code":"`))
		c.failed[kindNames[conn.kind]+" "+string(rest[:min(7, len(rest))])]++
	default:
		return true, fmt.Errorf("shed: an answer that was not expected: %s", conn.in)
	}
	return true, nil
}

// shedLoad is what became of a load.
type shedLoad struct {
	goodput  float64 // accepted/s
	accepted []time.Duration
	refused  []time.Duration
	share    [kindsOfLoad]float64 // that was accepted
	line     string
}

// crowd sends requests for a while: so many a second, or as many at once as there are clients.
func (b *writeBench) crowd(rate float64, clients int) shedLoad {
	g := b.gateway
	c := &crowd{
		g: g, random: rand.New(rand.NewPCG(1, uint64(g.sent.Load()))), rate: rate, clients: clients, failed: map[string]int{},
		warm: 4 * b.pace.warm, measure: 2 * b.pace.measure,
	}
	seconds := c.measure.Seconds()
	defer func() {
		for _, conn := range c.conns {
			disconnect(conn.fd)
		}
	}()
	before := g.serving.cpu()
	if err := c.drive(); err != nil {
		said, _ := os.ReadFile(g.serving.log.Name())
		must(fmt.Errorf("%w\nthe last that serve said: %s", err, said[max(0, len(said)-2000):]))
	}
	var l shedLoad
	var line strings.Builder
	for k, t := range c.kinds {
		l.accepted, l.refused = append(l.accepted, t.accepted...), append(l.refused, t.refused...)
		all := len(t.accepted) + len(t.refused)
		l.share[k] = float64(len(t.accepted)) / float64(max(1, all))
		fmt.Fprintf(&line, "; %s %.0f/s, %.0f %% accepted, p50 %s p99 %s", kindNames[k], float64(len(t.accepted))/seconds, 100*l.share[k],
			quantile(t.accepted, 0.5), quantile(t.accepted, 0.99))
	}
	l.goodput = float64(len(l.accepted)) / seconds
	l.line = fmt.Sprintf("%.0f/s accepted, p50 %s p99 %s; %.0f/s refused, p50 %s p99 %s%s; failed %v; sent late p50 %s p99 %s, %d connections, gateway %.2f cores", l.goodput,
		quantile(l.accepted, 0.5), quantile(l.accepted, 0.99), float64(len(l.refused))/seconds, quantile(l.refused, 0.5), quantile(l.refused, 0.99),
		line.String(), c.failed, quantile(c.late, 0.5), quantile(c.late, 0.99), len(c.conns), (g.serving.cpu()-before).Seconds()/time.Since(c.begin).Seconds())
	return l
}

func quantile(v []time.Duration, q float64) time.Duration {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	return sorted[int(q*float64(len(sorted)-1))].Round(100 * time.Microsecond)
}

// measureShed loads the gateway with half of what it can do, and with four times as much, in an open loop.
func measureShed(ctx context.Context, b *writeBench) {
	var capacity, half, over, p99Half, p99Over, refused []float64 //nolint:prealloc // a few
	var share [kindsOfLoad][]float64
	ms := func(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }
	rounds := min(shedRounds, b.pace.rounds)
	for round := range rounds {
		load := func(what string, rate float64, clients int) shedLoad {
			must(ctx.Err())
			l := b.crowd(rate, clients)
			sayf("shed, round %d of %d, %s: %s", round+1, rounds, what, l.line)
			pause(ctx, 6*b.pace.warm) // the overload before is over
			return l
		}
		full := load(fmt.Sprint(b.many, " clients"), 0, b.many)
		low := load("half", full.goodput/2, 0)
		high := load(fmt.Sprintf("%d times", shedOverload), shedOverload*full.goodput, 0)
		capacity, half, over = append(capacity, full.goodput), append(half, low.goodput), append(over, high.goodput)
		p99Half, p99Over = append(p99Half, ms(quantile(low.accepted, 0.99))), append(p99Over, ms(quantile(high.accepted, 0.99)))
		refused = append(refused, ms(quantile(high.refused, 0.99)))
		for k := range share {
			share[k] = append(share[k], high.share[k])
		}
	}
	times := fmt.Sprintf("at %d times the capacity", shedOverload)
	b.add(
		newFigure("accepted "+times+" / capacity", "requests/s", ">= 0.8", over, capacity),
		newFigure("accepted at half of the capacity / half of it", "requests/s", "", half, scaled(capacity, 0.5)),
		newFigure("p99 of what is accepted "+times+" / at half", "ms", "<= 3", p99Over, p99Half),
		newAmount("p99 of refusals "+times, "ms", "<= 50", refused),
	)
	for k, name := range kindNames {
		b.add(newAmount("share of "+name+" that is accepted "+times, "", "", share[k]))
	}
}

func scaled(v []float64, by float64) (all []float64) {
	for _, x := range v {
		all = append(all, x*by)
	}
	return all
}
